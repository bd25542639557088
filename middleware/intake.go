package middleware

import (
	"context"
	"crypto/sha256"
	"errors"
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

// maxClear bounds the messages in clear that are known to have been delivered.
const maxClear = 1 << 16

// intake is where messages of one archive come in, from the archive and live. While
// the archive is caught up with, what comes live waits; afterwards the position
// in the archive follows it.
type intake struct {
	archive string // bare JID: our own account, or a room

	mu      sync.Mutex
	running bool // the archive is caught up with, or is to be
	holding bool
	placed  bool // the position is stored: what is not held comes from the archive
	held    []*arrival
	bytes   int
	missed  bool // something has to be fetched: it was not held, or has come while we were away
	// following: all up to the last message was dealt with, so that the position
	// is where the last message is.
	following bool
	deaf      bool // not everything comes live that comes into the archive
	// clear are messages that were not encrypted and that were delivered, live or
	// from the archive, by the hash of their id: nothing else tells so.
	clear map[[sha256.Size]byte]bool
}

// intakes are those of a link.
type intakes struct {
	mu  sync.Mutex
	all map[string]*intake
}

// open returns the intake of an archive.
func (i *intakes) open(archive string) *intake {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.all == nil {
		i.all = make(map[string]*intake)
	}
	in := i.all[archive]
	if in == nil {
		in = &intake{archive: archive, clear: make(map[[sha256.Size]byte]bool)}
		i.all[archive] = in
	}
	return in
}

// enter begins to catch up. If that is under way, it is gone on with until what has
// come up to now is fetched as well, and first is false.
func (in *intake) enter() (first bool) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.following, in.deaf = false, false
	if in.running {
		in.missed = true
		return false
	}
	in.running, in.holding = true, true
	return true
}

// again has what comes live wait once more.
func (in *intake) again() {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.holding, in.following = true, false
}

// deafen has the position stay where it is until the archive is caught up with
// once more.
func (in *intake) deafen() {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.following, in.deaf = false, true
}

// place notes that the position is stored.
func (in *intake) place() {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.placed = true
}

// letGo deals with what was held, and holds nothing more.
func (in *intake) letGo(ctx context.Context, l *link) {
	for {
		in.mu.Lock()
		held := in.held
		in.held, in.bytes = nil, 0
		in.holding = len(held) > 0
		in.mu.Unlock()
		if len(held) == 0 {
			return
		}
		for _, a := range held {
			l.take(context.WithoutCancel(ctx), a)
			in.dealtWith(l, a, false)
		}
	}
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
	case id != "" && in.clear[sha256.Sum256([]byte(id))] && !a.encrypted():
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
	if id == "" || !in.placed {
		return false // nobody brings it once more: better out of order than lost
	}
	in.missed = true
	return true
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
// has brought, and err is why it could not be read to the end. If the wire has
// ended, the archive will bring the rest, in order; what no archive brings is
// committed all the same. final: the archive is not to be asked again, but for
// what could not be held meanwhile, which the position never passes.
func (in *intake) release(ctx context.Context, l *link, skip map[string]bool, following bool, err error) (final, missed bool) {
	ended := errors.Is(err, ErrOffline)
	for {
		in.mu.Lock()
		held := in.held
		in.held, in.bytes = nil, 0
		if len(held) == 0 {
			missed = in.missed
			final = l.ctx.Err() != nil || errors.Is(err, errNoArchive) || err == nil && !(following && missed)
			in.running, in.holding, in.following = !final, false, following && !missed && !in.deaf
			in.mu.Unlock()
			return final, missed
		}
		position := following && !in.missed && !in.deaf
		in.mu.Unlock()
		for _, a := range held {
			id := in.position(a)
			if id != "" && (skip[id] || ended || l.ctx.Err() != nil) {
				continue
			}
			l.take(context.WithoutCancel(ctx), a)
			in.dealtWith(l, a, position)
			position, following = position && !a.lost, following && !a.lost
		}
	}
}

// reached moves the position on to a message that came live and was dealt with.
func (in *intake) reached(l *link, a *arrival) {
	in.mu.Lock()
	in.following = in.following && !a.lost
	following := in.following
	in.mu.Unlock()
	in.dealtWith(l, a, following)
}

// dealtWith takes note of a message that came live, so that it is not fetched again
// or, if the position must not follow it, recognised when it is.
func (in *intake) dealtWith(l *link, a *arrival, following bool) {
	id := in.position(a)
	switch {
	case id == "" || a.lost:
		return
	case !following:
		in.inClear(a, id)
		return
	}
	l.m.manager.Reached(omemo.Cursor{Archive: in.archive, Position: id, When: time.Now()})
	signal(l.marked)
}

// inClear takes note of a message that was delivered, if it was not encrypted.
func (in *intake) inClear(a *arrival, id string) {
	if a.encrypted() {
		return
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	if len(in.clear) >= maxClear {
		clear(in.clear)
	}
	in.clear[sha256.Sum256([]byte(id))] = true
}

// wasInClear reports whether it was delivered.
func (in *intake) wasInClear(id string) bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.clear[sha256.Sum256([]byte(id))]
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
