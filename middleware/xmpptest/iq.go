package xmpptest

import (
	"maps"
	"slices"
)

const (
	nsStanzas = "urn:ietf:params:xml:ns:xmpp-stanzas"
	nsInfo    = "http://jabber.org/protocol/disco#info"
	nsItems   = "http://jabber.org/protocol/disco#items"
	nsPing    = "urn:xmpp:ping"
	nsVCard   = "vcard-temp"
)

// stanzaError is the error child of a stanza (RFC 6120 §8.3) with at most one condition of an
// application.
type stanzaError struct {
	kind      string
	condition string
	space     string // of the application's condition
	specific  string
}

var (
	badRequest           = stanzaError{kind: "modify", condition: "bad-request"}
	forbidden            = stanzaError{kind: "auth", condition: "forbidden"}
	itemNotFound         = stanzaError{kind: "cancel", condition: "item-not-found"}
	serviceUnavailable   = stanzaError{kind: "cancel", condition: "service-unavailable"}
	remoteServerNotFound = stanzaError{kind: "cancel", condition: "remote-server-not-found"}
)

// refuse answers a message or an IQ request with an error. Errors and results are never answered.
func (s *Server) refuse(c *session, stanza *element, e stanzaError) {
	kind := stanza.get("type")
	if kind == "error" || kind == "result" {
		return
	}
	child := el(nsClient, "error", "type", e.kind).add(el(nsStanzas, e.condition))
	if e.specific != "" {
		child.add(el(e.space, e.specific))
	}
	c.sendElement(el(nsClient, stanza.name.Local, "type", "error",
		"id", stanza.get("id"), "from", stanza.get("to"), "to", c.full).add(child))
}

// reply answers an IQ request.
func (s *Server) reply(c *session, iq *element, payload ...*element) {
	c.sendElement(el(nsClient, "iq", "type", "result",
		"id", iq.get("id"), "from", iq.get("to"), "to", c.full).add(payload...))
}

// handleIQ forwards an IQ to a full JID, and answers all others (RFC 6121 §8.5).
func (s *Server) handleIQ(c *session, iq *element) {
	kind, payloads := iq.get("type"), iq.elements()
	request := kind == "get" || kind == "set"
	switch {
	case iq.get("id") == "",
		request && len(payloads) != 1,
		!request && kind != "result" && kind != "error":
		s.refuse(c, iq, badRequest)
		return
	}
	iq.set("from", c.full)
	to, where, err := s.locate(c, iq.get("to"))
	switch {
	case err != nil:
		s.refuse(c, iq, stanzaError{kind: "modify", condition: "jid-malformed"})
		return
	case where == toNowhere:
		s.refuse(c, iq, remoteServerNotFound)
		return
	case where == toRoom:
		if request {
			s.roomIQ(c, iq, payloads[0], to)
		}
		return
	case where == toUploads:
		if request {
			s.uploadIQ(c, iq, payloads[0], to.Domainpart())
		}
		return
	}
	a := s.accounts[to.Bare().String()]
	if where == toAccount && to.Resourcepart() != "" {
		if a != nil && a.sessions[to.Resourcepart()] != nil {
			a.sessions[to.Resourcepart()].sendElement(iq)
		} else {
			s.refuse(c, iq, serviceUnavailable)
		}
		return
	}
	switch {
	case !request:
		if iq.get("id") == c.capsQuery && c.presence != nil && (where == toHost || a == c.account) {
			s.learnCaps(c, iq)
		}
	case where == toHost:
		s.hostIQ(c, iq, payloads[0])
	default:
		s.accountIQ(c, a, iq, payloads[0])
	}
}

// hostIQ answers requests to the server itself.
func (s *Server) hostIQ(c *session, iq, payload *element) {
	get := iq.get("type") == "get"
	switch {
	case get && payload.is(nsPing, "ping"):
		s.reply(c, iq)
	case get && payload.is(nsInfo, "query") && payload.get("node") == "":
		list := []string{nsCarbons, nsInfo, nsItems, nsPing, nsRoster}
		if s.storeOffline {
			list = append(list, "msgoffline")
		}
		s.reply(c, iq, info("server", "im", list))
	case get && payload.is(nsItems, "query"):
		list := el(nsItems, "query")
		for _, domain := range slices.Sorted(maps.Keys(s.uploads)) {
			list.add(el(nsItems, "item", "jid", domain))
		}
		s.reply(c, iq, list)
	case !get && payload.name.Space == nsCarbons:
		s.carbonsIQ(c, iq, payload)
	default:
		s.refuse(c, iq, serviceUnavailable)
	}
}

// accountIQ answers requests to the bare JID of an account, which is nil if it does not exist.
func (s *Server) accountIQ(c *session, a *account, iq, payload *element) {
	get, own := iq.get("type") == "get", a == c.account
	switch {
	case payload.name.Space == nsPubsub || payload.name.Space == nsPubsubOwner:
		s.pubsubIQ(c, a, iq, payload)
	case get && a != nil && (own || a.roster[c.bare] != nil && a.roster[c.bare].from) && payload.is(nsInfo, "query"):
		s.accountInfo(c, a, iq, payload)
	case get && a != nil && payload.is(nsItems, "query"):
		list := el(nsItems, "query")
		for _, name := range slices.Sorted(maps.Keys(a.nodes)) {
			if s.mayRead(a, a.nodes[name], c.bare) == nil {
				list.add(el(nsItems, "item", "jid", a.bare, "node", name))
			}
		}
		s.reply(c, iq, list)
	case get && a != nil && payload.is(nsVCard, "vCard"):
		s.refuse(c, iq, itemNotFound)
	case own && !get && s.archives && payload.is(nsMAM, "query"):
		s.archiveIQ(c, &c.account.archive, c.bare, iq, payload)
	case own && payload.is(nsRoster, "query"):
		s.rosterIQ(c, iq, payload)
	case own && !get && payload.name.Space == nsCarbons:
		s.carbonsIQ(c, iq, payload)
	case own && get && payload.is(nsPing, "ping"):
		s.reply(c, iq)
	default:
		s.refuse(c, iq, serviceUnavailable)
	}
}

// carbonsIQ switches copies of messages on and off (XEP-0280 §4, §5).
func (s *Server) carbonsIQ(c *session, iq, payload *element) {
	switch payload.name.Local {
	case "enable":
		c.carbons = true
	case "disable":
		c.carbons = false
	default:
		s.refuse(c, iq, badRequest)
		return
	}
	s.reply(c, iq)
}

// accountInfo answers disco#info for an account or a node of its pubsub service.
func (s *Server) accountInfo(c *session, a *account, iq, query *element) {
	name := query.get("node")
	if name == "" {
		r := info("account", "registered", s.withArchive(pepFeatures()))
		s.reply(c, iq, r.add(el(nsInfo, "identity", "category", "pubsub", "type", "pep")))
		return
	}
	n := a.nodes[name]
	if n == nil || s.mayRead(a, n, c.bare) != nil {
		s.refuse(c, iq, itemNotFound)
		return
	}
	r := info("pubsub", "leaf", []string{nsPubsub})
	r.set("node", name)
	s.reply(c, iq, r.add(n.config.form("http://jabber.org/protocol/pubsub#meta-data", "result")))
}

func info(category, kind string, list []string) *element {
	r := el(nsInfo, "query").add(el(nsInfo, "identity", "category", category, "type", kind))
	for _, f := range list {
		r.add(el(nsInfo, "feature", "var", f))
	}
	return r
}
