package xmpptest

import (
	"slices"
	"time"

	"mellium.im/xmpp/jid"
)

const (
	nsCarbons = "urn:xmpp:carbons:2"
	nsForward = "urn:xmpp:forward:0"
	nsHints   = "urn:xmpp:hints"
	nsMUCUser = "http://jabber.org/protocol/muc#user"
)

// handle acts on a stanza from a bound session.
func (s *Server) handle(c *session, e *element) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !c.bound {
		return
	}
	switch {
	case e.is(nsClient, "message"):
		s.handleMessage(c, e)
	case e.is(nsClient, "presence"):
		s.handlePresence(c, e)
	case e.is(nsClient, "iq"):
		s.handleIQ(c, e)
	default:
		c.end(streamError("unsupported-stanza-type"))
	}
}

func (c *session) sendElement(e *element) { c.send(outgoing{xml: e.xml()}) }

func (c *session) sendTo(to string, e *element) { c.sendElement(e.with("to", to)) }

// with returns a copy with one attribute changed, which shares everything else.
func (e *element) with(attr, value string) *element {
	copied := *e
	copied.attr = slices.Clone(e.attr)
	copied.set(attr, value)
	return &copied
}

// place says where an address leads.
type place int

const (
	toAccount place = iota // of a user, whether or not it exists
	toHost                 // a domain that is served
	toRoom                 // a room, an occupant of one, or a service for rooms
	toUploads              // a service that gives slots for files
	toNowhere              // another server, which cannot be reached
)

// locate finds the place of an address; the empty one is the account itself.
func (s *Server) locate(c *session, address string) (jid.JID, place, error) {
	if address == "" {
		return c.account.jid, toAccount, nil
	}
	j, err := jid.Parse(address)
	if err != nil {
		return j, toNowhere, err
	}
	if s.servesRooms(j) {
		return j, toRoom, nil
	}
	if s.uploads[j.Domainpart()] != nil {
		return j, toUploads, nil
	}
	if _, served := s.domains[j.Domainpart()]; !served {
		return j, toNowhere, nil
	}
	if j.Localpart() == "" {
		return j, toHost, nil
	}
	return j, toAccount, nil
}

// handleMessage delivers a message (RFC 6121 §8) and copies of it (XEP-0280).
func (s *Server) handleMessage(c *session, m *element) {
	m.set("from", c.full)
	to, where, err := s.locate(c, m.get("to"))
	switch {
	case err != nil:
		s.refuse(c, m, stanzaError{kind: "modify", condition: "jid-malformed"})
		return
	case where == toNowhere:
		s.refuse(c, m, remoteServerNotFound)
		return
	case where == toHost, where == toUploads:
		s.refuse(c, m, serviceUnavailable)
		return
	case where == toRoom:
		s.roomMessage(c, m, to)
		return
	}
	m.set("to", to.String())
	copies := wantsCopies(m)
	m.remove(nsCarbons, "private")
	sent := s.keep(&c.account.archive, c.bare, m)
	a := s.accounts[to.Bare().String()]
	switch {
	case a == c.account:
		m = sent
	case a != nil:
		m = s.keep(&a.archive, a.bare, m)
	}
	b := m.xml()

	var reached []*session
	if a != nil {
		reached = recipients(a, to, m.get("type"))
	}
	for _, r := range reached {
		r.send(outgoing{xml: b})
	}
	if len(reached) == 0 {
		s.undelivered(c, a, m)
	}
	if !copies {
		return
	}
	s.copyMessage(c.account, "sent", sent, sent.xml(), append(slices.Clone(reached), c))
	if a != nil && a != c.account && len(reached) > 0 {
		s.copyMessage(a, "received", m, b, reached)
	}
}

// recipients returns the sessions of an account to which a message is delivered.
func recipients(a *account, to jid.JID, kind string) []*session {
	if to.Resourcepart() != "" {
		if r := a.sessions[to.Resourcepart()]; r != nil {
			return []*session{r}
		}
	}
	if kind == "error" || kind == "groupchat" {
		return nil
	}
	var found []*session
	for _, r := range a.ordered() {
		if r.presence != nil && r.priority >= 0 {
			found = append(found, r)
		}
	}
	return found
}

// undelivered stores or bounces a message that nobody has received.
func (s *Server) undelivered(c *session, a *account, m *element) {
	switch kind := m.get("type"); {
	case kind == "error" || kind == "headline" && a != nil:
	case s.storeOffline && a != nil && kind != "groupchat":
		stamp := time.Now().UTC().Format("2006-01-02T15:04:05.000Z")
		delayed := m.with("to", m.get("to"))
		delayed.children = append(slices.Clone(m.children),
			el(nsDelay, "delay", "from", a.jid.Domainpart(), "stamp", stamp))
		a.offline = append(a.offline, delayed)
	case s.archives && a != nil && kind != "groupchat" && worthKeeping(m): // it is there when it is asked for
	default:
		s.refuse(c, m, serviceUnavailable)
	}
}

// wantsCopies decides by the recommended rules of XEP-0280 §6.1.
func wantsCopies(m *element) bool {
	if m.child(nsCarbons, "private") != nil || m.child(nsHints, "no-copy") != nil || m.child(nsMUCUser, "x") != nil {
		return false
	}
	switch m.get("type") {
	case "chat":
		return true
	case "groupchat", "headline", "error":
		return false
	}
	for _, e := range m.elements() {
		switch e.name.Space {
		case "urn:xmpp:receipts", "urn:xmpp:chat-markers:0":
			return true
		}
		if e.is(nsClient, "body") {
			return true
		}
	}
	return false
}

// copyMessage sends copies to the sessions that have asked for them and are not in without.
func (s *Server) copyMessage(a *account, direction string, m *element, b []byte, without []*session) {
	for _, r := range a.ordered() {
		if r.carbons && !slices.Contains(without, r) {
			r.sendElement(el(nsClient, "message", "from", a.bare, "to", r.full, "type", m.get("type")).
				add(el(nsCarbons, direction).add(el(nsForward, "forwarded").addRaw(b))))
		}
	}
}
