package middleware

import (
	"context"
	"sync"
	"time"

	"example.org/omellium/omemo"
	"example.org/omellium/stanza"
)

// Limits of what waits while an archive is caught up with. What is more is
// fetched from the archive.
const (
	maxHeld      = 1024
	maxHeldBytes = 16 << 20
)

// intake is where messages of one archive come in, from the archive and live. While
// the archive is caught up with, what comes live waits; afterwards the position
// in the archive follows it.
type intake struct {
	archive string // bare JID: our own account, or a room

	mu      sync.Mutex
	holding bool
	held    []*arrival
	bytes   int
	missed  bool // something was not held, because the archive has it
	// following: all up to the last message was dealt with, so that the position
	// is where the last message is.
	following bool
	// clear are messages of the archive that were not encrypted: nothing else
	// tells that they were delivered.
	clear map[string]bool
}

// intakes are those of a link.
type intakes struct {
	mu  sync.Mutex
	all map[string]*intake
}

// begin has what comes live wait, and returns the intake.
func (i *intakes) begin(archive string) *intake {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.all == nil {
		i.all = make(map[string]*intake)
	}
	in := i.all[archive]
	if in == nil {
		in = &intake{archive: archive, clear: make(map[string]bool)}
		i.all[archive] = in
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	in.holding, in.following = true, false
	return in
}

// of returns the intake that a message belongs to, or nil.
func (i *intakes) of(a *arrival, own string) *intake {
	i.mu.Lock()
	defer i.mu.Unlock()
	if a.room != "" {
		return i.all[a.room]
	}
	return i.all[own]
}

// hold keeps a message until the archive has been caught up with, and reports
// whether it is not to be dealt with now.
func (in *intake) hold(a *arrival) bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	id := in.position(a)
	switch {
	case id != "" && in.clear[id] && !a.encrypted():
		return true // it was delivered
	case !in.holding:
		return false
	}
	size := len(a.outer.AppendXML(nil))
	if len(in.held) < maxHeld && in.bytes+size <= maxHeldBytes {
		in.held = append(in.held, a)
		in.bytes += size
		return true
	}
	in.missed = in.missed || id != ""
	return id != "" // else nobody has it but we: better out of order than lost
}

// fetchMissed reports whether something has to be fetched that was not held.
func (in *intake) fetchMissed() bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	missed := in.missed
	in.missed = false
	return missed
}

// release deals with what was held, and ends to hold. skip names what the archive
// has brought. If the wire has ended, the archive will bring the rest, in order.
func (in *intake) release(ctx context.Context, l *link, skip map[string]bool, following, ended bool) {
	for {
		in.mu.Lock()
		held := in.held
		in.held, in.bytes = nil, 0
		if len(held) == 0 || ctx.Err() != nil {
			in.holding, in.following = false, following
			in.mu.Unlock()
			return
		}
		in.mu.Unlock()
		for _, a := range held {
			id := in.position(a)
			if id != "" && (skip[id] || ended || l.ctx.Err() != nil) || ctx.Err() != nil {
				continue
			}
			l.take(ctx, a)
			if following {
				in.note(l, a, id)
			}
			following = following && !a.lost
		}
	}
}

// reached moves the position on to a message that came live and was dealt with.
func (in *intake) reached(l *link, a *arrival) {
	in.mu.Lock()
	in.following = in.following && !a.lost
	following := in.following
	in.mu.Unlock()
	if following {
		in.note(l, a, in.position(a))
	}
}

func (in *intake) note(l *link, a *arrival, id string) {
	if id == "" || a.lost {
		return
	}
	l.m.manager.Reached(omemo.Cursor{Archive: in.archive, Position: id, When: time.Now()})
	signal(l.marked)
}

// position returns the id that a message has in the archive (XEP-0359), which the
// server lets nobody else set, or nothing.
func (in *intake) position(a *arrival) string {
	for c := range a.message.Elements() {
		if id := attribute(c, "id"); c.Is(stanza.NSSID, "stanza-id") && bareOf(attribute(c, "by")) == in.archive && len(id) <= maxArchiveID {
			return id
		}
	}
	return ""
}

// encrypted reports whether anything in a message is.
func (a *arrival) encrypted() bool {
	found, err := stanza.Find(a.message)
	return err != nil || len(found) > 0
}
