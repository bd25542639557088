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
	cursors       []Cursor // one for each archive
}

func (k *marks) add(more marked) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.inbox = append(k.inbox, more.inbox...)
	k.outbox = append(k.outbox, more.outbox...)
	k.occupants = append(k.occupants, more.occupants...)
	k.cursors = latest(k.cursors, more.cursors)
}

// back puts back what could not be committed. Of two for one row, the newer
// counts.
func (k *marks) back(taken marked) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.inbox = append(taken.inbox, k.inbox...)
	k.outbox = append(taken.outbox, k.outbox...)
	k.occupants = append(taken.occupants, k.occupants...)
	k.cursors = latest(taken.cursors, k.cursors)
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
	return len(k.inbox)+len(k.outbox)+len(k.occupants)+len(k.cursors) == 0
}

// Later has rows removed by the next commit: messages that the application has
// read, stanzas that the server has. It does not wait. Flush commits them when
// nothing else does.
func (m *Manager) Later(inbox, outbox []uint64) { m.marks.add(marked{inbox: inbox, outbox: outbox}) }

// Reached has a position in an archive written by the next commit, as Later
// does: everything up to there has been dealt with.
func (m *Manager) Reached(c Cursor) { m.marks.add(marked{cursors: []Cursor{c}}) }

// Flush commits what Later, Reached and NoteOccupants have collected.
func (m *Manager) Flush(ctx context.Context) error {
	if m.marks.empty() {
		return nil
	}
	return m.work(ctx, func(u *unit) error { return nil })
}
