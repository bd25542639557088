package middleware

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"

	"example.org/omellium/stanza"
)

// hearing knows whether the server delivers to us what is sent to our account: it
// does to available resources whose priority is not negative (RFC 6121, section
// 8.5.2.1). What comes at other times stands in the archive alone. So the archive is
// read from the moment on that such presence was written, and before that the position
// in it does not follow what comes to our full address.
type hearing struct {
	mu    sync.Mutex
	hears bool
	ready bool // our own device is in order, and the archive has a position
}

// present takes note of presence that is about to be broadcast, and returns what is
// to be done when it was written.
func (l *link) present(presence *stanza.Element) (written func()) {
	h := &l.hearing
	if !l.m.config.CatchUp {
		return func() {}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	in := l.intakes.open(l.m.own.JID)
	if attribute(presence, "type") != "" || priority(presence) < 0 {
		h.hears = false
		in.deafen()
		return func() {}
	}
	if h.ready && !h.hears {
		in.again() // what the server has kept for us comes at once
	}
	return func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		if h.ready && !h.hears {
			l.start(l.m.own.JID)
		}
		h.hears = true
	}
}

// mayCatchUp notes that our own device is in order. If the archive has no position
// yet, it is where it ends now: others write to the device from now on.
func (l *link) mayCatchUp() {
	if !l.m.config.CatchUp {
		return
	}
	_, known, err := l.m.manager.Cursor(l.ctx, l.m.own.JID)
	if err == nil && known {
		l.begin() // before any presence: what comes with it waits its turn
		return
	}
	l.tasks.Go(func() {
		if err == nil {
			_, err = l.startHere(l.ctx, l.m.own.JID)
		}
		if err != nil && !errors.Is(err, errNoArchive) {
			l.trouble(fmt.Errorf("archive: %w", err)) // it is tried again
		}
		l.begin()
	})
}

// begin catches up as soon as the server delivers to us.
func (l *link) begin() {
	h := &l.hearing
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ready = true
	if h.hears {
		l.start(l.m.own.JID)
	}
}

// priority returns the priority of a presence (RFC 6121, section 4.7.2.3).
func priority(presence *stanza.Element) int {
	p := presence.Child(stanza.NSClient, "priority")
	if p == nil {
		return 0
	}
	n, err := strconv.ParseInt(strings.TrimSpace(p.Text()), 10, 8)
	if err != nil {
		return 0 // the server refuses it, or takes it as none
	}
	return int(n)
}
