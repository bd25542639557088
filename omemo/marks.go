package omemo

import (
	"context"
	"slices"
	"sync"
)

// marks are changes that wait for a commit to ride with: their loss only costs a
// repetition.
type marks struct {
	mu sync.Mutex
	marked
}

type marked struct {
	inbox, outbox []uint64 // to be removed
	occupants     []OccupantRow
	gone          []OccupantID // to be removed, before occupants are written
	cursors       []Cursor     // one for each archive
}

func (k *marks) add(more marked) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.marked = k.marked.then(more)
}

// back puts back what could not be committed. Of two for one row, the newer
// counts.
func (k *marks) back(taken marked) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.marked = taken.then(k.marked)
}

// then returns both, of which other is the newer.
func (c marked) then(other marked) marked {
	gone := make(map[OccupantID]bool, len(other.gone))
	for _, id := range other.gone {
		gone[id] = true
	}
	kept := slices.DeleteFunc(c.occupants, func(r OccupantRow) bool { return gone[r.OccupantID] })
	return marked{
		inbox:     append(c.inbox, other.inbox...),
		outbox:    append(c.outbox, other.outbox...),
		occupants: append(kept, other.occupants...),
		gone:      append(c.gone, other.gone...),
		cursors:   latest(c.cursors, other.cursors),
	}
}

// latest adds newer positions to others, in the place of those in the same
// archive.
func latest(older, newer []Cursor) []Cursor {
	for _, c := range newer {
		older = slices.DeleteFunc(older, func(o Cursor) bool { return o.Archive == c.Archive })
		older = append(older, c)
	}
	return older
}

func (k *marks) take() marked {
	k.mu.Lock()
	defer k.mu.Unlock()
	taken := k.marked
	k.marked = marked{}
	return taken
}

func (k *marks) empty() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return len(k.inbox)+len(k.outbox)+len(k.occupants)+len(k.gone)+len(k.cursors) == 0
}

// Later has rows removed by the next commit: messages that the application has
// read, stanzas that the server has. It does not wait. Flush commits them when
// nothing else does.
func (m *Manager) Later(inbox, outbox []uint64) { m.marks.add(marked{inbox: inbox, outbox: outbox}) }

// Reached has a position in an archive written by the next commit, as Later
// does: everything up to there has been dealt with.
func (m *Manager) Reached(c Cursor) { m.marks.add(marked{cursors: []Cursor{c}}) }

// Flush commits what Later, Reached, NoteOccupants and ForgetOccupants have
// collected.
func (m *Manager) Flush(ctx context.Context) error {
	if m.marks.empty() {
		return nil
	}
	return m.work(ctx, func(u *unit) error { return nil })
}
