package omemo_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
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
				return omemo.Delivery{Within: func(context.Context, any, omemo.SealFunc) error { return nil }}, nil
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

// TestAStoreThatFailsAtAnyCall lets every operation fail at each of the calls it
// makes to the store, and repeats it.
func TestAStoreThatFailsAtAnyCall(t *testing.T) {
	versions(t, func(t *testing.T, v omemo.Version) {
		ctx := t.Context()
		// Each prepares a pair and returns the operation and whose store fails.
		operations := map[string]func(a, b *party) (*party, func() error){
			"first message out": func(a, b *party) (*party, func() error) {
				bundle := b.small(v)
				return a, func() error {
					sealed, err := a.m.Encrypt(ctx, both("text"), []string{bob}, stanzas("id", bob), bundle)
					if err == nil {
						a.tapped(sealed)
						b.reads(sealed, "text")
					} else if sealed != nil && len(sealed.Messages) > 0 {
						t.Error("something is there to be sent in spite of the error")
					}
					return err
				}
			},
			"key exchange in": func(a, b *party) (*party, func() error) {
				message := b.find(a.send("text", bob))
				return b, func() error { _, err := b.receive(message); return err }
			},
			"key exchange of a dropped session": func(a, b *party) (*party, func() error) {
				message := b.find(a.send("text", bob))
				_, err := b.receive(message)
				b.ok(err)
				return b, func() error {
					_, err := b.receive(message)
					if errors.Is(err, omemo.ErrDuplicate) {
						return nil
					}
					return err
				}
			},
			"message without a session": func(a, b *party) (*party, func() error) {
				b.reads(a.send("one", bob), "one")
				a.reads(b.send("two", alice), "two")
				message := *b.find(a.send("text", bob))
				message.Sender.Device++
				return b, func() error {
					_, err := b.receive(&message)
					if errors.Is(err, omemo.ErrNoSession) {
						return nil
					}
					return err
				}
			},
			"late message in": func(a, b *party) (*party, func() error) {
				late := b.find(a.send("late", bob))
				b.reads(a.send("one", bob), "one")
				b.restart()
				return b, func() error { _, err := b.receive(late); return err }
			},
			"answer": func(a, b *party) (*party, func() error) {
				b.reads(a.send("one", bob), "one")
				row := b.owed(omemo.OwedCompletion)[0]
				b.restart()
				return b, func() error {
					_, err := b.m.Answer(ctx, row.OwedID, omemo.Plaintext{}, stanzas("id", alice))
					return err
				}
			},
			"replace": func(a, b *party) (*party, func() error) {
				b.reads(a.send("one", bob), "one")
				a.restart()
				bundle := b.small(v)
				return a, func() error { _, err := a.m.Replace(ctx, bundle, stanzas("id", bob)); return err }
			},
			"missing": func(a, b *party) (*party, func() error) {
				a.restart()
				return a, func() error { _, err := a.m.Missing(ctx, both("text"), []string{bob}); return err }
			},
			"upkeep": func(a, b *party) (*party, func() error) {
				return a, func() error { _, err := a.m.Upkeep(ctx); return err }
			},
			"bundle": func(a, b *party) (*party, func() error) {
				return a, func() error { _, err := a.m.Bundle(ctx, v); return err }
			},
			"published": func(a, b *party) (*party, func() error) {
				return a, func() error { return a.m.Published(ctx, a.bundleOf(v)) }
			},
			"list": func(a, b *party) (*party, func() error) {
				return a, func() error { return a.m.SetList(ctx, carol, v, []omemo.DeviceID{1}) }
			},
			"compare": func(a, b *party) (*party, func() error) {
				a.restart()
				bundle := b.small(v)
				return a, func() error { _, err := a.m.Compare(ctx, bundle); return err }
			},
			"bundle failed": func(a, b *party) (*party, func() error) {
				a.restart()
				return a, func() error { return a.m.BundleFailed(ctx, b.peer(v)) }
			},
			"introduce": func(a, b *party) (*party, func() error) {
				a.restart()
				return a, func() error { _, err := a.m.Introduce(ctx, b.peer(v)); return err }
			},
			"account": func(a, b *party) (*party, func() error) {
				a.restart()
				return a, func() error { _, _, err := a.m.Account(ctx, bob); return err }
			},
			"trust": func(a, b *party) (*party, func() error) {
				a.restart()
				return a, func() error { return a.m.SetTrust(ctx, bob, omemo.Fingerprint{1}, omemo.Distrusted) }
			},
			"trust of": func(a, b *party) (*party, func() error) {
				a.restart()
				return a, func() error { _, err := a.m.TrustOf(ctx, b.address(), omemo.Fingerprint{1}); return err }
			},
			"accept identity": func(a, b *party) (*party, func() error) {
				c := a.join(carol, omemo.Options{})
				changed := conflict(a, c, v)
				a.restart()
				return a, func() error { return a.m.AcceptIdentity(ctx, c.peer(v), changed) }
			},
			"end of catching up": func(a, b *party) (*party, func() error) {
				a.ok(a.m.CatchUp(ctx, true))
				a.reads(b.send("one", alice), "one")
				return a, func() error { return a.m.CatchUp(ctx, false) }
			},
			"sessions": func(a, b *party) (*party, func() error) {
				a.restart()
				return a, func() error { _, err := a.m.Sessions(ctx, b.peer(v)); return err }
			},
			"owed": func(a, b *party) (*party, func() error) {
				return a, func() error { _, err := a.m.Owed(ctx); return err }
			},
			"inbox": func(a, b *party) (*party, func() error) {
				return a, func() error { _, err := a.m.Inbox(ctx, 0, 1); return err }
			},
			"outbox": func(a, b *party) (*party, func() error) {
				return a, func() error { _, err := a.m.Outbox(ctx, 0, 1); return err }
			},
			"flush": func(a, b *party) (*party, func() error) {
				a.m.Later([]uint64{1}, []uint64{1})
				return a, func() error { return a.m.Flush(ctx) }
			},
		}
		for name, prepare := range operations {
			t.Run(name, func(t *testing.T) {
				a, b := pair(t, v)
				p, do := prepare(a, b)
				for n := 0; ; n++ {
					before := p.store.rows()
					reached := p.store.failAt(n)
					err := do()
					p.store.fail = nil
					if !reached() {
						if err != nil {
							t.Errorf("without a failure: %v", err)
						}
						if n == 0 {
							t.Error("the store was never asked")
						}
						break
					}
					if !errors.Is(err, errStore) {
						t.Errorf("call %d fails: %v", n, err)
					}
					if p.store.rows() != before {
						t.Errorf("call %d fails: the store has changed", n)
					}
				}
				b.m, a.m = reopened(b), reopened(a)
				sealed, err := a.m.Encrypt(ctx, both("next"), []string{bob}, stanzas("next", bob), b.small(v))
				a.ok(err)
				a.tapped(sealed)
				b.reads(sealed, "next")
				a.reads(b.send("next", alice), "next")
			})
		}
	})
}

func reopened(p *party) *omemo.Manager { p.restart(); return p.m }

func (p *party) bundleOf(v omemo.Version) *omemo.Bundle {
	return &omemo.Bundle{Version: v, Owner: p.address()}
}

// conflict has a learn another identity key of b, and returns it.
func conflict(a, b *party, v omemo.Version) omemo.Fingerprint {
	_, err := a.m.Compare(a.ctx, b.small(v))
	a.ok(err)
	other := newWorld(a.tb).join(bob, omemo.Options{})
	changed := other.bundle(v)
	changed.Owner = b.address()
	_, err = a.m.Compare(a.ctx, changed)
	a.ok(err)
	f, err := changed.Fingerprint()
	a.ok(err)
	return f
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

func TestWaitingForATurnEndsWithTheContext(t *testing.T) {
	a, b := pair(t, omemo.V2)
	b.reads(a.send("one", bob), "one")
	busy, done := make(chan struct{}), make(chan struct{})
	var wait, waiters sync.WaitGroup
	wait.Go(func() {
		_, err := a.m.Encrypt(t.Context(), both("two"), []string{bob}, func(*omemo.Sealed) ([]omemo.Outgoing, error) {
			close(busy)
			<-done
			return nil, nil
		})
		if err != nil {
			t.Error(err)
		}
	})
	<-busy
	ctx, cancel := context.WithCancel(t.Context())
	started := make(chan struct{})
	waiters.Go(func() {
		close(started)
		if _, err := a.m.Device(ctx); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		if _, err := a.m.Fingerprint(ctx); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		if err := a.m.CatchUp(ctx, true); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		if _, err := a.m.Owed(ctx); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
	<-started
	cancel()
	a.m.Later(nil, nil) // does not wait
	waiters.Wait()
	close(done)
	wait.Wait()
}

func TestConcurrentUse(t *testing.T) {
	versions(t, func(t *testing.T, v omemo.Version) {
		a, b := pair(t, v)
		b.reads(a.send("one", bob), "one")
		a.reads(b.send("two", alice), "two")
		const senders = 32
		sealed := make(chan *omemo.Sealed, senders)
		var wait sync.WaitGroup
		for i := range senders {
			wait.Go(func() {
				s, err := a.m.Encrypt(t.Context(), both(fmt.Sprint(i)), []string{bob}, stanzas(fmt.Sprint(i), bob))
				if err != nil {
					t.Error(err)
				}
				sealed <- s
			})
		}
		wait.Wait()
		close(sealed)
		var mu sync.Mutex
		var texts [][]byte
		for s := range sealed {
			a.tapped(s)
			message := b.find(s)
			for range 2 { // each comes twice
				wait.Go(func() {
					o, err := b.m.Decrypt(t.Context(), message, accept)
					if errors.Is(err, omemo.ErrDuplicate) {
						return
					}
					if err != nil {
						t.Error(err)
						return
					}
					mu.Lock()
					defer mu.Unlock()
					texts = append(texts, o.Plaintext)
				})
			}
		}
		wait.Wait()
		slices.SortFunc(texts, bytes.Compare)
		if texts = slices.CompactFunc(texts, bytes.Equal); len(texts) != senders {
			t.Errorf("%d texts, want %d, each once", len(texts), senders)
		}
		rows, err := b.m.Inbox(t.Context(), 0, 100)
		b.ok(err)
		if len(rows) != senders+1 {
			t.Errorf("%d rows in the inbox", len(rows))
		}
	})
}
