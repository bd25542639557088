package omemo

import (
	"context"
	"time"
)

// Limits of the journal. Accounts that we have never written to have half of it
// at most.
const (
	JournalRows      = 1000    // of an account
	JournalTotal     = 4 << 20 // bytes of all stanzas: all rows are read for each new one
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
	if len(stanza) > JournalBytes {
		return false, nil
	}
	if err := u.learn(ctx, from.JID); err != nil {
		return false, err
	}
	rows, err := u.journal(ctx)
	if err != nil {
		return false, err
	}
	most, bytes := JournalRows, JournalTotal
	if from.JID != u.own().jid && !u.knows(from.JID).contact.Written {
		most, bytes = most/2, bytes/2
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
		bytes -= len(r.Stanza)
	}
	if count >= most || same >= JournalPerDevice || len(stanza) > bytes {
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
