package omemo_test

import (
	"errors"
	"fmt"
	"testing"

	"example.org/omellium/omemo"
)

// What is not served is as if it were not listed; a device that has nothing else
// is told apart from one that is gone.
func TestOnlyServedVersionsLeave(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	b := w.join(bob, omemo.Options{})
	bundles := []*omemo.Bundle{b.bundle(omemo.V2), b.bundle(omemo.Legacy)}
	for _, served := range omemo.Versions() {
		for _, listed := range sets {
			for _, received := range sets {
				for _, prefer := range omemo.Versions() {
					name := fmt.Sprintf("served %v, listed %v, received %v, prefer %v", served, listed, received, prefer)
					a := w.devices(omemo.Options{
						Versions: []omemo.Version{served}, Prefer: func(string) omemo.Version { return prefer },
					}, b.address(), listed, received)
					var want error
					switch {
					case listed == known{}:
						want = omemo.ErrNoDevices
					case !listed.has(served) && listed.legacy && received.v2:
						want = omemo.ErrDowngrade
					case !listed.has(served):
						want = omemo.ErrVersion
					}
					missing, err := a.m.Missing(t.Context(), both("text"), []string{bob})
					a.ok(err)
					sealed, err := a.m.Encrypt(t.Context(), both("text"), []string{bob}, stanzas("id", bob), bundles...)
					if !errors.Is(err, want) || (len(missing) > 0) != (want == nil) {
						t.Fatalf("%s: %v, want %v; missing %v", name, err, want, missing)
					}
					if want == nil && (len(sealed.Messages) != 1 || sealed.Messages[0].Version != served) {
						t.Fatalf("%s: sealed %+v", name, sealed.Messages)
					}
				}
			}
		}
	}
}

// Nothing is answered, begun or replaced in a version that is not served, be it
// owed from before; what comes in it is read.
func TestNothingIsSentInAVersionThatIsNotServed(t *testing.T) {
	ctx := t.Context()
	w := newWorld(t)
	a, b := w.join(alice, omemo.Options{}), w.join(bob, omemo.Options{})
	w.meet(omemo.V2)
	a.reads(b.send("one", alice), "one") // a completion is owed
	if len(a.owed(omemo.OwedCompletion)) != 1 {
		t.Fatal("no completion is owed")
	}
	a.options.Versions = []omemo.Version{omemo.Legacy}
	a.restart()
	row := a.owed(omemo.OwedCompletion)[0]
	if sealed, err := a.answer(row); !errors.Is(err, omemo.ErrVersion) || len(sealed.Outbox) != 0 {
		t.Errorf("a completion left: %v", err)
	}
	if len(a.owed(omemo.OwedCompletion)) != 0 {
		t.Error("the completion is still owed")
	}
	a.reads(b.send("two", alice), "two")
	for i := range 60 {
		body := fmt.Sprint("more ", i)
		a.reads(b.send(body, alice), body)
	}
	if rows := append(a.owed(omemo.OwedCompletion), a.owed(omemo.OwedHeartbeat)...); len(rows) != 0 {
		t.Errorf("owed: %v", rows)
	}
	if _, err := a.trySend(both("three"), bob); !errors.Is(err, omemo.ErrVersion) {
		t.Errorf("sent: %v", err)
	}
	if peers, err := a.m.Replaceable(ctx, bob); err != nil || len(peers) != 0 {
		t.Errorf("replaceable: %v, %v", peers, err)
	}
	if _, err := a.m.Replace(ctx, b.bundle(omemo.V2), stanzas("id", bob)); !errors.Is(err, omemo.ErrVersion) {
		t.Errorf("replaced: %v", err)
	}
	a.ok(a.m.ForgetSessions(ctx, b.peer(omemo.V2)))
	if owed, err := a.m.Introduce(ctx, b.peer(omemo.V2)); err != nil || owed {
		t.Errorf("introduced: %t, %v", owed, err)
	}
}

// Two devices that both list both do not invite each other to a version that one
// of them does not serve.
func TestNoInvitationToAVersionThatIsNotServed(t *testing.T) {
	w := newWorld(t)
	a, b := w.join(alice, omemo.Options{Versions: []omemo.Version{omemo.Legacy}}), w.join(bob, omemo.Options{})
	w.meet(omemo.Versions()...)
	b.reads(a.send("one", bob), "one")
	a.reads(b.send("two", alice), "two")
	if rows := a.owed(omemo.OwedInvite); len(rows) != 0 {
		t.Errorf("owed: %v", rows)
	}
	// It was not struck off: it is owed once the version is served.
	a.options.Versions = nil
	a.restart()
	a.lists(bob, omemo.Versions()...)
	if rows := a.owed(omemo.OwedInvite); len(rows) != 1 {
		t.Errorf("owed: %v", rows)
	}
}

func TestVersionsThatCannotBeServed(t *testing.T) {
	for _, versions := range [][]omemo.Version{{}, {3}, {omemo.V2, 0}} {
		w := newWorld(t)
		p := w.join(alice, omemo.Options{})
		if _, err := omemo.NewManager(t.Context(), p.store, omemo.Options{Versions: versions}); err == nil {
			t.Errorf("%v: no error", versions)
		}
	}
}
