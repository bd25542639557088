package middleware

import (
	"context"
	"errors"
	"slices"
	"sync"

	"example.org/omellium/omemo"
)

// unheard knows which lists were changed before our presence was sent. ejabberd
// tells contacts of a change only if the resource that publishes is available:
// these lists are published once more, as they are, when it is.
type unheard struct {
	mu       sync.Mutex
	present  bool
	versions []omemo.Version
}

func (u *unheard) published(v omemo.Version) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if !u.present && !slices.Contains(u.versions, v) {
		u.versions = append(u.versions, v)
	}
}

// untold notes that a list could not be published again.
func (u *unheard) untold(v omemo.Version) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if !slices.Contains(u.versions, v) {
		u.versions = append(u.versions, v)
	}
}

// available notes that presence was sent, and reports whether a list is to be
// published again.
func (u *unheard) available() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.present = true
	return len(u.versions) > 0
}

// due returns the lists to publish again, once.
func (u *unheard) due() []omemo.Version {
	u.mu.Lock()
	defer u.mu.Unlock()
	if !u.present {
		return nil
	}
	due := u.versions
	u.versions = nil
	return due
}

// tell publishes the lists again that contacts may not have heard of.
func (l *link) tell(ctx context.Context) error {
	var failures []error
	for _, v := range l.unheard.due() {
		if err := l.tellOf(ctx, v); err != nil {
			l.unheard.untold(v)
			failures = append(failures, err)
		}
	}
	return errors.Join(failures...)
}

func (l *link) tellOf(ctx context.Context, v omemo.Version) error {
	if l.m.Withdrawn(v) != nil {
		return nil // published when it comes back
	}
	list, err := l.ownList(ctx, v)
	if err != nil {
		return err
	}
	if list.Contains(l.m.own.Device()) {
		if err := l.publishOwn(ctx, list); err != nil {
			return err
		}
		l.m.emit(Event{Kind: ListPublished, Version: v})
		return nil
	}
	// Somebody has removed it before the server sent us events.
	l.directory.doubt(listKey{l.m.own.JID, v})
	signal(l.wake)
	return nil
}
