package memstore

import (
	"bytes"
	"cmp"
	"context"
	"maps"
	"slices"

	"example.org/omellium/omemo"
)

// Load implements omemo.Store.
func (s *Store) Load(ctx context.Context) (omemo.State, error) {
	unlock, err := s.rlock(ctx)
	if err != nil {
		return omemo.State{}, err
	}
	defer unlock()
	return omemo.State{JID: s.rows.name, Account: bytes.Clone(s.rows.account), Inbox: s.rows.inboxSeq, Outbox: s.rows.outboxSeq}, nil
}

// PreKeys implements omemo.Store. They are in the order of their ids.
func (s *Store) PreKeys(ctx context.Context, v omemo.Version, ids ...uint32) ([]omemo.PreKeyRow, error) {
	unlock, err := s.rlock(ctx)
	if err != nil {
		return nil, err
	}
	defer unlock()
	var found []omemo.PreKeyRow
	if len(ids) == 0 {
		for id, row := range s.rows.preKeys {
			if id.Version == v {
				found = append(found, row)
			}
		}
	}
	for _, id := range distinct(ids) {
		if row, ok := s.rows.preKeys[omemo.PreKeyID{Version: v, ID: id}]; ok {
			found = append(found, row)
		}
	}
	slices.SortFunc(found, func(a, b omemo.PreKeyRow) int { return cmp.Compare(a.ID, b.ID) })
	return found, nil
}

// Sessions implements omemo.Store.
func (s *Store) Sessions(ctx context.Context, peers []omemo.Peer) ([]omemo.SessionRow, error) {
	unlock, err := s.rlock(ctx)
	if err != nil {
		return nil, err
	}
	defer unlock()
	found := make([]omemo.SessionRow, 0, len(peers))
	for _, peer := range distinct(peers) {
		for _, id := range s.rows.peers[peer] {
			row := *s.rows.sessions[id]
			row.Record = bytes.Clone(row.Record)
			found = append(found, row)
		}
	}
	return found, nil
}

// Skipped implements omemo.Store.
func (s *Store) Skipped(ctx context.Context, ids []omemo.SkippedID) ([]omemo.SkippedRow, error) {
	unlock, err := s.rlock(ctx)
	if err != nil {
		return nil, err
	}
	defer unlock()
	var found []omemo.SkippedRow
	for _, id := range distinct(ids) {
		if k, ok := s.rows.skipped[id.Session][skippedID{id.Ratchet, id.N}]; ok {
			found = append(found, omemo.SkippedRow{SkippedID: id, Key: k.key})
		}
	}
	return found, nil
}

// Ended implements omemo.Store.
func (s *Store) Ended(ctx context.Context, ids []omemo.ChainID) ([]omemo.EndedChain, error) {
	unlock, err := s.rlock(ctx)
	if err != nil {
		return nil, err
	}
	defer unlock()
	var found []omemo.EndedChain
	for _, id := range distinct(ids) {
		if row, ok := s.rows.ended[id]; ok {
			found = append(found, row)
		}
	}
	return found, nil
}

// Accounts implements omemo.Store.
func (s *Store) Accounts(ctx context.Context, jids ...string) (omemo.Accounts, error) {
	unlock, err := s.rlock(ctx)
	if err != nil {
		return omemo.Accounts{}, err
	}
	defer unlock()
	wanted := distinct(jids)
	if len(jids) == 0 {
		wanted = slices.Collect(maps.Keys(s.rows.contacts))
	}
	var found omemo.Accounts
	for _, jid := range wanted {
		c, ok := s.rows.contacts[jid]
		if !ok {
			continue
		}
		if c.row != nil {
			row := *c.row
			row.Lists = maps.Clone(row.Lists)
			found.Contacts = append(found.Contacts, row)
		}
		found.Devices = slices.AppendSeq(found.Devices, maps.Values(c.devices))
		found.Trust = slices.AppendSeq(found.Trust, maps.Values(c.trust))
	}
	return found, nil
}

// Inbox implements omemo.Store.
func (s *Store) Inbox(ctx context.Context, after uint64, limit int) ([]omemo.InboxRow, error) {
	unlock, err := s.rlock(ctx)
	if err != nil {
		return nil, err
	}
	defer unlock()
	var found []omemo.InboxRow
	for _, e := range s.rows.inbox.after(after, limit) {
		found = append(found, inboxRow(e.row))
	}
	return found, nil
}

// Outbox implements omemo.Store.
func (s *Store) Outbox(ctx context.Context, after uint64, limit int) ([]omemo.OutboxRow, error) {
	unlock, err := s.rlock(ctx)
	if err != nil {
		return nil, err
	}
	defer unlock()
	var found []omemo.OutboxRow
	for _, e := range s.rows.outbox.after(after, limit) {
		found = append(found, outboxRow(e.row))
	}
	return found, nil
}

// Journal implements omemo.Store.
func (s *Store) Journal(ctx context.Context, from omemo.Address) ([]omemo.JournalRow, error) {
	unlock, err := s.rlock(ctx)
	if err != nil {
		return nil, err
	}
	defer unlock()
	var found []omemo.JournalRow
	for _, e := range s.rows.journal {
		if from == (omemo.Address{}) || e.row.From == from {
			found = append(found, journalRow(e.row))
		}
	}
	return found, nil
}

// Owed implements omemo.Store.
func (s *Store) Owed(ctx context.Context) ([]omemo.OwedRow, error) {
	unlock, err := s.rlock(ctx)
	if err != nil {
		return nil, err
	}
	defer unlock()
	return slices.SortedFunc(maps.Values(s.rows.owed), func(a, b omemo.OwedRow) int { return a.Since.Compare(b.Since) }), nil
}

// Cursors implements omemo.Store.
func (s *Store) Cursors(ctx context.Context) ([]omemo.Cursor, error) {
	unlock, err := s.rlock(ctx)
	if err != nil {
		return nil, err
	}
	defer unlock()
	return slices.Collect(maps.Values(s.rows.cursors)), nil
}

// Occupants implements omemo.Store.
func (s *Store) Occupants(ctx context.Context, rooms ...string) ([]omemo.OccupantRow, error) {
	unlock, err := s.rlock(ctx)
	if err != nil {
		return nil, err
	}
	defer unlock()
	var found []omemo.OccupantRow
	for _, row := range s.rows.occupants {
		if len(rooms) == 0 || slices.Contains(rooms, row.Room) {
			found = append(found, row)
		}
	}
	return found, nil
}

// Echoes implements omemo.Store.
func (s *Store) Echoes(ctx context.Context, hashes ...[32]byte) ([]omemo.EchoRow, error) {
	unlock, err := s.rlock(ctx)
	if err != nil {
		return nil, err
	}
	defer unlock()
	var found []omemo.EchoRow
	if len(hashes) == 0 {
		for _, row := range s.rows.echoes {
			found = append(found, echoRow(row))
		}
	}
	for _, hash := range distinct(hashes) {
		if row, ok := s.rows.echoes[hash]; ok {
			found = append(found, echoRow(row))
		}
	}
	return found, nil
}

// Statements implements omemo.Store.
func (s *Store) Statements(ctx context.Context, jids ...string) ([]omemo.StatementRow, error) {
	unlock, err := s.rlock(ctx)
	if err != nil {
		return nil, err
	}
	defer unlock()
	var found []omemo.StatementRow
	for jid, known := range s.rows.contacts {
		if len(jids) == 0 || slices.Contains(jids, jid) {
			found = slices.AppendSeq(found, maps.Values(known.statements))
		}
	}
	return found, nil
}

// distinct returns the values without repetitions, in their order.
func distinct[T comparable](values []T) []T {
	if len(values) < 2 {
		return values
	}
	seen := make(map[T]struct{}, len(values))
	kept := make([]T, 0, len(values))
	for _, v := range values {
		if _, again := seen[v]; !again {
			seen[v] = struct{}{}
			kept = append(kept, v)
		}
	}
	return kept
}

func inboxRow(r omemo.InboxRow) omemo.InboxRow {
	r.Stanza, r.Received = bytes.Clone(r.Stanza), stamp(r.Received)
	return r
}

func outboxRow(r omemo.OutboxRow) omemo.OutboxRow {
	r.Stanza, r.Devices, r.Created = bytes.Clone(r.Stanza), slices.Clone(r.Devices), stamp(r.Created)
	return r
}

func journalRow(r omemo.JournalRow) omemo.JournalRow {
	r.Stanza, r.Received = bytes.Clone(r.Stanza), stamp(r.Received)
	return r
}

func echoRow(r omemo.EchoRow) omemo.EchoRow {
	r.Content, r.Created = bytes.Clone(r.Content), stamp(r.Created)
	return r
}
