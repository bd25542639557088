package omemo_test

import (
	"errors"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"example.org/omellium/omemo"
	"example.org/omellium/omemo/memstore"
)

func TestAdvertIsKept(t *testing.T) {
	ctx := t.Context()
	store := memstore.New("bot@example.org")
	m, err := omemo.NewManager(ctx, store, omemo.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if a, ok, err := m.Advert(ctx); ok || err != nil {
		t.Fatalf("nothing was written down: %+v, %v", a, err)
	}
	const week = omemo.SignedPreKeyPeriod
	for _, c := range []struct{ given, kept omemo.Advert }{
		{omemo.Advert{Versions: omemo.Versions()}, omemo.Advert{Versions: []omemo.Version{omemo.Legacy, omemo.V2}, SignedPreKeyPeriod: week}},
		{
			omemo.Advert{Versions: []omemo.Version{omemo.Legacy, omemo.Legacy}, SignedPreKeyPeriod: 4 * week},
			omemo.Advert{Versions: []omemo.Version{omemo.Legacy}, SignedPreKeyPeriod: 4 * week},
		},
		{
			omemo.Advert{Versions: []omemo.Version{omemo.V2}, Label: strings.Repeat("\U0001F511", omemo.MaxLabel), SignedPreKeyPeriod: week + 1},
			omemo.Advert{Versions: []omemo.Version{omemo.V2}, Label: strings.Repeat("\U0001F511", omemo.MaxLabel), SignedPreKeyPeriod: week + 1},
		},
		{omemo.Advert{}, omemo.Advert{SignedPreKeyPeriod: week}},
	} {
		if err := m.SetAdvert(ctx, c.given); err != nil {
			t.Fatal(err)
		}
		// Whatever else changes the account keeps it.
		if err := m.Rotate(ctx); err != nil {
			t.Fatal(err)
		}
		store = store.Reopen()
		if m, err = omemo.NewManager(ctx, store, omemo.Options{}); err != nil {
			t.Fatal(err)
		}
		if a, ok, err := m.Advert(ctx); !ok || err != nil || !reflect.DeepEqual(a, c.kept) {
			t.Errorf("given %+v, kept %+v, %v", c.given, a, err)
		}
	}
	for _, bad := range []omemo.Advert{
		{Versions: []omemo.Version{3}}, {SignedPreKeyPeriod: week - 1}, {SignedPreKeyPeriod: 4*week + 1}, {SignedPreKeyPeriod: -week},
	} {
		if err := m.SetAdvert(ctx, bad); err == nil {
			t.Errorf("%+v was written down", bad)
		}
	}
	for _, label := range []string{"line\nbreak", strings.Repeat("x", omemo.MaxLabel+1), " "} {
		if err := m.SetAdvert(ctx, omemo.Advert{Label: label}); !errors.Is(err, omemo.ErrLabel) {
			t.Errorf("%q: %v", label, err)
		}
	}
	// Another device says nothing yet.
	if err := m.Reset(ctx); err != nil {
		t.Fatal(err)
	}
	if a, ok, err := m.Advert(ctx); ok || err != nil {
		t.Errorf("after a reset: %+v, %v", a, err)
	}
}

// What is known is not committed again.
func TestAdvertIsCommittedOnce(t *testing.T) {
	_, b := pair(t, omemo.V2)
	a := omemo.Advert{Versions: []omemo.Version{omemo.V2}, Label: "orchard"}
	b.ok(b.m.SetAdvert(t.Context(), a))
	first := b.store.observed
	if first.Account == nil {
		t.Fatal("not committed")
	}
	b.ok(b.m.SetAdvert(t.Context(), a))
	if b.store.observed != first {
		t.Error("committed again")
	}
	a.Versions[0] = omemo.Legacy // the caller's own
	if kept, _, err := b.m.Advert(t.Context()); err != nil || kept.Versions[0] != omemo.V2 {
		t.Errorf("%+v, %v", kept, err)
	}
}

func TestSignedPreKeyDue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		m, err := omemo.NewManager(ctx, memstore.New("bot@example.org"), omemo.Options{SignedPreKeyPeriod: 2 * omemo.SignedPreKeyPeriod})
		if err != nil {
			t.Fatal(err)
		}
		due := func() time.Duration {
			t.Helper()
			at, err := m.SignedPreKeyDue(ctx, omemo.V2)
			if err != nil {
				t.Fatal(err)
			}
			return time.Until(at)
		}
		if in := due(); in != 2*omemo.SignedPreKeyPeriod {
			t.Errorf("due in %v", in)
		}
		time.Sleep(15 * 24 * time.Hour)
		if in := due(); in != -24*time.Hour {
			t.Errorf("due in %v", in)
		}
		if _, err := m.Upkeep(ctx); err != nil {
			t.Fatal(err)
		}
		if in := due(); in != 2*omemo.SignedPreKeyPeriod {
			t.Errorf("rotated; due in %v", in)
		}
	})
}
