package omemo

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
)

// PageItem is one message of a page of an archive.
type PageItem struct {
	// Message is what is to be decrypted; nil if the message is not encrypted.
	Message *Message
	// Verify is that of Decrypt.
	Verify Verify
	// Stanza goes into the journal if Message finds no session. Without Message
	// it goes into the inbox as it is, under the name Event; nil: nothing does.
	Stanza []byte
	Event  string
	// Cursor is the position of the message in its archive.
	Cursor Cursor
}

// PageResult is what became of a PageItem.
type PageResult struct {
	Opened *Opened // nil if it could not be opened, or was not encrypted
	Seq    uint64  // of what was put into the inbox without having been encrypted
	Err    error   // as of Decrypt
	Kept   bool    // it is in the journal
}

// DecryptPage opens the messages of a page in order, and commits all that they
// do at once, together with the position of the last. A message that cannot be
// opened is passed over and changes nothing, as with Decrypt; it does not keep
// the position from moving on.
//
// There is more than one commit only where a message must be seen by the next
// one: with Delivery.Within, and when an account or an identity key is seen for
// the first time. A message that cannot be committed is put into the journal, as
// one without a session is. If there is no room, or the store fails, the results
// are those of the messages before it, which are committed, the position stays
// there, and the error is the store's.
func (m *Manager) DecryptPage(ctx context.Context, items []PageItem) ([]PageResult, error) {
	var results []PageResult
	most := len(items)
	for len(items) > 0 {
		piece, tried, err := m.decryptPiece(ctx, items[:min(most, len(items))])
		switch {
		case err == nil:
			results = append(results, piece...)
			items = items[len(piece):]
		case !errors.Is(err, ErrCommit) || errors.Is(err, ErrFenced) || errors.Is(err, ErrClosed) || ctx.Err() != nil:
			return results, err
		case tried > 1:
			most = 1 // one of them cannot be committed: the others can
		default:
			kept, failure := m.passOver(ctx, items[0], err)
			if failure != nil || !kept {
				return results, cmp.Or(failure, err)
			}
			results = append(results, PageResult{Err: err, Kept: true})
			items = items[1:]
		}
	}
	return results, nil
}

// passOver puts a message that could not be committed into the journal, and
// moves on. If it is not kept there, the position stays before it.
func (m *Manager) passOver(ctx context.Context, item PageItem, reason error) (kept bool, err error) {
	if item.Message == nil {
		return false, nil
	}
	err = m.work(ctx, func(u *unit) error {
		if kept, err = u.keep(ctx, item.Message.Sender, reason.Error(), item.Stanza); kept {
			u.changes.Cursors = append(u.changes.Cursors, item.Cursor)
		}
		return err
	})
	return kept && err == nil, err
}

// decryptPiece opens and commits messages, at least one, up to one that has to be
// committed before the next is opened.
// tried is how many, if the commit failed.
func (m *Manager) decryptPiece(ctx context.Context, items []PageItem) (results []PageResult, tried int, err error) {
	err = m.work(ctx, func(u *unit) error {
		for i := range items {
			back := u.savepoint()
			r, err := u.openItem(ctx, &items[i])
			if err != nil {
				return err
			}
			within := r.Opened != nil && r.Opened.Delivery.Within != nil
			if within && i > 0 {
				back()
				return nil
			}
			if r.Opened == nil && !r.Kept && r.Seq == 0 {
				back()
			}
			results = append(results, r)
			if items[i].Cursor.Archive != "" {
				u.changes.Cursors = []Cursor{items[i].Cursor}
			}
			if within || u.apart {
				return nil
			}
		}
		return nil
	})
	if err != nil {
		return nil, len(results), err
	}
	return results, 0, nil
}

// openItem opens a message of a page. Its error is one of the store: it says
// nothing about the message.
func (u *unit) openItem(ctx context.Context, item *PageItem) (r PageResult, err error) {
	if item.Message == nil {
		if item.Stanza != nil {
			u.inbox++
			r.Seq = u.inbox
			u.changes.Inbox = append(u.changes.Inbox, InboxRow{Seq: r.Seq, Event: item.Event, Stanza: item.Stanza, Received: u.now})
		}
		return r, nil
	}
	back := u.savepoint()
	if r.Opened, r.Err = u.open(ctx, item.Message, item.Verify); r.Err == nil {
		return r, nil
	}
	back()
	switch {
	case errors.Is(r.Err, ErrNoSession):
		if r.Kept, err = u.keep(ctx, item.Message.Sender, r.Err.Error(), item.Stanza); err != nil {
			return r, err
		}
	case !IsVerdict(r.Err):
		return r, fmt.Errorf("omemo: page of an archive: %w", r.Err)
	}
	return r, nil
}

func isOneOf(err error, targets ...error) bool {
	return slices.ContainsFunc(targets, func(target error) bool { return errors.Is(err, target) })
}

// savepoint returns a function that undoes everything since.
func (u *unit) savepoint() (back func()) {
	saved, lists := *u, u.lists()
	// Rows of these are replaced and removed in place.
	c := &u.changes
	c.Sessions, c.Skipped = slices.Clone(c.Sessions), slices.Clone(c.Skipped)
	c.Devices, c.Contacts, c.Trust = slices.Clone(c.Devices), slices.Clone(c.Contacts), slices.Clone(c.Trust)
	c.Statements = slices.Clone(c.Statements)
	u.known = maps.Clone(u.known)
	if u.account != nil {
		account := *u.account
		u.account = &account
	}
	return func() {
		lists()
		saved.slots = u.slots
		*u = saved
	}
}

// Cursor returns the position that an archive was caught up to; ok is false if
// there is none.
func (m *Manager) Cursor(ctx context.Context, archive string) (c Cursor, ok bool, err error) {
	err = m.read(ctx, func(u *unit) error {
		rows, err := u.store.Cursors(ctx)
		if i := slices.IndexFunc(rows, func(row Cursor) bool { return row.Archive == archive }); i >= 0 {
			c, ok = rows[i], true
		}
		return err
	})
	return c, ok, err
}

// SetCursor writes a position in an archive.
func (m *Manager) SetCursor(ctx context.Context, c Cursor) error {
	return m.work(ctx, func(u *unit) error {
		u.changes.Cursors = append(u.changes.Cursors, c)
		return nil
	})
}
