package sqlite_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"example.org/omellium/omemo"
	"example.org/omellium/omemo/sqlstore"
	"example.org/omellium/omemo/sqlstore/sqlite"
	"example.org/omellium/omemo/storetest"
)

const account = "juliet@capulet.example"

// open opens a store until the test ends.
func open(t testing.TB, path, account string, opts ...sqlstore.Option) *sqlstore.Store {
	t.Helper()
	s, err := try(t, path, account, opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// try opens a store without an anchor, unless an option says where it is.
func try(t testing.TB, path, account string, opts ...sqlstore.Option) (*sqlstore.Store, error) {
	t.Helper()
	return sqlite.Open(t.Context(), path, account, append([]sqlstore.Option{sqlstore.WithAnchor("")}, opts...)...)
}

func commit(t testing.TB, s *sqlstore.Store, c *omemo.Changes) {
	t.Helper()
	if err := s.Commit(t.Context(), c); err != nil {
		t.Fatal(err)
	}
}

// raw opens the database of a store beside it.
func raw(t testing.TB, path string) *sql.DB {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+path+"?_pragma=busy_timeout(10000)")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

func execute(t testing.TB, db *sql.DB, statements ...string) {
	t.Helper()
	for _, statement := range statements {
		if _, err := db.Exec(statement); err != nil {
			t.Fatalf("%s: %v", statement, err)
		}
	}
}

func fresh(opts ...sqlstore.Option) func(t *testing.T) storetest.Opener {
	return func(t *testing.T) storetest.Opener {
		path := filepath.Join(t.TempDir(), "store.db")
		return func(t *testing.T, account string) omemo.Store { return open(t, path, account, opts...) }
	}
}

func TestStore(t *testing.T) { storetest.Run(t, fresh()) }

func TestSealedStore(t *testing.T) { storetest.Run(t, fresh(sqlstore.WithKey(testKey(1)))) }

// TestFaultStore runs the suite through the wrapper of storetest.
func TestFaultStore(t *testing.T) {
	storetest.Run(t, func(t *testing.T) storetest.Opener {
		open := fresh()(t)
		return func(t *testing.T, account string) omemo.Store { return storetest.Faults(open(t, account)) }
	})
}

// child is the environment variable that makes the test binary a process which
// opens a store, says so, and waits until its input ends.
const child = "OMELLIUM_TEST_OPEN"

func TestMain(m *testing.M) {
	path := os.Getenv(child)
	if path == "" {
		os.Exit(m.Run())
	}
	s, err := sqlite.Open(context.Background(), path, account, sqlstore.WithAnchor(""))
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println("open")
	os.Stdin.Read(make([]byte, 1))
	if err := s.Close(); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	os.Exit(0)
}

// TestOneProcess: a second process is refused, or waits until the first one has
// ended.
func TestOneProcess(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store.db")
	other := exec.Command(os.Args[0])
	other.Env = append(os.Environ(), child+"="+path)
	in, err := other.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := other.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	defer other.Process.Kill()
	b := make([]byte, 256)
	n, err := out.Read(b)
	if err != nil || strings.TrimSpace(string(b[:n])) != "open" {
		t.Fatalf("the other process says %q, %v", b[:n], err)
	}
	if _, err := try(t, path, account); !errors.Is(err, omemo.ErrLocked) {
		t.Errorf("got %v, want omemo.ErrLocked", err)
	}
	if _, err := try(t, path, "romeo@montague.example"); !errors.Is(err, omemo.ErrLocked) {
		t.Errorf("another account: got %v, want omemo.ErrLocked", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if _, err := sqlite.Open(ctx, path, account, sqlstore.WithWait()); !errors.Is(err, omemo.ErrLocked) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want omemo.ErrLocked and the context's error", err)
	}
	opened := make(chan error, 1)
	go func() {
		s, err := sqlite.Open(t.Context(), path, account, sqlstore.WithWait(), sqlstore.WithAnchor(""))
		if err == nil {
			err = s.Close()
		}
		opened <- err
	}()
	in.Close()
	if err := <-opened; err != nil {
		t.Error(err)
	}
	if err := other.Wait(); err != nil {
		t.Error(err)
	}
}

// TestOneStore: within a process an account has one store, and the accounts of
// a file share it, by whatever name it goes.
func TestOneStore(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "store.db")
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(dir, link); err != nil {
		t.Fatal(err)
	}
	s := open(t, path, account)
	for _, name := range []string{path, filepath.Join(dir, ".", "x", "..", "store.db"), filepath.Join(link, "store.db")} {
		if _, err := try(t, name, account); !errors.Is(err, omemo.ErrLocked) {
			t.Errorf("%s: got %v, want omemo.ErrLocked", name, err)
		}
		other := open(t, name, "romeo@montague.example")
		commit(t, other, &omemo.Changes{Account: []byte("romeo's")})
		if err := other.Close(); err != nil {
			t.Error(err)
		}
	}
	opened := make(chan error, 1)
	go func() {
		next, err := try(t, path, account, sqlstore.WithWait())
		if err == nil {
			err = next.Close()
		}
		opened <- err
	}()
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if err := <-opened; err != nil {
		t.Error(err)
	}
}

// TestAtomic makes the insertion into each table fail, one after the other, in a
// commit that writes to all of them.
func TestAtomic(t *testing.T) {
	for _, opts := range [][]sqlstore.Option{nil, {sqlstore.WithKey(testKey(1))}} {
		path := filepath.Join(t.TempDir(), "store.db")
		s := open(t, path, account, opts...)
		db := raw(t, path)
		peer := omemo.Peer{Version: omemo.V2, Address: omemo.Address{JID: "romeo@montague.example", Device: 1}}
		changes := func(seq uint64) *omemo.Changes {
			return &omemo.Changes{
				Account:    fmt.Appendf(nil, "record %d", seq),
				PreKeys:    []omemo.PreKeyRow{{Version: omemo.V2, ID: uint32(seq)}},
				Sessions:   []omemo.SessionRow{{ID: 1, Peer: peer, Record: fmt.Appendf(nil, "record %d", seq)}},
				Skipped:    []omemo.SkippedRow{{SkippedID: omemo.SkippedID{Session: 1, N: uint32(seq)}}},
				Ended:      []omemo.EndedChain{{ChainID: omemo.ChainID{Peer: peer}, Next: uint32(seq)}},
				Contacts:   []omemo.Contact{{JID: fmt.Sprint(seq)}},
				Devices:    []omemo.Device{{Peer: peer, Label: fmt.Sprint(seq)}},
				Trust:      []omemo.TrustRecord{{JID: fmt.Sprint(seq)}},
				Inbox:      []omemo.InboxRow{{Seq: seq}},
				Outbox:     []omemo.OutboxRow{{Seq: seq}},
				DropInbox:  []uint64{seq - 1},
				DropOutbox: []uint64{seq - 1},
				Journal:    []omemo.JournalRow{{ID: seq}},
				Owed:       []omemo.OwedRow{{OwedID: omemo.OwedID{Session: seq}}},
				Cursors:    []omemo.Cursor{{Archive: account, Position: fmt.Sprint(seq)}},
			}
		}
		commit(t, s, changes(1))
		tables := []string{"pre_key", "session", "skipped", "ended", "contact", "device", "trust", "inbox", "outbox", "journal", "owed", "cursor"}
		for _, table := range tables {
			before := dump(t, db)
			for _, event := range []string{"INSERT", "UPDATE"} {
				execute(t, db, fmt.Sprintf(`CREATE TRIGGER fail_%s BEFORE %s ON omemo_%s BEGIN SELECT RAISE(FAIL, 'disk on fire'); END`, event, event, table))
			}
			if err := s.Commit(t.Context(), changes(2)); err == nil || !strings.Contains(err.Error(), "disk on fire") {
				t.Errorf("%s: got %v", table, err)
			}
			execute(t, db, `DROP TRIGGER fail_INSERT`, `DROP TRIGGER fail_UPDATE`)
			if after := dump(t, db); after != before {
				t.Errorf("%s: a commit that failed had an effect:\n%s\n%s", table, before, after)
			}
		}
		commit(t, s, changes(2))
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if state, err := open(t, path, account, opts...).Load(t.Context()); err != nil || string(state.Account) != "record 2" {
			t.Errorf("got %q, %v", state.Account, err)
		}
	}
}

// dump returns every row of the database.
func dump(t *testing.T, db *sql.DB) string {
	t.Helper()
	var b strings.Builder
	for _, table := range names(t, db) {
		rows, err := db.Query(`SELECT * FROM ` + table)
		if err != nil {
			t.Fatal(err)
		}
		columns, err := rows.Columns()
		if err != nil {
			t.Fatal(err)
		}
		for rows.Next() {
			values := make([]any, len(columns))
			for i := range values {
				values[i] = new(any)
			}
			if err := rows.Scan(values...); err != nil {
				t.Fatal(err)
			}
			fmt.Fprint(&b, table)
			for _, v := range values {
				fmt.Fprintf(&b, " %v", *v.(*any))
			}
			fmt.Fprintln(&b)
		}
		if err := rows.Err(); err != nil {
			t.Fatal(err)
		}
		rows.Close()
	}
	return b.String()
}

// names returns the tables of the database.
func names(t *testing.T, db *sql.DB) []string {
	t.Helper()
	rows, err := db.Query(`SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name`)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	var all []string
	for rows.Next() {
		var name string
		if err := rows.Scan(&name); err != nil {
			t.Fatal(err)
		}
		all = append(all, name)
	}
	return all
}

// countdown is a context that ends after it was looked at a number of times.
type countdown struct {
	context.Context
	left int
}

func (c *countdown) Err() error {
	c.left--
	if c.left < 0 {
		return context.Canceled
	}
	return nil
}

// TestCancelledAnywhere ends the context at every point of a commit: nothing of
// it was done, or all.
func TestCancelledAnywhere(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "store.db"), account)
	for n := range 100 {
		seq := uint64(n + 1)
		err := s.Commit(&countdown{t.Context(), n}, &omemo.Changes{
			Account: fmt.Appendf(nil, "record %d", seq),
			Inbox:   []omemo.InboxRow{{Seq: seq}},
			Outbox:  []omemo.OutboxRow{{Seq: seq}},
		})
		in, inErr := s.Inbox(t.Context(), uint64(n), 9)
		out, outErr := s.Outbox(t.Context(), uint64(n), 9)
		state, stateErr := s.Load(t.Context())
		if err := errors.Join(inErr, outErr, stateErr); err != nil {
			t.Fatal(err)
		}
		if err == nil {
			if len(in) != 1 || len(out) != 1 || state.Inbox != seq {
				t.Errorf("a commit that succeeded left %d and %d rows", len(in), len(out))
			}
			if n < 4 {
				t.Errorf("looked at the context %d times only", n)
			}
			return
		}
		if !errors.Is(err, context.Canceled) || len(in)+len(out) != 0 || state.Account != nil || state.Inbox != 0 {
			t.Errorf("at %d: %v, left %d and %d rows", n, err, len(in), len(out))
		}
	}
	t.Error("the commit never succeeded")
}

// TestWithin: an application's own rows are committed with the message, or not
// at all.
func TestWithin(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store.db")
	s := open(t, path, account)
	db := raw(t, path)
	execute(t, db, `CREATE TABLE seen (event TEXT PRIMARY KEY)`)
	failed := errors.New("handler failed")
	within := func(result error) func(context.Context, any, *omemo.Changes) error {
		return func(ctx context.Context, tx any, c *omemo.Changes) error {
			if _, err := tx.(*sql.Tx).ExecContext(ctx, `INSERT INTO seen VALUES ('a')`); err != nil {
				return err
			}
			// Reading from within the transaction is no deadlock.
			if _, err := s.Inbox(ctx, 0, 9); err != nil {
				return err
			}
			return result
		}
	}
	for _, test := range []struct {
		err  error
		want int
	}{{failed, 0}, {nil, 1}} {
		if err := s.Commit(t.Context(), &omemo.Changes{Inbox: []omemo.InboxRow{{Seq: 1}}, Within: within(test.err)}); !errors.Is(err, test.err) {
			t.Errorf("got %v, want %v", err, test.err)
		}
		var n int
		if err := db.QueryRow(`SELECT count(*) FROM seen`).Scan(&n); err != nil || n != test.want {
			t.Errorf("%d rows, %v, want %d", n, err, test.want)
		}
		if rows, err := s.Inbox(t.Context(), 0, 9); err != nil || len(rows) != test.want {
			t.Errorf("%d messages, %v, want %d", len(rows), err, test.want)
		}
	}
	func() {
		defer func() {
			if recover() == nil {
				t.Error("the handler's panic was swallowed")
			}
		}()
		s.Commit(t.Context(), &omemo.Changes{Within: func(context.Context, any, *omemo.Changes) error { panic("handler") }})
	}()
	commit(t, s, &omemo.Changes{Inbox: []omemo.InboxRow{{Seq: 2}}})
}
