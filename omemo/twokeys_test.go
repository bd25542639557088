package omemo_test

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"example.org/omellium/omemo"
)

// doubled sends a text with several keys for one device, each the next in its
// chain, as Profanity does in rooms.
func (p *party) doubled(text string, to *party, v omemo.Version, keys int) *omemo.Message {
	p.Helper()
	message := to.find(p.send(text, to.jid))
	material, err := to.m.Material(p.ctx, message)
	p.ok(err)
	for len(message.Keys) < keys {
		message.Keys = append(message.Keys, p.sealed(to, v, material))
	}
	return message
}

// sealed seals key material in the current session.
func (p *party) sealed(to *party, v omemo.Version, material []byte) omemo.Key {
	p.Helper()
	k, err := p.m.SealIn(p.ctx, to.peer(v), 0, material, [32]byte{1}, false)
	p.ok(err)
	return k
}

// with returns the message with some of its keys, or others.
func with(message *omemo.Message, keys ...omemo.Key) *omemo.Message {
	m := *message
	m.Keys = keys
	return &m
}

// TestSeveralKeysForThisDevice: the message is read once, from whichever keys a
// copy is left with.
func TestSeveralKeysForThisDevice(t *testing.T) {
	for name, test := range map[string]struct {
		talked   bool  // the session is confirmed
		order    []int // of the keys; -1: one for another account's device with our id
		first    []int // the keys of the copy that comes first; nil: all
		received int   // in the chain of this message
	}{
		"key exchange":                   {order: []int{0, 1}, received: 2},
		"key exchange, the other order":  {order: []int{1, 0}, received: 2},
		"key exchange, one beside":       {order: []int{-1, 0, -1, 1, -1}, received: 2},
		"message":                        {talked: true, order: []int{0, 1}, received: 2},
		"message, the other order":       {talked: true, order: []int{1, 0}, received: 2},
		"message, one beside":            {talked: true, order: []int{-1, 1, -1, 0, -1}, received: 2},
		"message, the same key twice":    {talked: true, order: []int{0, 0, 1, 1}, received: 2},
		"message, three keys":            {talked: true, order: []int{1, 2, 0}, received: 3},
		"message, as many as may be":     {talked: true, order: []int{7, 3, 0, 1, 2, 4, 5, 6}, received: 8},
		"the second alone comes first":   {talked: true, order: []int{0, 1}, first: []int{1}, received: 2},
		"the first alone comes first":    {talked: true, order: []int{1, 0}, first: []int{0}, received: 1},
		"an exchange alone, second only": {order: []int{0, 1}, first: []int{1}, received: 2},
	} {
		t.Run(name, func(t *testing.T) {
			versions(t, func(t *testing.T, v omemo.Version) {
				a, b := pair(t, v)
				c := a.join(carol, omemo.Options{})
				a.lists(carol, v)
				if test.talked {
					b.reads(a.send("one", bob), "one")
					a.reads(b.send("back", alice), "back")
				}
				foreign := c.find(a.send("for carol", carol)).Keys[0]
				foreign.Address = b.address()
				message := a.doubled("two", b, v, 1+slices.Max(test.order))
				choose := func(order ...int) *omemo.Message {
					var keys []omemo.Key
					for _, i := range order {
						if i < 0 {
							keys = append(keys, foreign)
						} else {
							keys = append(keys, message.Keys[i])
						}
					}
					return with(message, keys...)
				}
				whole := choose(test.order...)

				// Refused, it changes nothing.
				spoiled := *whole
				spoiled.Payload = slices.Clone(whole.Payload)
				spoiled.Payload[0] ^= 1
				b.refuses(&spoiled, omemo.ErrRefused)
				before := b.store.dump()
				_, err := b.m.Decrypt(t.Context(), whole, func(*omemo.Opened) (omemo.Delivery, error) { return omemo.Delivery{}, errHook })
				if !errors.Is(err, omemo.ErrVerify) || b.store.dump() != before {
					t.Errorf("unverified: %v", err)
				}
				b.store.fail = func(call string) error {
					if call == "Commit" {
						return errStore
					}
					return nil
				}
				b.refuses(whole, errStore)
				b.store.fail = nil

				first := whole
				if test.first != nil {
					first = choose(test.first...)
				}
				o, err := b.receive(first)
				b.ok(err)
				if string(o.Plaintext) != "two" || o.Built == test.talked || o.FirstSeen == test.talked {
					t.Errorf("%+v", o)
				}
				if s := b.session(a.peer(v)); s.ReceivingChain() != test.received || o.Session.ReceivingChain() != test.received {
					t.Errorf("%d messages in the chain, %d in the result, want %d", s.ReceivingChain(), o.Session.ReceivingChain(), test.received)
				}
				copies := func() {
					b.refuses(whole, omemo.ErrDuplicate)
					slices.Reverse(whole.Keys)
					b.refuses(whole, omemo.ErrDuplicate)
					if test.first == nil {
						for i := range message.Keys {
							b.refuses(choose(i), omemo.ErrDuplicate)
							b.refuses(choose(-1, i, -1), omemo.ErrDuplicate)
						}
					}
					b.refuses(choose(-1), nil)
				}
				copies()
				b.restart()
				copies()

				rows, err := b.m.Inbox(t.Context(), 0, 100)
				b.ok(err)
				if n := 1; !test.talked && len(rows) != n || test.talked && len(rows) != n+1 {
					t.Errorf("%d messages in the inbox", len(rows))
				}
				b.reads(a.send("three", bob), "three")
				a.reads(b.send("four", alice), "four")
				b.reads(a.send("five", bob), "five")
				copies()
			})
		})
	}
}

// A page of an archive reads them once as well.
func TestSeveralKeysInAPage(t *testing.T) {
	versions(t, func(t *testing.T, v omemo.Version) {
		a, b := pair(t, v)
		b.ok(b.m.CatchUp(t.Context(), true))
		var page []omemo.PageItem
		var want []string
		for i := range 40 { // beyond the message that a heartbeat answers
			text := fmt.Sprint("text ", i)
			want = append(want, text)
			m := a.doubled(text, b, v, 1)
			material, err := b.m.Material(t.Context(), m)
			b.ok(err)
			m.Keys = append(m.Keys, a.sealed(b, v, material))
			if i%2 == 1 {
				slices.Reverse(m.Keys)
			}
			spoiled := *m
			spoiled.Payload = append([]byte{1}, m.Payload...)
			for _, m := range []*omemo.Message{&spoiled, m, with(m, m.Keys[1]), m, with(m, m.Keys[0])} {
				page = append(page, item(m, len(page)))
			}
		}
		results, err := b.m.DecryptPage(t.Context(), page)
		b.ok(err)
		for i, r := range results {
			switch {
			case i%5 == 0 && errors.Is(r.Err, omemo.ErrRefused):
			case i%5 == 1 && r.Err == nil && string(r.Opened.Plaintext) == want[i/5]:
			case i%5 > 1 && errors.Is(r.Err, omemo.ErrDuplicate):
			default:
				t.Errorf("item %d: %+v", i, r)
			}
		}
		rows, err := b.m.Inbox(t.Context(), 0, 1000)
		b.ok(err)
		if len(results) != len(page) || len(rows) != len(want) || len(b.owed(omemo.OwedHeartbeat)) != 1 {
			t.Errorf("%d results, %d messages in the inbox", len(results), len(rows))
		}
		b.ok(b.m.CatchUp(t.Context(), false))
		b.restart()
		for _, i := range page {
			if i.Message.Payload[0] != 1 || len(i.Message.Keys) == 1 {
				b.refuses(i.Message, nil)
			}
		}
		b.settle()
		b.reads(a.send("after", bob), "after")
		a.reads(b.send("back", alice), "back")
	})
}

// A key that holds something else is not the message's, and stays.
func TestAKeyWithOtherMaterial(t *testing.T) {
	versions(t, func(t *testing.T, v omemo.Version) {
		a, b := pair(t, v)
		b.reads(a.send("one", bob), "one")
		a.reads(b.send("back", alice), "back")
		message := a.doubled("two", b, v, 1)
		other := a.doubled("three", b, v, 2)
		o, err := b.receive(with(message, message.Keys[0], other.Keys[0]))
		b.ok(err)
		if string(o.Plaintext) != "two" || o.Session.ReceivingChain() != 1 {
			t.Errorf("%q, %d in the chain", o.Plaintext, o.Session.ReceivingChain())
		}
		b.refuses(with(message, other.Keys[0]), omemo.ErrRefused)
		o, err = b.receive(other)
		b.ok(err)
		if string(o.Plaintext) != "three" {
			t.Errorf("%q", o.Plaintext)
		}
		b.refuses(with(other, other.Keys[1]), omemo.ErrDuplicate)
	})
}

// A message may hold more key exchanges than sessions are kept.
func TestKeyExchangesOfOneMessage(t *testing.T) {
	versions(t, func(t *testing.T, v omemo.Version) {
		a, b := pair(t, v)
		message := a.doubled("one", b, v, 1)
		material, err := b.m.Material(t.Context(), message)
		b.ok(err)
		for len(message.Keys) < omemo.MaxCandidates {
			_, err := a.m.Replace(t.Context(), b.small(v), stanzas("replaced", bob))
			a.ok(err)
			message.Keys = append(message.Keys, a.sealed(b, v, material))
		}
		o, err := b.receive(message)
		b.ok(err)
		if n := len(b.sessions(a.peer(v))); string(o.Plaintext) != "one" || !o.Built || n != 1+omemo.MaxArchived {
			t.Errorf("%q, %d sessions", o.Plaintext, n)
		}
		for range 2 {
			b.refuses(message, omemo.ErrDuplicate)
			for _, k := range message.Keys {
				b.refuses(with(message, k), omemo.ErrDuplicate)
			}
			b.restart()
		}
		b.settle()
		b.reads(a.send("two", bob), "two")
		a.reads(b.send("three", alice), "three")
	})
}
