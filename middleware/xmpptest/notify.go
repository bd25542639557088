package xmpptest

import (
	"maps"
	"slices"
)

// notify announces an event of a node to those sessions of its owner, and of the owner's mutual
// contacts, that have asked for it by their capabilities (XEP-0163 §4).
func (s *Server) notify(a *account, n *node, event *element) {
	readers := []*account{a}
	if n.config.access != "whitelist" {
		for _, bare := range slices.Sorted(maps.Keys(a.roster)) {
			if b := s.accounts[bare]; b != nil && a.mutual(bare) {
				readers = append(readers, b)
			}
		}
	}
	for _, r := range readers {
		for _, c := range r.ordered() {
			if c.wants(n) {
				c.sendEvent(a, event)
			}
		}
	}
}

func (c *session) wants(n *node) bool {
	_, wanted := c.features[n.name+"+notify"]
	return wanted
}

func (c *session) sendEvent(owner *account, event *element) {
	c.sendElement(el(nsClient, "message", "type", "headline", "id", newID(), "from", owner.bare, "to", c.full).
		add(el(nsPubsubEvent, "event").add(event)))
}

// sendLast sends a session the last item of each node of an account that it wants to hear of and did
// not before (XEP-0163 §4.3.4).
func (s *Server) sendLast(owner *account, c *session, before map[string]struct{}) {
	for _, name := range slices.Sorted(maps.Keys(owner.nodes)) {
		n := owner.nodes[name]
		_, had := before[name+"+notify"]
		closed := n.config.access == "whitelist" && owner != c.account
		if had || closed || !c.wants(n) || len(n.items) == 0 || n.config.sendLast != "on_sub_and_presence" {
			continue
		}
		c.sendEvent(owner, el(nsPubsubEvent, "items", "node", name).add(n.items[len(n.items)-1].element(nsPubsubEvent)))
	}
}

// lastItemsFor sends a session the last items of everybody from whom it gets events.
func (s *Server) lastItemsFor(c *session, before map[string]struct{}) {
	s.sendLast(c.account, c, before)
	for _, bare := range slices.Sorted(maps.Keys(c.account.roster)) {
		if b := s.accounts[bare]; b != nil && c.account.mutual(bare) {
			s.sendLast(b, c, before)
		}
	}
}

// sendLastItems sends the sessions of one account the last items of another, when the two have just
// become mutual contacts.
func (s *Server) sendLastItems(owner, to *account) {
	if !owner.mutual(to.bare) {
		return
	}
	for _, c := range to.ordered() {
		s.sendLast(owner, c, nil)
	}
}
