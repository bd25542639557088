package attack

import (
	"context"
	"fmt"
	"time"

	"example.org/omellium/middleware"
	"example.org/omellium/omemo"
	"example.org/omellium/stanza"
	"mellium.im/xmpp/jid"
	xmppstanza "mellium.im/xmpp/stanza"
)

// await waits for a condition about what was delivered and what has happened.
func (s *stage) await(what string, condition func() bool) {
	s.t.Helper()
	timer := time.AfterFunc(time.Minute, func() { s.changed.Broadcast() })
	defer timer.Stop()
	end := time.Now().Add(time.Minute)
	s.mu.Lock()
	defer s.mu.Unlock()
	for !condition() {
		if !time.Now().Before(end) {
			s.t.Fatalf("timeout: %s; events %v", what, s.events)
		}
		s.changed.Wait()
	}
}

// settle waits until the victim has nothing left to do but work of some kinds.
func (s *stage) settle(but ...omemo.OwedKind) {
	s.t.Helper()
	timer := time.AfterFunc(time.Minute, func() { s.store.changed.Broadcast() })
	defer timer.Stop()
	end := time.Now().Add(time.Minute)
	s.store.mu.Lock()
	defer s.store.mu.Unlock()
	for !s.store.idle(but...) {
		if !time.Now().Before(end) {
			owed, _ := s.store.Store.Owed(context.Background())
			s.t.Fatalf("the victim does not settle: %v", owed)
		}
		s.store.changed.Wait()
	}
}

// inject puts XML on the victim's wire and waits until the program has read all
// that came of it.
func (s *stage) inject(raw string) {
	s.t.Helper()
	ok(s.t, s.srv.Inject(s.full, raw))
	s.mark()
}

func (s *stage) mark() {
	s.t.Helper()
	id := s.id("marker")
	ok(s.t, s.srv.Inject(s.full, fmt.Sprintf("<presence xmlns='jabber:client' from='%s' id='%s'/>", server, id)))
	s.await(id, func() bool { return s.markers[id] })
}

// ask waits until the program has the answer to a question that it asks of the
// server now: whatever the server has sent before was read.
func (s *stage) ask() {
	s.t.Helper()
	id := s.id("question")
	iq := xmppstanza.IQ{ID: id, Type: xmppstanza.GetIQ, To: jid.MustParse(server)}
	ping := stanza.NewElement("urn:xmpp:ping", "ping")
	ok(s.t, s.session.Send(s.t.Context(), iq.Wrap(ping.TokenReader())))
	s.await(id, func() bool { return s.markers[id] })
}

// tally returns how many events of a kind there were; s.mu is held.
func (s *stage) tally(kind middleware.EventKind) (n int) {
	for _, e := range s.events {
		if e.Kind == kind {
			n++
		}
	}
	return n
}

func (s *stage) had(kind middleware.EventKind) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.tally(kind)
}
