package middleware_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"example.org/omellium/middleware"
	"example.org/omellium/middleware/xmpptest"
	"example.org/omellium/omemo"
)

// TestOutboxOfADistrustedKey: a message is committed, and lost with the wire. Then
// one of the keys that it is encrypted for is distrusted. The next connection does
// not send it, and the program is told; what is for others leaves.
func TestOutboxOfADistrustedKey(t *testing.T) {
	const secret = "secret of the outbox"
	for _, where := range []string{juliet, hall} {
		t.Run(where, func(t *testing.T) {
			srv := building(t, fit)
			a := connected(t, srv, romeo, chat(omemo.V2)).join(hall, "Romeo")
			b := connected(t, srv, juliet, chat(omemo.V2)).join(hall, "Juliet")
			c := connected(t, srv, nurse, chat(omemo.V2)).join(hall, "Nurse")
			a.speak(hall, "hello")
			b.awaitText("hello")
			c.awaitText("hello")
			a.settled()
			srv.SetFilter(func(_ context.Context, s xmpptest.Stanza) [][]byte {
				if s.Direction == xmpptest.FromClient && strings.HasPrefix(s.Session, romeo) {
					return nil // what romeo writes is lost
				}
				return [][]byte{s.XML}
			})
			send := func(address, body string) string {
				t.Helper()
				if address == hall {
					return a.speak(hall, body).ID
				}
				result, err := a.om.Send(t.Context(), to(address), text(body))
				ok(t, err)
				return result.ID
			}
			id := send(where, secret)
			send(nurse, "for the nurse")
			_ = a.session.Conn().Close()
			<-a.done
			_, err := a.om.Decide(t.Context(), omemo.Decision{JID: juliet, Fingerprint: fingerprintOf(t, b), Trust: omemo.Distrusted})
			ok(t, err)
			srv.SetFilter(nil)
			a.attach(login(t, srv, romeo), nil).join(hall, "Romeo")
			failed := a.awaitEvent(middleware.SendFailed)
			if failed.ID != id || failed.Account != where || !errors.Is(failed.Err, middleware.ErrDistrusted) {
				t.Errorf("told of %+v", failed)
			}
			c.awaitText("for the nurse")
			a.speak(hall, "news")
			c.awaitText("news")
			// Juliet has everything that was sent before this.
			_, err = a.om.Decide(t.Context(), omemo.Decision{JID: juliet, Fingerprint: fingerprintOf(t, b), Trust: omemo.Verified})
			ok(t, err)
			a.say(juliet, "friends again")
			b.awaitText("friends again")
			a.speak(hall, "all of us")
			b.awaitText("all of us")
			c.awaitText("all of us")
			if slices.Contains(b.bodies(), secret) || slices.Contains(c.bodies(), secret) {
				t.Error("what must not leave has left")
			}
			a.settled()
		})
	}
}
