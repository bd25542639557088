package omemo_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"example.org/omellium/omemo"
)

// item returns a page's item for a message.
func item(message *omemo.Message, position int) omemo.PageItem {
	return omemo.PageItem{
		Message: message, Verify: accept, Stanza: []byte("<message/>"),
		Cursor: omemo.Cursor{Archive: bob, Position: fmt.Sprint(position)},
	}
}

// Pages of any size, with messages out of order, repeated and forged, interrupted
// by failing commits and restarts, open every message once.
func TestPages(t *testing.T) {
	versions(t, func(t *testing.T, v omemo.Version) {
		for seed := range uint64(30) {
			r := rand.New(rand.NewPCG(seed, uint64(v)))
			w := newWorld(t)
			b := w.join(bob, omemo.Options{})
			senders := []*party{w.join(alice, omemo.Options{}), w.join(carol, omemo.Options{}), w.join(alice, omemo.Options{})}
			w.meet(v)
			b.ok(b.m.CatchUp(t.Context(), true))

			var messages []*omemo.Message
			texts := make(map[string]bool)
			for i := range 60 {
				s := senders[r.IntN(len(senders))]
				switch r.IntN(12) {
				case 0: // the sender has lost its session: another key exchange
					s.ok(s.m.ForgetSessions(t.Context(), b.peer(v)))
				case 1: // and here a new ratchet key
					if sealed, err := b.trySend(both("back"), s.jid); err == nil {
						for _, m := range sealed.Messages {
							_, _ = s.receive(m)
						}
					}
				}
				text := fmt.Sprintf("text %d", i)
				texts[text] = true
				messages = append(messages, b.find(s.send(text, bob)))
				if r.IntN(8) == 0 {
					forged := *messages[len(messages)-1]
					forged.Payload = append([]byte{1}, forged.Payload...)
					messages = append(messages, &forged)
				}
			}
			// A window of disorder, as with a server that has several nodes; what comes
			// in key exchanges leads.
			for i := range messages {
				j := min(len(messages)-1, i+r.IntN(4))
				if !messages[i].Keys[0].Exchange && !messages[j].Keys[0].Exchange {
					messages[i], messages[j] = messages[j], messages[i]
				}
			}
			for range 10 {
				messages = append(messages, messages[r.IntN(len(messages))])
			}
			opened := make(map[string]int)
			for done := 0; done < len(messages); {
				b.store.fail = nil
				if r.IntN(5) == 0 {
					left := r.IntN(3)
					b.store.fail = func(call string) error {
						if call == "Commit" {
							if left--; left < 0 {
								return errStore
							}
						}
						return nil
					}
				}
				var page []omemo.PageItem
				for i := done; i < len(messages) && len(page) < 1+r.IntN(20); i++ {
					page = append(page, item(messages[i], i+1))
				}
				results, err := b.m.DecryptPage(t.Context(), page)
				if err != nil && !errors.Is(err, errStore) {
					t.Fatalf("seed %d: %v", seed, err)
				}
				if err == nil && len(results) != len(page) {
					t.Fatalf("seed %d: %d results of %d", seed, len(results), len(page))
				}
				for _, result := range results {
					switch {
					case result.Opened != nil && result.Opened.Plaintext != nil:
						opened[string(result.Opened.Plaintext)]++
					case errors.Is(result.Err, omemo.ErrDuplicate), errors.Is(result.Err, omemo.ErrRefused), errors.Is(result.Err, omemo.ErrKeyExchange):
					default:
						t.Fatalf("seed %d: %+v", seed, result)
					}
				}
				done += len(results)
				b.store.fail = nil
				if r.IntN(4) == 0 {
					b.restart()
					b.ok(b.m.CatchUp(t.Context(), true))
				}
				c, ok, err := b.m.Cursor(t.Context(), bob)
				if err != nil || ok != (done > 0) || ok && c.Position != fmt.Sprint(done) {
					t.Fatalf("seed %d: position %v %v after %d: %v", seed, c, ok, done, err)
				}
			}
			for text := range texts {
				if opened[text] != 1 {
					t.Errorf("seed %d: %q was opened %d times", seed, text, opened[text])
				}
			}
			rows, err := b.m.Inbox(t.Context(), 0, 1000)
			if err != nil || len(rows) != len(texts) {
				t.Errorf("seed %d: %d messages in the inbox: %v", seed, len(rows), err)
			}
			b.ok(b.m.CatchUp(t.Context(), false))
			keys, err := b.store.PreKeys(t.Context(), v)
			if err != nil || len(keys) != omemo.PreKeyCount {
				t.Errorf("seed %d: %d pre keys: %v", seed, len(keys), err)
			}
			for _, s := range senders {
				b.reads(s.send("after", bob), "after")
			}
		}
	})
}

// A page is one commit, once everybody in it is known.
func TestPageIsOneCommit(t *testing.T) {
	versions(t, func(t *testing.T, v omemo.Version) {
		a, b := pair(t, v)
		b.reads(a.send("hello", bob), "hello")
		var page []omemo.PageItem
		for i := range 50 {
			page = append(page, item(b.find(a.send(fmt.Sprint(i), bob)), i))
			page = append(page, omemo.PageItem{Stanza: []byte("<message>plain</message>"), Event: "plain", Cursor: page[2*i].Cursor})
		}
		before := b.store.commits
		results, err := b.m.DecryptPage(t.Context(), page)
		b.ok(err)
		if n := b.store.commits - before; n != 1 || len(results) != 100 {
			t.Errorf("%d commits, %d results", n, len(results))
		}
		rows, err := b.m.Inbox(t.Context(), 1, 1000)
		b.ok(err)
		for i, row := range rows {
			want := fmt.Sprint(i / 2)
			if i%2 == 1 {
				want = "<message>plain</message>"
			}
			if string(row.Stanza) != want {
				t.Fatalf("row %d holds %q, want %q", i, row.Stanza, want)
			}
		}
		if len(rows) != 100 {
			t.Errorf("%d rows", len(rows))
		}
	})
}

// What finds no session goes into the journal, and one that cannot be committed
// by itself keeps neither the others nor the position.
func TestPagePassesOver(t *testing.T) {
	versions(t, func(t *testing.T, v omemo.Version) {
		a, b := pair(t, v)
		b.reads(a.send("hello", bob), "hello")
		a.reads(b.send("back", alice), "back") // from now on without key exchange
		stray := *b.find(a.send("stray", bob))
		stray.Sender = omemo.Address{JID: carol, Device: 7} // a device without a session
		poison := item(b.find(a.send("poison", bob)), 2)
		poison.Verify = func(o *omemo.Opened) (omemo.Delivery, error) {
			return omemo.Delivery{Stanza: []byte("poison")}, nil
		}
		b.store.refuse = func(c *omemo.Changes) error {
			for _, row := range c.Inbox {
				if strings.Contains(string(row.Stanza), "poison") {
					return errStore
				}
			}
			return nil
		}
		page := []omemo.PageItem{item(&stray, 1), poison, item(b.find(a.send("good", bob)), 3)}
		results, err := b.m.DecryptPage(t.Context(), page)
		b.ok(err)
		if len(results) != 3 || !results[0].Kept || !errors.Is(results[0].Err, omemo.ErrNoSession) ||
			!results[1].Kept || !errors.Is(results[1].Err, omemo.ErrCommit) || results[2].Opened == nil {
			t.Fatalf("%+v", results)
		}
		rows, err := b.m.Kept(t.Context(), omemo.Address{})
		b.ok(err)
		c, _, err := b.m.Cursor(t.Context(), bob)
		b.ok(err)
		if len(rows) != 2 || c.Position != "3" {
			t.Errorf("%d rows, position %q", len(rows), c.Position)
		}
	})
}

// A message that can neither be committed nor be kept ends the page before it:
// nothing passes it, and it is opened when the store is well again.
func TestPageEndsBeforeWhatIsNotKept(t *testing.T) {
	versions(t, func(t *testing.T, v omemo.Version) {
		a, b := pair(t, v)
		b.reads(a.send("hello", bob), "hello")
		b.store.refuse = func(c *omemo.Changes) error {
			if len(c.Inbox) > 0 {
				return errStore
			}
			return nil
		}
		deliver := func(o *omemo.Opened) (omemo.Delivery, error) { return omemo.Delivery{Stanza: o.Plaintext}, nil }
		var page []omemo.PageItem
		for i := range omemo.JournalPerDevice + 2 {
			p := item(b.find(a.send(fmt.Sprint(i), bob)), i)
			p.Verify = deliver
			page = append(page, p)
		}
		results, err := b.m.DecryptPage(t.Context(), page)
		if !errors.Is(err, errStore) || len(results) != omemo.JournalPerDevice {
			t.Fatalf("%d results, error %v", len(results), err)
		}
		c, _, err := b.m.Cursor(t.Context(), bob)
		b.ok(err)
		if want := fmt.Sprint(omemo.JournalPerDevice - 1); c.Position != want {
			t.Errorf("position %q, want %q", c.Position, want)
		}
		plain := []omemo.PageItem{{Stanza: []byte("<message>plain</message>"), Event: "plain", Cursor: omemo.Cursor{Archive: bob, Position: "plain"}}}
		if results, err := b.m.DecryptPage(t.Context(), plain); !errors.Is(err, errStore) || len(results) != 0 {
			t.Errorf("in clear: %d results, error %v", len(results), err)
		}
		b.store.refuse = nil
		results, err = b.m.DecryptPage(t.Context(), page[omemo.JournalPerDevice:])
		b.ok(err)
		if len(results) != 2 || results[0].Opened == nil || results[1].Opened == nil {
			t.Errorf("%+v", results)
		}
	})
}

// Messages that run something inside their commit have one of their own.
func TestPageWithin(t *testing.T) {
	versions(t, func(t *testing.T, v omemo.Version) {
		a, b := pair(t, v)
		b.reads(a.send("hello", bob), "hello")
		store := &transacting{tap: b.store}
		m, err := omemo.NewManager(t.Context(), store, omemo.Options{})
		b.ok(err)
		var page []omemo.PageItem
		var seen []string
		for i := range 4 {
			p := item(b.find(a.send(fmt.Sprint(i), bob)), i)
			p.Verify = func(o *omemo.Opened) (omemo.Delivery, error) {
				text := string(o.Plaintext)
				return within(func(context.Context, any, omemo.Sealer) error {
					if text == "2" {
						return errStore
					}
					seen = append(seen, text)
					return nil
				})(o)
			}
			page = append(page, p)
		}
		results, err := m.DecryptPage(t.Context(), page)
		b.ok(err)
		if len(results) != 4 || !results[2].Kept || strings.Join(seen, " ") != "0 1 3" {
			t.Errorf("%+v, handled %q", results, seen)
		}
		c, _, err := m.Cursor(t.Context(), bob)
		b.ok(err)
		if c.Position != "3" {
			t.Errorf("position %q", c.Position)
		}
	})
}

// A position that was marked never takes the place of a newer one.
func TestPositionMarked(t *testing.T) {
	_, b := pair(t, omemo.V2)
	at := func(position string) omemo.Cursor { return omemo.Cursor{Archive: bob, Position: position} }
	stands := func(want string) {
		t.Helper()
		c, _, err := b.m.Cursor(t.Context(), bob)
		b.ok(err)
		if c.Position != want {
			t.Errorf("position %q, want %q", c.Position, want)
		}
	}
	b.m.Reached(at("1"))
	b.store.fail = func(string) error { return errStore }
	if err := b.m.Flush(t.Context()); !errors.Is(err, errStore) {
		t.Error(err)
	}
	b.store.fail = nil
	b.ok(b.m.Flush(t.Context()))
	stands("1")
	b.m.Reached(at("2"))
	b.ok(b.m.SetCursor(t.Context(), at("3")))
	b.ok(b.m.Flush(t.Context()))
	stands("3")
}
