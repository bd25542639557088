package omemo

import (
	"context"
	"slices"
)

// MaxArchived is how many replaced sessions of a device are kept for receiving.
const MaxArchived = 5

// held returns the sessions with a peer: the current one first if there is one,
// then the archived ones, newest first.
func (u *unit) held(ctx context.Context, p Peer) ([]*Session, error) {
	if err := u.loadSessions(ctx, []Peer{p}); err != nil {
		return nil, err
	}
	return u.list(p), nil
}

// slot holds the sessions with a peer as they are committed: the current one
// first, then the archived ones, newest first. A unit of work that changes them has
// a list of its own, until it is committed or dropped.
type slot struct {
	sessions []*Session
	changed  []*Session
	by       *unit // whose list changed is; nil: nobody's
}

// list returns the sessions with a peer that were loaded before.
func (u *unit) list(p Peer) []*Session {
	if s := u.Manager.sessions[p]; s != nil {
		return u.of(s)
	}
	return nil
}

// of returns the sessions in a slot.
func (u *unit) of(s *slot) []*Session {
	if s.by == u {
		return s.changed
	}
	return s.sessions
}

// put changes the sessions with a peer that were loaded before.
func (u *unit) put(s *slot, list []*Session) {
	if s.by != u {
		u.slots = append(u.slots, s)
	}
	s.changed, s.by = list, u
}

// lists returns a function that puts the lists of sessions back to what they are now.
func (u *unit) lists() (back func()) {
	slots, lists := slices.Clip(u.slots), make([][]*Session, len(u.slots))
	for i, s := range slots {
		lists[i] = s.changed
	}
	return func() {
		u.dropLists()
		for i, s := range slots {
			u.put(s, lists[i])
		}
	}
}

// dropLists drops all changed lists of sessions.
func (u *unit) dropLists() {
	for _, s := range u.slots {
		s.changed, s.by = nil, nil
	}
	u.slots = nil
}

// current returns the session that messages to the peer are sealed in, or nil.
func current(list []*Session) *Session {
	if len(list) > 0 && list[0].archived == 0 {
		return list[0]
	}
	return nil
}

// loadSessions reads the sessions with all peers that are not cached, in one
// call.
func (u *unit) loadSessions(ctx context.Context, peers []Peer) error {
	var missing []Peer
	for _, p := range peers {
		if _, ok := u.Manager.sessions[p]; !ok {
			missing = append(missing, p)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	rows, err := u.store.Sessions(ctx, missing)
	if err != nil {
		return err
	}
	read := make(map[Peer][]*Session)
	for i := range rows {
		s, err := rows[i].session(u.own())
		if err != nil {
			return err // nothing is cached: a damaged session is not a missing one
		}
		read[s.peer] = append(read[s.peer], s)
	}
	for _, p := range missing {
		slices.SortFunc(read[p], order)
		u.Manager.sessions[p] = &slot{sessions: read[p]}
	}
	return nil
}

// order puts the current session first and then the newest archived one.
func order(a, b *Session) int {
	switch {
	case a.archived == b.archived:
		return 0
	case a.archived == 0:
		return -1
	case b.archived == 0:
		return 1
	case a.archived > b.archived:
		return -1
	}
	return 1
}

// save puts the next state of a session in its place.
func (u *unit) save(s *Session) { u.saveIn(u.Manager.sessions[s.peer], s) }

func (u *unit) saveIn(in *slot, s *Session) {
	again := in.by == u
	list := slices.Clone(u.of(in))
	i := slices.IndexFunc(list, func(old *Session) bool { return old.id == s.id })
	list[i] = s
	u.put(in, list)
	u.write(s, again)
}

// write puts a session's row into the changes; again: in the place of an earlier
// row of the same session, if there is one.
func (u *unit) write(s *Session, again bool) {
	row := s.row(&u.records)
	i := -1
	if again {
		i = slices.IndexFunc(u.changes.Sessions, func(r SessionRow) bool { return r.ID == s.id })
	}
	switch {
	case i < 0:
	case row.Archived != 0:
		u.changes.Sessions[i] = row
		return
	default: // behind those that were archived meanwhile
		u.changes.Sessions = slices.Delete(u.changes.Sessions, i, i+1)
	}
	u.changes.Sessions = append(u.changes.Sessions, row)
}

// install makes a session current, be it new or archived, and archives the one
// that was. byHand: the old one must never come back. Sessions beyond
// MaxArchived are dropped.
func (u *unit) install(s *Session, byHand bool) {
	committed := u.Manager.sessions[s.peer]
	list := slices.Clone(u.of(committed))
	again := committed.by == u || len(list) > 0
	if old := current(list); old != nil {
		replaced := *old
		replaced.archived = 1
		if len(list) > 1 {
			replaced.archived = list[1].archived + 1
		}
		replaced.byHand = replaced.byHand || byHand
		list[0] = &replaced
		u.write(&replaced, again) // before the new one: never two current rows
	}
	if byHand {
		for i, old := range list {
			if !old.byHand {
				replaced := *old
				replaced.byHand = true
				list[i] = &replaced
				u.write(&replaced, again)
			}
		}
	}
	list = slices.DeleteFunc(list, func(old *Session) bool { return old.id == s.id })
	s.archived = 0
	list = slices.Insert(list, 0, s)
	u.write(s, again)
	for len(list) > 1+MaxArchived {
		u.drop(list[len(list)-1])
		list = list[:len(list)-1]
	}
	u.put(committed, list)
}

// drop removes a session and leaves marks of its receiving chains, so that its
// messages are known again as duplicates, and of the key exchange that we have
// begun it with, so that it is known again as ours: see Behind.
func (u *unit) drop(s *Session) {
	u.changes.DropSessions = append(u.changes.DropSessions, s.id)
	u.changes.Sessions = slices.DeleteFunc(u.changes.Sessions, func(r SessionRow) bool { return r.ID == s.id })
	u.changes.Skipped = slices.DeleteFunc(u.changes.Skipped, func(r SkippedRow) bool { return r.Session == s.id })
	if s.state.CanReceive {
		u.end(s.peer, s.state.Receiving.Remote, s.state.Receiving.Next)
	}
	if s.state.HasPrevious {
		u.end(s.peer, s.state.Previous.Remote, s.state.Previous.Next)
	}
	if s.initiation == Active {
		u.end(s.peer, s.exchange.Ephemeral, 0)
	}
}

func (u *unit) end(p Peer, ratchetKey [32]byte, next uint32) {
	u.changes.Ended = append(u.changes.Ended, EndedChain{ChainID{p, ratchetKey}, next, u.now})
}
