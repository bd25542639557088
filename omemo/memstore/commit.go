package memstore

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"slices"
	"time"

	"example.org/omellium/omemo"
)

// Commit implements omemo.Store. What could fail is checked before the first
// row is touched.
func (s *Store) Commit(ctx context.Context, c *omemo.Changes) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("memstore: %w", err)
	}
	s.rows.mu.Lock()
	defer s.rows.mu.Unlock()
	if err := s.state(); err != nil {
		return err
	}
	if c.Within != nil {
		return fmt.Errorf("memstore: %w", omemo.ErrNoTransaction)
	}
	if err := checkNumbers(c); err != nil {
		return err
	}
	if err := s.rows.checkCurrent(c); err != nil {
		return err
	}
	s.rows.remove(c)
	s.rows.insert(c)
	for _, t := range c.TrimSkipped {
		s.rows.trim(t)
	}
	return nil
}

// checkNumbers refuses numbers that a database cannot hold.
func checkNumbers(c *omemo.Changes) error {
	var all uint64
	for i := range c.Sessions {
		all |= c.Sessions[i].ID | c.Sessions[i].Archived
	}
	for i := range c.Skipped {
		all |= c.Skipped[i].Session
	}
	for i := range c.Inbox {
		all |= c.Inbox[i].Seq
	}
	for i := range c.Outbox {
		all |= c.Outbox[i].Seq
	}
	for i := range c.Journal {
		all |= c.Journal[i].ID
	}
	for i := range c.Owed {
		all |= c.Owed[i].Session
	}
	for i := range c.Echoes {
		all |= c.Echoes[i].Outbox
	}
	if all > math.MaxInt64 {
		return fmt.Errorf("memstore: an id or sequence number has more than 63 bits")
	}
	return nil
}

// checkCurrent refuses changes after which a peer would have two current
// sessions.
func (r *rows) checkCurrent(c *omemo.Changes) error {
	if !slices.ContainsFunc(c.Sessions, r.moves) {
		return nil
	}
	current := make(map[omemo.Peer]uint64, len(c.Sessions))
	for i := range c.Sessions {
		row := &c.Sessions[i]
		if row.Archived != 0 {
			continue
		}
		if id, ok := current[row.Peer]; ok && id != row.ID {
			return fmt.Errorf("memstore: two current sessions with %v", row.Peer)
		}
		current[row.Peer] = row.ID
	}
	for peer, id := range current {
		for _, other := range r.peers[peer] {
			if other == id || r.sessions[other].Archived != 0 || slices.Contains(c.DropSessions, other) {
				continue
			}
			if !slices.ContainsFunc(c.Sessions, func(row omemo.SessionRow) bool {
				return row.ID == other && (row.Archived != 0 || row.Peer != peer)
			}) {
				return fmt.Errorf("memstore: two current sessions with %v", peer)
			}
		}
	}
	return nil
}

func (r *rows) remove(c *omemo.Changes) {
	for _, id := range c.DropPreKeys {
		delete(r.preKeys, id)
	}
	for _, id := range c.DropSessions {
		r.unlink(id)
		delete(r.sessions, id)
		delete(r.skipped, id)
	}
	for _, id := range c.DropSkipped {
		delete(r.skipped[id.Session], skippedID{id.Ratchet, id.N})
	}
	if !c.PruneEnded.IsZero() {
		before := stamp(c.PruneEnded)
		for id, row := range r.ended {
			if row.When.Before(before) {
				delete(r.ended, id)
			}
		}
	}
	for _, jid := range c.DropContacts {
		if known, ok := r.contacts[jid]; ok {
			known.row = nil
			clear(known.trust)
			clear(known.statements)
		}
	}
	for _, peer := range c.DropDevices {
		if known, ok := r.contacts[peer.JID]; ok {
			delete(known.devices, peer)
		}
	}
	for _, seq := range c.DropInbox {
		r.inbox.drop(seq)
	}
	for _, seq := range c.DropOutbox {
		r.outbox.drop(seq)
	}
	for _, id := range c.DropJournal {
		r.journal.drop(id)
	}
	for _, archive := range c.DropCursors {
		delete(r.cursors, archive)
	}
	for _, id := range c.DropOwed {
		delete(r.owed, id)
	}
	for _, id := range c.DropOccupants {
		delete(r.occupants, id)
	}
	for _, id := range c.DropStatements {
		if known, ok := r.contacts[id.JID]; ok {
			delete(known.statements, id)
		}
	}
	for _, hash := range c.DropEchoes {
		clear(r.echoes[hash].Content)
		delete(r.echoes, hash)
	}
}

func (r *rows) insert(c *omemo.Changes) {
	if c.Account != nil {
		r.account = append(make([]byte, 0, len(c.Account)), c.Account...)
	}
	for _, row := range c.PreKeys {
		row.Used = stamp(row.Used)
		r.preKeys[omemo.PreKeyID{Version: row.Version, ID: row.ID}] = row
	}
	for i := range c.Sessions {
		r.putSession(&c.Sessions[i])
	}
	for i := range c.Skipped {
		row := &c.Skipped[i]
		if r.skipped[row.Session] == nil {
			r.skipped[row.Session] = make(map[skippedID]skippedKey)
		}
		r.skippedWrites++
		r.skipped[row.Session][skippedID{row.Ratchet, row.N}] = skippedKey{row.Key, r.skippedWrites}
	}
	for _, row := range c.Ended {
		row.When = stamp(row.When)
		r.ended[row.ChainID] = row
	}
	for _, row := range c.Contacts {
		lists := make(map[omemo.Version]time.Time, len(row.Lists))
		for v, t := range row.Lists {
			lists[v] = stamp(t)
		}
		row.Lists = lists
		r.contact(row.JID).row = &row
	}
	for _, row := range c.Devices {
		row.FirstSeen, row.LastSeen, row.BundleTried = stamp(row.FirstSeen), stamp(row.LastSeen), stamp(row.BundleTried)
		r.contact(row.JID).devices[row.Peer] = row
	}
	for _, row := range c.Trust {
		row.Since = stamp(row.Since)
		r.contact(row.JID).trust[row.Fingerprint] = row
	}
	for _, row := range c.Inbox {
		r.inbox.put(row.Seq, inboxRow(row))
		r.inboxSeq = max(r.inboxSeq, row.Seq)
	}
	for _, row := range c.Outbox {
		r.outbox.put(row.Seq, outboxRow(row))
		r.outboxSeq = max(r.outboxSeq, row.Seq)
	}
	for _, row := range c.Journal {
		r.journal.put(row.ID, journalRow(row))
	}
	for _, row := range c.Owed {
		row.Since = stamp(row.Since)
		r.owed[row.OwedID] = row
	}
	for _, row := range c.Cursors {
		row.When = stamp(row.When)
		r.cursors[row.Archive] = row
	}
	for _, row := range c.Occupants {
		row.Since, row.Seen = stamp(row.Since), stamp(row.Seen)
		r.occupants[row.OccupantID] = row
	}
	for _, row := range c.Statements {
		row.Stated = stamp(row.Stated)
		r.contact(row.JID).statements[row.StatementID] = row
	}
	for _, row := range c.Echoes {
		r.echoes[row.Hash] = echoRow(row)
	}
}

// moves reports whether a row is new, or of another peer or place than before.
func (r *rows) moves(row omemo.SessionRow) bool {
	old := r.sessions[row.ID]
	return old == nil || old.Peer != row.Peer || old.Archived != row.Archived
}

// putSession writes a session into the buffer it had before.
func (r *rows) putSession(row *omemo.SessionRow) {
	kept := r.sessions[row.ID]
	switch {
	case kept == nil:
		kept = new(omemo.SessionRow)
		r.sessions[row.ID] = kept
		r.peers[row.Peer] = append(r.peers[row.Peer], row.ID)
	case kept.Peer != row.Peer:
		r.unlink(row.ID)
		r.peers[row.Peer] = append(r.peers[row.Peer], row.ID)
	}
	clear(kept.Record)
	record := append(kept.Record[:0], row.Record...)
	*kept = *row
	kept.Record = record
}

// unlink takes a session off the list of its peer.
func (r *rows) unlink(id uint64) {
	row, ok := r.sessions[id]
	if !ok {
		return
	}
	clear(row.Record)
	left := slices.DeleteFunc(r.peers[row.Peer], func(other uint64) bool { return other == id })
	if len(left) == 0 {
		delete(r.peers, row.Peer)
		return
	}
	r.peers[row.Peer] = left
}

// trim keeps the skipped message keys of a session that were written last.
func (r *rows) trim(t omemo.Trim) {
	keys := r.skipped[t.Session]
	keep := max(t.Keep, 0)
	if len(keys) <= keep {
		return
	}
	ids := make([]skippedID, 0, len(keys))
	for id := range keys {
		ids = append(ids, id)
	}
	slices.SortFunc(ids, func(a, b skippedID) int { return cmp.Compare(keys[a].write, keys[b].write) })
	for _, id := range ids[:len(ids)-keep] {
		delete(keys, id)
	}
}

func (r *rows) contact(jid string) *contact {
	known, ok := r.contacts[jid]
	if !ok {
		known = &contact{
			devices: make(map[omemo.Peer]omemo.Device),
			trust:   make(map[omemo.Fingerprint]omemo.TrustRecord),

			statements: make(map[omemo.StatementID]omemo.StatementRow),
		}
		r.contacts[jid] = known
	}
	return known
}
