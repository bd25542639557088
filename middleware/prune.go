package middleware

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"example.org/omellium/bundle"
	"example.org/omellium/omemo"
	"mellium.im/xmpp/jid"
)

// PruneMinimum is the least time after which a device may be pruned.
const PruneMinimum = 14 * 24 * time.Hour

var (
	// ErrPurged: the version, or the whole account, is not served any more
	// because the application wants it so.
	ErrPurged = errors.New("middleware: not served any more")
	// ErrOwnDevice: this very device; Purge removes it.
	ErrOwnDevice = errors.New("middleware: this is our own device")
)

// Prune takes other devices of our own account off our device lists that have
// not been heard of for a time of at least PruneMinimum, with their bundles and
// our sessions with them, and returns them. A dry run returns those that would
// be. Nothing is pruned unless Prune is called: a device that is only switched
// off would not be written to any more.
func (m *Middleware) Prune(ctx context.Context, olderThan time.Duration, dryRun bool) ([]omemo.Device, error) {
	if olderThan < PruneMinimum {
		return nil, fmt.Errorf("middleware: pruning devices of the last %v: at least %v", olderThan, PruneMinimum)
	}
	l, err := m.ready(ctx)
	if err != nil {
		return nil, err
	}
	stale, err := l.staleOwn(ctx, time.Now().Add(-olderThan))
	if err != nil || dryRun || len(stale) == 0 {
		return stale, err
	}
	return stale, l.removeOwn(ctx, stale)
}

// staleOwn returns our own other devices that stand on a list and were last
// heard of, in whichever version, before a time.
func (l *link) staleOwn(ctx context.Context, before time.Time) ([]omemo.Device, error) {
	for _, v := range omemo.Versions() {
		err := l.answered(ctx, func(ctx context.Context) error {
			return l.directory.fetch(ctx, listKey{l.m.own.JID, v})
		})
		if err != nil {
			return nil, err
		}
	}
	_, devices, err := l.m.manager.Account(ctx, l.m.own.JID)
	if err != nil {
		return nil, err
	}
	heard := make(map[omemo.DeviceID]bool)
	for _, d := range devices {
		if d.FirstSeen.After(before) || d.LastSeen.After(before) {
			heard[d.Address.Device] = true
		}
	}
	return slices.DeleteFunc(devices, func(d omemo.Device) bool {
		return !d.Active || heard[d.Address.Device] || d.Address == l.m.own.Address()
	}), nil
}

// removeOwn removes other devices of our own account: from the lists first, so
// that nobody looks for a bundle that is gone.
func (l *link) removeOwn(ctx context.Context, devices []omemo.Device) error {
	for _, v := range omemo.Versions() {
		var ids []omemo.DeviceID
		var peers []omemo.Peer
		for _, d := range devices {
			if d.Version == v {
				ids, peers = append(ids, d.Address.Device), append(peers, d.Peer)
			}
		}
		if len(ids) == 0 {
			continue
		}
		if err := l.unlist(ctx, v, ids...); err != nil {
			return err
		}
		for _, id := range ids {
			if err := bundle.Retract(ctx, l, v, id); err != nil {
				return err
			}
		}
		if err := l.m.manager.ForgetSessions(ctx, peers...); err != nil {
			return err
		}
	}
	return nil
}

// Forget removes all that is known about a contact: see omemo.Manager.Forget.
func (m *Middleware) Forget(ctx context.Context, contact jid.JID) error {
	bare := contact.Bare().String()
	if err := m.manager.Forget(ctx, bare); err != nil {
		return err
	}
	if l := m.current(); l != nil {
		for _, v := range omemo.Versions() {
			l.directory.doubt(listKey{bare, v})
		}
	}
	return nil
}

// PurgeVersion ends to serve a version: our device is taken off its list, the
// bundle is removed, the sessions are dropped, and nothing is sent in it any more,
// be it to devices that have no other. It holds as long as this
// Middleware, and for whoever looks after the store while no program runs
// (omemo.Advert); leave the version out of Config.Versions to keep it so.
func (m *Middleware) PurgeVersion(ctx context.Context, v omemo.Version) error {
	l, err := m.ready(ctx)
	if err != nil {
		return err
	}
	l.endVersion(v)
	if err := m.recordAdvert(ctx); err != nil {
		return err
	}
	if err := l.unserve(ctx, v); err != nil {
		return err
	}
	return m.manager.ForgetVersion(ctx, v)
}

// endVersion notes that a version is not served any more, and tells so once.
func (l *link) endVersion(v omemo.Version) {
	if l.m.setWithdrawn(v, ErrPurged) {
		l.m.emit(Event{Kind: Withdrawn, Version: v, Err: ErrPurged})
	}
}

// Purge gives this device up: it is taken off the lists, its bundles are
// removed, the session ends, and everything in the store is removed, what was
// not yet read included. The store then holds another device that was never
// published, and may be deleted. The Middleware is closed.
func (m *Middleware) Purge(ctx context.Context) error {
	l, err := m.ready(ctx)
	if err != nil {
		return err
	}
	for _, v := range omemo.Versions() {
		if err := l.unserve(ctx, v); err != nil {
			return err
		}
	}
	if err := m.Close(); err != nil {
		return err
	}
	return m.manager.Reset(ctx)
}
