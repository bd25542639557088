package xmpptest

import (
	"maps"
	"slices"
	"strings"

	"mellium.im/xmpp/jid"
)

// account is a user. Everything but its address and password is guarded by Server.mu.
type account struct {
	jid      jid.JID
	bare     string // jid as a string
	password string

	sessions map[string]*session // bound ones, by resource
	roster   map[string]*contact // by bare JID
	nodes    map[string]*node    // of the pubsub service, by name
	offline  []*element          // messages, with delay stamps
	archive  archive
	hangPEP  bool
}

func newAccount(j jid.JID, password string) *account {
	return &account{
		jid:      j,
		bare:     j.String(),
		password: password,
		sessions: make(map[string]*session),
		roster:   make(map[string]*contact),
		nodes:    make(map[string]*node),
	}
}

// ordered returns the bound sessions in the order of their resources.
func (a *account) ordered() []*session {
	switch len(a.sessions) {
	case 0:
		return nil
	case 1: // the common case, on the path of every message
		for _, c := range a.sessions {
			return []*session{c}
		}
	}
	return slices.SortedFunc(maps.Values(a.sessions), func(x, y *session) int {
		return strings.Compare(x.full, y.full)
	})
}

// mutual tells whether each of the two accounts receives the other's presence.
func (a *account) mutual(other string) bool {
	k := a.roster[other]
	return k != nil && k.from && k.to
}

// attach binds the session to its account and answers the request for it.
func (s *Server) attach(c *session, request *element) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	if old := c.account.sessions[c.jid.Resourcepart()]; old != nil {
		s.detach(old)
		old.end(streamError("conflict"))
	}
	c.account.sessions[c.jid.Resourcepart()] = c
	c.bound = true
	s.reply(c, request, el(nsBind, "bind").add(el(nsBind, "jid").addText(c.full)))
	return true
}

// detach removes the session from its account and announces that it is gone. The caller holds s.mu.
func (s *Server) detach(c *session) {
	if !c.bound {
		return
	}
	c.bound = false
	delete(c.account.sessions, c.jid.Resourcepart())
	s.unavailable(c, el(nsClient, "presence", "type", "unavailable", "from", c.full))
}
