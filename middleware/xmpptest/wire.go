package xmpptest

import (
	"bytes"
	"context"
	"encoding/xml"
	"fmt"
	"slices"
	"sync"
	"time"
)

// Direction tells who sent a stanza.
type Direction int

// The directions.
const (
	FromClient Direction = iota + 1
	ToClient
)

// String returns "from client" or "to client".
func (d Direction) String() string {
	switch d {
	case FromClient:
		return "from client"
	case ToClient:
		return "to client"
	}
	return fmt.Sprintf("Direction(%d)", int(d))
}

// Stanza is a stanza as it stood on the connection of a session.
type Stanza struct {
	Time      time.Time
	Session   string // full JID of the session, the bare one while it is being bound
	Direction Direction

	// XML is the stanza, exactly. What comes from a client may lack the declaration of jabber:client,
	// which it inherits from its stream. It must not be modified.
	XML []byte
}

// Start returns the start tag of the stanza, with namespaces resolved.
func (st Stanza) Start() (xml.StartElement, error) {
	d := xml.NewDecoder(bytes.NewReader(st.XML))
	d.DefaultSpace = nsClient
	token, err := nextToken(d)
	if err != nil {
		return xml.StartElement{}, fmt.Errorf("xmpptest: %w", err)
	}
	start, ok := token.(xml.StartElement)
	if !ok {
		return xml.StartElement{}, fmt.Errorf("xmpptest: a stanza starts with %T", token)
	}
	return start, nil
}

// A Filter decides what becomes of a stanza: it returns the stanzas that take its place. None
// drops it, the same passes it, several repeat it. It is called before the server acts on a stanza
// from a client and before a stanza is written to a client, once a session is bound.
//
// While a Filter runs, the stanzas of that session and direction wait behind it, and no others: a
// Filter delays by waiting. It must return when ctx ends, which is when the session does. It is
// called from several goroutines at once. What was put on a connection by [Server.Inject] does not
// pass through it.
type Filter func(ctx context.Context, st Stanza) [][]byte

// SetFilter puts f in place of the former filter; nil removes it.
func (s *Server) SetFilter(f Filter) {
	if f == nil {
		s.filter.Store(nil)
		return
	}
	s.filter.Store(&f)
}

// wire records the stanzas.
type wire struct {
	mu      sync.Mutex
	stanzas []Stanza
	dropped int           // how many stood before stanzas[0]
	more    chan struct{} // closed with the next stanza; nil while nobody waits
}

func (w *wire) record(st Stanza) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stanzas = append(w.stanzas, st)
	if w.more != nil {
		close(w.more)
		w.more = nil
	}
}

// from returns the stanzas from the nth on, the number that follows the last of them, and a channel
// that is closed when there are more.
func (w *wire) from(n int) ([]Stanza, int, <-chan struct{}) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.more == nil {
		w.more = make(chan struct{})
	}
	return slices.Clip(w.stanzas[max(0, n-w.dropped):]), w.dropped + len(w.stanzas), w.more
}

// Wire returns every stanza that crossed a connection so far, in the order in which it did: what
// clients sent, before any [Filter], and what was sent to them, after it. Negotiation up to resource
// binding (which contains passwords) is not part of it.
func (s *Server) Wire() []Stanza {
	all, _, _ := s.wire.from(0)
	return slices.Clone(all)
}

// ForgetWire drops what [Server.Wire] has recorded.
func (s *Server) ForgetWire() {
	s.wire.mu.Lock()
	defer s.wire.mu.Unlock()
	s.wire.dropped += len(s.wire.stanzas)
	s.wire.stanzas = nil
}

// Await returns the first stanza of the record, past or to come, for which match returns true.
func (s *Server) Await(ctx context.Context, match func(Stanza) bool) (Stanza, error) {
	next := 0
	for {
		stanzas, end, more := s.wire.from(next)
		for _, st := range stanzas {
			if match(st) {
				return st, nil
			}
		}
		next = end
		select {
		case <-more:
		case <-s.ctx.Done():
			return Stanza{}, ErrClosed
		case <-ctx.Done():
			return Stanza{}, fmt.Errorf("xmpptest: awaited stanza: %w", ctx.Err())
		}
	}
}

// Inject writes XML to the session of a full JID, or to all sessions of a bare one, as it is: with
// any sender, and whether or not it is well-formed.
func (s *Server) Inject(to, rawXML string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	sessions, err := s.targets(to)
	if err != nil {
		return err
	}
	for _, c := range sessions {
		c.send(outgoing{xml: []byte(rawXML), injected: true})
	}
	return nil
}

// Disconnect cuts the connection of a full JID, or all connections of a bare one, without ending the
// stream. Stanzas that the server has not written yet are lost.
func (s *Server) Disconnect(address string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	sessions, err := s.targets(address)
	if err != nil {
		return err
	}
	for _, c := range sessions {
		s.detach(c)
		c.abort()
	}
	return nil
}

// HangPEP makes the pubsub service of an account swallow all requests without an answer, or, with
// false, work again.
func (s *Server) HangPEP(account string, hang bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	a, err := s.account(account)
	if err != nil {
		return err
	}
	a.hangPEP = hang
	return nil
}
