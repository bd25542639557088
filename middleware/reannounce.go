package middleware

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"time"

	"example.org/omellium/omemo"
)

const (
	// How often our own device is put back on our own list: another client of
	// the account may keep removing it. Two that both put themselves back at
	// once would remove each other: whence a pause of random length.
	reannounceLimit  = 5
	reannounceWindow = time.Hour
	reannounceJitter = 2 * time.Second
	// doubtPause is how often our own lists are looked at because of a message
	// that was not for us.
	doubtPause = time.Minute
)

// doubtOwnLists has our own lists looked at: whoever left us out of a message may
// not have found us there.
func (l *link) doubtOwnLists() {
	if allowed, _ := l.m.doubts.allow(); !allowed {
		return
	}
	for _, v := range omemo.Versions() {
		l.directory.doubt(listKey{l.m.own.JID, v})
	}
	signal(l.wake)
}

// reannounce puts our device back on our own lists if somebody has removed it. A
// version whose list the server refuses is withdrawn.
func (l *link) reannounce(ctx context.Context) error {
	var failures []error
	for _, v := range omemo.Versions() {
		failures = append(failures, l.leave(ctx, v))
		err := l.reannounceIn(ctx, v)
		// What reads back otherwise may be another client's list by now: the next
		// look says.
		if isVerdict(err) && !errors.Is(err, ErrReadBack) {
			err = l.withdraw(ctx, v, err)
		}
		failures = append(failures, err)
	}
	return errors.Join(failures...)
}

func (l *link) reannounceIn(ctx context.Context, v omemo.Version) error {
	k := listKey{l.m.own.JID, v}
	if !l.directory.stale(k) && len(l.overlap.suspected(v)) == 0 {
		return nil
	}
	list, err := l.ownList(ctx, v)
	if l.m.Withdrawn(v) != nil {
		if isVerdict(err) { // as before
			l.directory.postpone(k)
			return nil
		}
		if err != nil {
			return err
		}
		return l.lookAtWithdrawn(ctx, list)
	}
	if err != nil {
		return err
	}
	missing := !list.Contains(l.m.own.Device())
	if missing {
		allowed, news := l.m.answers.allow()
		if !allowed {
			if news {
				l.m.emit(Event{Kind: OwnDeviceContested, Version: v})
			}
			return nil
		}
		select {
		case <-time.After(rand.N(reannounceJitter)):
		case <-ctx.Done():
			return ctx.Err()
		}
		// Whoever has removed us may have removed our bundle, too.
		if err := l.publishBundle(ctx, v, list.List); err != nil {
			return err
		}
	}
	if err := l.publishList(ctx, list); err != nil {
		return err
	}
	l.overlap.settled(list)
	if missing {
		l.m.emit(Event{Kind: OwnDeviceRemoved, Version: v})
	}
	return nil
}

// lookAtWithdrawn takes over the list of a version that is withdrawn. We do not
// belong there, but those do that our leaving may have taken off.
func (l *link) lookAtWithdrawn(ctx context.Context, list ownList) error {
	if lost := l.overlap.lost(list); len(lost) > 0 {
		whole := list
		whole.Devices = append(slices.Clip(list.Devices), lost...)
		switch err := l.publishOwn(ctx, whole, l.m.own.Device()); {
		case err == nil:
			list = whole
		case !isVerdict(err): // else they have to put themselves back
			return err
		}
	}
	if err := l.keepList(ctx, list); err != nil {
		return err
	}
	l.overlap.settled(list)
	l.seenOn(list.List)
	return nil
}
