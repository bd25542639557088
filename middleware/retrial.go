package middleware

import (
	"context"
	"errors"
	"sync"
	"time"

	"example.org/omellium/omemo"
	"example.org/omellium/stanza"
)

// retrialPause is how long the first retrial waits, doubled with each that finds
// something that fails still, up to workPauseLimit.
const retrialPause = time.Second

// retrial says when the journal is to be tried again as a whole, because of
// messages in it that fail for a reason that passes.
type retrial struct {
	mu    sync.Mutex
	at    time.Time // zero: nothing is known to wait
	pause time.Duration
}

// passes reports whether a message that failed for a reason may be opened later,
// without anything new from its sender: the store or Config.Receive has failed,
// or too many strangers have come at once.
func passes(err error) bool { return !omemo.IsVerdict(err) || errors.Is(err, omemo.ErrFlood) }

// postpone notes that something waits in the journal.
func (r *retrial) postpone() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.at.IsZero() {
		r.pause = min(max(2*r.pause, retrialPause), workPauseLimit)
		r.at = time.Now().Add(r.pause)
	}
}

// left returns how long it is until the next; ok is false if nothing waits.
func (r *retrial) left() (d time.Duration, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return max(time.Until(r.at), 0), !r.at.IsZero()
}

// begin notes that the journal is tried again now.
func (r *retrial) begin() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.at = time.Time{}
}

// end notes that it was.
func (r *retrial) end() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.at.IsZero() {
		r.pause = 0
	}
}

// postponed has the worker try the journal again.
func (l *link) postponed() {
	l.retrial.postpone()
	signal(l.wake)
}

// tryAgain tries what the journal holds, if it is time.
func (l *link) tryAgain(ctx context.Context) {
	if left, ok := l.retrial.left(); !ok || left > 0 {
		return
	}
	l.retrial.begin()
	l.reopen(ctx, omemo.Address{})
	l.retrial.end()
}

// retain puts a message into the journal that nobody would bring again, and
// reports whether it is there. The store may have failed a moment ago, so it is
// tried more than once. What comes after the message waits meanwhile, unless the
// wire has ended.
func (l *link) retain(ctx context.Context, from omemo.Address, reason error, e *stanza.Element) bool {
	raw := e.AppendXML(nil)
	for _, pause := range []time.Duration{100 * time.Millisecond, time.Second, 0} {
		kept, err := l.m.manager.Keep(ctx, from, reason.Error(), raw)
		if err == nil {
			return kept
		}
		l.trouble(err)
		if errors.Is(err, omemo.ErrFenced) || errors.Is(err, omemo.ErrClosed) || ctx.Err() != nil {
			return false
		}
		select {
		case <-time.After(pause):
		case <-l.ctx.Done():
		}
	}
	return false
}
