package omemo_test

import (
	"errors"
	"testing"

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
						one, err := m.Behind(ctx, omemo.Peer{Version: message.Version, Address: k.Address}, k)
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
