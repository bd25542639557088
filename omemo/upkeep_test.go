package omemo_test

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"example.org/omellium/omemo"
)

func TestMarksOfEndedChainsArePruned(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		a, b := pair(t, omemo.V2)
		for i := range 3 {
			text := fmt.Sprint(i)
			b.reads(a.send(text, bob), text)
			a.reads(b.send(text, alice), text)
		}
		marks := func() int {
			rows, err := b.store.Ended(ctx, keysOf(b.store.chains))
			b.ok(err)
			return len(rows)
		}
		time.Sleep(89 * 24 * time.Hour)
		_, err := b.m.Upkeep(ctx)
		b.ok(err)
		if marks() == 0 {
			t.Fatal("no chain has ended")
		}
		time.Sleep(2 * 24 * time.Hour)
		_, err = b.m.Upkeep(ctx)
		b.ok(err)
		if n := marks(); n != 0 {
			t.Errorf("%d marks are older than 90 days", n)
		}
	})
}

func TestOwedWorkIsCommittedWithItsCauseAndStruckOffWithItsDeed(t *testing.T) {
	versions(t, func(t *testing.T, v omemo.Version) {
		a, b := pair(t, v)
		b.settle()
		o := b.reads(a.send("one", bob), "one")
		commit := b.store.observed
		kinds := make(map[omemo.OwedKind]bool)
		for _, row := range commit.Owed {
			kinds[row.Kind] = true
		}
		if !o.Owed || len(commit.Sessions) == 0 || len(commit.Inbox) != 1 || !kinds[omemo.OwedCompletion] || !kinds[omemo.OwedBundle] || !kinds[omemo.OwedDevices] {
			t.Errorf("the commit of the message holds the work %v", commit.Owed)
		}
		b.restart() // what is owed is owed after a crash
		row := b.owed(omemo.OwedCompletion)[0]
		if row.Session != o.Session.ID() || row.Peer != a.peer(v) {
			t.Errorf("owed %v", row)
		}
		if _, err := b.m.Answer(t.Context(), row.OwedID, omemo.Plaintext{}, func(*omemo.Sealed) ([]omemo.Outgoing, error) { return nil, errHook }); !errors.Is(err, errHook) {
			t.Error(err)
		}
		if len(b.owed(omemo.OwedCompletion)) != 1 {
			t.Error("work that was not done is struck off")
		}
		sealed, err := b.answer(row)
		b.ok(err)
		commit = b.store.observed
		if len(commit.DropOwed) != 1 || len(commit.Sessions) != 1 || len(commit.Outbox) != 1 || len(b.owed(omemo.OwedCompletion)) != 0 {
			t.Error("the answer and its striking off are not one commit")
		}
		o, err = a.receive(a.find(sealed))
		a.ok(err)
		if o.Plaintext != nil || !o.Session.Confirmed() || o.Owed {
			t.Errorf("text %q, confirmed %t, owed %t", o.Plaintext, o.Session.Confirmed(), o.Owed)
		}
		if rows, _ := a.m.Inbox(t.Context(), 0, 10); len(rows) != 0 {
			t.Error("an empty message is delivered")
		}
	})
}

func TestWorkOwedInASessionThatIsGoneIsStruckOff(t *testing.T) {
	versions(t, func(t *testing.T, v omemo.Version) {
		a, b := pair(t, v)
		b.reads(a.send("one", bob), "one")
		row := b.owed(omemo.OwedCompletion)[0]
		row.Session++
		b.ok(b.m.Owe(t.Context(), row.OwedID))
		sealed, err := b.answer(row)
		sealedNothing(t, sealed, err, omemo.ErrNoSession)
		if rows := b.owed(omemo.OwedCompletion); len(rows) != 1 || rows[0].Session == row.Session {
			t.Errorf("owed %v", rows)
		}
	})
}

func TestACompletionIsOwedAtMostOnceAMinute(t *testing.T) {
	versions(t, func(t *testing.T, v omemo.Version) {
		synctest.Test(t, func(t *testing.T) {
			a, b := pair(t, v)
			b.reads(a.send("one", bob), "one")
			answers := 0
			for i := range 130 { // for 130 seconds, without ever reaching the other side
				for _, row := range b.owed(omemo.OwedCompletion) {
					_, err := b.answer(row)
					b.ok(err)
					answers++
				}
				text := fmt.Sprint(i)
				b.reads(a.send(text, bob), text)
				time.Sleep(time.Second)
			}
			if answers != 3 {
				t.Errorf("%d completions in 130 seconds, want 3", answers)
			}
		})
	})
}

func TestOneHeartbeatForEachRatchetKey(t *testing.T) {
	versions(t, func(t *testing.T, v omemo.Version) {
		a, b := pair(t, v)
		b.reads(a.send("one", bob), "one")
		a.reads(b.send("two", alice), "two")
		for chain := range 2 {
			for n := range 70 {
				text := fmt.Sprint(n)
				o := b.reads(a.send(text, bob), text)
				if next := o.Session.ReceivingChain(); next != n+1 {
					t.Fatalf("message %d of the chain, want %d", next-1, n)
				}
				if owed := len(b.owed(omemo.OwedHeartbeat)); owed != map[bool]int{false: 0, true: 1}[n >= 53] {
					t.Fatalf("chain %d, message %d: %d heartbeats are owed", chain, n, owed)
				}
				if n == 60 {
					b.restart()
				}
			}
			// Once, even if it was done while more messages of the chain come.
			sealed, err := b.answer(b.owed(omemo.OwedHeartbeat)[0])
			b.ok(err)
			b.reads(a.send("more", bob), "more")
			if len(b.owed(omemo.OwedHeartbeat)) != 0 {
				t.Fatal("a second heartbeat for the same ratchet key")
			}
			if o, err := a.receive(a.find(sealed)); err != nil || o.Plaintext != nil || o.Owed {
				t.Fatalf("%v", err)
			}
		}
	})
}

func TestEmptyMessagesNeverOweAHeartbeat(t *testing.T) {
	versions(t, func(t *testing.T, v omemo.Version) {
		a, b := pair(t, v)
		b.reads(a.send("one", bob), "one")
		a.settle()
		for range 60 {
			sealed, err := a.m.Answer(t.Context(), omemo.OwedID{Kind: omemo.OwedSession, Peer: b.peer(v)}, omemo.Plaintext{}, stanzas("id", bob))
			a.ok(err)
			a.tapped(sealed)
			o, err := b.receive(b.find(sealed))
			b.ok(err)
			if o.Owed {
				t.Fatalf("an empty message owes %v", b.store.observed.Owed)
			}
		}
		b.reads(a.send("content", bob), "content")
		if len(b.owed(omemo.OwedHeartbeat)) != 1 {
			t.Error("no heartbeat for a long chain")
		}
	})
}

func TestTwoManagersSettle(t *testing.T) {
	versions(t, func(t *testing.T, v omemo.Version) {
		synctest.Test(t, func(t *testing.T) {
			a, b := pair(t, v)
			total := 0
			for i := range 5 {
				x, y := a.send(fmt.Sprint(i), bob), b.send(fmt.Sprint(i), alice)
				b.reads(x, fmt.Sprint(i))
				a.reads(y, fmt.Sprint(i))
				total += a.settle()
				time.Sleep(time.Minute)
			}
			if total != 2 {
				t.Errorf("%d answers, want one for each key exchange", total)
			}
		})
	})
}

func TestIntroduceOnceADay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		w := newWorld(t)
		a, b := w.join(alice, omemo.Options{}), w.join(bob, omemo.Options{})
		introduce := func(p omemo.Peer, want bool) {
			t.Helper()
			owed, err := b.m.Introduce(ctx, p)
			b.ok(err)
			if owed != want {
				t.Fatalf("owed %t, want %t", owed, want)
			}
		}
		introduce(a.peer(omemo.V2), false) // not on a list
		w.meet(omemo.Versions()...)
		introduce(a.peer(omemo.Legacy), false)
		introduce(a.peer(omemo.V2), true)
		row := b.owed(omemo.OwedSession)[0]
		b.ok(b.m.Strike(ctx, row.OwedID)) // lost
		b.restart()
		introduce(a.peer(omemo.V2), false)
		time.Sleep(24*time.Hour - time.Second)
		introduce(a.peer(omemo.V2), false)
		time.Sleep(time.Second)
		introduce(a.peer(omemo.V2), true)

		// It is an empty key exchange, exempt from trust.
		sealed, err := b.m.Answer(ctx, row.OwedID, omemo.Plaintext{}, stanzas("id", alice))
		sealedNothing(t, sealed, err, omemo.ErrNoBundle)
		if len(b.owed(omemo.OwedSession)) != 1 {
			t.Error("work that could not be done is struck off")
		}
		sealed, err = b.answer(row)
		b.ok(err)
		o, err := a.receive(a.find(sealed))
		a.ok(err)
		if !o.Exchange || o.Plaintext != nil {
			t.Errorf("exchange %t, text %q", o.Exchange, o.Plaintext)
		}
		time.Sleep(25 * time.Hour)
		introduce(a.peer(omemo.V2), false) // there is a session
	})
}

func TestBundlesThatCannotBeHadAreAskedForLess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		a, b := pair(t, omemo.V2)
		missing := func() int {
			t.Helper()
			peers, err := a.m.Missing(ctx, both("text"), []string{bob})
			a.ok(err)
			return len(peers)
		}
		for _, wait := range []time.Duration{time.Minute, 2 * time.Minute, 4 * time.Minute} {
			if missing() != 1 {
				t.Fatal("not asked for")
			}
			a.ok(a.m.BundleFailed(ctx, b.peer(omemo.V2), omemo.Peer{Version: omemo.V2, Address: omemo.Address{JID: carol, Device: 1}}))
			time.Sleep(wait - time.Second)
			if missing() != 0 {
				t.Fatalf("asked for before %v", wait)
			}
			time.Sleep(time.Second)
		}
		d := omemo.Device{BundleFailures: 100, BundleTried: time.Now()}
		if wait := d.RetryBundle().Sub(d.BundleTried); wait != 24*time.Hour {
			t.Errorf("after 100 failures: %v", wait)
		}
		b.reads(a.send("text", bob), "text")
		if _, devices, err := a.m.Account(ctx, bob); err != nil || devices[0].BundleFailures != 0 {
			t.Errorf("a bundle that was had counts %d failures, %v", devices[0].BundleFailures, err)
		}
	})
}

func TestRenumber(t *testing.T) {
	a := newWorld(t).join(alice, omemo.Options{})
	old := a.device
	a.ok(a.m.Renumber(t.Context(), func(id omemo.DeviceID) bool { return id == old }))
	a.restart()
	if a.device == old || a.device == 0 || a.device > omemo.MaxDeviceID {
		t.Errorf("device id %d", a.device)
	}
	kept := a.device
	a.ok(a.m.Renumber(t.Context(), func(omemo.DeviceID) bool { return false }))
	if a.restart(); a.device != kept {
		t.Error("an id that is free was changed")
	}
}

// What was put off while the clock was ahead is not put off until then.
func TestAClockThatWasSetBackPutsNothingOff(t *testing.T) {
	ctx := t.Context()
	a, b := pair(t, omemo.V2)
	_, devices, err := a.m.Account(ctx, bob)
	a.ok(err)
	d := devices[slices.IndexFunc(devices, func(d omemo.Device) bool { return d.Peer == b.peer(omemo.V2) })]
	ahead := time.Now().AddDate(1, 0, 0)
	d.BundleFailures, d.BundleTried, d.Introduced = 3, ahead, ahead
	a.ok(a.store.Commit(ctx, &omemo.Changes{Devices: []omemo.Device{d}}))
	a.restart()
	if missing, err := a.m.Missing(ctx, both("text"), []string{bob}); err != nil || len(missing) != 1 {
		t.Errorf("bundle not asked for: %v, %v", missing, err)
	}
	if owed, err := a.m.Introduce(ctx, d.Peer); err != nil || !owed {
		t.Errorf("no session begun: %t, %v", owed, err)
	}
}
