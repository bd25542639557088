package omemo_test

import (
	"errors"
	"testing"

	"example.org/omellium/omemo"
)

// TestAStoreThatFailsAtAnyCall lets every operation fail at each of the calls it
// makes to the store, and repeats it.
func TestAStoreThatFailsAtAnyCall(t *testing.T) {
	t.Parallel()
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
