package xmpptest

import (
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"hash"
	"maps"
	"slices"
	"strconv"
	"strings"

	"mellium.im/xmpp/jid"
)

const (
	nsCaps  = "http://jabber.org/protocol/caps"
	nsDelay = "urn:xmpp:delay"
	nsForm  = "jabber:x:data"
)

// handlePresence acts on presence from a client (RFC 6121 §3 and §4).
func (s *Server) handlePresence(c *session, p *element) {
	p.set("from", c.full)
	to, kind := p.get("to"), p.get("type")
	switch {
	case kind == "subscribe" || kind == "subscribed" || kind == "unsubscribe" || kind == "unsubscribed":
		s.subscription(c.account, p)
	case to != "":
		switch kind {
		case "":
			c.directed[to] = struct{}{}
		case "unavailable":
			delete(c.directed, to)
		}
		s.directPresence(p, to)
	case kind == "unavailable":
		s.unavailable(c, p)
	case kind == "":
		s.available(c, p)
	}
}

// available stores and announces the presence of a session, and shows it what it has missed.
func (s *Server) available(c *session, p *element) {
	initial := c.presence == nil
	c.presence, c.priority = p, 0
	if e := p.child(nsClient, "priority"); e != nil {
		if n, err := strconv.ParseInt(strings.TrimSpace(e.content()), 10, 8); err == nil {
			c.priority = int(n)
		}
	}
	s.broadcastPresence(c, p)
	a := c.account
	if initial {
		for _, other := range a.ordered() {
			if other != c && other.presence != nil {
				c.sendTo(a.bare, other.presence)
			}
		}
		for _, bare := range slices.Sorted(maps.Keys(a.roster)) {
			k := a.roster[bare]
			if k.request != nil {
				c.sendElement(k.request)
			}
			if b := s.accounts[bare]; b != nil && k.to {
				for _, other := range b.ordered() {
					if other.presence != nil {
						c.sendTo(a.bare, other.presence)
					}
				}
			}
		}
	}
	if c.priority >= 0 {
		for _, m := range a.offline {
			c.sendElement(m)
		}
		a.offline = nil
	}
	s.askCaps(c, p.child(nsCaps, "c"))
}

// unavailable announces that a session is gone, to those who were told that it is there.
func (s *Server) unavailable(c *session, gone *element) {
	for _, to := range slices.Sorted(maps.Keys(c.directed)) {
		s.directPresence(gone, to)
	}
	clear(c.directed)
	if c.presence != nil {
		c.presence = nil
		c.caps, c.capsQuery, c.features = "", "", nil
		s.broadcastPresence(c, gone)
	}
}

// broadcastPresence sends presence to the account's other sessions and to its subscribers.
func (s *Server) broadcastPresence(c *session, p *element) {
	a := c.account
	for _, other := range a.ordered() {
		if other != c && other.presence != nil {
			other.sendTo(a.bare, p)
		}
	}
	for _, bare := range slices.Sorted(maps.Keys(a.roster)) {
		if b := s.accounts[bare]; b != nil && a.roster[bare].from {
			s.toAvailable(b, p.with("to", bare))
		}
	}
}

// directPresence sends presence to one address.
func (s *Server) directPresence(p *element, to string) {
	j, err := jid.Parse(to)
	if err != nil {
		return
	}
	if s.servesRooms(j) {
		s.roomPresence(p, j)
		return
	}
	a := s.accounts[j.Bare().String()]
	if a == nil {
		return
	}
	p = p.with("to", j.String())
	if j.Resourcepart() == "" {
		s.toAvailable(a, p)
	} else if c := a.sessions[j.Resourcepart()]; c != nil {
		c.sendElement(p)
	}
}

// toAvailable sends a stanza to every available session of an account.
func (s *Server) toAvailable(a *account, e *element) {
	var b []byte
	for _, c := range a.ordered() {
		if c.presence != nil {
			if b == nil {
				b = e.xml()
			}
			c.send(outgoing{xml: b})
		}
	}
}

// showPresence sends an account's presence to another one, which has just been subscribed to it.
func (s *Server) showPresence(of, to *account) {
	for _, c := range of.ordered() {
		if c.presence != nil {
			s.toAvailable(to, c.presence.with("to", to.bare))
		}
	}
}

// hidePresence makes an account look unavailable to one that is about to lose its subscription.
func (s *Server) hidePresence(of, to *account) {
	if of == nil || to == nil || !of.contact(to.bare).from {
		return
	}
	for _, c := range of.ordered() {
		if c.presence != nil {
			s.toAvailable(to, el(nsClient, "presence", "type", "unavailable", "from", c.full, "to", to.bare))
		}
	}
}

// askCaps asks a session for its features when it announces capabilities that it did not announce
// before (XEP-0115 §6.2). Every session is asked for itself: there is no cache that one client could
// poison for the next.
func (s *Server) askCaps(c *session, caps *element) {
	if caps == nil {
		c.caps, c.capsQuery, c.features = "", "", nil
		return
	}
	node := caps.get("node") + "#" + caps.get("ver")
	if announced := node + " " + caps.get("hash"); announced != c.caps {
		c.caps, c.capsQuery = announced, newID()
		c.sendElement(el(nsClient, "iq", "type", "get", "id", c.capsQuery, "from", c.bare, "to", c.full).
			add(el(nsInfo, "query", "node", node)))
	}
}

// learnCaps takes the answer to askCaps. Features that do not add up to the announced hash are
// ignored, as ejabberd does.
func (s *Server) learnCaps(c *session, iq *element) {
	c.capsQuery = ""
	query := iq.child(nsInfo, "query")
	caps := c.presence.child(nsCaps, "c")
	if iq.get("type") != "result" || query == nil || caps == nil || !capsMatch(query, caps.get("hash"), caps.get("ver")) {
		c.features = nil
		return
	}
	before := c.features
	c.features = make(map[string]struct{})
	for _, f := range query.elements() {
		if f.is(nsInfo, "feature") {
			c.features[f.get("var")] = struct{}{}
		}
	}
	s.lastItemsFor(c, before)
}

// capsMatch verifies the hash of capabilities (XEP-0115 §5.1). What was hashed by a function that is
// not known here, or not at all as in old versions of the protocol, is believed.
func capsMatch(query *element, function, ver string) bool {
	var h hash.Hash
	switch function {
	case "sha-1":
		h = sha1.New()
	case "sha-256":
		h = sha256.New()
	case "sha-512":
		h = sha512.New()
	default:
		return true
	}
	var identities, features, forms []string
	for _, e := range query.elements() {
		switch {
		case e.is(nsInfo, "identity"):
			lang := ""
			for _, a := range e.attr {
				if a.Name.Space == nsXML && a.Name.Local == "lang" {
					lang = a.Value
				}
			}
			identities = append(identities, e.get("category")+"/"+e.get("type")+"/"+lang+"/"+e.get("name"))
		case e.is(nsInfo, "feature"):
			features = append(features, e.get("var"))
		case e.is(nsForm, "x"):
			forms = append(forms, capsForm(e))
		}
	}
	// Sorted before the separator is appended: it would sort a:b before a.
	for _, list := range [][]string{identities, features} {
		slices.Sort(list)
		for _, item := range list {
			h.Write([]byte(item + "<"))
		}
	}
	slices.Sort(forms)
	for _, form := range forms {
		h.Write([]byte(form))
	}
	return base64.StdEncoding.EncodeToString(h.Sum(nil)) == ver
}

// capsForm returns a form as it is hashed: its type, then the fields by name with sorted values.
func capsForm(form *element) string {
	var formType string
	var fields []string
	for _, f := range form.elements() {
		var values []string
		for _, v := range f.elements() {
			if v.is(nsForm, "value") {
				values = append(values, v.content()+"<")
			}
		}
		slices.Sort(values)
		if f.get("var") == "FORM_TYPE" {
			formType = strings.Join(values, "")
		} else {
			fields = append(fields, f.get("var")+"<"+strings.Join(values, ""))
		}
	}
	slices.Sort(fields)
	return formType + strings.Join(fields, "")
}
