package main

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"example.org/omellium/devicelist"
	"example.org/omellium/omemo"
	"example.org/omellium/stanza/pep"
)

// list checks our device list. It is not sound if there is none that can be read. A
// server that answers no question at all is an error: what it has is not known.
func (d *doctor) list(ctx context.Context, v omemo.Version) (_ devicelist.List, sound bool, _ error) {
	node := devicelist.Node(v)
	list, items, err := readList(ctx, d.pep, v)
	if errors.Is(err, errSilent) {
		if _, e := pep.Configuration(ctx, d.pep, node); errors.Is(e, errSilent) {
			return list, false, e
		}
	}
	const reachable = "list node reachable"
	if unread(err) {
		d.unread(reachable, v, err)
		if d.anew {
			d.findings[len(d.findings)-1].fix = func(ctx context.Context) error { return d.remake(ctx, v) }
		}
		return list, false, nil
	}
	d.add(reachable, v, "", nil)
	d.node(ctx, v, "list node", node, 1)
	fault := ""
	if malformed(err) {
		fault = err.Error()
	}
	d.add("list readable", v, fault, func(ctx context.Context) error { return d.replace(ctx, v) })
	var foreign []string
	for _, item := range items {
		if item.ID != "current" {
			foreign = append(foreign, item.ID)
		}
	}
	fault = ""
	if len(foreign) > 0 {
		fault = fmt.Sprintf("items besides the list: %q", foreign)
	}
	d.add("list alone on its node", v, fault, func(ctx context.Context) error {
		// What a foreign item lists counts as listed in legacy: it is taken over.
		if err := d.rewrite(ctx, v, nil); err != nil {
			return err
		}
		return d.retract(ctx, node, foreign)
	})
	d.entry(v, list)
	return list, err == nil, nil
}

// entry checks what stands on a list for this device.
func (d *doctor) entry(v omemo.Version, list devicelist.List) {
	i := indexOf(list, d.own.Device)
	fault, rewrite := "", func(ctx context.Context) error { return d.rewrite(ctx, v, nil) }
	if !d.serves(v) {
		if i >= 0 {
			fault = "this device is on it, but its program does not serve this version"
		}
		d.add("own device off the list", v, fault, rewrite)
		return
	}
	if i < 0 {
		fault = "this device is not on it: nobody can write to it"
	}
	d.add("own device on the list", v, fault, rewrite)
	if v != omemo.V2 || i < 0 {
		return
	}
	fault = ""
	if label := signedLabel(d.ours, list.Devices[i]); label != d.advert.Label {
		fault = fmt.Sprintf("it is %q, and its program wants %q", label, d.advert.Label)
	}
	d.add("own label", v, fault, rewrite)
}

// rewrite publishes our list as it is, but for what change does to it, and with this
// device as it has to stand there.
func (d *doctor) rewrite(ctx context.Context, v omemo.Version, change func([]devicelist.Device) []devicelist.Device) error {
	list, _, err := readList(ctx, d.pep, v)
	if err != nil && !errors.Is(err, pep.ErrNone) {
		return err
	}
	if change != nil {
		list.Devices = change(list.Devices)
	}
	return d.publish(ctx, list)
}

// replace publishes a list with this device alone, in place of what was read and is
// no list.
func (d *doctor) replace(ctx context.Context, v omemo.Version) error {
	if _, _, err := readList(ctx, d.pep, v); !malformed(err) {
		return d.rewrite(ctx, v, nil) // somebody else has been here
	}
	return d.publish(ctx, devicelist.List{Version: v})
}

// remake deletes a node that cannot be read and publishes a list with this device
// alone. Whatever was on it is lost: only who is told to does so.
func (d *doctor) remake(ctx context.Context, v omemo.Version) error {
	if _, _, err := readList(ctx, d.pep, v); !unread(err) {
		return d.rewrite(ctx, v, nil) // it can be read by now
	}
	if err := pep.Delete(ctx, d.pep, devicelist.Node(v)); err != nil && !errors.Is(err, pep.ErrNone) {
		return err
	}
	return d.rewrite(ctx, v, nil)
}

// publish publishes a list with this device as it has to stand there: with its label,
// or not at all.
func (d *doctor) publish(ctx context.Context, list devicelist.List) error {
	i := indexOf(list, d.own.Device)
	if !d.serves(list.Version) {
		if i >= 0 {
			list.Devices = slices.Delete(list.Devices, i, i+1)
		}
		return devicelist.Publish(ctx, d.pep, list)
	}
	if i < 0 {
		i = len(list.Devices)
		list.Devices = append(list.Devices, devicelist.Device{})
	}
	switch own := &list.Devices[i]; {
	case list.Version != omemo.V2 || d.advert.Label == "":
		*own = devicelist.Device{ID: d.own.Device}
	case signedLabel(d.ours, *own) != d.advert.Label:
		label, err := d.manager.SignLabel(ctx, d.advert.Label)
		if err != nil {
			return err
		}
		*own = devicelist.Device{ID: d.own.Device, Label: label.Text, LabelSig: label.Signature[:]}
	}
	return devicelist.Publish(ctx, d.pep, list)
}

// retract removes items of a node.
func (d *doctor) retract(ctx context.Context, node string, ids []string) error {
	var failures []error
	for _, id := range ids {
		if err := pep.Retract(ctx, d.pep, node, id); err != nil && !errors.Is(err, pep.ErrNone) {
			failures = append(failures, err)
		}
	}
	return errors.Join(failures...)
}
