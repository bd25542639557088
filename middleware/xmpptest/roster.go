package xmpptest

import (
	"fmt"
	"maps"
	"slices"

	"mellium.im/xmpp/jid"
)

const nsRoster = "jabber:iq:roster"

// contact is what an account knows of another address (RFC 6121 appendix A). As all accounts are on
// this server, one's "to" is always the other's "from".
type contact struct {
	jid     string // bare
	listed  bool   // in the roster, not only a request from outside
	name    string
	groups  []string
	to      bool     // the account receives the contact's presence
	from    bool     // the contact receives the account's presence
	ask     bool     // the account has asked for the contact's presence
	request *element // the contact's unanswered subscribe
}

func (a *account) contact(bare string) *contact {
	k := a.roster[bare]
	if k == nil {
		k = &contact{jid: bare}
		a.roster[bare] = k
	}
	return k
}

func (k *contact) item() *element {
	subscription := "none"
	switch {
	case k.to && k.from:
		subscription = "both"
	case k.to:
		subscription = "to"
	case k.from:
		subscription = "from"
	}
	item := el(nsRoster, "item", "jid", k.jid, "name", k.name, "subscription", subscription)
	if k.ask {
		item.set("ask", "subscribe")
	}
	for _, g := range k.groups {
		item.add(el(nsRoster, "group").addText(g))
	}
	return item
}

// Befriend puts two accounts on each other's rosters, each subscribed to the other's presence, as if
// both had asked and agreed.
func (s *Server) Befriend(one, other string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	a, err := s.account(one)
	if err != nil {
		return err
	}
	b, err := s.account(other)
	if err != nil {
		return err
	}
	if a == b {
		return fmt.Errorf("xmpptest: %s cannot be its own contact", a.bare)
	}
	for _, pair := range [][2]*account{{a, b}, {b, a}} {
		k := pair[0].contact(pair[1].bare)
		k.listed, k.to, k.from, k.ask, k.request = true, true, true, false, nil
		s.pushRoster(pair[0], k.item())
	}
	s.showPresence(a, b)
	s.showPresence(b, a)
	s.sendLastItems(a, b)
	s.sendLastItems(b, a)
	return nil
}

// pushRoster tells the sessions that have asked for the roster of a changed item.
func (s *Server) pushRoster(a *account, item *element) {
	for _, c := range a.ordered() {
		if c.roster {
			push := el(nsClient, "iq", "type", "set", "id", newID(), "to", c.full)
			c.sendElement(push.add(el(nsRoster, "query").add(item)))
		}
	}
}

// rosterIQ answers a request of a session for its own roster (RFC 6121 §2).
func (s *Server) rosterIQ(c *session, iq, query *element) {
	a := c.account
	if iq.get("type") == "get" {
		c.roster = true
		list := el(nsRoster, "query")
		for _, bare := range slices.Sorted(maps.Keys(a.roster)) {
			if k := a.roster[bare]; k.listed {
				list.add(k.item())
			}
		}
		s.reply(c, iq, list)
		return
	}
	item := query.child(nsRoster, "item")
	if item == nil {
		s.refuse(c, iq, badRequest)
		return
	}
	j, err := jid.Parse(item.get("jid"))
	if err != nil || j.Bare().String() == a.bare {
		s.refuse(c, iq, badRequest)
		return
	}
	bare := j.Bare().String()
	s.reply(c, iq)
	if item.get("subscription") == "remove" {
		s.subscription(a, el(nsClient, "presence", "type", "unsubscribe", "to", bare))
		s.subscription(a, el(nsClient, "presence", "type", "unsubscribed", "to", bare))
		delete(a.roster, bare)
		s.pushRoster(a, el(nsRoster, "item", "jid", bare, "subscription", "remove"))
		return
	}
	k := a.contact(bare)
	k.listed, k.name, k.groups = true, item.get("name"), nil
	for _, g := range item.elements() {
		if g.is(nsRoster, "group") {
			k.groups = append(k.groups, g.content())
		}
	}
	s.pushRoster(a, k.item())
}

// subscription acts on presence of the types subscribe, subscribed, unsubscribe and unsubscribed
// from an account (RFC 6121 §3).
func (s *Server) subscription(a *account, p *element) {
	j, err := jid.Parse(p.get("to"))
	if err != nil || j.Bare().String() == a.bare {
		return
	}
	p.set("from", a.bare)
	p.set("to", j.Bare().String())
	mine := a.contact(p.get("to"))
	b := s.accounts[mine.jid]
	theirs := &contact{} // of nobody
	if b != nil {
		theirs = b.contact(a.bare)
	}
	switch p.get("type") {
	case "subscribe":
		if theirs.from {
			s.toAvailable(a, el(nsClient, "presence", "type", "subscribed", "from", b.bare, "to", a.bare))
			return
		}
		mine.listed, mine.ask = true, true
		s.pushRoster(a, mine.item())
		if b != nil {
			theirs.request = p
			s.toAvailable(b, p)
		}
		return
	case "subscribed":
		if mine.request == nil {
			return
		}
		mine.listed, mine.from, mine.request = true, true, nil
		theirs.to, theirs.ask = true, false
	case "unsubscribe":
		if !mine.to && !mine.ask {
			return
		}
		s.hidePresence(b, a)
		mine.to, mine.ask = false, false
		theirs.from, theirs.request = false, nil
	case "unsubscribed":
		if !mine.from && mine.request == nil {
			return
		}
		s.hidePresence(a, b)
		mine.from, mine.request = false, nil
		theirs.to, theirs.ask = false, false
	}
	if mine.listed {
		s.pushRoster(a, mine.item())
	}
	if b == nil {
		return
	}
	s.toAvailable(b, p)
	if theirs.listed {
		s.pushRoster(b, theirs.item())
	}
	if p.get("type") == "subscribed" {
		s.showPresence(a, b)
		s.sendLastItems(a, b)
		s.sendLastItems(b, a)
	}
}
