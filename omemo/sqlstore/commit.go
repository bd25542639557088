package sqlstore

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"time"

	"example.org/omellium/omemo"
)

const (
	// commitTries bounds how often a transaction is tried that the database
	// undid because of others.
	commitTries = 10
	// commitPatience bounds how long the end of a transaction is waited for,
	// and how long it is tried to find out what became of it.
	commitPatience = 10 * time.Second
	// maxRows bounds the rows of a kind in one commit: skipped message keys are
	// numbered by commit and place.
	maxRows = 1 << 20
)

// Commit implements omemo.Store.
//
// A context that ends undoes everything as long as the transaction is open; its
// end is not interrupted. If the database goes silent at that very moment,
// Commit finds out what became of the transaction. If it cannot, it fails with
// omemo.ErrClosed, and the store is of no further use: one that is opened anew
// knows.
//
// Transactions that the database undoes because of others are tried again;
// Within runs anew each time. When Commit succeeds, c holds what Within added;
// when it fails, c is as it was.
func (s *Store) Commit(ctx context.Context, c *omemo.Changes) error {
	done, err := s.use()
	if err != nil {
		return err
	}
	defer done()
	if err := acquire(ctx, s.gate); err != nil {
		return err
	}
	defer func() { <-s.gate }()
	for try := 1; ; try++ {
		attempt := clip(c)
		err := s.commit(ctx, attempt)
		if err == nil {
			if c.Within != nil {
				*c = *attempt
			}
			s.wrote()
			return nil
		}
		// Whatever failed was undone, a lost connection included.
		again := s.db.dialect.Transient(err) || errors.Is(err, driver.ErrBadConn)
		if !again || errors.Is(err, omemo.ErrClosed) || try == commitTries {
			return err
		}
		if ended := pause(ctx, try); ended != nil {
			return errors.Join(ended, err)
		}
	}
}

// clip copies the changes so that what is appended to the copy is not appended
// to them.
func clip(c *omemo.Changes) *omemo.Changes {
	d := *c
	if d.Within == nil {
		return &d
	}
	clipSlice(&d.PreKeys)
	clipSlice(&d.DropPreKeys)
	clipSlice(&d.Sessions)
	clipSlice(&d.DropSessions)
	clipSlice(&d.Skipped)
	clipSlice(&d.DropSkipped)
	clipSlice(&d.TrimSkipped)
	clipSlice(&d.Ended)
	clipSlice(&d.Contacts)
	clipSlice(&d.DropContacts)
	clipSlice(&d.Devices)
	clipSlice(&d.DropDevices)
	clipSlice(&d.Trust)
	clipSlice(&d.Inbox)
	clipSlice(&d.DropInbox)
	clipSlice(&d.Outbox)
	clipSlice(&d.DropOutbox)
	clipSlice(&d.Journal)
	clipSlice(&d.DropJournal)
	clipSlice(&d.Owed)
	clipSlice(&d.DropOwed)
	clipSlice(&d.Cursors)
	clipSlice(&d.DropCursors)
	clipSlice(&d.Occupants)
	clipSlice(&d.DropOccupants)
	clipSlice(&d.Echoes)
	clipSlice(&d.DropEchoes)
	clipSlice(&d.Statements)
	clipSlice(&d.DropStatements)
	return &d
}

func clipSlice[T any](s *[]T) { *s = (*s)[:len(*s):len(*s)] }

// commit is one attempt.
func (s *Store) commit(ctx context.Context, c *omemo.Changes) error {
	statements, err := s.db.calm(ctx)
	if err != nil {
		return err
	}
	if s.db.commits != nil {
		if err := acquire(ctx, s.db.commits); err != nil {
			return err
		}
		defer func() { <-s.db.commits }()
	}
	conn, err := s.db.sql.Conn(statements)
	if err != nil {
		return fmt.Errorf("sqlstore: connect: %w", err)
	}
	defer conn.Close()
	// The driver waits for the end of the transaction as long as this context
	// lasts, which is not the caller's.
	whole, cancel := s.detach(ctx)
	defer cancel()
	tx, err := conn.BeginTx(whole, nil)
	if err != nil {
		return fmt.Errorf("sqlstore: begin: %w", err)
	}
	defer tx.Rollback()
	if s.db.dialect.Begin != "" {
		if _, err := tx.ExecContext(statements, s.db.dialect.Begin); err != nil {
			return fmt.Errorf("sqlstore: begin: %w", err)
		}
	}
	if c.Within != nil {
		if err := c.Within(ctx, tx, c); err != nil {
			return err
		}
	}
	if len(c.Skipped) > maxRows {
		return fmt.Errorf("sqlstore: more than %d rows in a commit", maxRows)
	}
	w := &writer{ctx: statements, caller: ctx, store: s, tx: tx, commit: s.counters.commits + 1}
	next, step, err := s.writeAccount(w, c)
	if err != nil {
		return err
	}
	if err := write(w, c); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("sqlstore: %w", err)
	}
	defer time.AfterFunc(commitPatience, cancel).Stop()
	return s.finish(ctx, conn, tx, c, next, step)
}

// finish commits the transaction. What stands in the database and what is known
// about it change together, as verified sees it.
func (s *Store) finish(ctx context.Context, conn *sql.Conn, tx *sql.Tx, c *omemo.Changes, next counters, step digestStep) error {
	s.fresh.Lock()
	defer s.fresh.Unlock()
	err := tx.Commit()
	if err != nil && !s.db.dialect.Transient(err) {
		// The connection may hold a transaction that is half done: closing it
		// undoes that.
		conn.Raw(func(any) error { return driver.ErrBadConn })
		err = s.settle(ctx, next.commits, err)
	}
	if err != nil {
		return fmt.Errorf("sqlstore: commit: %w", err)
	}
	s.counters = next
	if s.digest != nil {
		s.digest.apply(step)
	}
	s.anchored(c)
	return nil
}

// detach returns a context for a transaction. An embedded database needs none
// that ends.
func (s *Store) detach(ctx context.Context) (context.Context, context.CancelFunc) {
	if s.db.dialect.Embedded {
		return context.WithoutCancel(ctx), func() {}
	}
	return context.WithCancel(context.WithoutCancel(ctx))
}

// writeAccount writes the account's row: the counters, the record, the digest.
// It is what a fence keeps out: the row is changed only if this owner wrote its
// present state.
func (s *Store) writeAccount(w *writer, c *omemo.Changes) (next counters, step digestStep, err error) {
	next = counters{w.commit, s.counters.inbox, s.counters.outbox}
	for i := range c.Inbox {
		next.inbox = max(next.inbox, c.Inbox[i].Seq)
	}
	for i := range c.Outbox {
		next.outbox = max(next.outbox, c.Outbox[i].Seq)
	}
	e := &encoder{table: accountTable}
	e.number(next.commits)
	e.number(next.inbox)
	e.number(next.outbox)
	if s.digest == nil {
		e.args = append(e.args, nil)
	} else {
		step = s.digest.step(w.commit, c)
		e.bytes(s.sealer.seal(nil, s.sealer.bound(nil, digestTable, []any{int64(w.commit)}), step.sum[:]))
	}
	name, record := "commit", ""
	if c.Account != nil {
		name, record = "record", ", written = ?, record = ?"
		e.row = len(e.args)
		e.number(w.commit)
		e.sealer = s.sealer
		e.secret(c.Account)
	}
	if c.Renewed && s.moved != "" {
		name, record = name+" and place", record+", place = ?"
		e.text(s.moved)
	}
	e.args = append(e.args, s.account, s.fence, int64(s.counters.commits))
	n, err := w.exec(accountTable, name, 1, func() string {
		return `UPDATE omemo_account SET commits = ?, inbox = ?, outbox = ?, digest = ?` + record +
			` WHERE id = ? AND fence = ? AND commits = ?`
	}, e)
	if err == nil && n != 1 {
		err = s.die(omemo.ErrFenced)
	}
	return next, step, err
}

// accountTable and digestTable name what is sealed in the account's row.
const (
	accountTable = "omemo_account"
	digestTable  = "omemo_account digest"
)

// write writes everything else: removals, then insertions, then what is too
// much.
func write(w *writer, c *omemo.Changes) error {
	var err error
	do := func(n int, f func() error) {
		if err == nil && n > 0 {
			err = f()
		}
	}
	do(len(c.DropPreKeys), func() error { return preKeys.drop(w, c.DropPreKeys) })
	do(len(c.DropSessions), func() error { return dropSessions(w, c.DropSessions) })
	do(len(c.DropSkipped), func() error { return skipped.drop(w, c.DropSkipped) })
	do(1, func() error { return pruneEnded(w, c) })
	do(len(c.DropContacts), func() error { return dropContacts(w, c.DropContacts) })
	do(len(c.DropDevices), func() error { return devices.drop(w, c.DropDevices) })
	do(len(c.DropInbox), func() error { return inbox.drop(w, c.DropInbox) })
	do(len(c.DropOutbox), func() error { return outbox.drop(w, c.DropOutbox) })
	do(len(c.DropJournal), func() error { return journal.drop(w, c.DropJournal) })
	do(len(c.DropOwed), func() error { return owed.drop(w, c.DropOwed) })
	do(len(c.DropCursors), func() error { return cursors.drop(w, c.DropCursors) })
	do(len(c.DropOccupants), func() error { return occupants.drop(w, c.DropOccupants) })
	do(len(c.DropStatements), func() error { return statements.drop(w, c.DropStatements) })
	do(len(c.DropEchoes), func() error { return echoes.drop(w, c.DropEchoes) })

	do(len(c.PreKeys), func() error { return preKeys.write(w, c.PreKeys) })
	do(len(c.Sessions), func() error { return writeSessions(w, c.Sessions) })
	do(len(c.Skipped), func() error { return writeSkipped(w, c.Skipped) })
	do(len(c.Ended), func() error { return ended.write(w, c.Ended) })
	do(len(c.Contacts), func() error { return contacts.write(w, c.Contacts) })
	do(len(c.Devices), func() error { return devices.write(w, c.Devices) })
	do(len(c.Trust), func() error { return trust.write(w, c.Trust) })
	do(len(c.Inbox), func() error { return inbox.write(w, c.Inbox) })
	do(len(c.Outbox), func() error { return outbox.write(w, c.Outbox) })
	do(len(c.Journal), func() error { return journal.write(w, c.Journal) })
	do(len(c.Owed), func() error { return owed.write(w, c.Owed) })
	do(len(c.Cursors), func() error { return cursors.write(w, c.Cursors) })
	do(len(c.Occupants), func() error { return occupants.write(w, c.Occupants) })
	do(len(c.Statements), func() error { return statements.write(w, c.Statements) })
	do(len(c.Echoes), func() error { return echoes.write(w, c.Echoes) })

	for _, t := range c.TrimSkipped {
		do(1, func() error { return trim(w, t) })
	}
	return err
}

// settle finds out what became of a transaction whose end was not heard of, and
// returns nil if it was committed. Only it can have moved the commit counter
// on; the account's row is locked first, so that a server which is still busy
// with it comes to an end.
func (s *Store) settle(ctx context.Context, committed uint64, cause error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), commitPatience)
	defer cancel()
	for try := 1; ; try++ {
		fence, commits, err := s.standing(ctx)
		switch {
		case err == nil && fence != s.fence:
			// A new owner has gone on, from either state.
			s.die(omemo.ErrFenced)
			return fmt.Errorf("outcome is not known: %w: %w", omemo.ErrClosed, cause)
		case err == nil && commits == committed:
			return nil
		case err == nil:
			return cause
		}
		if sleep(ctx, time.Duration(min(try, 10))*20*time.Millisecond) != nil {
			s.die(omemo.ErrClosed)
			return fmt.Errorf("outcome is not known: %w: %w", omemo.ErrClosed, cause)
		}
	}
}

// standing locks the account's row and reads it.
func (s *Store) standing(ctx context.Context) (fence int64, commits uint64, err error) {
	tx, err := s.db.sql.BeginTx(ctx, nil)
	if err != nil {
		return 0, 0, err
	}
	defer tx.Rollback()
	if _, err := tx.ExecContext(ctx, s.db.dialect.text(`UPDATE omemo_account SET fence = fence WHERE id = ?`), s.account); err != nil {
		return 0, 0, err
	}
	err = tx.QueryRowContext(ctx, s.db.dialect.text(`SELECT fence, commits FROM omemo_account WHERE id = ?`), s.account).
		Scan(&fence, &commits)
	return fence, commits, err
}
