package omemo

import (
	"context"
	"time"
)

// Limits of the journal.
const (
	JournalRows      = 1000 // of an account
	JournalPerDevice = 50
	JournalBytes     = 64 << 10 // of one stanza
	JournalAge       = 7 * 24 * time.Hour
)

// Keep puts a message that cannot be opened now into the journal: it may be
// opened when its sender's next key exchange has arrived. It reports whether
// there was room. Rows that have become too old are removed.
func (m *Manager) Keep(ctx context.Context, from Address, reason string, stanza []byte) (bool, error) {
	kept := false
	err := m.work(ctx, func(u *unit) error {
		var err error
		kept, err = u.keep(ctx, from, reason, stanza)
		return err
	})
	return kept && err == nil, err
}

func (u *unit) keep(ctx context.Context, from Address, reason string, stanza []byte) (bool, error) {
	rows, err := u.journal(ctx)
	if err != nil {
		return false, err
	}
	last, count, same := uint64(0), 0, 0
	for _, r := range rows {
		last = max(last, r.ID)
		switch {
		case u.now.Sub(r.Received) > JournalAge:
			u.changes.DropJournal = append(u.changes.DropJournal, r.ID)
			continue
		case r.From == from:
			same++
		}
		count++
	}
	if count >= JournalRows || same >= JournalPerDevice || len(stanza) > JournalBytes {
		return false, nil
	}
	u.changes.Journal = append(u.changes.Journal, JournalRow{
		ID: last + 1, From: from, Reason: reason, Stanza: stanza, Received: u.now,
	})
	return true, nil
}

// Kept returns the messages of a device in the journal, oldest first.
func (m *Manager) Kept(ctx context.Context, from Address) ([]JournalRow, error) {
	var rows []JournalRow
	err := m.read(ctx, func(u *unit) error {
		var err error
		rows, err = u.store.Journal(ctx, from)
		return err
	})
	return rows, err
}
