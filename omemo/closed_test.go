package omemo_test

import (
	"context"
	"errors"
	"slices"
	"testing"

	"example.org/omellium/omemo"
	"example.org/omellium/omemo/memstore"
)

var errHook = errors.New("hook fails")

// failAt makes one call of the store fail: the n-th from now on, counted from 0.
// It reports whether that call came.
func (s *tap) failAt(n int) (reached func() bool) {
	count := 0
	s.fail = func(string) error {
		count++
		if count == n+1 {
			return errStore
		}
		return nil
	}
	return func() bool { return count > n }
}

// sealedNothing checks the outcome of a message that was not sent.
func sealedNothing(t *testing.T, sealed *omemo.Sealed, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%v, want %v", err, want)
	}
	if sealed != nil && (len(sealed.Messages) > 0 || len(sealed.Outbox) > 0) {
		t.Error("something is there to be sent in spite of the error")
	}
}

func TestEncryptFailsClosed(t *testing.T) {
	t.Parallel()
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	type attempt struct {
		name    string
		options omemo.Options
		do      func(a, b *party, bundle *omemo.Bundle) (*omemo.Sealed, error)
		want    error
	}
	encrypt := func(ctx context.Context, p *party, r omemo.Render, b ...*omemo.Bundle) (*omemo.Sealed, error) {
		return p.m.Encrypt(ctx, both("text"), []string{bob}, r, b...)
	}
	attempts := []attempt{
		{"no device", omemo.Options{}, func(a, b *party, _ *omemo.Bundle) (*omemo.Sealed, error) {
			return a.m.Encrypt(t.Context(), both("text"), []string{carol}, stanzas("id", carol))
		}, omemo.ErrNoDevices},
		{"no device of one of two recipients", omemo.Options{}, func(a, b *party, bundle *omemo.Bundle) (*omemo.Sealed, error) {
			return a.m.Encrypt(t.Context(), both("text"), []string{bob, carol}, stanzas("id", carol), bundle)
		}, omemo.ErrNoDevices},
		{"no bundle", omemo.Options{}, func(a, b *party, _ *omemo.Bundle) (*omemo.Sealed, error) {
			return encrypt(t.Context(), a, stanzas("id", bob), nil)
		}, omemo.ErrNoBundle},
		{"bundle of another device", omemo.Options{}, func(a, b *party, bundle *omemo.Bundle) (*omemo.Sealed, error) {
			other := *bundle
			other.Owner.Device++
			return encrypt(t.Context(), a, stanzas("id", bob), &other)
		}, omemo.ErrNoBundle},
		{"bundle with a broken signature", omemo.Options{}, func(a, b *party, bundle *omemo.Bundle) (*omemo.Sealed, error) {
			broken := *bundle
			broken.Signature[0] ^= 1
			return encrypt(t.Context(), a, stanzas("id", bob), &broken)
		}, omemo.ErrBundle},
		{"bundle with a signed pre key of small order", omemo.Options{}, func(a, b *party, bundle *omemo.Bundle) (*omemo.Sealed, error) {
			broken := *bundle
			broken.PreKeys = []omemo.PublicPreKey{{ID: 1}}
			return encrypt(t.Context(), a, stanzas("id", bob), &broken)
		}, omemo.ErrBundle},
		{"bundle without pre keys", omemo.Options{}, func(a, b *party, bundle *omemo.Bundle) (*omemo.Sealed, error) {
			broken := *bundle
			broken.PreKeys = nil
			return encrypt(t.Context(), a, stanzas("id", bob), &broken)
		}, omemo.ErrBundle},
		{"untrusted", omemo.Options{Policy: omemo.Manual}, func(a, b *party, bundle *omemo.Bundle) (*omemo.Sealed, error) {
			return encrypt(t.Context(), a, stanzas("id", bob), bundle)
		}, omemo.ErrUntrusted},
		{"no form for the version", omemo.Options{}, func(a, b *party, bundle *omemo.Bundle) (*omemo.Sealed, error) {
			return a.m.Encrypt(t.Context(), omemo.Plaintext{}, []string{bob}, stanzas("id", bob), bundle)
		}, omemo.ErrNoForm},
		{"render", omemo.Options{}, func(a, b *party, bundle *omemo.Bundle) (*omemo.Sealed, error) {
			return encrypt(t.Context(), a, func(*omemo.Sealed) ([]omemo.Outgoing, error) { return nil, errHook }, bundle)
		}, errHook},
		{"cancelled context", omemo.Options{}, func(a, b *party, bundle *omemo.Bundle) (*omemo.Sealed, error) {
			return encrypt(cancelled, a, stanzas("id", bob), bundle)
		}, context.Canceled},
		{"context cancelled before the commit", omemo.Options{}, func(a, b *party, bundle *omemo.Bundle) (*omemo.Sealed, error) {
			ctx, cancel := context.WithCancel(t.Context())
			return encrypt(ctx, a, func(*omemo.Sealed) ([]omemo.Outgoing, error) { cancel(); return nil, nil }, bundle)
		}, context.Canceled},
	}
	for _, x := range attempts {
		versions(t, func(t *testing.T, v omemo.Version) {
			w := newWorld(t)
			a, b := w.join(alice, x.options), w.join(bob, omemo.Options{})
			w.meet(v)
			before := a.store.dump()
			sealed, err := x.do(a, b, b.small(v))
			sealedNothing(t, sealed, err, x.want)
			if a.store.dump() != before {
				t.Errorf("%s: the store has changed", x.name)
			}
			if x.options.Policy != nil {
				f, err := b.m.Fingerprint(t.Context())
				b.ok(err)
				a.ok(a.m.SetTrust(t.Context(), bob, f, omemo.Verified))
			}
			b.reads(a.send("next", bob), "next")
		})
	}
}

func TestOnlyOurOwnDevicesIsNotServed(t *testing.T) {
	versions(t, func(t *testing.T, v omemo.Version) {
		w := newWorld(t)
		a, own := w.join(alice, omemo.Options{}), w.join(alice, omemo.Options{})
		w.join(bob, omemo.Options{})
		w.meet(v)
		sealed, err := a.m.Encrypt(t.Context(), both("text"), []string{bob}, stanzas("id", bob), own.bundle(v))
		sealedNothing(t, sealed, err, omemo.ErrNoBundle)
		if len(sealed.Devices) != 2 {
			t.Errorf("%d devices are reported", len(sealed.Devices))
		}
	})
}

func TestDecryptFailsClosed(t *testing.T) {
	versions(t, func(t *testing.T, v omemo.Version) {
		a, b := pair(t, v)
		first := a.send("one", bob)
		attempts := func(sealed *omemo.Sealed) {
			t.Helper()
			message := b.find(sealed)
			before := b.store.dump()
			unchanged := func(name string, err, want error) {
				t.Helper()
				if !errors.Is(err, want) {
					t.Errorf("%s: %v, want %v", name, err, want)
				}
				if b.store.dump() != before {
					t.Fatalf("%s: the store has changed", name)
				}
			}
			_, err := b.m.Decrypt(t.Context(), message, func(*omemo.Opened) (omemo.Delivery, error) { return omemo.Delivery{}, errHook })
			unchanged("verify", err, errHook)
			ctx, cancel := context.WithCancel(t.Context())
			_, err = b.m.Decrypt(ctx, message, func(*omemo.Opened) (omemo.Delivery, error) { cancel(); return omemo.Delivery{}, nil })
			unchanged("cancelled before the commit", err, context.Canceled)
			_, err = b.m.Decrypt(ctx, message, accept)
			unchanged("cancelled", err, context.Canceled)
			// A store without transactions of that kind.
			_, err = b.m.Decrypt(t.Context(), message, func(*omemo.Opened) (omemo.Delivery, error) {
				return omemo.Delivery{Within: func(context.Context, any, omemo.Sealer) error { return nil }}, nil
			})
			unchanged("within", err, omemo.ErrNoTransaction)

			own := *message
			own.Sender = b.address()
			b.refuses(&own, omemo.ErrOwnMessage)
			none := *message
			none.Keys = nil
			b.refuses(&none, omemo.ErrNotForUs)
			other := *message
			other.Version = 3
			b.refuses(&other, omemo.ErrNotForUs)
			many := *message
			for range omemo.MaxCandidates {
				many.Keys = append(slices.Clone(many.Keys), message.Keys[0])
			}
			b.refuses(&many, omemo.ErrRefused)
		}
		attempts(first)
		b.reads(first, "one")
		a.reads(b.send("two", alice), "two")
		second := a.send("three", bob)
		attempts(second)
		b.reads(second, "three")
		b.refuses(b.find(second), omemo.ErrDuplicate)
		stranger := *b.find(a.send("four", bob))
		stranger.Sender = omemo.Address{JID: carol, Device: 1}
		b.refuses(&stranger, omemo.ErrNoSession)
	})
}

func TestTheManagerCannotBeOpened(t *testing.T) {
	existing := newWorld(t).join(alice, omemo.Options{}).store
	for name, store := range map[string]*tap{"existing": existing, "empty": newTap(memstore.New(alice))} {
		for n := 0; ; n++ {
			reached := store.failAt(n)
			_, err := omemo.NewManager(t.Context(), store, omemo.Options{})
			store.fail = nil
			if !reached() {
				if err != nil {
					t.Errorf("%s: %v", name, err)
				}
				break
			}
			if !errors.Is(err, errStore) || name == "empty" && store.commits != 0 {
				t.Errorf("%s, call %d fails: %v, %d commits", name, n, err, store.commits)
			}
		}
	}
}

func TestAStoreOfAnotherAccountIsRefused(t *testing.T) {
	w := newWorld(t)
	a := w.join(alice, omemo.Options{})
	state, err := a.store.Load(t.Context())
	a.ok(err)
	other := newTap(memstore.New(bob))
	a.ok(other.Commit(t.Context(), &omemo.Changes{Account: state.Account}))
	if _, err := omemo.NewManager(t.Context(), other, omemo.Options{}); !errors.Is(err, omemo.ErrWrongAccount) {
		t.Error(err)
	}
	a.ok(other.Commit(t.Context(), &omemo.Changes{Account: append([]byte{99}, state.Account[1:]...)}))
	if _, err := omemo.NewManager(t.Context(), other, omemo.Options{}); !errors.Is(err, omemo.ErrNewer) {
		t.Error(err)
	}
}

func TestADamagedSessionIsNotAMissingOne(t *testing.T) {
	versions(t, func(t *testing.T, v omemo.Version) {
		a, b := pair(t, v)
		b.reads(a.send("one", bob), "one")
		row, err := a.store.Store.Sessions(t.Context(), []omemo.Peer{b.peer(v)})
		a.ok(err)
		sound := slices.Clone(row[0].Record)
		row[0].Record[0] = 99
		a.ok(a.store.Commit(t.Context(), &omemo.Changes{Sessions: row}))
		a.restart()
		for range 2 { // not the second time either
			sealed, err := a.m.Encrypt(t.Context(), both("text"), []string{bob}, stanzas("id", bob), b.small(v))
			sealedNothing(t, sealed, err, omemo.ErrNewer)
		}
		row[0].Record = sound
		a.ok(a.store.Commit(t.Context(), &omemo.Changes{Sessions: row}))
		b.reads(a.send("two", bob), "two")
	})
}

func TestAManagerWhoseStoreWasTakenOverStops(t *testing.T) {
	versions(t, func(t *testing.T, v omemo.Version) {
		a, b := pair(t, v)
		b.reads(a.send("one", bob), "one")
		old := *a
		a.restart()
		sealed, err := old.m.Encrypt(t.Context(), both("text"), []string{bob}, stanzas("id", bob))
		sealedNothing(t, sealed, err, omemo.ErrFenced)
		if _, err := old.m.Sessions(t.Context(), b.peer(v)); !errors.Is(err, omemo.ErrFenced) {
			t.Errorf("what was cached is still there: %v", err)
		}
		b.reads(a.send("two", bob), "two")
		a.ok(a.store.Close())
		sealed, err = a.m.Encrypt(t.Context(), both("text"), []string{bob}, stanzas("id", bob))
		sealedNothing(t, sealed, err, omemo.ErrClosed)
	})
}
