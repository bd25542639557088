package bundle

import (
	"context"
	"errors"
	"fmt"

	"example.org/omellium/omemo"
	"example.org/omellium/stanza/pep"
)

// Publish publishes the bundle of a device of the own account, readable by
// everybody. In omemo:2 the server is asked to keep the bundles of the other
// devices: one that does not leaves the newest only, which reading back shows.
func Publish(ctx context.Context, r pep.Requester, b *omemo.Bundle) error {
	if !b.Version.Valid() {
		return fmt.Errorf("bundle: publishing: %s", b.Version)
	}
	options := pep.Options{AccessModel: "open", Persist: true, MaxItems: "1"}
	if b.Version == omemo.V2 {
		options.MaxItems = pep.Maximum
	}
	id := b.Owner.Device
	return pep.Publish(ctx, r, Node(b.Version, id), item(b.Version, id), Element(b), options)
}

// Fetch returns the bundle of a device, not yet verified. If there is none that
// we may see, the error is pep.ErrNone; a bundle that cannot be read is
// ErrMalformed. Without a JID the device is one of the own account, and
// pep.ErrNone says for certain that it has no bundle. Bundles to encrypt with are
// fetched by the bare JID there, too, as any.
func Fetch(ctx context.Context, r pep.Requester, device omemo.Address, v omemo.Version) (omemo.Bundle, error) {
	node := Node(v, device.Device)
	var found pep.Item
	var err error
	if v == omemo.V2 {
		found, err = pep.Fetch(ctx, r, device.JID, node, item(v, device.Device))
	} else {
		// Clients choose the id of the item as they like.
		found, err = pep.Newest(ctx, r, device.JID, node)
	}
	if err != nil {
		return omemo.Bundle{}, fmt.Errorf("bundle: %w", err)
	}
	b, err := Parse(found.Payload, device)
	if err == nil && b.Version != v {
		return omemo.Bundle{}, fmt.Errorf("%w: not a bundle of this version", ErrMalformed)
	}
	return b, err
}

// Retract removes the bundle of a device of the own account. That there is none
// is no error.
func Retract(ctx context.Context, r pep.Requester, v omemo.Version, id omemo.DeviceID) error {
	var err error
	if v == omemo.V2 {
		err = pep.Retract(ctx, r, Node(v, id), item(v, id))
	} else {
		err = pep.Delete(ctx, r, Node(v, id)) // the node holds nothing else
	}
	if errors.Is(err, pep.ErrNone) {
		return nil
	}
	return err
}
