package middleware

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"example.org/omellium/bundle"
	"example.org/omellium/omemo"
	"example.org/omellium/stanza/pep"
)

// setUp brings our own device in order: its id is ours alone, its bundles are
// published, and then it stands on the device lists.
func (l *link) setUp(ctx context.Context) error {
	if err := l.m.recordAdvert(ctx); err != nil {
		return fmt.Errorf("%w: %w", ErrNotReady, err)
	}
	lists := make(map[omemo.Version]ownList)
	unread := make(map[omemo.Version]error) // lists that are there, but cannot be read
	for _, v := range omemo.Versions() {
		list, err := l.ownList(ctx, v)
		switch {
		case err == nil:
			lists[v] = list
		case isVerdict(err):
			unread[v] = err
		default:
			return fmt.Errorf("%w: %w", ErrNotReady, err)
		}
	}
	if err := l.claim(ctx, lists); err != nil {
		return fmt.Errorf("%w: %w", ErrNotReady, err)
	}
	if err := l.checkRollback(ctx); err != nil {
		return fmt.Errorf("%w: %w", ErrNotReady, err)
	}
	return l.advertiseAll(ctx, lists, unread)
}

// advertiseAll serves the versions that can be served, of which there has to be
// one. A version whose list cannot be read is none of them: what we do not
// understand is not written over.
func (l *link) advertiseAll(ctx context.Context, lists map[omemo.Version]ownList, unread map[omemo.Version]error) error {
	versions := omemo.Versions()
	first := !slices.ContainsFunc(versions, func(v omemo.Version) bool { return lists[v].Contains(l.m.own.Device()) })
	var reasons []error
	for i, v := range versions {
		var err error
		switch unserved := errors.Is(l.m.Withdrawn(v), ErrPurged); {
		case !unserved && unread[v] != nil:
			err = l.withdraw(ctx, v, unread[v])
		case !unserved:
			err = l.advertise(ctx, v, lists[v])
		case unread[v] != nil:
			l.leaving.note(v, time.Now())
		case lists[v].Contains(l.m.own.Device()):
			if err = l.unserve(ctx, v); isVerdict(err) {
				err = nil // the worker tries again
			}
		}
		if err != nil {
			return fmt.Errorf("%w: %s: %w", ErrNotReady, v, err)
		}
		if reason := l.m.Withdrawn(v); reason != nil {
			reasons = append(reasons, fmt.Errorf("%s: %w", v, reason))
		}
		if first {
			l.m.emit(Event{Kind: Progress, Done: i + 1, Total: len(versions)})
		}
	}
	if len(reasons) == len(versions) {
		return fmt.Errorf("%w: %w", ErrNotReady, errors.Join(reasons...))
	}
	return nil
}

// claim makes sure that no other device of the account has our device id, as
// long as ours was never published.
func (l *link) claim(ctx context.Context, lists map[omemo.Version]ownList) error {
	unpublished := 0
	owed, err := l.m.manager.Owed(ctx)
	if err != nil {
		return err
	}
	for _, row := range owed {
		if row.Kind == omemo.OwedBundle {
			unpublished++
		}
	}
	taken := func(id omemo.DeviceID) bool {
		return lists[omemo.Legacy].Contains(id) || lists[omemo.V2].Contains(id)
	}
	if unpublished < len(omemo.Versions()) || !taken(l.m.own.Device()) {
		return nil
	}
	mine, err := l.m.manager.Fingerprint(ctx)
	if err != nil {
		return err
	}
	var unread error
	for _, v := range omemo.Versions() {
		b, err := l.ownBundle(ctx, l.m.own.Device(), v)
		switch {
		case errors.Is(err, pep.ErrNone), errors.Is(err, bundle.ErrMalformed):
			continue
		case err != nil:
			unread = err
			continue
		}
		if f, err := b.Fingerprint(); err == nil && f == mine {
			return nil // it is ours: an earlier attempt came this far
		}
	}
	if unread != nil {
		return unread
	}
	if err := l.m.manager.Renumber(ctx, taken); err != nil {
		return err
	}
	own, err := l.m.manager.Device(ctx)
	if err != nil {
		return err
	}
	l.m.own.renumber(own.Device)
	return nil
}

// checkRollback compares the store with what the server has of our own. If the
// store is older than it was, its sending state must not be used again.
func (l *link) checkRollback(ctx context.Context) error {
	rolledBack, err := l.m.manager.RolledBack(ctx)
	if err != nil {
		return err
	}
	var published []*omemo.Bundle
	for _, v := range omemo.Versions() {
		b, err := l.ownBundle(ctx, l.m.own.Device(), v)
		if err != nil {
			// Publishing will show what is wrong, and nothing takes the place of what
			// could not be read before it was compared: see publishBundle.
			l.uncompared[v] = !errors.Is(err, pep.ErrNone) && !errors.Is(err, bundle.ErrMalformed)
			continue
		}
		b.Owner = l.m.own.Address()
		published = append(published, &b)
		ahead, err := l.m.manager.Ahead(ctx, &b)
		if err != nil {
			return err
		}
		rolledBack = rolledBack || ahead
	}
	if !rolledBack {
		return nil
	}
	_, err = l.quarantine(ctx, published...)
	return err
}

// compareLate is checkRollback for a bundle of our own that could not be read
// before.
func (l *link) compareLate(ctx context.Context, b *omemo.Bundle) error {
	if !l.uncompared[b.Version] {
		return nil
	}
	ahead, err := l.m.manager.Ahead(ctx, b)
	if ahead {
		err = l.fallBack(ctx, b)
	}
	if err == nil {
		delete(l.uncompared, b.Version)
	}
	return err
}

// ownBundle fetches the bundle of a device of our own account, as strangers get it.
func (l *link) ownBundle(ctx context.Context, id omemo.DeviceID, v omemo.Version) (b omemo.Bundle, err error) {
	err = l.answered(ctx, func(ctx context.Context) (err error) {
		b, err = bundle.Fetch(ctx, l, omemo.Address{Device: id}, v)
		return err
	})
	return b, err
}

// limiter allows something so often within a time.
type limiter struct {
	limit  int
	window time.Duration

	mu   sync.Mutex
	past []time.Time
	told bool
}

// allow reports whether it is allowed once more, and, if not, whether that is
// the first refusal.
func (r *limiter) allow() (allowed, news bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	for len(r.past) > 0 && now.Sub(r.past[0]) >= r.window {
		r.past = r.past[1:]
	}
	if len(r.past) >= r.limit {
		news, r.told = !r.told, true
		return false, news
	}
	r.past = append(r.past, now)
	r.told = false
	return true, false
}
