package omemo_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"example.org/omellium/omemo"
	"example.org/omellium/omemo/memstore"
)

func TestExportAndImport(t *testing.T) {
	ctx := t.Context()
	a, b := pair(t, omemo.V2)
	b.reads(a.send("one", bob), "one")
	a.ok(a.m.SetTrust(ctx, bob, b.fingerprint(), omemo.Verified))
	a.ok(a.m.SetTrust(ctx, carol, omemo.Fingerprint{1}, omemo.Distrusted))
	data, err := a.m.Export(ctx)
	a.ok(err)

	// Nothing that a second program could go on with.
	state, err := a.store.Load(ctx)
	a.ok(err)
	var export map[string]any
	a.ok(json.Unmarshal(data, &export))
	for name := range export {
		if !strings.Contains(" format jid device identityKind identity trust ", " "+name+" ") {
			t.Errorf("%s is in the export", name)
		}
	}
	if len(data) > 2000 || bytes.Contains(data, state.Account) {
		t.Errorf("an export of %d bytes", len(data))
	}

	store := newTap(memstore.New(alice))
	a.ok(omemo.Import(ctx, store, data))
	again := &party{world: a.world, jid: alice, store: store}
	again.open()
	if again.device != a.device || again.fingerprint() != a.fingerprint() {
		t.Error("another device")
	}
	if len(again.sessions(b.peer(omemo.V2))) != 0 || len(again.owed(omemo.OwedBundle)) != 2 {
		t.Error("sessions, or no bundles owed")
	}
	again.trusts(b, omemo.Verified)
	if trust, _ := again.m.TrustOf(ctx, omemo.Address{JID: carol, Device: 1}, omemo.Fingerprint{1}); trust != omemo.Distrusted {
		t.Errorf("%v", trust)
	}
	for _, v := range omemo.Versions() {
		if again.bundle(v).SameKeys(a.bundle(v)) || again.bundle(v).Verify() != nil {
			t.Errorf("%v: pre keys were copied", v)
		}
	}
	again.lists(bob, omemo.V2)
	b.reads(again.send("two", bob), "two") // the same identity: no conflict

	// A scalar survives as well as a seed.
	keys := omemo.Keys{JID: carol, Device: 5, Scalar: &[32]byte{1, 2, 3}, Version: omemo.V2, SignedID: 1}
	scalar := newTap(memstore.New(carol))
	a.ok(scalar.Commit(ctx, keys.Changes()))
	m, err := omemo.NewManager(ctx, scalar, omemo.Options{})
	a.ok(err)
	data2, err := m.Export(ctx)
	a.ok(err)
	before, err := m.Fingerprint(ctx)
	a.ok(err)
	fresh := memstore.New(carol)
	a.ok(omemo.Import(ctx, fresh, data2))
	m, err = omemo.NewManager(ctx, fresh, omemo.Options{})
	a.ok(err)
	if after, _ := m.Fingerprint(ctx); after != before {
		t.Error("another identity")
	}
}

func TestWhatCannotBeImported(t *testing.T) {
	ctx := t.Context()
	a := newWorld(t).join(alice, omemo.Options{})
	data, err := a.m.Export(ctx)
	a.ok(err)
	if err := omemo.Import(ctx, a.store, data); !errors.Is(err, omemo.ErrWrongAccount) {
		t.Errorf("into a store that has an account: %v", err)
	}
	if err := omemo.Import(ctx, memstore.New(bob), data); !errors.Is(err, omemo.ErrWrongAccount) {
		t.Errorf("into the store of another account: %v", err)
	}
	for name, change := range map[string]func(map[string]any){
		"a newer form":       func(e map[string]any) { e["format"] = 2 },
		"no form":            func(e map[string]any) { delete(e, "format") },
		"no identity":        func(e map[string]any) { delete(e, "identity") },
		"a short identity":   func(e map[string]any) { e["identity"] = "AAAA" },
		"a kind of identity": func(e map[string]any) { e["identityKind"] = 2 },
		"no device":          func(e map[string]any) { e["device"] = 0 },
		"a fingerprint": func(e map[string]any) {
			e["trust"] = []any{map[string]any{"jid": bob, "fingerprint": "xyz"}}
		},
	} {
		var export map[string]any
		a.ok(json.Unmarshal(data, &export))
		change(export)
		changed, err := json.Marshal(export)
		a.ok(err)
		store := newTap(memstore.New(alice))
		if err := omemo.Import(ctx, store, changed); !errors.Is(err, omemo.ErrExport) || store.commits != 0 {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := omemo.Import(ctx, memstore.New(alice), []byte("{")); !errors.Is(err, omemo.ErrExport) {
		t.Error(err)
	}
	store := newTap(memstore.New(alice))
	for n := range 2 {
		store.failAt(n)
		if err := omemo.Import(ctx, store, data); !errors.Is(err, errStore) {
			t.Errorf("call %d fails: %v", n, err)
		}
	}
	store.fail = nil
	a.ok(omemo.Import(ctx, store, data))
}

// behind says that the store was found older than it once was.
type behind struct{ *tap }

func (s behind) Load(ctx context.Context) (omemo.State, error) {
	state, err := s.tap.Load(ctx)
	state.RolledBack = true
	return state, err
}

func TestARollbackIsSeenInOurOwnBundle(t *testing.T) {
	versions(t, func(t *testing.T, v omemo.Version) {
		ctx := t.Context()
		a, b := pair(t, v)
		ahead := func(bundle *omemo.Bundle, want bool) {
			t.Helper()
			if got, err := b.m.Ahead(ctx, bundle); err != nil || got != want {
				t.Errorf("ahead %t, %v, want %t", got, err, want)
			}
		}
		published := b.bundle(v)
		ahead(published, false)
		ahead(a.bundle(v), false) // not ours
		for name, change := range map[string]func(*omemo.Bundle){
			"pre key":        func(x *omemo.Bundle) { x.PreKeys = []omemo.PublicPreKey{{ID: omemo.PreKeyCount + 1}} },
			"signed pre key": func(x *omemo.Bundle) { x.SignedPreKeyID = 2 },
		} {
			later := *published
			change(&later)
			if got, err := b.m.Ahead(ctx, &later); err != nil || !got {
				t.Errorf("a %s that was never made: %t, %v", name, got, err)
			}
		}
		wild := *published
		wild.SignedPreKeyID, wild.PreKeys = 1<<32-1, []omemo.PublicPreKey{{ID: 1 << 31}}
		ahead(&wild, false) // ids that nobody makes are the server's
	})
}

func TestQuarantineNeverSendsInAnOldSession(t *testing.T) {
	versions(t, func(t *testing.T, v omemo.Version) {
		synctest.Test(t, func(t *testing.T) {
			ctx := t.Context()
			a, b := pair(t, v)
			a.reads(b.send("one", alice), "one")
			b.reads(a.send("two", bob), "two")
			late := a.send("late", bob)
			for range 60 { // a heartbeat is owed in the session
				b.reads(a.send("more", bob), "more")
			}
			b.send("waiting", alice)
			heartbeat := b.owed(omemo.OwedHeartbeat)
			if len(heartbeat) != 1 {
				t.Fatalf("owed %v", heartbeat)
			}
			m, err := omemo.NewManager(ctx, behind{b.store}, omemo.Options{})
			b.ok(err)
			b.m = m
			if rolledBack, err := b.m.RolledBack(ctx); err != nil || !rolledBack {
				t.Fatalf("%t, %v", rolledBack, err)
			}
			published := b.bundle(v)
			published.SignedPreKeyID = 40
			published.PreKeys[0].ID = 5000
			old := b.sessions(a.peer(v))
			var dropped []omemo.OutboxRow
			for n, ok := 0, false; !ok; n++ { // it fails as a whole
				before := b.store.rows()
				b.store.failAt(n)
				dropped, ok, err = b.m.Quarantine(ctx, published, nil)
				b.store.fail = nil
				if !ok && (!errors.Is(err, errStore) || b.store.rows() != before) {
					t.Fatalf("call %d fails: %v, or the store has changed", n, err)
				}
			}
			b.ok(err)
			if len(dropped) != 2 {
				t.Errorf("%d stanzas dropped", len(dropped))
			}
			if rolledBack, _ := b.m.RolledBack(ctx); rolledBack {
				t.Error("still rolled back")
			}
			if rows, _ := b.m.Outbox(ctx, 0, 10); len(rows) != 0 {
				t.Error("the outbox is not empty")
			}
			fresh := b.bundle(v)
			if fresh.SignedPreKeyID != 41 || fresh.PreKeys[0].ID != 5001 || len(fresh.PreKeys) != omemo.PreKeyCount || b.fingerprint() != a.knows(b) {
				t.Errorf("signed pre key %d, pre keys from %d", fresh.SignedPreKeyID, fresh.PreKeys[0].ID)
			}

			// The old session reads, and is never sent in.
			b.restart()
			for _, s := range b.sessions(a.peer(v)) {
				if !s.Archived() {
					t.Fatal("a session is current")
				}
			}
			o := b.reads(late, "late")
			if o.Session.ID() != old[0].ID() || b.session(a.peer(v)) != nil {
				t.Error("the old session is current again")
			}
			sealed, err := b.answer(heartbeat[0])
			sealedNothing(t, sealed, err, omemo.ErrNoSession)
			next := b.send("next", alice)
			if !next.Devices[0].Exchange {
				t.Error("the next message does not begin a session")
			}
			a.reads(next, "next")
			b.reads(a.send("works", bob), "works")

			// At most once a day.
			if _, ok, err := b.m.Quarantine(ctx); ok || err != nil {
				t.Errorf("again at once: %t, %v", ok, err)
			}
			time.Sleep(24 * time.Hour)
			if _, ok, err := b.m.Quarantine(ctx); !ok || err != nil {
				t.Errorf("a day later: %t, %v", ok, err)
			}
		})
	})
}

// knows returns the identity key that is known for a device.
func (p *party) knows(other *party) omemo.Fingerprint {
	p.Helper()
	_, devices, err := p.m.Account(p.ctx, other.jid)
	p.ok(err)
	for _, d := range devices {
		if d.Address == other.address() {
			return d.Fingerprint
		}
	}
	return omemo.Fingerprint{}
}
