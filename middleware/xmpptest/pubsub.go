package xmpptest

import (
	"fmt"
	"slices"
	"strconv"
)

const (
	nsPubsub       = "http://jabber.org/protocol/pubsub"
	nsPubsubOwner  = nsPubsub + "#owner"
	nsPubsubEvent  = nsPubsub + "#event"
	nsPubsubErrors = nsPubsub + "#errors"

	formPublishOptions = nsPubsub + "#publish-options"
	formNodeConfig     = nsPubsub + "#node_config"
)

// pepFeatures lists what an account's pubsub service can do (XEP-0163 §6).
func pepFeatures() []string {
	list := []string{nsInfo, nsItems}
	for _, f := range []string{
		"access-open", "access-presence", "access-whitelist", "auto-create", "auto-subscribe", "config-node", "config-node-max",
		"create-and-configure", "create-nodes", "delete-items", "delete-nodes", "filtered-notifications", "item-ids",
		"last-published", "multi-items", "persistent-items", "presence-notifications", "publish", "publish-options",
		"purge-nodes", "retract-items", "retrieve-default", "retrieve-items",
	} {
		list = append(list, nsPubsub+"#"+f)
	}
	return list
}

func pubsubError(kind, condition, specific string) *stanzaError {
	return &stanzaError{kind: kind, condition: condition, space: nsPubsubErrors, specific: specific}
}

// pubsubIQ answers a request to the pubsub service of an account, which is nil if it does not exist.
func (s *Server) pubsubIQ(c *session, a *account, iq, pubsub *element) {
	if a != nil && a.hangPEP {
		return
	}
	answer, refusal := s.pubsubRequest(c, a, iq.get("type")+" ", pubsub)
	if refusal != nil {
		s.refuse(c, iq, *refusal)
		return
	}
	s.reply(c, iq, answer)
}

func (s *Server) pubsubRequest(c *session, a *account, kind string, pubsub *element) (*element, *stanzaError) {
	children := pubsub.elements()
	if len(children) == 0 {
		return nil, &badRequest
	}
	request, own := children[0], a == c.account
	name := request.get("node")
	verb := kind + request.name.Local
	if pubsub.name.Space == nsPubsubOwner {
		verb += " by owner"
	}
	if a == nil {
		return nil, s.absent(a, c.bare)
	}
	n := a.nodes[name]
	switch verb {
	case "set publish":
		if !own && (n == nil || n.config.publishers != "open") {
			return nil, &forbidden
		}
		return s.publish(c, a, n, pubsub, request)
	case "get items":
		return s.items(c, a, n, request)
	}
	if !own {
		return nil, &forbidden
	}
	switch verb {
	case "set create":
		return s.create(a, n, pubsub, name)
	case "get default by owner":
		return el(nsPubsubOwner, "pubsub").add(el(nsPubsubOwner, "default").
			add(defaultConfig().form(formNodeConfig, "form"))), nil
	case "set retract", "get configure by owner", "set configure by owner", "set purge by owner", "set delete by owner":
		if n == nil {
			return nil, &itemNotFound
		}
	default:
		return nil, &stanzaError{kind: "cancel", condition: "feature-not-implemented"}
	}
	switch verb {
	case "set retract":
		return s.retract(a, n, request)
	case "get configure by owner":
		return el(nsPubsubOwner, "pubsub").add(el(nsPubsubOwner, "configure", "node", name).
			add(n.config.form(formNodeConfig, "form"))), nil
	case "set configure by owner":
		return s.configure(n, request)
	case "set purge by owner":
		n.items = nil
		s.notify(a, n, el(nsPubsubEvent, "purge", "node", name))
	case "set delete by owner":
		delete(a.nodes, name)
		if n.config.notifyDelete {
			s.notify(a, n, el(nsPubsubEvent, "delete", "node", name))
		}
	}
	return nil, nil
}

// absent is the answer to a request for what does not exist.
func (s *Server) absent(a *account, asking string) *stanzaError {
	known := a != nil && (a.bare == asking || a.roster[asking] != nil && a.roster[asking].from)
	if s.forbidStrangers && !known {
		return &forbidden
	}
	return &itemNotFound
}

// mayRead applies the access model of a node (XEP-0060 §4.5) to a bare JID.
func (s *Server) mayRead(a *account, n *node, asking string) *stanzaError {
	k := a.roster[asking]
	switch {
	case a.bare == asking,
		n.config.access == "open",
		n.config.access == "presence" && k != nil && k.from:
		return nil
	case s.forbidStrangers:
		return &forbidden
	case n.config.access == "presence":
		return pubsubError("auth", "not-authorized", "presence-subscription-required")
	}
	return pubsubError("cancel", "not-allowed", "closed-node")
}

// publish stores and announces an item (XEP-0060 §7.1). Options are the configuration of a node that
// does not exist yet, and conditions for one that does.
func (s *Server) publish(c *session, a *account, n *node, pubsub, publish *element) (*element, *stanzaError) {
	name, items := publish.get("node"), publish.elements()
	if name == "" {
		return nil, pubsubError("modify", "bad-request", "nodeid-required")
	}
	if len(items) != 1 || !items[0].is(nsPubsub, "item") {
		return nil, pubsubError("modify", "bad-request", "item-required")
	}
	payload := items[0].elements()
	if len(payload) != 1 {
		return nil, pubsubError("modify", "bad-request", "invalid-payload")
	}
	config := defaultConfig()
	if n != nil {
		config = n.config
	}
	if options := pubsub.child(nsPubsub, "publish-options"); options != nil {
		wanted, fields, refusal := config.apply(options.child(nsForm, "x"), formPublishOptions)
		switch {
		case s.refuseMaxItems && slices.Contains(fields, maxItemsField):
			return nil, &stanzaError{kind: "wait", condition: "resource-constraint"}
		case refusal != nil:
			return nil, refusal
		case n != nil && wanted != n.config:
			return nil, pubsubError("cancel", "conflict", "precondition-not-met")
		}
		config = wanted
	}
	if n == nil {
		n = &node{name: name, config: config}
		a.nodes[name] = n
	}
	it := item{id: items[0].get("id"), publisher: c.bare, payload: payload[0].xml()}
	if it.id == "" {
		it.id = newID()
	}
	s.publishItem(a, n, it)
	return el(nsPubsub, "pubsub").add(el(nsPubsub, "publish", "node", name).add(el(nsPubsub, "item", "id", it.id))), nil
}

// publishItem stores and announces an item.
func (s *Server) publishItem(a *account, n *node, it item) {
	n.put(it)
	event := it.element(nsPubsubEvent)
	event.set("publisher", it.publisher)
	s.notify(a, n, el(nsPubsubEvent, "items", "node", n.name).add(event))
}

// items returns the items asked for by id, or the last ones (XEP-0060 §6.5).
func (s *Server) items(c *session, a *account, n *node, request *element) (*element, *stanzaError) {
	if n == nil {
		return nil, s.absent(a, c.bare)
	}
	if refusal := s.mayRead(a, n, c.bare); refusal != nil {
		return nil, refusal
	}
	list := el(nsPubsub, "items", "node", n.name)
	if ids := request.elements(); len(ids) > 0 {
		for _, id := range ids {
			if i := n.find(id.get("id")); i >= 0 {
				list.add(n.items[i].element(nsPubsub))
			}
		}
		return el(nsPubsub, "pubsub").add(list), nil
	}
	found := n.items
	if limit := request.get("max_items"); limit != "" {
		number, err := strconv.Atoi(limit)
		if err != nil || number < 1 {
			return nil, &badRequest
		}
		found = found[max(0, len(found)-number):]
	}
	for _, it := range found {
		list.add(it.element(nsPubsub))
	}
	return el(nsPubsub, "pubsub").add(list), nil
}

func (s *Server) create(a *account, n *node, pubsub *element, name string) (*element, *stanzaError) {
	switch {
	case n != nil:
		return nil, &stanzaError{kind: "cancel", condition: "conflict"}
	case name == "":
		return nil, pubsubError("modify", "not-acceptable", "nodeid-required")
	}
	config := defaultConfig()
	if configure := pubsub.child(nsPubsub, "configure"); configure != nil && len(configure.elements()) > 0 {
		var refusal *stanzaError
		if config, _, refusal = config.apply(configure.child(nsForm, "x"), formNodeConfig); refusal != nil {
			return nil, refusal
		}
	}
	a.nodes[name] = &node{name: name, config: config}
	return nil, nil
}

func (s *Server) configure(n *node, request *element) (*element, *stanzaError) {
	form := request.child(nsForm, "x")
	if form != nil && form.get("type") == "cancel" {
		return nil, nil
	}
	config, _, refusal := n.config.apply(form, formNodeConfig)
	if refusal != nil {
		return nil, refusal
	}
	n.config = config
	n.trim()
	return nil, nil
}

// retract removes one item (XEP-0060 §7.2).
func (s *Server) retract(a *account, n *node, request *element) (*element, *stanzaError) {
	items := request.elements()
	if len(items) != 1 || items[0].get("id") == "" {
		return nil, pubsubError("modify", "bad-request", "item-required")
	}
	i := n.find(items[0].get("id"))
	if i < 0 {
		return nil, &itemNotFound
	}
	id := n.items[i].id
	n.items = slices.Delete(n.items, i, i+1)
	if asked := request.get("notify"); n.config.notifyRetract || asked == "1" || asked == "true" {
		s.notify(a, n, el(nsPubsubEvent, "items", "node", n.name).add(el(nsPubsubEvent, "retract", "id", id)))
	}
	return nil, nil
}

// Item is a published item.
type Item struct {
	ID      string
	Payload []byte // one element
}

// Items returns the items of an account's node, oldest first; none if there is no such node.
func (s *Server) Items(account, nodeName string) ([]Item, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	a, err := s.account(account)
	if err != nil {
		return nil, err
	}
	var found []Item
	if n := a.nodes[nodeName]; n != nil {
		for _, it := range n.items {
			found = append(found, Item{ID: it.id, Payload: slices.Clone(it.payload)})
		}
	}
	return found, nil
}

// Publish puts an item with the given payload, one element, on an account's node and announces it as
// if the account had published it: what a server can do behind the account's back. A node that does
// not exist is created, open to everybody.
func (s *Server) Publish(account, nodeName, id, payload string) error {
	e, err := parseElement([]byte(payload))
	if err != nil {
		return fmt.Errorf("xmpptest: payload: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	a, err := s.account(account)
	if err != nil {
		return err
	}
	n := a.nodes[nodeName]
	if n == nil {
		n = &node{name: nodeName, config: defaultConfig()}
		n.config.access = "open"
		a.nodes[nodeName] = n
	}
	s.publishItem(a, n, item{id: id, publisher: a.bare, payload: e.xml()})
	return nil
}
