package middleware

import (
	"context"
	"errors"
	"sync"
	"time"

	"example.org/omellium/bundle"
	"example.org/omellium/devicelist"
	"example.org/omellium/omemo"
)

// leaving knows the versions that are not served any more and on whose lists our
// device may stand all the same: the list could not be read or written when it was to
// be taken off, or another client has put it back.
type leaving struct {
	mu    sync.Mutex
	tried map[omemo.Version]time.Time // zero: at once
}

// note has the worker take our device off the list of a version, a while after it was
// tried.
func (n *leaving) note(v omemo.Version, tried time.Time) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.tried == nil {
		n.tried = make(map[omemo.Version]time.Time)
	}
	n.tried[v] = tried
}

// left notes that our device is off the list, unless something was heard of it since
// that was tried.
func (n *leaving) left(v omemo.Version, tried time.Time) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.tried[v].Equal(tried) {
		delete(n.tried, v)
	}
}

// due reports whether it is time to try.
func (n *leaving) due(v omemo.Version) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	tried, ok := n.tried[v]
	return ok && time.Since(tried) >= listPause
}

// unserve takes our device off the list of a version, with its bundle. If that cannot
// be done now, the worker tries again.
func (l *link) unserve(ctx context.Context, v omemo.Version) error {
	l.endVersion(v)
	tried := time.Now()
	l.leaving.note(v, tried)
	if err := l.unlist(ctx, v, l.m.own.Device()); err != nil {
		return err
	}
	if err := bundle.Retract(ctx, l, v, l.m.own.Device()); err != nil {
		return err
	}
	l.leaving.left(v, tried)
	return nil
}

// seenOn has the worker take our device off a list on which it stands although the
// version is not served any more.
func (l *link) seenOn(list devicelist.List) {
	if errors.Is(l.m.Withdrawn(list.Version), ErrPurged) && list.Contains(l.m.own.Device()) {
		l.leaving.note(list.Version, time.Time{})
		signal(l.wake)
	}
}

// leave takes our device off the list of a version that is not served any more, if it
// is time to. Another client that keeps putting it back is not answered for ever.
func (l *link) leave(ctx context.Context, v omemo.Version) error {
	if !errors.Is(l.m.Withdrawn(v), ErrPurged) || !l.leaving.due(v) {
		return nil
	}
	if allowed, _ := l.m.leaves.allow(); !allowed {
		l.leaving.note(v, time.Now())
		return nil
	}
	if err := l.unserve(ctx, v); err != nil && !isVerdict(err) {
		return err
	}
	return nil
}
