package omemo_test

import (
	"testing"
	"testing/synctest"
	"time"

	"example.org/omellium/omemo"
)

func TestPreKeysAreConsumedAndRefilled(t *testing.T) {
	t.Parallel()
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
	t.Parallel()
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
