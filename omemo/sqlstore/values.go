package sqlstore

import (
	"database/sql"
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"time"

	"example.org/omellium/omemo"
)

// never stands for the zero time, and sorts before every other.
const never = math.MinInt64

// encoder turns rows into the arguments of a statement.
type encoder struct {
	sealer *sealer
	commit uint64 // number of the commit that writes the rows
	table  string
	args   []any
	row    int    // where the arguments of the current row begin
	bound  []byte // what the last secret was bound to
	sealed []byte // the secrets among the arguments, one behind the other
	err    error
}

// reset makes room for the arguments of another statement, in the place of
// those before.
func (e *encoder) reset(n int) {
	e.args, e.sealed = slices.Grow(e.args[:0], n), e.sealed[:0]
}

// begin starts a row of an account.
func (e *encoder) begin(account int64) {
	e.args = append(e.args, account)
	e.row = len(e.args)
}

func (e *encoder) number(n uint64) {
	if n > math.MaxInt64 {
		e.err = fmt.Errorf("sqlstore: %s: a number has more than 63 bits", e.table)
	}
	e.args = append(e.args, int64(n))
}

func (e *encoder) count(n int) { e.args = append(e.args, int64(n)) }

func (e *encoder) text(s string) { e.args = append(e.args, s) }

func (e *encoder) flag(b bool) {
	if b {
		e.args = append(e.args, int64(1))
		return
	}
	e.args = append(e.args, int64(0))
}

func (e *encoder) time(t time.Time) { e.args = append(e.args, unixMicro(t)) }

// optional writes NULL for what is missing from a map.
func (e *encoder) optional(t time.Time, ok bool) {
	if !ok {
		e.args = append(e.args, nil)
		return
	}
	e.time(t)
}

// bytes never writes NULL, which database/sql makes of a nil slice.
func (e *encoder) bytes(b []byte) {
	if b == nil {
		b = []byte{}
	}
	e.args = append(e.args, b)
}

// public writes a public key or fingerprint, NULL if it is not known.
func (e *encoder) public(b [32]byte) {
	if b == ([32]byte{}) {
		e.args = append(e.args, nil)
		return
	}
	e.args = append(e.args, b[:])
}

// signature writes a signature, NULL if there is none.
func (e *encoder) signature(b [64]byte) {
	if b == ([64]byte{}) {
		e.args = append(e.args, nil)
		return
	}
	e.args = append(e.args, b[:])
}

// secret writes a secret, bound to the columns before it.
func (e *encoder) secret(b []byte) {
	if e.sealer == nil {
		e.bytes(b)
		return
	}
	e.bound = e.sealer.bound(e.bound[:0], e.table, e.args[e.row:])
	n := len(e.sealed)
	e.sealed = e.sealer.seal(e.sealed, e.bound, b)
	e.args = append(e.args, e.sealed[n:len(e.sealed):len(e.sealed)])
}

// decoder reads the columns of a row in their order.
type decoder struct {
	sealer *sealer
	table  string
	ints   []sql.NullInt64
	texts  []string
	blobs  [][]byte
	values []any // where each column was scanned to
	next   int
	err    error
}

func newDecoder(s *sealer, t *table) *decoder {
	columns := t.columns()
	d := &decoder{
		sealer: s, table: t.name,
		ints: make([]sql.NullInt64, len(columns)), texts: make([]string, len(columns)), blobs: make([][]byte, len(columns)),
		values: make([]any, len(columns)),
	}
	for i, c := range columns {
		switch c.kind {
		case integer:
			d.values[i] = &d.ints[i]
		case text:
			d.values[i] = &d.texts[i]
		case octets:
			d.values[i] = &d.blobs[i]
		}
	}
	return d
}

func (d *decoder) corrupt(what string) {
	if d.err == nil {
		d.err = fmt.Errorf("sqlstore: %s: %s: %w", d.table, what, omemo.ErrCorrupt)
	}
}

func (d *decoder) integer() int64 {
	v := d.ints[d.next]
	d.next++
	if !v.Valid {
		d.corrupt("a number is missing")
	}
	return v.Int64
}

// number reads an unsigned number that is at most max.
func (d *decoder) number(max uint64) uint64 {
	n := d.integer()
	if n < 0 || uint64(n) > max {
		d.corrupt("a number is out of range")
		return 0
	}
	return uint64(n)
}

func (d *decoder) uint64() uint64 { return d.number(math.MaxInt64) }
func (d *decoder) uint32() uint32 { return uint32(d.number(math.MaxUint32)) }
func (d *decoder) count() int     { return int(d.number(math.MaxInt32)) }
func (d *decoder) flag() bool     { return d.number(1) == 1 }

func (d *decoder) time() time.Time { return fromMicro(d.integer()) }

func (d *decoder) optional() (time.Time, bool) {
	v := d.ints[d.next]
	d.next++
	return fromMicro(v.Int64), v.Valid
}

func (d *decoder) text() string {
	d.next++
	return d.texts[d.next-1]
}

func (d *decoder) bytes() []byte {
	d.next++
	return d.blobs[d.next-1]
}

func (d *decoder) public() (key [32]byte) {
	if b := d.bytes(); b != nil {
		d.fill(key[:], b)
	}
	return key
}

func (d *decoder) signature() (s [64]byte) {
	if b := d.bytes(); b != nil {
		d.fill(s[:], b)
	}
	return s
}

// secret reads a secret that is bound to the columns before it.
func (d *decoder) secret() []byte {
	b := d.bytes()
	if d.sealer == nil || d.err != nil {
		return b
	}
	plain, err := d.sealer.open(d.table, d.values[:d.next-1], b)
	if err != nil {
		d.err = fmt.Errorf("sqlstore: %s: %w", d.table, err)
	}
	return plain
}

func (d *decoder) secret32() (key [32]byte) {
	d.fill(key[:], d.secret())
	return key
}

func (d *decoder) fill(key, b []byte) {
	if d.err == nil && len(b) != len(key) {
		d.corrupt("a key has the wrong length")
	}
	copy(key, b)
}

// scan reads the next row of an answer.
func (d *decoder) scan(rows *sql.Rows) error {
	clear(d.blobs)
	d.next, d.err = 0, nil
	if err := rows.Scan(d.values...); err != nil {
		return fmt.Errorf("%w: %w", omemo.ErrCorrupt, err)
	}
	return nil
}

func unixMicro(t time.Time) int64 {
	if t.IsZero() {
		return never
	}
	return t.UnixMicro()
}

func fromMicro(n int64) time.Time {
	if n == never {
		return time.Time{}
	}
	return time.UnixMicro(n).UTC()
}

// appendValue writes a column so that no two rows look alike. Byte strings of
// length 0 are as good as missing: not every driver tells them apart.
func appendValue(b []byte, v any) []byte {
	switch v := v.(type) {
	case int64:
		return binary.BigEndian.AppendUint64(append(b, 'i'), uint64(v))
	case *sql.NullInt64:
		if !v.Valid {
			break
		}
		return binary.BigEndian.AppendUint64(append(b, 'i'), uint64(v.Int64))
	case string:
		return appendSized(append(b, 's'), v)
	case *string:
		return appendSized(append(b, 's'), *v)
	case []byte:
		if len(v) > 0 {
			return appendSized(append(b, 'b'), v)
		}
	case *[]byte:
		return appendValue(b, *v)
	}
	return append(b, 'n')
}

func appendSized[T string | []byte](b []byte, v T) []byte {
	return append(binary.BigEndian.AppendUint64(b, uint64(len(v))), v...)
}
