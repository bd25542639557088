package main

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"mellium.im/xmpp"

	"example.org/omellium/bundle"
	"example.org/omellium/devicelist"
	"example.org/omellium/omemo"
	"example.org/omellium/stanza/pep"
)

// advert returns what the program advertises: what the store says, which the
// program has written down, or else what the server has of the device.
func (c *control) advert(ctx context.Context) (omemo.Advert, error) {
	a, written, err := c.manager.Advert(ctx)
	if err != nil || written {
		return a, err
	}
	err = c.asking(ctx, func(session *xmpp.Session) (err error) {
		a, err = announced(ctx, patience{pep.SessionRequester(session)}, c.manager)
		return err
	})
	return a, err
}

// announced returns what a device was announced as by a program that has written
// nothing down: the versions in which it is listed or has a bundle, and its label. One
// that is not announced at all is going to be in both versions. Nobody knows how long
// the program keeps its signed pre keys: as long as may be, so that none is rotated too
// early.
func announced(ctx context.Context, r pep.Requester, m *omemo.Manager) (omemo.Advert, error) {
	a := omemo.Advert{SignedPreKeyPeriod: omemo.MaxSignedPreKeyPeriod}
	ours, err := m.Bundle(ctx, omemo.V2)
	if err != nil {
		return a, err
	}
	own := ours.Owner.Device
	for _, v := range omemo.Versions() {
		list, _, err := readList(ctx, r, v)
		if i := indexOf(list, own); i >= 0 {
			a.Versions = append(a.Versions, v)
			if v == omemo.V2 {
				a.Label = signedLabel(ours, list.Devices[i])
			}
			continue
		}
		_, e := readBundle(ctx, r, own, v)
		switch {
		case e == nil || errors.Is(e, bundle.ErrMalformed):
			a.Versions = append(a.Versions, v)
		case !errors.Is(e, pep.ErrNone):
			return a, fmt.Errorf("whether %s is served is not known: %w", v, e)
		case unread(err):
			return a, fmt.Errorf("whether %s is served is not known: %w", v, err)
		}
	}
	if len(a.Versions) == 0 {
		a.Versions = omemo.Versions()
	}
	return a, nil
}

// readList returns our list of a version and all items of its node. An error is not
// pep.ErrNone only because one question finds nothing: of a node whose items it cannot read,
// Prosody says that it has no such item, and nothing if it is asked for all.
func readList(ctx context.Context, r pep.Requester, v omemo.Version) (devicelist.List, []pep.Item, error) {
	none := devicelist.List{Version: v}
	items, err := pep.Items(ctx, r, "", devicelist.Node(v))
	if err != nil {
		return none, nil, err
	}
	list, err := devicelist.Fetch(ctx, r, "", v)
	if err != nil {
		list = none
	}
	return list, items, err
}

// readBundle returns our own bundle of a version; an error is pep.ErrNone as that of
// readList.
func readBundle(ctx context.Context, r pep.Requester, own omemo.DeviceID, v omemo.Version) (omemo.Bundle, error) {
	b, err := bundle.Fetch(ctx, r, omemo.Address{Device: own}, v)
	if errors.Is(err, pep.ErrNone) {
		if _, e := pep.Items(ctx, r, "", bundle.Node(v, own)); unread(e) {
			return b, e
		}
	}
	return b, err
}

// unread reports whether the error of fetching a device list or a bundle leaves
// open what the server has.
func unread(err error) bool {
	return err != nil && !errors.Is(err, pep.ErrNone) && !malformed(err)
}

// malformed reports whether what was read is no device list, or no bundle.
func malformed(err error) bool {
	return errors.Is(err, devicelist.ErrMalformed) || errors.Is(err, devicelist.ErrTooLarge) || errors.Is(err, bundle.ErrMalformed)
}

// indexOf returns where a device stands on a list, or -1.
func indexOf(list devicelist.List, id omemo.DeviceID) int {
	return slices.IndexFunc(list.Devices, func(e devicelist.Device) bool { return e.ID == id })
}

// signedLabel returns the label of an entry if the device of the bundle has signed it
// as it stands there; else nothing.
func signedLabel(b *omemo.Bundle, entry devicelist.Device) string {
	known := omemo.Device{Peer: b.Peer(), Identity: b.IdentityKey, Label: entry.Label}
	copy(known.LabelSignature[:], entry.LabelSig)
	if known.VerifiedLabel() != entry.Label {
		return ""
	}
	return entry.Label
}
