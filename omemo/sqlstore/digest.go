package sqlstore

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/subtle"
	"encoding/binary"
	"fmt"

	"example.org/omellium/omemo"
)

// digest knows which commit wrote each session of a sealed account, and how each
// row looks that says what is known about others (marks). The sum over all of
// them, one block of 16 bytes for each joined by XOR, stands sealed in the
// account's row with the number of the last commit; so a single row that was
// put back into an older state, changed, added or removed is noticed. Moving it
// on costs as much as a commit has rows. Whoever puts all rows back at once is
// not noticed here.
type digest struct {
	prf     cipher.Block
	sum     [aes.BlockSize]byte
	written map[uint64]uint64 // commit that wrote each session, by id
	marks   marks
}

// recordID stands for the account's record, where session ids have 63 bits.
const recordID = 1 << 63

// digestStep is what one commit does to a digest.
type digestStep struct {
	sum     [aes.BlockSize]byte
	written map[uint64]uint64          // zero: removed
	rows    map[string]map[rowKey]mark // zero: removed
}

// toggle adds a row to the sum, or takes it out again.
func (d *digest) toggle(sum *[aes.BlockSize]byte, id, written uint64) {
	var b [aes.BlockSize]byte
	binary.BigEndian.PutUint64(b[:8], id)
	binary.BigEndian.PutUint64(b[8:], written)
	d.prf.Encrypt(b[:], b[:])
	subtle.XORBytes(sum[:], sum[:], b[:])
}

// step returns what a commit does, without doing it.
func (d *digest) step(commit uint64, c *omemo.Changes) digestStep {
	s := digestStep{d.sum, make(map[uint64]uint64, len(c.Sessions)+len(c.DropSessions)+1), nil}
	set := func(id, written uint64) {
		old, changed := s.written[id]
		if !changed {
			old = d.written[id]
		}
		if old != 0 {
			d.toggle(&s.sum, id, old)
		}
		if written != 0 {
			d.toggle(&s.sum, id, written)
		}
		s.written[id] = written
	}
	for _, id := range c.DropSessions {
		set(id, 0)
	}
	for i := range c.Sessions {
		set(c.Sessions[i].ID, commit)
	}
	if c.Account != nil {
		set(recordID, commit)
	}
	s.rows = d.marks.step(&s.sum, c)
	return s
}

// apply does what was committed.
func (d *digest) apply(s digestStep) {
	d.sum = s.sum
	for id, written := range s.written {
		if written == 0 {
			delete(d.written, id)
			continue
		}
		d.written[id] = written
	}
	d.marks.apply(s.rows)
}

// holds reports whether a session is the one that was written last.
func (d *digest) holds(id, written uint64) bool { return d.written[id] == written }

// readDigest reads which commit wrote each session, and compares the sum.
func (s *Store) readDigest(ctx context.Context, sealed []byte, record uint64) (*digest, error) {
	d := &digest{prf: s.sealer.prf, written: make(map[uint64]uint64), marks: newMarks(s.sealer.macKey)}
	if record != 0 {
		d.written[recordID] = record
	}
	rows, err := s.db.sql.QueryContext(ctx, s.db.dialect.text(`SELECT id, written FROM omemo_session WHERE account = ?`), s.account)
	if err != nil {
		return nil, fmt.Errorf("sqlstore: read %s: %w", sessions.name, err)
	}
	defer rows.Close()
	for rows.Next() {
		var id, written uint64
		if err := rows.Scan(&id, &written); err != nil {
			return nil, fmt.Errorf("sqlstore: read %s: %w", sessions.name, err)
		}
		d.written[id] = written
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("sqlstore: read %s: %w", sessions.name, err)
	}
	for id, written := range d.written {
		d.toggle(&d.sum, id, written)
	}
	if err := d.marks.read(ctx, s, &d.sum); err != nil {
		return nil, err
	}
	sum, err := s.sealer.open(digestTable, []any{int64(s.counters.commits)}, sealed)
	if err != nil {
		return nil, err
	}
	if subtle.ConstantTimeCompare(sum, d.sum[:]) != 1 {
		return nil, ErrTampered
	}
	return d, nil
}
