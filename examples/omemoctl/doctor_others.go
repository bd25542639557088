package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"

	"example.org/omellium/bundle"
	"example.org/omellium/devicelist"
	"example.org/omellium/omemo"
	"example.org/omellium/stanza"
	"example.org/omellium/stanza/pep"
)

// others checks the other devices on our list: whether they have a bundle, and
// bundles that no listed device has.
func (d *doctor) others(ctx context.Context, v omemo.Version, list devicelist.List) {
	const have = "bundles have devices"
	var items []pep.Item
	if v == omemo.V2 {
		var err error
		// One node has all bundles: if it cannot be read, nobody's bundle is missing.
		if items, err = pep.Items(ctx, d.pep, "", bundle.NodeV2); unread(err) {
			d.unread(have, v, err)
			return
		}
	}
	var stale, torn []omemo.DeviceID
	var hidden error // why bundles cannot be read
	for _, other := range list.Devices {
		if other.ID == d.own.Device {
			continue
		}
		b, err := bundle.Fetch(ctx, d.pep, omemo.Address{Device: other.ID}, v)
		if unread(err) {
			hidden = errors.Join(hidden, fmt.Errorf("device %d: %w", other.ID, err))
			continue
		}
		if err != nil || b.Verify() != nil {
			stale = append(stale, other.ID)
			continue
		}
		if v == omemo.V2 && !d.sameIdentity(ctx, &b) {
			torn = append(torn, other.ID)
		}
	}
	fault := ""
	if len(stale) > 0 {
		fault = fmt.Sprintf("devices without a bundle that can be used: %d", stale)
	}
	d.add("devices have bundles", v, fault, func(ctx context.Context) error {
		return d.rewrite(ctx, v, func(all []devicelist.Device) []devicelist.Device {
			return slices.DeleteFunc(all, func(e devicelist.Device) bool { return slices.Contains(stale, e.ID) })
		})
	})
	if hidden != nil {
		d.unread("bundles of devices", v, hidden)
	}
	if v != omemo.V2 {
		return
	}
	fault = ""
	if len(torn) > 0 {
		fault = fmt.Sprintf("devices with another identity key in legacy: %d", torn)
	}
	d.add("devices have one identity", v, fault, nil)
	var foreign []string
	for _, item := range items {
		id, err := strconv.ParseUint(item.ID, 10, 32)
		if err != nil || omemo.DeviceID(id) != d.own.Device && !list.Contains(omemo.DeviceID(id)) {
			foreign = append(foreign, item.ID)
		}
	}
	fault = ""
	if len(foreign) > 0 {
		fault = fmt.Sprintf("items of no listed device: %q", foreign)
	}
	d.add(have, v, fault, func(ctx context.Context) error { return d.retract(ctx, bundle.NodeV2, foreign) })
}

// sameIdentity reports whether a device has the same identity key in legacy, as
// far as it has a bundle there.
func (d *doctor) sameIdentity(ctx context.Context, b *omemo.Bundle) bool {
	old, err := bundle.Fetch(ctx, d.pep, b.Owner, omemo.Legacy)
	if err != nil {
		return true
	}
	f, err := b.Fingerprint()
	g, e := old.Fingerprint()
	return err != nil || e != nil || f == g
}

// labels checks the names on the omemo:2 list: each has to be signed by its
// device.
func (d *doctor) labels(ctx context.Context, v omemo.Version, list devicelist.List) {
	if v != omemo.V2 {
		return
	}
	var bad []omemo.DeviceID
	item, err := pep.Fetch(ctx, d.pep, "", devicelist.NodeV2, "current")
	if err != nil {
		d.unread("labels", v, err)
		return
	}
	for e := range item.Payload.Elements() {
		// The codec leaves out what has no signature: look at what was published.
		label, _ := e.Attribute("label")
		value, _ := e.Attribute("id")
		id, err := stanza.ParseDevice(stanza.NSV2, value)
		if label == "" || err != nil {
			continue
		}
		if !d.labelHolds(ctx, list, omemo.DeviceID(id)) {
			bad = append(bad, omemo.DeviceID(id))
		}
	}
	fault := ""
	if len(bad) > 0 {
		fault = fmt.Sprintf("not signed by the device: %d", bad)
	}
	d.add("labels", v, fault, func(ctx context.Context) error {
		return d.rewrite(ctx, v, func(all []devicelist.Device) []devicelist.Device {
			for i := range all {
				if slices.Contains(bad, all[i].ID) {
					all[i] = devicelist.Device{ID: all[i].ID}
				}
			}
			return all
		})
	})
}

// labelHolds reports whether the label of a listed device is signed with the
// identity key in its bundle.
func (d *doctor) labelHolds(ctx context.Context, list devicelist.List, id omemo.DeviceID) bool {
	i := indexOf(list, id)
	if i < 0 || list.Devices[i].Label == "" {
		return false
	}
	if id == d.own.Device {
		return signedLabel(d.ours, list.Devices[i]) != ""
	}
	b, err := bundle.Fetch(ctx, d.pep, omemo.Address{JID: d.own.JID, Device: id}, omemo.V2)
	if err != nil {
		return true // that is another fault
	}
	known := omemo.Device{Peer: b.Peer(), Identity: b.IdentityKey, Label: list.Devices[i].Label}
	copy(known.LabelSignature[:], list.Devices[i].LabelSig)
	return known.VerifiedLabel() != ""
}
