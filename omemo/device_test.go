package omemo_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"example.org/omellium/omemo"
	"example.org/omellium/omemo/memstore"
)

func TestLabels(t *testing.T) {
	ctx := t.Context()
	a, b := pair(t, omemo.V2)
	label, err := b.m.SignLabel(ctx, "Bob's desk")
	b.ok(err)
	shown := func() string {
		t.Helper()
		_, devices, err := a.m.Account(ctx, bob)
		a.ok(err)
		return devices[0].VerifiedLabel()
	}
	list := func(l ...omemo.Label) {
		t.Helper()
		a.ok(a.m.SetList(ctx, bob, omemo.V2, []omemo.DeviceID{b.device}, l...))
	}
	list(label)
	if shown() != "" {
		t.Error("a label is shown before the identity key is known")
	}
	_, err = a.m.Compare(ctx, b.bundle(omemo.V2))
	a.ok(err)
	if a.restart(); shown() != "Bob's desk" {
		t.Errorf("%q", shown())
	}
	for name, change := range map[string]func(*omemo.Label){
		"text":      func(l *omemo.Label) { l.Text = "Alice's desk" },
		"signature": func(l *omemo.Label) { l.Signature[3] ^= 1 },
		"none":      func(l *omemo.Label) { l.Signature = [64]byte{} },
		"device":    func(l *omemo.Label) { l.Device++ },
	} {
		forged := label
		change(&forged)
		if list(forged); shown() != "" {
			t.Errorf("%s: %q is shown", name, shown())
		}
	}
	list(label)
	if list(); shown() != "" {
		t.Error("a label that was taken off the list is shown")
	}
	for _, text := range []string{"", strings.Repeat("x", omemo.MaxLabel+1), "a\u202eb", " padded ", "line\nbreak", "\xff"} {
		if _, err := b.m.SignLabel(ctx, text); !errors.Is(err, omemo.ErrLabel) {
			t.Errorf("%q: %v", text, err)
		}
	}
	// What a device has signed is made safe to show.
	for text, want := range map[string]string{
		"a\u202eb\tc":                         "ab c",
		strings.Repeat("ä", omemo.MaxLabel):   strings.Repeat("ä", omemo.MaxLabel),
		strings.Repeat("x", omemo.MaxLabel+1): "",
	} {
		signature := b.m.Sign([]byte(text))
		if list(omemo.Label{Device: b.device, Text: text, Signature: signature}); shown() != want {
			t.Errorf("%q is shown as %q", text, shown())
		}
	}
	// Legacy has none.
	a.ok(a.m.SetList(ctx, bob, omemo.Legacy, []omemo.DeviceID{b.device}, label))
	_, devices, err := a.m.Account(ctx, bob)
	a.ok(err)
	for _, d := range devices {
		if d.Version == omemo.Legacy && d.Label != "" {
			t.Errorf("%q", d.Label)
		}
	}
}

func TestStaleDevices(t *testing.T) {
	versions(t, func(t *testing.T, v omemo.Version) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			a, silent, lively := w.join(alice, omemo.Options{}), w.join(bob, omemo.Options{}), w.join(bob, omemo.Options{})
			w.meet(v)
			deliver := func(text string) (served bool) {
				t.Helper()
				sealed := a.send(text, bob)
				lively.reads(sealed, text)
				for _, d := range sealed.Devices {
					if d.Peer.Address == silent.address() {
						if d.Err != nil && !errors.Is(d.Err, omemo.ErrStale) {
							t.Fatal(d.Err)
						}
						served = d.Err == nil
					}
				}
				return served
			}
			for i := range omemo.StaleMessages + 10 {
				if !deliver(fmt.Sprint(i)) {
					t.Fatalf("not served after %d messages", i)
				}
			}
			time.Sleep(omemo.DefaultStaleAfter - time.Minute)
			if !deliver("before") {
				t.Fatal("not served before the time")
			}
			a.reads(lively.send("alive", alice), "alive")
			time.Sleep(time.Minute)
			sealed := a.send("after", bob)
			if !hasEvent(sealed.Events, omemo.DeviceStale) {
				t.Errorf("events %v", sealed.Events)
			}
			a.restart()
			if deliver("stale") {
				t.Error("served although it is stale")
			}
			// A sign of life brings it back.
			sign, err := silent.trySend(both("back"), alice)
			silent.ok(err)
			o, err := a.receive(a.find(sign))
			a.ok(err)
			if !hasEvent(o.Events, omemo.DeviceReturned) || !deliver("again") {
				t.Errorf("events %v", o.Events)
			}
		})
	})
}

func TestTheOnlyDeviceIsServedThoughStale(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, _ := pair(t, omemo.V2)
		for range omemo.StaleMessages + 1 {
			a.send("text", bob)
		}
		time.Sleep(2 * omemo.DefaultStaleAfter)
		a.send("text", bob)
	})
}

func TestStalenessCanBeSwitchedOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, b, _ := w.join(alice, omemo.Options{StaleAfter: -1}), w.join(bob, omemo.Options{}), w.join(bob, omemo.Options{})
		w.meet(omemo.V2)
		for range omemo.StaleMessages + 1 {
			b.reads(a.send("text", bob), "text")
		}
		time.Sleep(2 * omemo.DefaultStaleAfter)
		for _, d := range a.send("text", bob).Devices {
			if d.Err != nil {
				t.Error(d.Err)
			}
		}
	})
}

func TestOptOut(t *testing.T) {
	ctx := t.Context()
	a, b := pair(t, omemo.V2)
	b.reads(a.send("one", bob), "one")
	wish := func(p *party, sealed *omemo.Sealed) {
		t.Helper()
		_, err := p.m.Decrypt(ctx, p.find(sealed), func(o *omemo.Opened) (omemo.Delivery, error) {
			return omemo.Delivery{Stanza: o.Plaintext, OptOut: true}, nil
		})
		p.ok(err)
	}
	state := func() omemo.OptOut {
		t.Helper()
		contact, err := a.m.Contact(ctx, bob)
		a.ok(err)
		return contact.OptOut
	}
	wish(a, b.send("no encryption, please", alice))
	if a.restart(); state() != omemo.OptOutAsked {
		t.Fatalf("state %d", state())
	}
	before := a.store.dump()
	sealed, err := a.trySend(both("two"), bob)
	sealedNothing(t, sealed, err, omemo.ErrOptedOut)
	if a.store.dump() != before {
		t.Error("the store has changed")
	}
	a.ok(a.m.SetOptOut(ctx, bob, omemo.OptOutAccepted))
	wish(a, b.send("again", alice))
	if state() != omemo.OptOutAccepted {
		t.Errorf("asked twice: state %d", state())
	}
	// Whoever writes encrypted again has changed his mind.
	a.reads(b.send("three", alice), "three")
	if state() != omemo.OptOutNone {
		t.Errorf("state %d", state())
	}
	b.reads(a.send("four", bob), "four")
	// A wish of a device that is not trusted does not count.
	a.ok(a.m.SetTrust(ctx, bob, b.fingerprint(), omemo.Distrusted))
	wish(a, b.send("please", alice))
	if state() != omemo.OptOutNone {
		t.Errorf("state %d", state())
	}
}

func TestReplaceable(t *testing.T) {
	ctx := t.Context()
	w := newWorld(t)
	a, b, own := w.join(alice, omemo.Options{}), w.join(bob, omemo.Options{}), w.join(alice, omemo.Options{})
	w.meet(omemo.Versions()...)
	check := func(jid string, want ...omemo.Peer) {
		t.Helper()
		got, err := a.m.Replaceable(ctx, jid)
		a.ok(err)
		if !slices.Equal(got, want) {
			t.Errorf("%s: %v, want %v", jid, got, want)
		}
	}
	check(carol)
	check(alice, own.peer(omemo.Legacy))
	check(bob, b.peer(omemo.Legacy))
	b.reads(a.send("one", bob), "one")
	a.reads(b.send("two", alice), "two")
	invitation, err := a.answer(a.owed(omemo.OwedInvite)[0])
	a.ok(err)
	b.reads(invitation, "<empty/>")
	check(bob, b.peer(omemo.V2), b.peer(omemo.Legacy))
	a.ok(a.m.SetList(ctx, bob, omemo.Legacy, nil))
	check(bob, b.peer(omemo.V2))
}

func TestRotateByHand(t *testing.T) {
	a := newWorld(t).join(alice, omemo.Options{})
	a.settle()
	a.ok(a.m.Rotate(t.Context()))
	for _, v := range omemo.Versions() {
		if current, previous := a.m.SignedPreKeys(v); current != 2 || previous != 1 {
			t.Errorf("%v: signed pre keys %d and %d", v, current, previous)
		}
	}
	if len(a.owed(omemo.OwedBundle)) != 2 {
		t.Error("no bundle is owed")
	}
}

func TestThePeriodOfSignedPreKeysIsBounded(t *testing.T) {
	for period, ok := range map[time.Duration]bool{
		time.Hour: false, omemo.SignedPreKeyPeriod: true, omemo.MaxSignedPreKeyPeriod: true, omemo.MaxSignedPreKeyPeriod + 1: false, -1: false,
	} {
		w := newWorld(t)
		p := &party{world: w, jid: alice, store: newTap(memstore.New(alice))}
		if _, err := omemo.NewManager(t.Context(), p.store, omemo.Options{SignedPreKeyPeriod: period}); (err == nil) != ok {
			t.Errorf("%v: %v", period, err)
		}
	}
}
