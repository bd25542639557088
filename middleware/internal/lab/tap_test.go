//go:build live

package lab

import (
	"context"
	"encoding/xml"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"mellium.im/xmlstream"
	"mellium.im/xmpp"
	"mellium.im/xmpp/jid"
	xmppstanza "mellium.im/xmpp/stanza"
)

// What a server's tap does not show, no test can find there. It shows the whole of a
// burst: of more messages than a logger lets through in a second, of more bytes than
// a file of a log has, and of a message that is longer than a line of a log.
func TestTapIsWhole(t *testing.T) {
	const burst, size, largest = 1500, 4 << 10, 250 << 10
	Each(t, func(t *testing.T, s *Server) {
		one, other := s.Account(t, "one"), s.Account(t, "other")
		Befriend(t, one, other)
		var arrived atomic.Int64
		connect(t, s, other, func(_ xmlstream.TokenReadEncoder, start *xml.StartElement) error {
			if start.Name.Local == "message" {
				arrived.Add(1)
			}
			return nil
		})
		sender := connect(t, s, one, nil)
		bodies := make([]string, burst+1)
		for i := range bodies {
			length := size
			if i == burst {
				length = largest
			}
			bodies[i] = fmt.Sprintf("canary-%s-%d-%s-end", one.Local, i, strings.Repeat("ä€", length/len("ä€")))
		}
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		for _, body := range bodies {
			m := xmppstanza.Message{To: jid.MustParse(other.JID), Type: xmppstanza.ChatMessage}
			if err := sender.Send(ctx, m.Wrap(element(xmlstream.Token(xml.CharData(body)), "", "body"))); err != nil {
				t.Fatal(err)
			}
		}
		if !Until(patience, func() bool { return arrived.Load() == int64(len(bodies)) }) {
			t.Fatalf("%d of %d messages have arrived", arrived.Load(), len(bodies))
		}
		// A message that comes in may stand in the tap in pieces. It leaves whole.
		missing := slices.Clone(bodies)
		tap := s.Tap(t)
		for line := range strings.Lines(tap) {
			if strings.Contains(line, s.backend.outgoing()) {
				missing = slices.DeleteFunc(missing, func(body string) bool { return strings.Contains(line, body) })
			}
		}
		if len(missing) > 0 {
			t.Errorf("%d of %d messages are not in the tap of %d bytes, the first is %.40q…", len(missing), len(bodies), len(tap), missing[0])
		}
	})
}

// connect logs an account in, and is present if it has a handler.
func connect(t *testing.T, s *Server, a *Account, handler xmpp.HandlerFunc) *xmpp.Session {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	session, err := s.Dial(ctx, a)
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan struct{})
	go func() {
		defer close(served)
		var h xmpp.Handler
		if handler != nil {
			h = handler
		}
		if err := session.Serve(h); err != nil {
			t.Logf("%s: serve: %v", a.JID, err)
		}
	}()
	t.Cleanup(func() {
		if err := session.Close(); err != nil {
			t.Error(err)
		}
		<-served
		session.Conn().Close()
	})
	if handler != nil {
		if err := session.Send(ctx, xmppstanza.Presence{Type: xmppstanza.AvailablePresence}.Wrap(nil)); err != nil {
			t.Fatal(err)
		}
	}
	return session
}

// While a gate is held nothing arrives behind it, and what leaves does; then all of it
// arrives.
func TestGate(t *testing.T) {
	Each(t, func(t *testing.T, s *Server) {
		one, other := s.Account(t, "one"), s.Account(t, "other")
		Befriend(t, one, other)
		gate := s.Gate(t)
		var held atomic.Bool
		arrived := make(chan bool, 10) // while it was held
		behind := connect(t, gate.Server, one, func(_ xmlstream.TokenReadEncoder, start *xml.StartElement) error {
			if start.Name.Local == "message" {
				arrived <- held.Load()
			}
			return nil
		})
		answered := make(chan struct{}, 10)
		free := connect(t, s, other, func(_ xmlstream.TokenReadEncoder, start *xml.StartElement) error {
			if start.Name.Local == "message" {
				answered <- struct{}{}
			}
			return nil
		})
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		held.Store(true)
		gate.Hold()
		for _, m := range []struct {
			from *xmpp.Session
			to   string
		}{{free, one.JID}, {behind, other.JID}} {
			to := xmppstanza.Message{To: jid.MustParse(m.to), Type: xmppstanza.ChatMessage}
			if err := m.from.Send(ctx, to.Wrap(element(xmlstream.Token(xml.CharData("text")), "", "body"))); err != nil {
				t.Fatal(err)
			}
		}
		select {
		case <-answered:
		case <-ctx.Done():
			t.Fatal("what leaves does not arrive")
		}
		held.Store(false)
		gate.Release()
		select {
		case early := <-arrived:
			if early {
				t.Error("a message has passed the gate while it was held")
			}
		case <-ctx.Done():
			t.Error("what was held does not arrive")
		}
	})
}
