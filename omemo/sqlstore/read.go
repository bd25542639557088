package sqlstore

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"example.org/omellium/omemo"
)

// read runs one query.
func (s *Store) read(ctx context.Context, query func(context.Context) error) error {
	done, err := s.use()
	if err != nil {
		return err
	}
	defer done()
	if ctx, err = s.db.calm(ctx); err != nil {
		return err
	}
	return s.db.retry(ctx, func() error { return query(ctx) })
}

// Load implements omemo.Store.
func (s *Store) Load(ctx context.Context) (state omemo.State, err error) {
	state.JID, state.RolledBack, state.AnchorMissing = s.name, s.rolledBack.Load(), s.unanchored
	err = s.read(ctx, func(ctx context.Context) error {
		var record []byte
		var present bool
		var written uint64
		err := s.db.sql.QueryRowContext(ctx,
			s.db.dialect.text(`SELECT inbox, outbox, written, record IS NOT NULL, record FROM omemo_account WHERE id = ?`), s.account).
			Scan(&state.Inbox, &state.Outbox, &written, &present, &record)
		if err != nil || !present {
			return err
		}
		if record == nil {
			record = []byte{}
		}
		if s.sealer != nil {
			if record, err = s.sealer.open(accountTable, []any{int64(written)}, record); err != nil {
				return err
			}
		}
		state.Account = record
		return nil
	})
	if err != nil {
		return omemo.State{}, fmt.Errorf("sqlstore: read the account: %w", err)
	}
	return state, nil
}

// PreKeys implements omemo.Store. They are in the order of their ids.
func (s *Store) PreKeys(ctx context.Context, v omemo.Version, ids ...uint32) ([]omemo.PreKeyRow, error) {
	var found []omemo.PreKeyRow
	var err error
	if len(ids) == 0 {
		found, err = preKeys.every(ctx, s, " AND version = ?", int64(v))
	} else {
		wanted := make([]omemo.PreKeyID, len(ids))
		for i, id := range ids {
			wanted[i] = omemo.PreKeyID{Version: v, ID: id}
		}
		found, err = preKeys.find(ctx, s, wanted)
	}
	slices.SortFunc(found, func(a, b omemo.PreKeyRow) int { return cmp.Compare(a.ID, b.ID) })
	return found, err
}

// Sessions implements omemo.Store.
func (s *Store) Sessions(ctx context.Context, peers []omemo.Peer) ([]omemo.SessionRow, error) {
	var stored []storedSession
	err := s.verified(func() (err error) {
		stored, err = findBy(ctx, s, &sessions, sessions.fields[:3], bindPeer, peers)
		return err
	}, func() error {
		for _, r := range stored {
			if !s.digest.holds(r.ID, r.written) {
				return fmt.Errorf("sqlstore: read %s: %w", sessions.name, ErrTampered)
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	found := make([]omemo.SessionRow, len(stored))
	for i, r := range stored {
		found[i] = r.SessionRow
	}
	return found, nil
}

// verified runs a query, and compares its answer with the digest of a sealed
// account. A commit in between, which changes both, has it done again.
func (s *Store) verified(query, compare func() error) error {
	if s.digest == nil {
		return query()
	}
	for {
		s.fresh.RLock()
		before := s.counters.commits
		s.fresh.RUnlock()
		if err := query(); err != nil {
			return err
		}
		s.fresh.RLock()
		err, same := compare(), s.counters.commits == before
		s.fresh.RUnlock()
		if err == nil || same {
			return err
		}
	}
}

// Skipped implements omemo.Store.
func (s *Store) Skipped(ctx context.Context, ids []omemo.SkippedID) ([]omemo.SkippedRow, error) {
	stored, err := skipped.find(ctx, s, ids)
	if err != nil {
		return nil, err
	}
	found := make([]omemo.SkippedRow, len(stored))
	for i, r := range stored {
		found[i] = r.SkippedRow
	}
	return found, nil
}

// Ended implements omemo.Store.
func (s *Store) Ended(ctx context.Context, ids []omemo.ChainID) ([]omemo.EndedChain, error) {
	return ended.find(ctx, s, ids)
}

// Accounts implements omemo.Store.
func (s *Store) Accounts(ctx context.Context, jids ...string) (found omemo.Accounts, err error) {
	err = s.verified(func() (err error) {
		found, err = s.accounts(ctx, jids...)
		return err
	}, func() error {
		var rows []marked
		note := func(r marked) { rows = append(rows, r) }
		each(&s.digest.marks, &contacts, found.Contacts, note)
		each(&s.digest.marks, &devices, found.Devices, note)
		each(&s.digest.marks, &trust, found.Trust, note)
		return s.digest.marks.compare(jids, rows, contacts.name, devices.name, trust.name)
	})
	if err != nil {
		return omemo.Accounts{}, err
	}
	return found, nil
}

// accounts reads what is known about accounts.
func (s *Store) accounts(ctx context.Context, jids ...string) (found omemo.Accounts, err error) {
	if found.Contacts, err = ofAccounts(ctx, s, &contacts, jids); err != nil {
		return omemo.Accounts{}, err
	}
	if found.Devices, err = ofAccounts(ctx, s, &devices, jids); err != nil {
		return omemo.Accounts{}, err
	}
	if found.Trust, err = ofAccounts(ctx, s, &trust, jids); err != nil {
		return omemo.Accounts{}, err
	}
	return found, nil
}

// ofAccounts returns the rows of several accounts, or of all.
func ofAccounts[R any, K comparable](ctx context.Context, s *Store, m *mapping[R, K], jids []string) ([]R, error) {
	if len(jids) == 0 {
		return m.every(ctx, s, "")
	}
	return findBy(ctx, s, m, []column{jidColumn}, (*encoder).text, jids)
}

// Inbox implements omemo.Store.
func (s *Store) Inbox(ctx context.Context, after uint64, limit int) ([]omemo.InboxRow, error) {
	return following(ctx, s, &inbox, after, limit)
}

// Outbox implements omemo.Store.
func (s *Store) Outbox(ctx context.Context, after uint64, limit int) ([]omemo.OutboxRow, error) {
	return following(ctx, s, &outbox, after, limit)
}

// following returns rows that come after a sequence number.
func following[R any](ctx context.Context, s *Store, m *mapping[R, uint64], after uint64, limit int) ([]R, error) {
	return m.every(ctx, s, " AND seq > ? ORDER BY seq LIMIT ?", int64(min(after, 1<<63-1)), int64(max(limit, 0)))
}

// Journal implements omemo.Store.
func (s *Store) Journal(ctx context.Context, from omemo.Address) ([]omemo.JournalRow, error) {
	if from == (omemo.Address{}) {
		return journal.every(ctx, s, " ORDER BY id")
	}
	return journal.every(ctx, s, " AND jid = ? AND device = ? ORDER BY id", from.JID, int64(from.Device))
}

// Owed implements omemo.Store.
func (s *Store) Owed(ctx context.Context) ([]omemo.OwedRow, error) {
	return owed.every(ctx, s, " ORDER BY since")
}

// Cursors implements omemo.Store.
func (s *Store) Cursors(ctx context.Context) ([]omemo.Cursor, error) {
	return cursors.every(ctx, s, "")
}
