package middleware

import (
	"context"
	"errors"

	"example.org/omellium/bundle"
	"example.org/omellium/devicelist"
	"example.org/omellium/omemo"
	"example.org/omellium/stanza/pep"
)

// Reasons why a version is withdrawn, besides what the server itself answers.
var (
	// ErrAccessModel: a node can only be read by some, and the server does not
	// let us open it.
	ErrAccessModel = errors.New("middleware: not everybody can read what is published")
	// ErrItemLimit: the server keeps fewer bundles than the account has devices,
	// so that publishing ours would remove another one.
	ErrItemLimit = errors.New("middleware: server does not keep the bundles of all devices")
	// ErrReadBack: what can be read is not what was published.
	ErrReadBack = errors.New("middleware: what was published is not what can be read")
	// ErrSilent: the server does not say what is published.
	ErrSilent = errors.New("middleware: server does not answer")
)

// isVerdict reports whether the server has spoken, or will not speak, as opposed to
// the connection having failed.
func isVerdict(err error) bool {
	_, refused := errors.AsType[*pep.Error](err)
	for _, reason := range []error{ErrAccessModel, ErrItemLimit, ErrReadBack, ErrSilent, pep.ErrNone, bundle.ErrMalformed, devicelist.ErrMalformed, devicelist.ErrTooLarge} {
		refused = refused || errors.Is(err, reason)
	}
	return refused
}

// withdraw takes our device off the list of a version. The bundle stays owed, so
// that it is tried again. From a list that the server says nothing about it is not
// taken: if it answers after all, we are to stay.
func (l *link) withdraw(ctx context.Context, v omemo.Version, reason error) error {
	if err := l.m.manager.Owe(ctx, omemo.OwedID{Kind: omemo.OwedBundle, Peer: omemo.Peer{Version: v}}); err != nil {
		return err
	}
	if !errors.Is(reason, ErrSilent) {
		if err := l.unlist(ctx, v, l.m.own.Device()); err != nil && !isVerdict(err) {
			return err
		}
	}
	if l.m.setWithdrawn(v, reason) {
		l.m.emit(Event{Kind: Withdrawn, Version: v, Err: reason})
	}
	return nil
}

// setWithdrawn notes that a version is withdrawn, and reports whether that is
// news.
func (m *Middleware) setWithdrawn(v omemo.Version, reason error) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	_, before := m.withdrawn[v]
	if m.withdrawn == nil {
		m.withdrawn = make(map[omemo.Version]error)
	}
	m.withdrawn[v] = reason
	return !before
}

// restore notes that a version is served.
func (m *Middleware) restore(v omemo.Version) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.withdrawn, v)
}

// Withdrawn returns why a version is not served at this moment; nil if it is, or
// if the connection was not set up yet.
func (m *Middleware) Withdrawn(v omemo.Version) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.withdrawn[v]
}
