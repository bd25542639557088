package omemo_test

import (
	"errors"
	"testing"

	"example.org/omellium/omemo"
)

func (p *party) fingerprint() omemo.Fingerprint {
	p.Helper()
	f, err := p.m.Fingerprint(p.ctx)
	p.ok(err)
	return f
}

func (p *party) trusts(other *party, want omemo.Trust) {
	p.Helper()
	got, err := p.m.TrustOf(p.ctx, other.address(), other.fingerprint())
	p.ok(err)
	if got != want {
		p.Errorf("%s: trust in %s is %v, want %v", p.jid, other.jid, got, want)
	}
}

// served says which devices get a message, without sending it.
func (p *party) served(want map[*party]error, to ...string) {
	p.Helper()
	var bundles []*omemo.Bundle
	for other := range want {
		for _, v := range omemo.Versions() {
			bundles = append(bundles, other.small(v))
		}
	}
	sealed, err := p.m.Encrypt(p.ctx, both("text"), to, func(*omemo.Sealed) ([]omemo.Outgoing, error) { return nil, errHook }, bundles...)
	if sealed == nil {
		p.Fatalf("%v", err)
	}
	if len(sealed.Devices) != len(want) {
		p.Errorf("%d devices, want %d", len(sealed.Devices), len(want))
	}
	for _, d := range sealed.Devices {
		for other, reason := range want {
			if other.address() == d.Peer.Address && !errors.Is(d.Err, reason) {
				p.Errorf("%v: %v, want %v", d.Peer, d.Err, reason)
			}
		}
	}
}

func TestBlindTrustBeforeVerification(t *testing.T) {
	versions(t, func(t *testing.T, v omemo.Version) {
		ctx := t.Context()
		w := newWorld(t)
		a, first, second := w.join(alice, omemo.Options{}), w.join(bob, omemo.Options{}), w.join(bob, omemo.Options{})
		w.meet(v)
		sealed := a.send("one", bob)
		for _, p := range []*party{first, second} {
			o := p.reads(sealed, "one")
			if o.Trust != omemo.TrustedBlindly {
				t.Errorf("trust in the sender is %v", o.Trust)
			}
			a.trusts(p, omemo.TrustedBlindly)
		}
		for _, d := range sealed.Devices {
			if d.Trust != omemo.TrustedBlindly {
				t.Errorf("%v is %v", d.Peer, d.Trust)
			}
		}
		// One is verified: the other, which was trusted blindly, stays so.
		a.ok(a.m.SetTrust(ctx, bob, first.fingerprint(), omemo.Verified))
		a.restart()
		a.trusts(first, omemo.Verified)
		a.trusts(second, omemo.TrustedBlindly)
		// A new one is undecided, gets nothing, and is reported.
		third := w.join(bob, omemo.Options{})
		w.meet(v)
		a.trusts(third, omemo.Undecided)
		sealed = a.send("two", bob)
		first.reads(sealed, "two")
		second.reads(sealed, "two")
		for _, message := range sealed.Messages {
			if len(third.of(message).Keys) != 0 {
				t.Error("an undecided device got a key")
			}
		}
		a.served(map[*party]error{first: nil, second: nil, third: omemo.ErrUntrusted}, bob)
		// What it sends is read, and shown as what it is.
		o := a.reads(third.send("three", alice), "three")
		if o.Trust != omemo.Undecided {
			t.Errorf("trust in the sender is %v", o.Trust)
		}
		a.ok(a.m.SetTrust(ctx, bob, third.fingerprint(), omemo.Verified))
		a.served(map[*party]error{first: nil, second: nil, third: nil}, bob)
		// Another account is not concerned.
		other := w.join(carol, omemo.Options{})
		w.meet(v)
		a.trusts(other, omemo.TrustedBlindly)
		// A refusal by a person holds against the policy, for both versions.
		a.ok(a.m.SetTrust(ctx, bob, second.fingerprint(), omemo.Distrusted))
		a.served(map[*party]error{first: nil, second: omemo.ErrUntrusted, third: nil}, bob)
	})
}

func TestManualTrust(t *testing.T) {
	versions(t, func(t *testing.T, v omemo.Version) {
		w := newWorld(t)
		a, b := w.join(alice, omemo.Options{Policy: omemo.Manual}), w.join(bob, omemo.Options{})
		w.meet(v)
		before := a.store.dump()
		_, err := a.trySend(both("one"), bob)
		var refused *omemo.RecipientError
		if !errors.As(err, &refused) || !errors.Is(err, omemo.ErrUntrusted) || a.store.dump() != before {
			t.Fatal(err)
		}
		// An empty message is exempt: that is how sessions are completed.
		o := a.reads(b.send("one", alice), "one")
		if o.Trust != omemo.Undecided {
			t.Errorf("%v", o.Trust)
		}
		sealed, err := a.answer(a.owed(omemo.OwedCompletion)[0])
		a.ok(err)
		_, err = b.receive(b.find(sealed))
		b.ok(err)
		if _, err := a.trySend(both("two"), bob); !errors.Is(err, omemo.ErrUntrusted) {
			t.Errorf("with a session: %v", err)
		}
		if peers, err := a.m.Missing(t.Context(), both("two"), []string{bob}); err != nil || len(peers) != 0 {
			t.Errorf("missing %v, %v", peers, err)
		}
		a.ok(a.m.SetTrust(t.Context(), bob, b.fingerprint(), omemo.TrustedBlindly))
		b.reads(a.send("two", bob), "two")
	})
}

func TestOwnDevicesFallUnderThePolicy(t *testing.T) {
	versions(t, func(t *testing.T, v omemo.Version) {
		for name, policy := range map[string]omemo.TrustPolicy{"default": nil, "manual for own devices": omemo.ManualOwn(omemo.BlindBeforeVerification)} {
			w := newWorld(t)
			a := w.join(alice, omemo.Options{Policy: policy})
			own, b := w.join(alice, omemo.Options{}), w.join(bob, omemo.Options{})
			w.meet(v)
			var want error
			if policy != nil {
				want = omemo.ErrUntrusted
			}
			a.served(map[*party]error{own: want, b: nil}, bob)
			sealed := a.send("one", bob)
			b.reads(sealed, "one")
			if want == nil {
				own.reads(sealed, "one")
			} else if len(sealed.Messages[0].Keys) != 1 {
				t.Errorf("%s: an own device that nobody has decided about got a key", name)
			}
			// Messages to ourselves reach our other devices and nobody else.
			sealed, err := a.trySend(both("note"), alice)
			if !errors.Is(err, want) {
				t.Fatalf("%s: %v", name, err)
			}
			if err == nil {
				own.reads(sealed, "note")
			}
		}
	})
}

func TestAnIdentityChangeIsRefusedAndKept(t *testing.T) {
	versions(t, func(t *testing.T, v omemo.Version) {
		ctx := t.Context()
		a, b := pair(t, v)
		b.reads(a.send("one", bob), "one")
		a.reads(b.send("two", alice), "two")
		known := b.fingerprint()

		// The same device with another key: a new account under the old id.
		w := newWorld(t)
		imposter := w.join(bob, omemo.Options{})
		imposter.ok(imposter.m.SetList(ctx, alice, v, []omemo.DeviceID{a.device}))
		changed := imposter.fingerprint()

		// In a key exchange.
		sealed, err := imposter.m.Encrypt(ctx, both("three"), []string{alice}, stanzas("id", alice), a.small(v))
		a.ok(err)
		message := a.of(sealed.Messages[0])
		message.Sender = b.address()
		a.refuses(message, omemo.ErrIdentityChanged)

		// In a bundle.
		bundle := imposter.small(v)
		bundle.Owner = b.address()
		events, err := a.m.Compare(ctx, bundle)
		a.ok(err)
		if !hasEvent(events, omemo.IdentityChanged) || events[0].Fingerprint != changed || events[0].Peer != b.peer(v) {
			t.Errorf("events %v", events)
		}
		if events, err := a.m.Compare(ctx, bundle); err != nil || len(events) != 0 {
			t.Errorf("told twice: %v, %v", events, err)
		}
		if _, err := a.m.Replace(ctx, bundle, stanzas("id", bob)); !errors.Is(err, omemo.ErrIdentityChanged) {
			t.Error(err)
		}
		device := func() omemo.Device {
			_, devices, err := a.m.Account(ctx, bob)
			a.ok(err)
			return devices[0]
		}
		a.restart()
		if d := device(); d.Fingerprint != known || d.Conflict != changed {
			t.Fatalf("fingerprint %v, conflict %v", d.Fingerprint, d.Conflict)
		}
		b.reads(a.send("four", bob), "four") // the known one goes on

		// Only what was presented can be accepted.
		for _, f := range []omemo.Fingerprint{{}, known, {1}} {
			if err := a.m.AcceptIdentity(ctx, b.peer(v), f); !errors.Is(err, omemo.ErrIdentityChanged) {
				t.Errorf("%v: %v", f, err)
			}
		}
		if err := a.m.AcceptIdentity(ctx, omemo.Peer{Version: v, Address: omemo.Address{JID: carol, Device: 1}}, changed); !errors.Is(err, omemo.ErrIdentityChanged) {
			t.Error(err)
		}
		a.ok(a.m.AcceptIdentity(ctx, b.peer(v), changed))
		a.restart()
		if d := device(); d.Fingerprint != changed || d.Conflict != (omemo.Fingerprint{}) || len(a.sessions(b.peer(v))) != 0 {
			t.Fatalf("fingerprint %v, conflict %v, %d sessions", d.Fingerprint, d.Conflict, len(a.sessions(b.peer(v))))
		}
		// The accepted key, and no other, is good now.
		a.refuses(a.find(b.send("old key", alice)), nil)
		old, err := a.m.Encrypt(ctx, both("five"), []string{bob}, stanzas("id", bob), b.small(v))
		sealedNothing(t, old, err, omemo.ErrIdentityChanged)
		o, err := a.receive(message)
		a.ok(err)
		if o.Fingerprint != changed || string(o.Plaintext) != "three" {
			t.Errorf("%v: %q", o.Fingerprint, o.Plaintext)
		}
		if _, err := a.m.Encrypt(ctx, both("six"), []string{bob}, stanzas("id", bob)); err != nil {
			t.Error(err)
		}
	})
}

func TestAConflictFoundWhileSendingIsKept(t *testing.T) {
	versions(t, func(t *testing.T, v omemo.Version) {
		w := newWorld(t)
		a, b, other := w.join(alice, omemo.Options{}), w.join(bob, omemo.Options{}), w.join(bob, omemo.Options{})
		w.meet(v)
		_, err := a.m.Compare(t.Context(), other.small(v))
		a.ok(err)
		swapped := b.small(v)
		swapped.Owner = other.address()
		sealed, err := a.m.Encrypt(t.Context(), both("text"), []string{bob}, stanzas("id", bob), b.small(v), swapped)
		a.ok(err)
		b.reads(sealed, "text")
		for _, d := range sealed.Devices {
			if d.Peer.Address == other.address() && !errors.Is(d.Err, omemo.ErrIdentityChanged) {
				t.Error(d.Err)
			}
		}
		if !hasEvent(sealed.Events, omemo.IdentityChanged) {
			t.Errorf("events %v", sealed.Events)
		}
		_, devices, err := a.m.Account(t.Context(), bob)
		a.ok(err)
		for _, d := range devices {
			if d.Address == other.address() && (d.Fingerprint != other.fingerprint() || d.Conflict != b.fingerprint()) {
				t.Errorf("fingerprint %v, conflict %v", d.Fingerprint, d.Conflict)
			}
		}
	})
}

func TestOneIdentityForBothVersions(t *testing.T) {
	a := newWorld(t).join(alice, omemo.Options{})
	for _, v := range omemo.Versions() {
		b := a.small(v)
		if f, err := b.Fingerprint(); err != nil || f != a.fingerprint() {
			t.Errorf("%v: %v, %v", v, f, err)
		}
		if err := b.Verify(); err != nil {
			t.Errorf("%v: %v", v, err)
		}
		if b.Signature[63]&0x80 != 0 || v == omemo.V2 && b.IdentityKey[31]&0x80 != 0 {
			t.Errorf("%v: the sign bit of the identity is 1", v)
		}
	}
}

func TestAccountsAreWhatListsAndMessagesSay(t *testing.T) {
	ctx := t.Context()
	w := newWorld(t)
	a, b := w.join(alice, omemo.Options{}), w.join(bob, omemo.Options{})
	contact, devices, err := a.m.Account(ctx, bob)
	a.ok(err)
	if contact.JID != bob || contact.Seen || contact.Written || len(devices) != 0 {
		t.Errorf("%+v, %v", contact, devices)
	}
	a.ok(a.m.SetList(ctx, bob, omemo.V2, nil))
	if contact, _, _ := a.m.Account(ctx, bob); contact.Seen || contact.Lists[omemo.V2].IsZero() {
		t.Errorf("an empty list: %+v", contact)
	}
	a.ok(a.m.SetList(ctx, bob, omemo.V2, []omemo.DeviceID{b.device, b.device, 5}))
	a.ok(a.m.SetList(ctx, bob, omemo.V2, []omemo.DeviceID{b.device}))
	b.reads(a.send("one", bob), "one")
	a.ok(a.m.SetList(ctx, bob, omemo.V2, nil))
	a.restart()
	contact, devices, err = a.m.Account(ctx, bob)
	a.ok(err)
	if !contact.Seen || !contact.Written || len(devices) != 2 || devices[0].Active || devices[1].Active {
		t.Errorf("%+v, %+v", contact, devices)
	}
	// An empty list never means plain text: there is nobody to send to.
	if _, err := a.trySend(both("two"), bob); !errors.Is(err, omemo.ErrNoDevices) {
		t.Error(err)
	}
	a.reads(b.sendTo(a, omemo.V2), "hello") // an account that was never listed is known by what it sends
	if contact, _, _ := a.m.Account(ctx, bob); !contact.Seen {
		t.Error("not seen")
	}
}

// sendTo sends "hello" to a device in a version.
func (p *party) sendTo(other *party, v omemo.Version) *omemo.Sealed {
	p.Helper()
	p.ok(p.m.SetList(p.ctx, other.jid, v, []omemo.DeviceID{other.device}))
	return p.send("hello", other.jid)
}

func TestTrustAndFingerprintsInWords(t *testing.T) {
	for trust, want := range map[omemo.Trust]string{
		omemo.Undecided: "undecided", omemo.TrustedBlindly: "trusted blindly", omemo.Verified: "verified",
		omemo.Distrusted: "distrusted", 9: "trust(9)",
	} {
		if trust.String() != want || trust.Sendable() != (trust == omemo.TrustedBlindly || trust == omemo.Verified) {
			t.Errorf("%v, sendable %t", trust, trust.Sendable())
		}
	}
	f := omemo.Fingerprint{0: 0x01, 31: 0xff}
	text := "01000000 00000000 00000000 00000000 00000000 00000000 00000000 000000ff"
	if f.String() != text {
		t.Errorf("%q", f)
	}
	for _, form := range []string{text, "05 " + text, "01000000000000000000000000000000\t000000000000000000000000000000FF"} {
		if got, err := omemo.ParseFingerprint(form); err != nil || got != f {
			t.Errorf("%q: %v, %v", form, got, err)
		}
	}
	for _, form := range []string{"", "01", text + "00", "06" + text, "zz" + text[2:]} {
		if got, err := omemo.ParseFingerprint(form); err == nil {
			t.Errorf("%q: %v", form, got)
		}
	}
	p := omemo.Peer{Version: omemo.V2, Address: omemo.Address{JID: bob, Device: 7}}
	if p.String() != "omemo:2:bob@example.net/7" {
		t.Errorf("%q", p)
	}
	err := error(&omemo.DeviceError{Peer: p, Err: omemo.ErrNoBundle})
	if !errors.Is(err, omemo.ErrNoBundle) || err.Error() != "omemo:2:bob@example.net/7: omemo: no bundle of the device" {
		t.Errorf("%v", err)
	}
	err = &omemo.RecipientError{JID: bob, Err: omemo.ErrNoDevices}
	if !errors.Is(err, omemo.ErrNoDevices) || err.Error() != "omemo: recipient has no device that can be served: bob@example.net" {
		t.Errorf("%v", err)
	}
}
