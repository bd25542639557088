package devicelist

import (
	"context"
	"errors"
	"fmt"

	"example.org/omellium/omemo"
	"example.org/omellium/stanza"
	"example.org/omellium/stanza/pep"
)

// item is the id under which lists are published.
const item = "current"

// Publish publishes the own account's list, readable by everybody. A list
// without devices is published by retracting the item: its readers see the same,
// except those that refuse an empty list (python-omemo before 1.1).
func Publish(ctx context.Context, r pep.Requester, l List) error {
	if !l.Version.Valid() {
		return fmt.Errorf("devicelist: publishing: %s", l.Version)
	}
	if len(l.Devices) == 0 {
		if err := pep.Retract(ctx, r, Node(l.Version), item); !errors.Is(err, pep.ErrNone) {
			return err
		}
		return nil
	}
	return pep.Publish(ctx, r, Node(l.Version), item, l.Element(), pep.Options{
		AccessModel: "open",
		Persist:     true,
		MaxItems:    "1",
	})
}

// Fetch returns an account's list; the empty account is our own. If there is
// none that we may see, the error is pep.ErrNone: an account without devices, as
// far as we are concerned. Of our own account it says for certain that there is
// none, so that a new one takes nothing's place.
func Fetch(ctx context.Context, r pep.Requester, account string, v omemo.Version) (List, error) {
	found, err := pep.Fetch(ctx, r, account, Node(v), item)
	if errors.Is(err, pep.ErrNone) && (v == omemo.Legacy || account == "") {
		// Old clients of legacy chose other ids. And of a node whose items it cannot
		// read, Prosody says that it has no such item, but nothing if it is asked for
		// the newest.
		newest, e := pep.Newest(ctx, r, account, Node(v))
		if e != nil || v == omemo.Legacy || newest.ID == item {
			found, err = newest, e
		}
	}
	if err != nil {
		return List{}, fmt.Errorf("devicelist: %w", err)
	}
	return parse(found.Payload, v)
}

// parse reads a payload that has to be of the given version.
func parse(payload *stanza.Element, v omemo.Version) (List, error) {
	l, err := Parse(payload)
	if err == nil && l.Version != v {
		return List{}, fmt.Errorf("%w: not a list of this version", ErrMalformed)
	}
	return l, err
}

// Event is news of a list.
type Event struct {
	// Account is the canonical bare JID whose list it is; empty for the own
	// account if the server left the address out.
	Account string
	// List is the list as it now is. It has no devices if it was removed.
	List List
	// Refetch: something changed, but the event does not say what the list now
	// is, because the payload is missing or there is more than one item. List
	// holds the version only.
	Refetch bool
}

// ParseEvent reads a device list event from a message. If the message holds
// none, it returns nil and no error. Errors are pep.ErrEvent, ErrMalformed or
// ErrTooLarge; the list that is known stays valid then.
func ParseEvent(message *stanza.Element) (*Event, error) {
	news, err := pep.ParseEvent(message)
	if news == nil || err != nil {
		return nil, err
	}
	v, ok := NodeVersion(news.Node)
	if !ok {
		return nil, nil
	}
	e := &Event{Account: news.Account, List: List{Version: v}}
	switch {
	case news.Cleared:
	case len(news.Items) == 0:
		// Of omemo:2, only one item counts; of legacy, others may be left.
		e.Refetch = v == omemo.Legacy || len(news.Retracted) != 1 || news.Retracted[0] != item
	case len(news.Items) > 1 || len(news.Retracted) > 0 || news.Items[0].Payload == nil,
		v == omemo.V2 && news.Items[0].ID != item:
		e.Refetch = true
	default:
		if e.List, err = parse(news.Items[0].Payload, v); err != nil {
			return nil, err
		}
	}
	return e, nil
}
