//go:build unix && live

package postgres_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"example.org/omellium/omemo"
	"example.org/omellium/omemo/sqlstore"
)

// TestRetried: a transaction that the database undoes because of others is
// tried again, with the changes as they were, but not for ever.
func TestRetried(t *testing.T) {
	t.Parallel()
	s := open(t, server.Database(t), account)
	for _, test := range []struct {
		code     string
		failures int
		tries    int
		fails    bool
	}{
		{"40001", 2, 3, false},
		{"40P01", 1, 2, false},
		{"40001", 100, 10, true},
		{"23505", 100, 1, true},
	} {
		tries := 0
		c := &omemo.Changes{
			Within: func(ctx context.Context, tx any, c *omemo.Changes) error {
				tries++
				c.Cursors = append(c.Cursors, omemo.Cursor{Archive: test.code, Position: fmt.Sprint(tries)})
				if tries > test.failures {
					return nil
				}
				_, err := tx.(*sql.Tx).ExecContext(ctx, `DO $$ BEGIN RAISE EXCEPTION 'undone' USING ERRCODE = '`+test.code+`'; END $$`)
				return err
			},
		}
		err := s.Commit(t.Context(), c)
		if tries != test.tries || test.fails == (err == nil) {
			t.Errorf("%s: %d tries, %v", test.code, tries, err)
		}
		if pg, ok := errors.AsType[*pgconn.PgError](err); test.fails && (!ok || pg.Code != test.code) {
			t.Errorf("%s: got %v", test.code, err)
		}
		if want := map[bool]int{true: 0, false: 1}[test.fails]; len(c.Cursors) != want {
			t.Errorf("%s: the changes hold %d rows", test.code, len(c.Cursors))
		}
	}
}

// TestTogether: several processes create the tables and an account at the same
// time.
func TestTogether(t *testing.T) {
	t.Parallel()
	url := server.Database(t)
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			name := fmt.Sprintf("user%d@example.org", i/2)
			opts := []sqlstore.Option{sqlstore.WithLease(time.Minute + time.Duration(i)), sqlstore.WithKey(testKey)}
			s := open(t, url, name, opts...)
			state, err := s.Load(t.Context())
			if err != nil {
				t.Error(err)
			}
			if err := s.Commit(t.Context(), &omemo.Changes{Account: append(state.Account, 'x')}); err != nil {
				t.Error(err)
			}
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	for i := range 4 {
		s := open(t, url, fmt.Sprintf("user%d@example.org", i), sqlstore.WithKey(testKey))
		if state, err := s.Load(t.Context()); err != nil || string(state.Account) != "xx" {
			t.Errorf("got %q, %v, want what both owners wrote", state.Account, err)
		}
	}
}
