package omemo_test

import (
	"errors"
	"testing"
	"time"

	"example.org/omellium/omemo"
)

// TestBehind: a message of our own that a store has not made tells that it is
// older than it was; one that it has made does not, however often it is shown.
func TestBehind(t *testing.T) {
	for _, v := range omemo.Versions() {
		t.Run(v.String(), func(t *testing.T) {
			ctx := t.Context()
			w := newWorld(t)
			a, b := w.join(alice, omemo.Options{}), w.join(bob, omemo.Options{})
			w.meet(v)
			behind := func(m *omemo.Manager, sealed *omemo.Sealed) bool {
				t.Helper()
				is := false
				for _, message := range sealed.Messages {
					for _, k := range message.Keys {
						one, err := m.Behind(ctx, omemo.Peer{Version: message.Version, Address: k.Address}, k, time.Now())
						a.ok(err)
						is = is || one
					}
				}
				return is
			}
			first := a.send("first", bob)
			b.reads(first, "first")
			if behind(a.m, first) {
				t.Error("the message that began the session")
			}
			a.reads(b.send("answer", alice), "answer")
			second := a.send("second", bob)
			b.reads(second, "second")
			if behind(a.m, first) || behind(a.m, second) {
				t.Error("messages of before and after a ratchet step")
			}
			// A message that was sealed and never committed is one that another
			// program has sent, for all that the store knows.
			var third *omemo.Sealed
			_, err := a.m.Encrypt(ctx, omemo.Plaintext{Legacy: []byte("third"), V2: []byte("third")}, []string{bob}, func(s *omemo.Sealed) ([]omemo.Outgoing, error) {
				kept := *s
				third = &kept
				return nil, errors.New("not committed")
			})
			if err == nil || third == nil {
				t.Fatal("the message was committed")
			}
			if !behind(a.m, third) {
				t.Error("a message that the store has not made was not noticed")
			}
			third.Messages[0].Keys[0].Data = third.Messages[0].Keys[0].Data[:9]
			if behind(a.m, third) {
				t.Error("what cannot be read tells something")
			}
		})
	}
}

// TestBehindDropped: a key exchange of our own is known again when the session that
// it began is not held any more, whoever had it dropped; one that the store has not
// made is not.
func TestBehindDropped(t *testing.T) {
	replace := func(a, b *party, v omemo.Version) {
		for range 1 + omemo.MaxArchived {
			_, err := a.m.Replace(t.Context(), b.small(v), stanzas("x", bob))
			a.ok(err)
		}
	}
	cases := []struct {
		name string
		drop func(a, b *party, v omemo.Version)
	}{
		{"replaced by ours", replace},
		{"replaced by theirs", func(a, b *party, v omemo.Version) {
			for range 1 + omemo.MaxArchived {
				sealed, err := b.m.Replace(t.Context(), a.small(v), stanzas("x", alice))
				b.ok(err)
				_, err = a.m.Decrypt(t.Context(), a.find(sealed), accept)
				a.ok(err)
			}
		}},
		{"forgotten", func(a, b *party, v omemo.Version) {
			a.ok(a.m.ForgetSessions(t.Context(), b.peer(v)))
			_, err := a.m.Replace(t.Context(), b.small(v), stanzas("x", bob))
			a.ok(err)
		}},
		{"account forgotten", func(a, b *party, v omemo.Version) {
			a.ok(a.m.Forget(t.Context(), bob))
			a.lists(bob, v)
			a.send("again", bob)
		}},
	}
	for _, v := range omemo.Versions() {
		for _, c := range cases {
			t.Run(v.String()+"/"+c.name, func(t *testing.T) {
				a, b := pair(t, v)
				first := b.find(a.send("one", bob))
				var lost *omemo.Message // begins a session that is never committed
				_, err := a.m.Replace(t.Context(), b.small(v), func(s *omemo.Sealed) ([]omemo.Outgoing, error) {
					lost = b.find(s)
					return nil, errors.New("not committed")
				})
				if err == nil || lost == nil {
					t.Fatal("the session was committed")
				}
				c.drop(a, b, v)
				behind := func(k omemo.Key, age time.Duration) bool {
					t.Helper()
					is, err := a.m.Behind(t.Context(), b.peer(v), k, time.Now().Add(-age))
					a.ok(err)
					return is
				}
				if k := first.Keys[0]; !k.Exchange || behind(k, 0) || behind(k, 30*24*time.Hour) {
					t.Error("an own message of a session that was dropped is taken for a rollback")
				}
				if k := lost.Keys[0]; !k.Exchange || !behind(k, 0) || !behind(k, 30*24*time.Hour) {
					t.Error("a session that the store has not made was not noticed")
				}
				if behind(lost.Keys[0], 90*24*time.Hour) {
					t.Error("what is older than the marks of dropped sessions shows something")
				}
				_, done, err := a.m.Quarantine(t.Context())
				a.ok(err)
				if !done || behind(lost.Keys[0], time.Minute) {
					t.Error("what was given up already shows something")
				}
			})
		}
	}
}
