//go:build unix && live

package postgres_test

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"sync"
	"testing"
	"time"

	"example.org/omellium/omemo"
	"example.org/omellium/omemo/sqlstore"
	"example.org/omellium/omemo/sqlstore/postgres"
)

var testKey = sqlstore.KeyFunc(func(context.Context) ([]byte, error) { return bytes.Repeat([]byte{1}, 32), nil })

// shortLease is short, but long enough for a machine that is busy.
const shortLease = 2 * time.Second

// other are options of another process: it has a handle of its own.
func other() []sqlstore.Option {
	return []sqlstore.Option{sqlstore.WithLease(shortLease + 1), sqlstore.WithAnchor("")}
}

// refused waits until a store has noticed that it was fenced off.
func refused(t *testing.T, s *sqlstore.Store) {
	t.Helper()
	select {
	case <-s.Lost():
	case <-time.After(30 * time.Second):
		t.Fatal("the loss of the lease was not noticed")
	}
	if err := s.Commit(t.Context(), &omemo.Changes{Account: []byte("too late")}); !errors.Is(err, omemo.ErrFenced) {
		t.Errorf("Commit: got %v, want omemo.ErrFenced", err)
	}
	if _, err := s.Load(t.Context()); !errors.Is(err, omemo.ErrFenced) {
		t.Errorf("Load: got %v, want omemo.ErrFenced", err)
	}
}

// TestExclusive: the second owner waits, until its context ends or the first one
// goes. The first keeps the account for many times the length of its lease.
func TestExclusive(t *testing.T) {
	for name, opts := range map[string][]sqlstore.Option{
		"same process":  {sqlstore.WithLease(shortLease), sqlstore.WithAnchor("")},
		"other process": other(),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			url := server.Database(t)
			first := open(t, url, account, sqlstore.WithLease(shortLease))
			ctx, cancel := context.WithTimeout(t.Context(), 5*shortLease/2)
			defer cancel()
			_, err := postgres.Open(ctx, url, account, opts...)
			if !errors.Is(err, omemo.ErrLocked) || !errors.Is(err, context.DeadlineExceeded) {
				t.Fatalf("got %v, want omemo.ErrLocked and the context's error", err)
			}
			if err := first.Commit(t.Context(), &omemo.Changes{Account: []byte("first")}); err != nil {
				t.Fatalf("the owner lost its account: %v", err)
			}
			opened := make(chan error, 1)
			go func() {
				second, err := postgres.Open(t.Context(), url, account, opts...)
				if err == nil {
					state, loadErr := second.Load(t.Context())
					if string(state.Account) != "first" {
						loadErr = errors.Join(loadErr, errors.New("the first owner's commit is missing"))
					}
					err = errors.Join(loadErr, second.Close())
				}
				opened <- err
			}()
			if err := first.Close(); err != nil {
				t.Fatal(err)
			}
			if err := <-opened; err != nil {
				t.Error(err)
			}
		})
	}
}

// TestTakeover: an owner that died holds its account until its lease ends, by
// the clock of the database; under the same name it is taken back at once.
func TestTakeover(t *testing.T) {
	const now = `CAST(extract(epoch FROM clock_timestamp()) * 1000 AS BIGINT)`
	for _, test := range []struct {
		name, dead string // the dead owner's lease
		opts       []sqlstore.Option
		waits      bool
	}{
		{"its time", `instance = '', token = 'dead', expires = ` + now + ` + 1000`, nil, true},
		{"ended", `instance = '', token = 'dead', expires = ` + now + ` - 1`, nil, false},
		{"same name", `instance = 'pod-0', token = 'dead', expires = ` + now + ` + 1000000`, []sqlstore.Option{sqlstore.WithInstance("pod-0")}, false},
		{"clock set back", `instance = '', token = 'dead', ttl = 1000, expires = ` + now + ` + 3600000`, nil, false},
		{"clock set back a little", `instance = '', token = 'dead', ttl = 1000, expires = ` + now + ` + 1500`, nil, true},
		{"other name", `instance = 'pod-1', token = 'dead', expires = ` + now + ` + 1000`, []sqlstore.Option{sqlstore.WithInstance("pod-0")}, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			url := server.Database(t)
			if err := open(t, url, account).Close(); err != nil {
				t.Fatal(err)
			}
			server.Exec(t, url, `UPDATE omemo_lease SET `+test.dead)
			start := time.Now()
			open(t, url, account, test.opts...)
			if waited := time.Since(start); test.waits != (waited > 900*time.Millisecond) {
				t.Errorf("waited %v", waited)
			}
		})
	}
}

// TestFenced: what a former owner wants to write is refused, and it notices.
func TestFenced(t *testing.T) {
	t.Run("commit", func(t *testing.T) {
		t.Parallel()
		url := server.Database(t)
		s := open(t, url, account)
		server.Exec(t, url, `UPDATE omemo_account SET fence = fence + 1`)
		if err := s.Commit(t.Context(), &omemo.Changes{Inbox: []omemo.InboxRow{{Seq: 1}}}); !errors.Is(err, omemo.ErrFenced) {
			t.Errorf("Commit: got %v, want omemo.ErrFenced", err)
		}
		refused(t, s)
		s.Close()
		if rows, err := open(t, url, account).Inbox(t.Context(), 0, 9); err != nil || len(rows) != 0 {
			t.Errorf("a commit that was refused left %d rows, %v", len(rows), err)
		}
	})
	t.Run("lease", func(t *testing.T) {
		t.Parallel()
		url := server.Database(t)
		s := open(t, url, account, sqlstore.WithLease(shortLease))
		server.Exec(t, url, `UPDATE omemo_lease SET token = 'other'`)
		refused(t, s)
	})
	t.Run("server gone", func(t *testing.T) {
		t.Parallel()
		p := newProxy(t)
		s := open(t, p.url(server.Database(t)), account, sqlstore.WithLease(shortLease))
		p.stop()
		refused(t, s)
	})
}

// TestDurable: transactions are durable where the server's default is not.
func TestDurable(t *testing.T) {
	url := server.Database(t)
	s := open(t, url, account)
	var inside string
	err := s.Commit(t.Context(), &omemo.Changes{Within: func(ctx context.Context, tx any, _ *omemo.Changes) error {
		return tx.(*sql.Tx).QueryRowContext(ctx, `SHOW synchronous_commit`).Scan(&inside)
	}})
	if err != nil || inside != "on" {
		t.Errorf("synchronous_commit is %q, %v", inside, err)
	}
}

// TestWithin: an application's own rows are committed with the message, or not
// at all; transactions that the database undoes are tried again.
func TestWithin(t *testing.T) {
	url := server.Database(t)
	server.Exec(t, url, `CREATE TABLE seen (event TEXT PRIMARY KEY, times BIGINT)`, `INSERT INTO seen VALUES ('a', 0), ('b', 0)`)
	const rounds = 20
	count := func(first, second string) func(context.Context, any, *omemo.Changes) error {
		return func(ctx context.Context, tx any, c *omemo.Changes) error {
			for _, event := range []string{first, second} {
				if _, err := tx.(*sql.Tx).ExecContext(ctx, `UPDATE seen SET times = times + 1 WHERE event = $1`, event); err != nil {
					return err
				}
			}
			c.Inbox = append(c.Inbox, omemo.InboxRow{Seq: uint64(len(c.Inbox) + 1)})
			return nil
		}
	}
	var all sync.WaitGroup
	for name, within := range map[string]func(context.Context, any, *omemo.Changes) error{
		"romeo@montague.example": count("a", "b"),
		"juliet@capulet.example": count("b", "a"), // the other way round: a deadlock now and then
	} {
		s := open(t, url, name)
		all.Go(func() {
			for range rounds {
				c := &omemo.Changes{Within: within}
				if err := s.Commit(t.Context(), c); err != nil {
					t.Errorf("Commit: %v", err)
				}
				if len(c.Inbox) != 1 {
					t.Errorf("a transaction that was tried again added %d rows", len(c.Inbox))
				}
			}
		})
	}
	all.Wait()
	db := stdlibOpen(t, url)
	var least, most int
	if err := db.QueryRow(`SELECT min(times), max(times) FROM seen`).Scan(&least, &most); err != nil || least != 2*rounds || most != 2*rounds {
		t.Errorf("counted %d to %d, %v, want %d", least, most, err, 2*rounds)
	}
	s := open(t, url, "nurse@capulet.example")
	failed := errors.New("handler failed")
	err := s.Commit(t.Context(), &omemo.Changes{Within: func(ctx context.Context, tx any, _ *omemo.Changes) error {
		if _, err := tx.(*sql.Tx).ExecContext(ctx, `UPDATE seen SET times = 0`); err != nil {
			return err
		}
		return failed
	}})
	if !errors.Is(err, failed) {
		t.Errorf("got %v, want the handler's error", err)
	}
	if err := db.QueryRow(`SELECT min(times) FROM seen`).Scan(&least); err != nil || least != 2*rounds {
		t.Errorf("what a failed handler wrote was committed: %d, %v", least, err)
	}
}
