package omemo_test

import (
	"errors"
	"fmt"
	"testing"

	"example.org/omellium/omemo"
	"example.org/omellium/omemo/memstore"
)

// known is a set of versions.
type known struct{ legacy, v2 bool }

func (k known) has(v omemo.Version) bool {
	return v == omemo.Legacy && k.legacy || v == omemo.V2 && k.v2
}

func (k known) String() string {
	switch k {
	case known{true, false}:
		return "legacy"
	case known{false, true}:
		return "omemo:2"
	case known{true, true}:
		return "both"
	}
	return "none"
}

var sets = []known{{false, false}, {true, false}, {false, true}, {true, true}}

// rule is DESIGN's, by hand: which version serves a device that lists and has
// sent content in these versions.
func rule(listed, received known, prefer omemo.Version, downgrade bool) (omemo.Version, error) {
	type row struct{ listed, received string }
	const either = omemo.Version(0) // the preferred one
	table := map[row]omemo.Version{
		{"legacy", "none"}:    omemo.Legacy,
		{"legacy", "legacy"}:  omemo.Legacy,
		{"omemo:2", "none"}:   omemo.V2,
		{"omemo:2", "legacy"}: omemo.V2,
		// The highest in which it has sent content.
		{"omemo:2", "omemo:2"}: omemo.V2,
		{"omemo:2", "both"}:    omemo.V2,
		{"both", "omemo:2"}:    omemo.V2,
		{"both", "both"}:       omemo.V2,
		{"both", "legacy"}:     omemo.Legacy,
		// Nothing yet: being listed is no evidence.
		{"both", "none"}: either,
	}
	switch r := (row{listed.String(), received.String()}); {
	case r.listed == "none":
		return 0, omemo.ErrNoDevices
	case r.listed == "legacy" && received.v2 && !downgrade:
		return omemo.Legacy, omemo.ErrDowngrade
	case r.listed == "legacy" && received.v2:
		return omemo.Legacy, nil
	case table[r] == either && prefer == omemo.V2:
		return omemo.V2, nil
	case table[r] == either:
		return omemo.Legacy, nil
	default:
		return table[r], nil
	}
}

func TestWhichVersionServesADevice(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	b := w.join(bob, omemo.Options{})
	bundles := []*omemo.Bundle{b.bundle(omemo.V2), b.bundle(omemo.Legacy)}
	forms := map[string]omemo.Plaintext{
		"both": both("text"), "legacy": {Legacy: []byte("text")}, "omemo:2": {V2: []byte("text")}, "none": {},
	}
	for _, listed := range sets {
		for _, received := range sets {
			for _, prefer := range []omemo.Version{0, omemo.Legacy, omemo.V2} {
				for _, downgrade := range []bool{false, true} {
					for form, text := range forms {
						name := fmt.Sprintf("listed %v, received %v, prefer %v, downgrade %t, form %s", listed, received, prefer, downgrade, form)
						version, want := rule(listed, received, prefer, downgrade)
						if want == nil && form != "both" && form != version.String() {
							want = omemo.ErrNoForm
						}
						a := w.devices(omemo.Options{
							AllowDowngrade: downgrade, Prefer: func(string) omemo.Version { return prefer },
						}, b.address(), listed, received)
						sealed, err := a.m.Encrypt(t.Context(), text, []string{bob}, stanzas("id", bob), bundles...)
						if !errors.Is(err, want) {
							t.Fatalf("%s: %v, want %v", name, err, want)
						}
						if want != nil {
							var refused *omemo.RecipientError
							if !errors.As(err, &refused) || refused.JID != bob || len(sealed.Messages) != 0 {
								t.Fatalf("%s: %v", name, err)
							}
							continue
						}
						if len(sealed.Messages) != 1 || sealed.Messages[0].Version != version {
							t.Fatalf("%s: served in %v, want %v", name, sealed.Devices[0].Peer, version)
						}
					}
				}
			}
		}
	}
}

// devices returns a new device of alice that knows a device in a given state.
func (w *world) devices(o omemo.Options, other omemo.Address, listed, received known) *party {
	w.Helper()
	store := newTap(memstore.New(alice))
	c := &omemo.Changes{}
	for _, v := range omemo.Versions() {
		if listed.has(v) || received.has(v) {
			c.Devices = append(c.Devices, omemo.Device{
				Peer: omemo.Peer{Version: v, Address: other}, Active: listed.has(v), Received: received.has(v),
			})
		}
	}
	a := &party{world: w, jid: alice, options: o, store: store}
	a.ok(store.Commit(w.ctx, c))
	a.open()
	return a
}

func TestAnInvitationIsOwedOnceEver(t *testing.T) {
	w := newWorld(t)
	a, b := w.join(alice, omemo.Options{}), w.join(bob, omemo.Options{})
	w.meet(omemo.Versions()...)

	// Both list both: legacy until somebody has shown otherwise.
	sealed := a.send("one", bob)
	if v := b.find(sealed).Version; v != omemo.Legacy {
		t.Fatalf("the first message goes out in %v", v)
	}
	b.reads(sealed, "one")
	if len(a.owed(omemo.OwedInvite))+len(b.owed(omemo.OwedInvite)) != 0 {
		t.Fatal("an invitation is owed after one direction")
	}
	a.reads(b.send("two", alice), "two")
	for _, p := range []*party{a, b} {
		if rows := p.owed(omemo.OwedInvite); len(rows) != 1 || rows[0].Version != omemo.V2 || rows[0].Session != 0 {
			t.Fatalf("%s owes %v", p.jid, rows)
		}
	}

	// It is an omemo:2 key exchange with content, and shows that its sender speaks it.
	invitation, err := a.answer(a.owed(omemo.OwedInvite)[0])
	a.ok(err)
	if len(a.owed(omemo.OwedInvite)) != 0 {
		t.Error("an invitation that was sent is still owed")
	}
	o := b.reads(invitation, "<empty/>")
	if o.Version != omemo.V2 || !o.Exchange {
		t.Errorf("version %v, exchange %t", o.Version, o.Exchange)
	}
	answer := b.send("three", alice)
	if v := a.find(answer).Version; v != omemo.V2 {
		t.Errorf("after the invitation, the answer goes out in %v", v)
	}
	a.reads(answer, "three")
	if v := b.find(a.send("four", bob)).Version; v != omemo.V2 {
		t.Errorf("after the answer, messages go out in %v", v)
	}

	// Never again: not after a restart, and not if it is struck off unsent.
	b.ok(b.m.Strike(t.Context(), b.owed(omemo.OwedInvite)[0].OwedID))
	for _, p := range []*party{a, b} {
		p.restart()
		p.lists(alice, omemo.Versions()...)
		p.lists(bob, omemo.Versions()...)
	}
	b.reads(a.send("five", bob), "five")
	a.reads(b.send("six", alice), "six")
	if len(a.owed(omemo.OwedInvite))+len(b.owed(omemo.OwedInvite)) != 0 {
		t.Error("a second invitation is owed")
	}
}

func TestAnInvitationIsOwedWhenTheSecondListComesLater(t *testing.T) {
	w := newWorld(t)
	a, b := w.join(alice, omemo.Options{}), w.join(bob, omemo.Options{})
	w.meet(omemo.Legacy)
	b.reads(a.send("one", bob), "one")
	a.reads(b.send("two", alice), "two")
	if len(a.owed(omemo.OwedInvite)) != 0 {
		t.Fatal("a device that lists legacy only is invited")
	}
	a.lists(bob, omemo.V2)
	if len(a.owed(omemo.OwedInvite)) != 1 {
		t.Error("no invitation to a device that lists both now")
	}
}

func TestADowngradeIsRefused(t *testing.T) {
	for _, allow := range []bool{false, true} {
		w := newWorld(t)
		a, b := w.join(alice, omemo.Options{AllowDowngrade: allow}), w.join(bob, omemo.Options{})
		w.meet(omemo.V2)
		b.reads(a.send("one", bob), "one")
		a.reads(b.send("two", alice), "two")
		a.ok(a.m.SetList(t.Context(), bob, omemo.V2, nil))
		a.lists(bob, omemo.Legacy)
		a.restart()
		before := a.store.dump()
		sealed, err := a.trySend(both("three"), bob)
		if allow {
			a.ok(err)
			b.reads(sealed, "three")
			continue
		}
		if !errors.Is(err, omemo.ErrDowngrade) || a.store.dump() != before {
			t.Errorf("%v", err)
		}
	}
}

func TestMixedDevicesGetOneElementOfEachVersion(t *testing.T) {
	w := newWorld(t)
	a := w.join(alice, omemo.Options{})
	old, recent, own := w.join(bob, omemo.Options{}), w.join(bob, omemo.Options{}), w.join(alice, omemo.Options{})
	ctx := t.Context()
	a.ok(a.m.SetList(ctx, bob, omemo.Legacy, []omemo.DeviceID{old.device}))
	a.ok(a.m.SetList(ctx, bob, omemo.V2, []omemo.DeviceID{recent.device}))
	a.ok(a.m.SetList(ctx, alice, omemo.V2, []omemo.DeviceID{a.device, own.device}))
	sealed := a.send("text", bob, bob) // naming it twice changes nothing
	if len(sealed.Messages) != 2 || sealed.Messages[0].Version != omemo.V2 || sealed.Messages[1].Version != omemo.Legacy {
		t.Fatalf("%d messages", len(sealed.Messages))
	}
	if len(sealed.Messages[0].Keys) != 2 || len(sealed.Messages[1].Keys) != 1 || len(sealed.Devices) != 3 {
		t.Fatalf("%d and %d keys for %d devices", len(sealed.Messages[0].Keys), len(sealed.Messages[1].Keys), len(sealed.Devices))
	}
	for _, p := range []*party{old, recent, own} {
		p.reads(sealed, "text")
	}
}

func TestVersion(t *testing.T) {
	for v, want := range map[omemo.Version][2]string{
		omemo.Legacy: {"legacy", "eu.siacs.conversations.axolotl"},
		omemo.V2:     {"omemo:2", "urn:xmpp:omemo:2"},
		3:            {"version(3)", ""},
	} {
		if got := [2]string{v.String(), v.Namespace()}; got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	for i, want := range map[omemo.Initiation]string{omemo.Active: "active", omemo.Passive: "passive", 7: "initiation(7)"} {
		if i.String() != want {
			t.Errorf("%q, want %q", i, want)
		}
	}
}
