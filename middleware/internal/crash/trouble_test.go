package crash

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"example.org/omellium/omemo"
)

// kept makes a stanza that is kept in the outbox.
func kept(*omemo.Sealed) ([]omemo.Outgoing, error) {
	return []omemo.Outgoing{{ID: "id", Chat: juliet, Stanza: []byte("<message/>")}}, nil
}

// sender is romeo's account with a session, on a store of its own.
type sender struct {
	t     *testing.T
	order order
	store omemo.Store
	m     *omemo.Manager
	tap   *wiretap
	sent  int // messages that were committed, as far as we were told
}

func newSender(t *testing.T, store string) *sender {
	t.Helper()
	s := &sender{
		t: t, tap: newWiretap(""),
		order: order{Store: store, Where: storeKinds[store].fresh(t), Anchors: t.TempDir(), Lease: 10_000, Instance: "romeo"},
	}
	acquaint(t, s.order)
	s.open()
	t.Cleanup(func() { s.store.Close() })
	return s
}

func (s *sender) open() {
	s.t.Helper()
	var err error
	s.store, err = storeKinds[s.order.Store].open(s.t.Context(), s.order)
	ok(s.t, err)
	s.m, err = omemo.NewManager(s.t.Context(), s.store, omemo.Options{})
	ok(s.t, err)
}

// send seals a message. Without an error it is on the wire.
func (s *sender) send(ctx context.Context) error {
	sealed, err := s.m.Encrypt(ctx, plaintext("something"), []string{juliet}, kept)
	if err != nil {
		if sealed != nil && (len(sealed.Messages) > 0 || len(sealed.Outbox) > 0) {
			s.t.Errorf("a message was returned with the error %v", err)
		}
		return err
	}
	s.sent++
	for _, message := range sealed.Messages {
		for _, k := range message.Keys {
			key, err := parseKey(message.Version.Namespace(), k.Exchange, k.Data)
			ok(s.t, err)
			s.tap.use(key)
		}
	}
	return nil
}

// balance checks, after the store was opened anew, that what failed has left no
// trace, that what was committed is there, and that no key was used twice.
func (s *sender) balance() {
	s.t.Helper()
	ok(s.t, s.store.Close())
	s.open()
	ok(s.t, s.send(s.t.Context()))
	rows, err := s.m.Outbox(s.t.Context(), 0, 1<<20)
	ok(s.t, err)
	keys, _ := s.tap.used()
	if len(rows) != s.sent || keys != s.sent {
		s.t.Errorf("%d messages were sent, %d stand in the outbox, with %d message keys", s.sent, len(rows), keys)
	}
	ok(s.t, s.tap.verdict())
}

// TestCancelledCommit ends the context of a commit at any moment: it has all of
// its effect or none, and the caller knows which.
func TestCancelledCommit(t *testing.T) {
	for _, store := range []string{"SQLite", "PostgreSQL"} {
		if store == "PostgreSQL" && !withPostgres {
			continue
		}
		t.Run(store, func(t *testing.T) {
			s := newSender(t, store)
			start := time.Now()
			for range 20 {
				ok(t, s.send(t.Context()))
			}
			usual := time.Since(start) / 20
			cancelled := 0
			for range 300 {
				ctx, cancel := context.WithCancel(t.Context())
				timer := time.AfterFunc(rand.N(2*usual), cancel)
				err := s.send(ctx)
				timer.Stop()
				cancel()
				switch {
				case errors.Is(err, context.Canceled):
					cancelled++
				case err != nil:
					t.Fatalf("error %v, want one that tells of the context", err)
				}
			}
			if cancelled == 0 {
				t.Error("no commit was cancelled")
			}
			t.Logf("%d of %d were cancelled, at a usual %v", cancelled, s.sent+cancelled, usual)
			s.balance()
		})
	}
}

// TestBusyDatabase has another program write to the database and not end: the
// commit fails in time, and has no effect.
func TestBusyDatabase(t *testing.T) {
	t.Parallel()
	s := newSender(t, "SQLite")
	db, err := sql.Open("sqlite", s.order.Where)
	ok(t, err)
	defer db.Close()
	conn, err := db.Conn(t.Context())
	ok(t, err)
	_, err = conn.ExecContext(t.Context(), `BEGIN IMMEDIATE`)
	ok(t, err)
	if err := s.send(t.Context()); !errors.Is(err, omemo.ErrCommit) || !strings.Contains(err.Error(), "SQLITE_BUSY") {
		t.Errorf("error %v, want ErrCommit because of SQLITE_BUSY", err)
	}
	_, err = conn.ExecContext(t.Context(), `ROLLBACK`)
	ok(t, err)
	ok(t, conn.Close())
	ok(t, s.send(t.Context()))
	s.balance()
}

// TestFullDisk has a process send until its files may not grow any more, and go
// on when there is room again.
func TestFullDisk(t *testing.T) {
	s := newSender(t, "SQLite")
	ok(t, s.store.Close())
	o := s.order
	o.Do = "full disk"
	var failures []string
	c, err := start(o, func(line string) {
		if failure, isFailure := strings.CutPrefix(line, "failed "); isFailure {
			failures = append(failures, failure)
			return
		}
		k, err := parseSent(line)
		if err != nil {
			t.Error(err)
			return
		}
		s.tap.use(k)
		s.sent++
	})
	ok(t, err)
	ok(t, c.end())
	if len(failures) != 3 {
		t.Errorf("failures %q, want 3", failures)
	}
	t.Logf("%d messages, failures: %q", s.sent, failures)
	s.open()
	s.balance()
}

// fillDisk sends with a limit to the size of files, until that is reached; a few
// times more; and then without a limit.
func fillDisk(ctx context.Context, o order) error {
	store, err := storeKinds[o.Store].open(ctx, o)
	if err != nil {
		return err
	}
	defer store.Close()
	m, err := omemo.NewManager(ctx, store, omemo.Options{})
	if err != nil {
		return err
	}
	lift, err := limitFiles(256 << 10)
	if err != nil {
		return err
	}
	for failures := 0; failures < 3; {
		sealed, err := m.Encrypt(ctx, plaintext("something"), []string{juliet}, kept)
		switch {
		case err == nil:
			printSent(sealed)
		case errors.Is(err, omemo.ErrCommit):
			failures++
			fmt.Println("failed", err)
		default:
			return fmt.Errorf("not a failed commit: %w", err)
		}
	}
	if err := lift(); err != nil {
		return err
	}
	for range 3 {
		sealed, err := m.Encrypt(ctx, plaintext("something"), []string{juliet}, kept)
		if err != nil {
			return err
		}
		printSent(sealed)
	}
	return nil
}
