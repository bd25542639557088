package pep

import (
	"errors"
	"fmt"

	"example.org/omellium/stanza"
	"mellium.im/xmpp/jid"
)

// ErrEvent: an event that cannot be relied on.
var ErrEvent = errors.New("pep: event refused")

// Event is a notification about a node.
type Event struct {
	// Account is the canonical bare JID that the event came from, and so the
	// account that it is about; empty for the own account if the server left the
	// address out. Nothing inside an event can name another.
	Account string
	Node    string
	Items   []Item
	// Retracted holds the ids of items that were removed.
	Retracted []string
	// Cleared: the node was purged or deleted, and no item is left.
	Cleared bool
}

// ParseEvent reads the event in a message. If there is none, it returns nil and
// no error. Events come from accounts: a sender with a resource, such as an
// occupant of a room, is ErrEvent, and so is an event that is not about exactly
// one node.
func ParseEvent(message *stanza.Element) (*Event, error) {
	body := message.Child(NSEvent, "event")
	if typ, _ := message.Attribute("type"); body == nil || typ == "error" {
		return nil, nil
	}
	e := &Event{}
	if from, _ := message.Attribute("from"); from != "" {
		j, err := jid.Parse(from)
		if err != nil || j.Resourcepart() != "" {
			return nil, fmt.Errorf("%w: sender", ErrEvent)
		}
		e.Account = j.String()
	}
	about := 0
	for child := range body.Elements() {
		if child.Name.Space != NSEvent {
			continue
		}
		switch child.Name.Local {
		case "items":
			e.Items = parseItems(child, NSEvent)
			e.Retracted = retracted(child)
		case "purge", "delete":
			e.Cleared = true
		default: // configuration, subscription, collection
			continue
		}
		e.Node, _ = child.Attribute("node")
		about++
	}
	if about == 0 {
		return nil, nil
	}
	if about > 1 || e.Node == "" {
		return nil, fmt.Errorf("%w: not about one node", ErrEvent)
	}
	return e, nil
}

func retracted(items *stanza.Element) []string {
	var ids []string
	for child := range items.Elements() {
		if child.Is(NSEvent, "retract") {
			id, _ := child.Attribute("id")
			ids = append(ids, id)
		}
	}
	return ids
}
