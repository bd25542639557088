package middleware

import (
	"context"
	"errors"
	"slices"

	"example.org/omellium/devicelist"
	"example.org/omellium/omemo"
	"example.org/omellium/stanza/pep"
)

// unlist takes devices off our own list of a version.
func (l *link) unlist(ctx context.Context, v omemo.Version, ids ...omemo.DeviceID) error {
	list, err := l.ownList(ctx, v)
	if err != nil {
		return err
	}
	kept := slices.DeleteFunc(slices.Clone(list.Devices), func(d devicelist.Device) bool { return slices.Contains(ids, d.ID) })
	if len(kept) < len(list.Devices) {
		list.Devices = kept
		if err := l.publishOwn(ctx, list, ids...); err != nil {
			return err
		}
	}
	return l.keepList(ctx, list)
}

// ownList is a list of our own, with the number of events about it that had
// been heard when it was asked for.
type ownList struct {
	devicelist.List
	heard uint64
}

// ownList fetches our own list of a version; none is an empty one. One that the
// server does not let us see is an error: what we publish takes its place. So is one
// that it says nothing about, ErrSilent: Prosody does not answer if what it has
// stored cannot be read.
func (l *link) ownList(ctx context.Context, v omemo.Version) (ownList, error) {
	own := ownList{heard: l.directory.heard(listKey{l.m.own.JID, v})}
	err := l.answered(ctx, func(ctx context.Context) (err error) {
		own.List, err = devicelist.Fetch(ctx, l, "", v)
		return err
	})
	if err != nil && !errors.Is(err, pep.ErrNone) {
		return own, err
	}
	own.Version = v
	return own, nil
}

// answered asks the server for something of our own. If it says nothing, the error is
// ErrSilent.
func (l *link) answered(ctx context.Context, ask func(context.Context) error) error {
	limited, cancel := context.WithTimeout(ctx, l.m.config.FetchTimeout)
	defer cancel()
	err := ask(limited)
	if err != nil && limited.Err() != nil && ctx.Err() == nil {
		return ErrSilent
	}
	return err
}

// ids returns the devices of a list in the order of their ids.
func (l ownList) ids() []omemo.DeviceID {
	var ids []omemo.DeviceID
	for _, d := range l.Devices {
		ids = append(ids, d.ID)
	}
	slices.Sort(ids)
	return ids
}

// keepList takes over a list of our own that was fetched.
func (l *link) keepList(ctx context.Context, list ownList) error {
	return l.directory.fetched(ctx, listKey{l.m.own.JID, list.Version}, list.List, list.heard)
}

// added returns the devices of a new list of our own that are news: those that
// stood on neither list so far, and those that are back on this one although
// their key is distrusted.
func (l *link) added(ctx context.Context, v omemo.Version, ids []omemo.DeviceID) ([]omemo.DeviceID, error) {
	_, known, err := l.m.manager.Account(ctx, l.m.own.JID)
	if err != nil {
		return nil, err
	}
	expected := []omemo.DeviceID{l.m.own.Device()}
	for _, d := range known {
		if !d.Active {
			continue
		}
		trust := omemo.Undecided
		if !d.Fingerprint.IsZero() {
			if trust, err = l.m.manager.TrustOf(ctx, d.Address, d.Fingerprint); err != nil {
				return nil, err
			}
		}
		if d.Version == v || trust != omemo.Distrusted {
			expected = append(expected, d.Address.Device)
		}
	}
	return slices.DeleteFunc(slices.Clone(ids), func(id omemo.DeviceID) bool { return slices.Contains(expected, id) }), nil
}
