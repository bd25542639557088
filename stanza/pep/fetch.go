package pep

import (
	"context"
	"fmt"

	"example.org/omellium/stanza"
	xmppstanza "mellium.im/xmpp/stanza"
)

// Item is an item of a node.
type Item struct {
	ID string
	// Payload is nil if the item came without, as in events of nodes that are
	// configured so.
	Payload *stanza.Element
}

// Fetch returns the item of the given id. If there is none that we may see, the
// error is ErrNone. An item of another id is never returned. The empty account is
// our own.
func Fetch(ctx context.Context, r Requester, account, node, id string) (Item, error) {
	query := stanza.NewElement(NS, "items", stanza.NewElement(NS, "item").SetAttribute("id", id))
	items, err := fetch(ctx, r, account, node, query)
	if err != nil {
		return Item{}, err
	}
	for _, item := range items {
		if item.ID == id && item.Payload != nil {
			return item, nil
		}
	}
	return Item{}, fmt.Errorf("%w: %s has no item %s", ErrNone, node, id)
}

// Newest returns the newest item, whatever its id. If there is none that we may
// see, the error is ErrNone.
func Newest(ctx context.Context, r Requester, account, node string) (Item, error) {
	query := stanza.NewElement(NS, "items").SetAttribute("max_items", "1")
	items, err := fetch(ctx, r, account, node, query)
	if err != nil {
		return Item{}, err
	}
	// Servers that ignore max_items answer with all, of which clients that
	// publish one only call it "current".
	found := Item{}
	for _, item := range items {
		if item.Payload != nil && found.ID != "current" {
			found = item
		}
	}
	if found.Payload == nil {
		return Item{}, fmt.Errorf("%w: %s is empty", ErrNone, node)
	}
	return found, nil
}

func fetch(ctx context.Context, r Requester, account, node string, query *stanza.Element) ([]Item, error) {
	query.SetAttribute("node", node)
	reply, err := request(ctx, r, xmppstanza.GetIQ, account, stanza.NewElement(NS, "pubsub", query))
	switch {
	case account == "" && isAbsent(err), account != "" && isNone(err):
		return nil, fmt.Errorf("%w: %w", ErrNone, err)
	case err != nil:
		return nil, fmt.Errorf("pep: fetching %s: %w", node, err)
	}
	pubsub := reply.Child(NS, "pubsub")
	if pubsub == nil {
		return nil, fmt.Errorf("%w: empty reply", ErrNone)
	}
	items := pubsub.Child(NS, "items")
	if items == nil {
		return nil, fmt.Errorf("%w: empty reply", ErrNone)
	}
	if answered, ok := items.Attribute("node"); ok && answered != node {
		return nil, fmt.Errorf("pep: fetching %s: reply is about %q", node, answered)
	}
	return parseItems(items, NS), nil
}

// parseItems returns the items below e. The payload is an item's first element.
func parseItems(e *stanza.Element, space string) []Item {
	var items []Item
	for child := range e.Elements() {
		if !child.Is(space, "item") {
			continue
		}
		item := Item{}
		item.ID, _ = child.Attribute("id")
		for item.Payload = range child.Elements() {
			break
		}
		items = append(items, item)
	}
	return items
}
