package middleware

import (
	"context"
	"sync"
	"time"

	"example.org/omellium/omemo"
)

// catchUpIdle is how long a session lasts without a query of an archive until it
// is taken to be caught up, unless the application says so before.
const catchUpIdle = time.Minute

// catchUp says whether archives are being caught up with. While they are, used
// pre keys are kept, because two messages of an archive may name the same one;
// afterwards they are deleted (XEP-0384, section 5.5.3: and an empty message moves
// the session on, which is what a completion does).
type catchUp struct {
	change sync.Mutex // held while the core is told; never with mu held

	mu       sync.Mutex
	explicit bool      // the application has said that it is
	active   bool      // used pre keys are being kept
	running  int       // archives that the middleware itself is catching up with
	since    time.Time // last sign of an archive
}

// CatchUp says that the program is catching up with an archive, or that it has.
// Meanwhile empty messages wait, and afterwards at most one for each session is
// sent. Every session begins as catching up; if CatchUp is not called, it has
// caught up when no archive was queried for a minute.
func (m *Middleware) CatchUp(ctx context.Context, on bool) error {
	c := &m.catchUp
	c.mu.Lock()
	before := c.explicit
	c.explicit = on
	c.mu.Unlock()
	if err := m.keep(ctx, on); err != nil {
		c.mu.Lock()
		c.explicit = before
		c.mu.Unlock()
		return err
	}
	if l := m.current(); l != nil {
		signal(l.wake)
	}
	return nil
}

// keep begins or ends to keep used pre keys. It does not end as long as somebody
// catches up.
func (m *Middleware) keep(ctx context.Context, on bool) error {
	ended, err := m.catchUp.keep(ctx, on, m.manager)
	if ended {
		m.emit(Event{Kind: CaughtUp}) // with nothing locked: the application may change it again
	}
	return err
}

func (c *catchUp) keep(ctx context.Context, on bool, core *omemo.Manager) (ended bool, err error) {
	c.change.Lock()
	defer c.change.Unlock()
	c.mu.Lock()
	before, busy := c.active, c.explicit || c.running > 0
	c.mu.Unlock()
	if busy && !on {
		return false, nil
	}
	if before != on {
		if err := core.CatchUp(ctx, on); err != nil {
			return false, err
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.active, c.since = on, time.Now()
	return before && !on, nil
}

// catchingUp reports whether empty messages have to wait, and ends to keep used
// pre keys when nothing has been heard of an archive for a while. again is when
// to look again; 0: not for this.
func (l *link) catchingUp(ctx context.Context) (wait bool, again time.Duration, err error) {
	c := &l.m.catchUp
	busy, last := l.archives.busy()
	c.mu.Lock()
	if last.After(c.since) {
		c.since = last
	}
	explicit, active, left := c.explicit || c.running > 0, c.active, catchUpIdle-time.Since(c.since)
	c.mu.Unlock()
	switch {
	case explicit:
		return true, 0, nil
	case !active && busy:
		return true, catchUpIdle, nil
	case !active:
		return false, 0, nil
	case busy || left > 0:
		return busy, max(left, time.Second), nil
	}
	err = l.m.keep(ctx, false)
	return err != nil, 0, err
}

// begin notes that the middleware begins to catch up with an archive.
func (c *catchUp) begin() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.running++
}

// end notes that it has ended to. final: it will not try again.
func (c *catchUp) end(l *link, final bool) {
	c.mu.Lock()
	c.running--
	c.since = time.Now()
	over := final && c.running == 0 && !c.explicit
	c.mu.Unlock()
	if over && l.ctx.Err() == nil {
		if err := l.m.keep(l.ctx, false); err != nil {
			l.trouble(err)
		}
	}
	signal(l.wake) // what has waited for it
}

// busy reports whether a query of an archive is open that is still being
// answered, and when there was last a sign of one.
func (a *archives) busy() (bool, time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.queries) > 0 && time.Since(a.last) < catchUpIdle, a.last
}
