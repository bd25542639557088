package sqlstore

import (
	"context"
	"database/sql"
	"fmt"
	"iter"
	"slices"
	"sync"
)

// mapping is how rows of a type stand in their table. bindFields binds, and
// decode reads, in the order of the table's columns.
type mapping[R any, K comparable] struct {
	table
	id         func(*R) K
	bindKey    func(*encoder, K)
	bindFields func(*encoder, *R)
	decode     func(*decoder) R
}

// write inserts rows, or overwrites those that exist. Of two with one key, the
// later counts.
func (m *mapping[R, K]) write(w *writer, rows []R) error {
	for e, n := range m.encoded(w, latest(rows, m.id)) {
		if _, err := m.exec(w, e, "upsert", m.upsert, n); err != nil {
			return err
		}
	}
	return nil
}

// encoded yields rows in pieces, as arguments of a statement and their number.
// While the database works on a long one, the next is sealed.
func (m *mapping[R, K]) encoded(w *writer, rows []R) iter.Seq2[*encoder, int] {
	return func(yield func(*encoder, int) bool) {
		list := slices.Collect(m.cut(w, rows))
		e, next := w.encoder(m.name, 0), w.encoder(m.name, 0)
		ready := false
		for i, piece := range list {
			if !ready {
				m.encode(w, e, piece)
			}
			var ahead sync.WaitGroup
			if ready = i+1 < len(list) && len(piece) == pieces[0] && w.store.sealer != nil; ready {
				ahead.Go(func() { m.encode(w, next, list[i+1]) })
			}
			more := yield(e, len(piece))
			ahead.Wait()
			if !more {
				return
			}
			e, next = next, e
		}
	}
}

// encode writes rows in the place of those that an encoder held.
func (m *mapping[R, K]) encode(w *writer, e *encoder, rows []R) {
	e.reset(len(rows) * (len(m.columns()) + 1))
	for i := range rows {
		e.begin(w.store.account)
		m.bindKey(e, m.id(&rows[i]))
		m.bindFields(e, &rows[i])
	}
}

// exec runs a statement that takes n whole rows.
func (m *mapping[R, K]) exec(w *writer, e *encoder, name string, statement func(n int) string, n int) (int64, error) {
	if w.store.db.dialect.Arrays {
		n, e.args = asArrays, m.arrays(e.args)
	}
	return w.exec(m.name, name, n, func() string { return statement(n) }, e)
}

// cut yields rows in pieces that one statement takes.
func (m *mapping[R, K]) cut(w *writer, rows []R) iter.Seq[[]R] {
	if w.store.db.dialect.Arrays && len(rows) > 0 {
		return slices.Values([][]R{rows})
	}
	return cut(rows)
}

// drop deletes rows.
func (m *mapping[R, K]) drop(w *writer, keys []K) error {
	for piece := range cut(keys) {
		e := w.encoder(m.name, 1+len(piece)*len(m.key))
		e.begin(w.store.account)
		for _, k := range piece {
			m.bindKey(e, k)
		}
		if _, err := w.exec(m.name, "remove", len(piece), func() string { return m.remove(len(piece)) }, e); err != nil {
			return err
		}
	}
	return nil
}

// find returns the rows with these keys.
func (m *mapping[R, K]) find(ctx context.Context, s *Store, keys []K) ([]R, error) {
	return findBy(ctx, s, m, m.key, m.bindKey, keys)
}

// findBy returns the rows whose columns by have one of these values. Lists are
// filled up with NULL, which equals nothing.
func findBy[R any, K, V comparable](ctx context.Context, s *Store, m *mapping[R, K], by []column, bind func(*encoder, V), values []V) ([]R, error) {
	var found []R
	for piece := range chunks(distinct(values)) {
		n := fit(len(piece))
		e := &encoder{table: m.name, args: make([]any, 0, n*len(by)+1)}
		for _, v := range piece {
			bind(e, v)
		}
		e.args = append(e.args, make([]any, (n-len(piece))*len(by))...)
		e.args = append(e.args, s.account)
		if e.err != nil {
			return nil, e.err
		}
		rows, err := query(ctx, s, m, "pick "+names("", by), n, func() string { return m.pick(by, n) }, e.args)
		if err != nil {
			return nil, err
		}
		found = append(found, rows...)
	}
	return found, nil
}

// every returns all rows of the account, or those that a further condition
// leaves.
func (m *mapping[R, K]) every(ctx context.Context, s *Store, condition string, args ...any) ([]R, error) {
	return query(ctx, s, m, condition, 0, func() string { return m.all() + condition }, append([]any{s.account}, args...))
}

// query runs a query for whole rows.
func query[R any, K comparable](ctx context.Context, s *Store, m *mapping[R, K], name string, n int, text func() string, args []any) ([]R, error) {
	var found []R
	err := s.read(ctx, func(ctx context.Context) error {
		found = nil
		st, err := s.db.statement(ctx, statementKey{m.name, name, n}, text)
		if err != nil {
			return err
		}
		rows, err := st.query(ctx, s.db.sql, args)
		if err != nil {
			return err
		}
		defer rows.Close()
		d := newDecoder(s.sealer, &m.table)
		for rows.Next() {
			if err := d.scan(rows); err != nil {
				return err
			}
			row := m.decode(d)
			if d.err != nil {
				return d.err
			}
			found = append(found, row)
		}
		return rows.Err()
	})
	if err != nil {
		return nil, fmt.Errorf("sqlstore: read %s: %w", m.name, err)
	}
	return found, nil
}

// cut yields a list in pieces of the lengths that statements have.
func cut[T any](list []T) iter.Seq[[]T] {
	return func(yield func([]T) bool) {
		for _, n := range pieces {
			for len(list) >= n {
				if !yield(list[:n]) {
					return
				}
				list = list[n:]
			}
		}
	}
}

// chunks yields a list in pieces of the greatest length, and the rest as one.
func chunks[T any](list []T) iter.Seq[[]T] {
	return func(yield func([]T) bool) {
		for len(list) > 0 {
			n := min(len(list), pieces[0])
			if !yield(list[:n]) {
				return
			}
			list = list[n:]
		}
	}
}

// fit returns the smallest length of a statement that n values fit into.
func fit(n int) int {
	best := pieces[0]
	for _, p := range pieces {
		if p >= n {
			best = p
		}
	}
	return best
}

// latest returns the rows without those that a later one overwrites. No
// database likes to write a row twice in one statement.
func latest[R any, K comparable](rows []R, id func(*R) K) []R {
	if len(rows) < 2 {
		return rows
	}
	last := make(map[K]int, len(rows))
	for i := range rows {
		last[id(&rows[i])] = i
	}
	if len(last) == len(rows) {
		return rows
	}
	kept := make([]R, 0, len(last))
	for i := range rows {
		if last[id(&rows[i])] == i {
			kept = append(kept, rows[i])
		}
	}
	return kept
}

// distinct returns the values without repetitions, in their order.
func distinct[T comparable](values []T) []T {
	return latest(values, func(v *T) T { return *v })
}

// statementKey names a statement: its table, what it does, and to how many
// rows.
type statementKey struct {
	table, name string
	n           int
}

// statement is an SQL statement, prepared if the database is embedded. Other
// drivers keep prepared statements themselves, per connection.
type statement struct {
	text     string
	prepared *sql.Stmt
}

// statement returns a statement, made by text at its first use.
func (d *Database) statement(ctx context.Context, key statementKey, text func() string) (*statement, error) {
	if st, ok := d.statements.Load(key); ok {
		return st.(*statement), nil
	}
	st := &statement{text: d.dialect.text(text())}
	if d.dialect.Embedded {
		var err error
		if st.prepared, err = d.sql.PrepareContext(ctx, st.text); err != nil {
			return nil, err
		}
	}
	if first, raced := d.statements.LoadOrStore(key, st); raced {
		st.close()
		st = first.(*statement)
	}
	return st, nil
}

func (st *statement) query(ctx context.Context, db *sql.DB, args []any) (*sql.Rows, error) {
	if st.prepared != nil {
		return st.prepared.QueryContext(ctx, args...)
	}
	return db.QueryContext(ctx, st.text, args...)
}

func (st *statement) exec(ctx context.Context, tx *sql.Tx, args []any) (sql.Result, error) {
	if st.prepared != nil {
		return tx.StmtContext(ctx, st.prepared).ExecContext(ctx, args...)
	}
	return tx.ExecContext(ctx, st.text, args...)
}

func (st *statement) close() {
	if st.prepared != nil {
		st.prepared.Close()
	}
}

// writer writes the rows of one commit.
type writer struct {
	ctx    context.Context // of statements
	caller context.Context // looked at between them
	store  *Store
	tx     *sql.Tx
	commit uint64
}

// encoder returns an encoder for about n arguments of a table.
func (w *writer) encoder(table string, n int) *encoder {
	return &encoder{sealer: w.store.sealer, commit: w.commit, table: table, args: make([]any, 0, n)}
}

// exec runs a statement and returns the number of rows it changed.
func (w *writer) exec(table, name string, n int, text func() string, e *encoder) (int64, error) {
	if e.err != nil {
		return 0, e.err
	}
	if err := w.caller.Err(); err != nil {
		return 0, fmt.Errorf("sqlstore: %w", err)
	}
	st, err := w.store.db.statement(w.ctx, statementKey{table, name, n}, text)
	if err != nil {
		return 0, fmt.Errorf("sqlstore: write %s: %w", table, err)
	}
	result, err := st.exec(w.ctx, w.tx, e.args)
	if err != nil {
		return 0, fmt.Errorf("sqlstore: write %s: %w", table, err)
	}
	return result.RowsAffected()
}
