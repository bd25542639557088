package middleware

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"example.org/omellium/bundle"
	"example.org/omellium/omemo"
	"example.org/omellium/stanza/pep"
)

// Revoke removes another device of our own account, one that was lost or
// stolen: from the lists, with its bundles; its sessions are dropped, and its
// identity keys are distrusted for good, those that are known as well as those
// that its bundles name. If the server does not say what the bundles are, nothing
// is changed, and Revoke is to be called again.
//
// Whoever holds the device may still know the password of the account: he can put
// the device back, or another with another key, which is OwnDeviceAdded. Change
// the password first.
func (m *Middleware) Revoke(ctx context.Context, id omemo.DeviceID) error {
	l, err := m.ready(ctx)
	if err != nil {
		return err
	}
	if id == m.own.Device() {
		return ErrOwnDevice
	}
	keys, err := l.keysOf(ctx, id)
	if err != nil {
		return fmt.Errorf("middleware: revoking device %d: %w", id, err)
	}
	var decisions []omemo.Decision
	for _, f := range keys {
		decisions = append(decisions, omemo.Decision{JID: m.own.JID, Fingerprint: f, Trust: omemo.Distrusted})
	}
	if len(decisions) > 0 {
		if _, err := m.Decide(ctx, decisions...); err != nil {
			return err
		}
	}
	// Whatever is known about it, it must not stand on a list.
	var lost []omemo.Device
	for _, v := range omemo.Versions() {
		lost = append(lost, omemo.Device{Peer: omemo.Peer{Version: v, Address: omemo.Address{JID: m.own.JID, Device: id}}})
	}
	return l.removeOwn(ctx, lost)
}

// keysOf returns the keys of another device of our own account: those it is known
// by, and those of its bundles, because a device that was never written to is
// known by its id alone. A bundle may be a copy of another device's: the keys of
// those are not this one's.
func (l *link) keysOf(ctx context.Context, id omemo.DeviceID) ([]omemo.Fingerprint, error) {
	own, err := l.m.manager.Fingerprint(ctx)
	if err != nil {
		return nil, err
	}
	_, devices, err := l.m.manager.Account(ctx, l.m.own.JID)
	if err != nil {
		return nil, err
	}
	others := []omemo.Fingerprint{{}, own} // and none
	var keys []omemo.Fingerprint
	for _, d := range devices {
		switch {
		case d.Address.Device != id:
			others = append(others, d.Fingerprint)
		case !d.Fingerprint.IsZero():
			keys = append(keys, d.Fingerprint)
		}
	}
	for _, v := range omemo.Versions() {
		b, err := l.ownBundle(ctx, id, v)
		if errors.Is(err, pep.ErrNone) || errors.Is(err, bundle.ErrMalformed) {
			continue // nobody can encrypt to it
		}
		if err != nil {
			return nil, err
		}
		if f, err := b.Fingerprint(); err == nil && !slices.Contains(others, f) {
			keys = append(keys, f)
		}
	}
	slices.SortFunc(keys, func(a, b omemo.Fingerprint) int { return slices.Compare(a[:], b[:]) })
	return slices.Compact(keys), nil
}
