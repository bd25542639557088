package sqlstore

import (
	"context"
	"crypto/aes"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"slices"

	"example.org/omellium/omemo"
)

// marks are what the rows look like that say what is known about other
// accounts: contacts, devices, decisions about keys, and statements. They are
// not sealed, but nobody without the key can change them: a decision that was
// added, changed, put back or removed would have messages encrypted to a key
// that nobody trusts.
type marks struct {
	key  []byte
	rows map[string]map[rowKey]mark // by the account that they are about
}

// rowKey names a row: its table, and the columns of its primary key.
type rowKey struct{ table, key string }

// mark is a MAC of a row. The zero mark is that of a row that does not exist.
type mark [aes.BlockSize]byte

func newMarks(key []byte) marks {
	return marks{key: key, rows: make(map[string]map[rowKey]mark)}
}

// marked is a row with its mark.
type marked struct {
	jid string
	key rowKey
	mark
}

// markOf returns the mark of a row, and of what.
func markOf[R any, K comparable](ms *marks, m *mapping[R, K], r *R) marked {
	e := &encoder{table: m.name, args: make([]any, 0, len(m.columns()))}
	key := keyOf(e, m, m.id(r))
	m.bindFields(e, r)
	b := appendSized(make([]byte, 0, 512), m.name)
	for _, v := range e.args {
		b = appendValue(b, v)
	}
	mac := hmac.New(sha256.New, ms.key)
	mac.Write(b)
	key.mark = mark(mac.Sum(nil))
	return key
}

// keyOf returns the name of a row, and writes its columns.
func keyOf[R any, K comparable](e *encoder, m *mapping[R, K], id K) marked {
	m.bindKey(e, id)
	var b []byte
	for _, v := range e.args {
		b = appendValue(b, v)
	}
	jid := e.args[slices.Index(m.key, jidColumn)].(string)
	return marked{jid: jid, key: rowKey{m.name, string(b)}}
}

// step returns what a commit does to the marks, without doing it, and moves the
// sum on.
func (ms *marks) step(sum *[aes.BlockSize]byte, c *omemo.Changes) map[string]map[rowKey]mark {
	changed := make(map[string]map[rowKey]mark)
	set := func(r marked) {
		if changed[r.jid] == nil {
			changed[r.jid] = make(map[rowKey]mark)
		}
		old, ok := changed[r.jid][r.key]
		if !ok {
			old = ms.rows[r.jid][r.key]
		}
		subtle.XORBytes(sum[:], sum[:], old[:])
		subtle.XORBytes(sum[:], sum[:], r.mark[:])
		changed[r.jid][r.key] = r.mark
	}
	for _, jid := range c.DropContacts {
		for key := range ms.rows[jid] {
			if key.table != devices.name {
				set(marked{jid: jid, key: key})
			}
		}
	}
	for _, p := range c.DropDevices {
		set(keyOf(&encoder{}, &devices, p))
	}
	for _, id := range c.DropStatements {
		set(keyOf(&encoder{}, &statements, id))
	}
	each(ms, &contacts, c.Contacts, set)
	each(ms, &devices, c.Devices, set)
	each(ms, &trust, c.Trust, set)
	each(ms, &statements, c.Statements, set)
	return changed
}

func each[R any, K comparable](ms *marks, m *mapping[R, K], rows []R, do func(marked)) {
	for i := range rows {
		do(markOf(ms, m, &rows[i]))
	}
}

// apply does what was committed.
func (ms *marks) apply(changed map[string]map[rowKey]mark) {
	for jid, rows := range changed {
		for key, m := range rows {
			if m != (mark{}) {
				if ms.rows[jid] == nil {
					ms.rows[jid] = make(map[rowKey]mark)
				}
				ms.rows[jid][key] = m
				continue
			}
			delete(ms.rows[jid], key)
		}
		if len(ms.rows[jid]) == 0 {
			delete(ms.rows, jid)
		}
	}
}

// read marks what stands in the database, and adds it to the sum.
func (ms *marks) read(ctx context.Context, s *Store, sum *[aes.BlockSize]byte) error {
	known, err := s.accounts(ctx)
	if err != nil {
		return err
	}
	stated, err := statements.every(ctx, s, "")
	if err != nil {
		return err
	}
	ms.apply(ms.step(sum, &omemo.Changes{Contacts: known.Contacts, Devices: known.Devices, Trust: known.Trust, Statements: stated}))
	return nil
}

// compare checks that the rows of some tables are those that were written last,
// all of them: about the accounts that are named, or about all.
func (ms *marks) compare(jids []string, found []marked, tables ...string) error {
	seen := make(map[string]int)
	for _, r := range found {
		if ms.rows[r.jid][r.key] != r.mark {
			return fmt.Errorf("sqlstore: read %s: %w", r.key.table, ErrTampered)
		}
		seen[r.jid]++
	}
	complete := func(jid string) error {
		n := 0
		for key := range ms.rows[jid] {
			if slices.Contains(tables, key.table) {
				n++
			}
		}
		if n != seen[jid] {
			return fmt.Errorf("sqlstore: read %v: a row is missing: %w", tables, ErrTampered)
		}
		return nil
	}
	if len(jids) > 0 {
		for _, jid := range jids {
			if err := complete(jid); err != nil {
				return err
			}
		}
		return nil
	}
	for jid := range ms.rows {
		if err := complete(jid); err != nil {
			return err
		}
	}
	return nil
}
