package omemo_test

import (
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"example.org/omellium/omemo"
)

func TestPreKeysAreConsumedAndRefilled(t *testing.T) {
	versions(t, func(t *testing.T, v omemo.Version) {
		a, b := pair(t, v)
		ever := make(map[uint32][32]byte)
		highest := uint32(0)
		published := func() map[uint32]bool {
			t.Helper()
			ids := make(map[uint32]bool)
			for _, k := range b.bundle(v).PreKeys {
				if key, ok := ever[k.ID]; ok && key != k.Key {
					t.Fatalf("pre key id %d names two keys", k.ID)
				}
				ever[k.ID] = k.Key
				ids[k.ID] = true
				highest = max(highest, k.ID)
			}
			if len(ids) != omemo.PreKeyCount {
				t.Fatalf("%d pre keys are published", len(ids))
			}
			return ids
		}
		published()
		b.settle()
		for i := range 8 {
			if i > 0 {
				sealed, err := a.m.Replace(t.Context(), b.small(v), stanzas("id", bob))
				a.ok(err)
				a.tapped(sealed)
				_, err = b.receive(b.find(sealed))
				b.ok(err)
			} else {
				b.reads(a.send("one", bob), "one")
			}
			used := a.session(b.peer(v)).KeyExchange().PreKeyID
			before := highest
			if ids := published(); ids[used] || highest != before+1 {
				t.Fatalf("exchange %d: pre key %d still published: %t, highest id %d", i, used, ids[used], highest)
			}
			if rows, err := b.store.PreKeys(t.Context(), v, used); err != nil || len(rows) != 0 {
				t.Fatalf("pre key %d is kept, %v", used, err)
			}
			if rows := b.owed(omemo.OwedBundle); len(rows) != 1 || rows[0].Peer != (omemo.Peer{Version: v}) {
				t.Fatalf("owed: %v", rows)
			}
			if i == 5 {
				b.restart()
			}
			b.settle()
		}
		// A repetition of an exchange consumes nothing.
		b.reads(a.send("two", bob), "two")
		b.reads(a.send("three", bob), "three")
		before := highest
		if published(); highest != before || len(b.owed(omemo.OwedBundle)) != 0 {
			t.Error("a repeated exchange has consumed a pre key")
		}
	})
}

func TestABundleIsOwedUntilTheSameKeysArePublished(t *testing.T) {
	versions(t, func(t *testing.T, v omemo.Version) {
		ctx := t.Context()
		a, b := pair(t, v)
		stale := b.bundle(v)
		if rows := b.owed(omemo.OwedBundle); len(rows) != 2 {
			t.Fatalf("a new account owes %v", rows)
		}
		b.settle()
		b.reads(a.send("one", bob), "one")
		b.ok(b.m.Published(ctx, stale))
		if len(b.owed(omemo.OwedBundle)) != 1 {
			t.Error("publishing what is no longer true has settled the work")
		}
		b.ok(b.m.Published(ctx, b.bundle(v)))
		if len(b.owed(omemo.OwedBundle)) != 0 {
			t.Error("still owed")
		}
		fresh := b.bundle(v)
		for name, change := range map[string]func(*omemo.Bundle){
			"version":        func(x *omemo.Bundle) { x.Version = 3 - x.Version },
			"owner":          func(x *omemo.Bundle) { x.Owner.Device++ },
			"identity key":   func(x *omemo.Bundle) { x.IdentityKey[0]++ },
			"signed pre key": func(x *omemo.Bundle) { x.SignedPreKey[0]++ },
			"its id":         func(x *omemo.Bundle) { x.SignedPreKeyID++ },
			"fewer pre keys": func(x *omemo.Bundle) { x.PreKeys = x.PreKeys[1:] },
			"a pre key": func(x *omemo.Bundle) {
				x.PreKeys = append([]omemo.PublicPreKey{{ID: x.PreKeys[0].ID}}, x.PreKeys[1:]...)
			},
		} {
			other := *fresh
			change(&other)
			if fresh.SameKeys(&other) {
				t.Errorf("another %s: the same keys", name)
			}
		}
		other := *fresh
		other.Signature[0]++
		if !fresh.SameKeys(&other) {
			t.Error("another signature: other keys")
		}
	})
}

func TestSignedPreKeyRotation(t *testing.T) {
	versions(t, func(t *testing.T, v omemo.Version) {
		synctest.Test(t, func(t *testing.T) {
			ctx := t.Context()
			a, b := pair(t, v)
			b.settle()
			upkeep := func() omemo.FollowUp {
				t.Helper()
				f, err := b.m.Upkeep(ctx)
				b.ok(err)
				return f
			}
			if f := upkeep(); len(f.Owed) != 0 || !f.Again.Equal(time.Now().Add(omemo.SignedPreKeyPeriod)) {
				t.Fatalf("owed %v, again at %v", f.Owed, f.Again)
			}
			old := b.bundle(v)
			time.Sleep(omemo.SignedPreKeyPeriod - time.Second)
			if f := upkeep(); len(f.Owed) != 0 || b.bundle(v).SignedPreKeyID != old.SignedPreKeyID {
				t.Fatal("rotated early")
			}
			time.Sleep(time.Second)
			f := upkeep()
			if len(f.Owed) != 2 || f.Owed[0].Kind != omemo.OwedBundle {
				t.Fatalf("owed %v", f.Owed)
			}
			fresh := b.bundle(v)
			if fresh.SignedPreKeyID != old.SignedPreKeyID+1 || fresh.SignedPreKey == old.SignedPreKey || fresh.Verify() != nil {
				t.Fatalf("signed pre key %d after %d", fresh.SignedPreKeyID, old.SignedPreKeyID)
			}
			b.restart()

			// Exactly two are usable.
			replace := func(bundle *omemo.Bundle) *omemo.Message {
				t.Helper()
				one := *bundle
				one.PreKeys = b.bundle(v).PreKeys // pre keys are not what is tried here
				sealed, err := a.m.Replace(ctx, &one, stanzas("id", bob))
				a.ok(err)
				a.tapped(sealed)
				return b.find(sealed)
			}
			for _, bundle := range []*omemo.Bundle{old, fresh} {
				_, err := b.receive(replace(bundle))
				b.ok(err)
			}
			time.Sleep(omemo.SignedPreKeyPeriod)
			upkeep()
			b.refuses(replace(old), omemo.ErrKeyExchange)
			if current, previous := b.m.SignedPreKeys(v); current != old.SignedPreKeyID+2 || previous != old.SignedPreKeyID+1 {
				t.Errorf("signed pre keys %d and %d", current, previous)
			}
			for _, bundle := range []*omemo.Bundle{fresh, b.bundle(v)} {
				_, err := b.receive(replace(bundle))
				b.ok(err)
			}
		})
	})
}

func TestAClockThatWasSetBackRotatesOnce(t *testing.T) {
	b := newWorld(t).join(bob, omemo.Options{})
	ctx := t.Context()
	b.ok(b.m.Age(ctx, omemo.V2, -365*24*time.Hour)) // made in a year
	for range 3 {
		_, err := b.m.Upkeep(ctx)
		b.ok(err)
	}
	if id := b.bundle(omemo.V2).SignedPreKeyID; id != 2 {
		t.Errorf("signed pre key %d, want 2", id)
	}
	if id := b.bundle(omemo.Legacy).SignedPreKeyID; id != 1 {
		t.Errorf("signed pre key %d, want 1", id)
	}
}

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

func TestCatchingUpKeepsUsedPreKeys(t *testing.T) {
	versions(t, func(t *testing.T, v omemo.Version) {
		for _, catchUp := range []bool{false, true} {
			w := newWorld(t)
			a, c, b := w.join(alice, omemo.Options{}), w.join(carol, omemo.Options{}), w.join(bob, omemo.Options{})
			w.meet(v)
			ctx := t.Context()
			// Both have chosen the same pre key while bob was away.
			shared := b.bundle(v)
			shared.PreKeys = shared.PreKeys[:1]
			var sealed []*omemo.Sealed
			for _, p := range []*party{a, c} {
				s, err := p.m.Encrypt(ctx, both(p.jid), []string{bob}, stanzas("id", bob), shared)
				p.ok(err)
				sealed = append(sealed, s)
			}
			b.settle()
			if catchUp {
				b.ok(b.m.CatchUp(ctx, true))
			}
			b.reads(sealed[0], alice)
			if !catchUp {
				b.refuses(b.find(sealed[1]), omemo.ErrKeyExchange)
				continue
			}
			used := shared.PreKeys[0].ID
			check := func(kept int) {
				t.Helper()
				rows, err := b.store.PreKeys(ctx, v, used)
				b.ok(err)
				if len(rows) != kept {
					t.Fatalf("%d rows of the used pre key", len(rows))
				}
				published := b.bundle(v).PreKeys
				if len(published) != omemo.PreKeyCount {
					t.Fatalf("%d pre keys are published", len(published))
				}
				for _, k := range published {
					if k.ID == used {
						t.Fatal("a used pre key is published")
					}
				}
			}
			check(1)
			b.reads(sealed[1], carol)
			check(1)
			b.refuses(b.find(sealed[0]), omemo.ErrDuplicate)

			// A kept pre key does not bring back a session that is gone.
			for range omemo.MaxArchived + 1 {
				s, err := a.m.Replace(ctx, b.small(v), stanzas("id", bob))
				a.ok(err)
				_, err = b.receive(b.find(s))
				b.ok(err)
			}
			b.refuses(b.find(sealed[0]), omemo.ErrDuplicate)
			b.ok(b.m.CatchUp(ctx, false))
			check(0)
			b.refuses(b.find(sealed[1]), omemo.ErrDuplicate)
		}
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

func TestInboxAndOutbox(t *testing.T) {
	versions(t, func(t *testing.T, v omemo.Version) {
		ctx := t.Context()
		a, b := pair(t, v)
		var first *omemo.Opened
		for i := range 3 {
			o := b.reads(a.send(fmt.Sprint(i), bob), fmt.Sprint(i))
			if first == nil {
				first = o
			}
		}
		out, err := a.m.Outbox(ctx, 0, 10)
		a.ok(err)
		if len(out) != 3 || out[0].ID != "m1" || out[0].Chat != bob || len(out[0].Devices) != 1 || out[0].Devices[0] != b.peer(v) {
			t.Fatalf("outbox %v", out)
		}
		in, err := b.m.Inbox(ctx, 0, 10)
		b.ok(err)
		if len(in) != 3 || string(in[1].Stanza) != "1" || in[0].Event != first.Event || in[0].Seq != first.Delivery.Seq {
			t.Fatalf("%d rows in the inbox", len(in))
		}
		if in, _ := b.m.Inbox(ctx, in[0].Seq, 1); len(in) != 1 || string(in[0].Stanza) != "1" {
			t.Error("reading on from a position")
		}

		again := in[1]
		again.Attempts, again.Dead = 5, true
		b.ok(b.m.Attempt(ctx, again))
		b.restart()
		if in, _ := b.m.Inbox(ctx, 0, 10); len(in) != 3 || in[1].Attempts != 5 || !in[1].Dead {
			t.Error("attempts are not counted")
		}

		// Removals ride along, and survive a commit that fails.
		b.m.Later([]uint64{in[0].Seq}, nil)
		b.store.failAt(0)
		if err := b.m.Flush(ctx); !errors.Is(err, errStore) {
			t.Error(err)
		}
		b.store.fail = nil
		b.reads(a.send("3", bob), "3")
		if in, _ := b.m.Inbox(ctx, 0, 10); len(in) != 3 || string(in[0].Stanza) != "1" {
			t.Error("a removal was lost")
		}
		a.m.Later(nil, []uint64{out[0].Seq, out[1].Seq})
		a.ok(a.m.Flush(ctx))
		a.restart()
		if out, _ := a.m.Outbox(ctx, 0, 10); len(out) != 2 || out[0].ID != "m3" {
			t.Error("stanzas that were settled are still there")
		}

		// Sequence numbers go on after a restart; what is transient has none.
		sealed, err := a.m.Encrypt(ctx, both("typing"), []string{bob}, func(*omemo.Sealed) ([]omemo.Outgoing, error) {
			return []omemo.Outgoing{{ID: "x", Transient: true}, {ID: "y"}}, nil
		})
		a.ok(err)
		if len(sealed.Outbox) != 2 || sealed.Outbox[0].Seq != 0 || sealed.Outbox[1].Seq != 5 {
			t.Errorf("outbox %v", sealed.Outbox)
		}
	})
}

func TestTheEventNameOfAMessageIsStable(t *testing.T) {
	versions(t, func(t *testing.T, v omemo.Version) {
		a, b := pair(t, v)
		first, second := b.find(a.send("one", bob)), b.find(a.send("two", bob))
		var name string
		_, err := b.m.Decrypt(t.Context(), first, func(o *omemo.Opened) (omemo.Delivery, error) {
			name = o.Event
			return omemo.Delivery{}, errHook
		})
		if !errors.Is(err, errHook) {
			t.Fatal(err)
		}
		b.restart()
		o, err := b.receive(first)
		b.ok(err)
		next, err := b.receive(second)
		b.ok(err)
		if name == "" || o.Event != name || next.Event == name {
			t.Errorf("%q, then %q; the next is %q", name, o.Event, next.Event)
		}
	})
}
