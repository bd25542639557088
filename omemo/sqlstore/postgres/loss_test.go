//go:build unix && live

package postgres_test

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib"

	"example.org/omellium/omemo"
	"example.org/omellium/omemo/sqlstore"
	"example.org/omellium/omemo/storetest/pgtest"
)

func stdlibOpen(t *testing.T, url string) *sql.DB {
	t.Helper()
	db, err := sql.Open("pgx", url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

// proxy stands between a store and the server, and breaks connections.
type proxy struct {
	dir      string
	listener *net.UnixListener

	mu    sync.Mutex
	conns map[net.Conn]struct{}
	cut   cut
	cuts  int
	down  bool
}

// cut says where a connection breaks, once.
type cut int

const (
	nowhere      cut = iota
	beforeCommit     // the server never hears of it
	afterCommit      // the answer is lost
)

func newProxy(t *testing.T) *proxy {
	t.Helper()
	p := &proxy{dir: t.TempDir(), conns: make(map[net.Conn]struct{})}
	var err error
	if p.listener, err = net.ListenUnix("unix", &net.UnixAddr{Name: socket(p.dir), Net: "unix"}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.stop)
	go func() {
		for {
			client, err := p.listener.Accept()
			if err != nil {
				return
			}
			go p.serve(client)
		}
	}()
	return p
}

func socket(dir string) string { return filepath.Join(dir, fmt.Sprintf(".s.PGSQL.%d", pgtest.Port)) }

// url returns the URL of a database behind the proxy.
func (p *proxy) url(direct string) string { return strings.Replace(direct, server.Dir, p.dir, 1) }

func (p *proxy) stop() {
	p.listener.Close()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.down = true
	for c := range p.conns {
		c.Close()
	}
}

func (p *proxy) order(c cut) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cut, p.cuts = c, 0
}

// take returns the cut that was ordered, once.
func (p *proxy) take() cut {
	p.mu.Lock()
	defer p.mu.Unlock()
	c := p.cut
	if c != nowhere {
		p.cut = nowhere
		p.cuts++
	}
	return c
}

func (p *proxy) serve(client net.Conn) {
	upstream, err := net.Dial("unix", socket(server.Dir))
	if err != nil {
		client.Close()
		return
	}
	p.mu.Lock()
	p.conns[client], p.conns[upstream] = struct{}{}, struct{}{}
	if p.down {
		client.Close()
	}
	p.mu.Unlock()
	defer client.Close()
	defer upstream.Close()
	var silent sync.Mutex // held: answers are lost
	go func() {
		b := make([]byte, 1<<16)
		for {
			n, err := upstream.Read(b)
			silent.Lock()
			if err == nil {
				_, err = client.Write(b[:n])
			}
			silent.Unlock()
			if err != nil {
				client.Close()
				return
			}
		}
	}()
	b := make([]byte, 1<<16)
	for {
		n, err := client.Read(b)
		if err != nil {
			return
		}
		lost := nowhere
		if bytes.HasPrefix(b[:n], []byte("Q")) && bytes.Contains(bytes.ToLower(b[:n]), []byte("commit\x00")) {
			lost = p.take()
		}
		if lost == beforeCommit {
			return
		}
		if lost == afterCommit {
			silent.Lock()
			client.Close()
			silent.Unlock()
		}
		if _, err := upstream.Write(b[:n]); err != nil {
			return
		}
		if lost == afterCommit {
			// The server reads the commit before it reads the end.
			upstream.(*net.UnixConn).CloseWrite()
			io.Copy(io.Discard, upstream)
			return
		}
	}
}

// TestLostCommit: when the connection breaks at the very end of a transaction,
// the caller is told the truth.
func TestLostCommit(t *testing.T) {
	for _, test := range []struct {
		name string
		cut  cut
		done bool
	}{
		{"before", beforeCommit, false},
		{"after", afterCommit, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			p := newProxy(t)
			s := open(t, p.url(server.Database(t)), account)
			for seq := range uint64(5) {
				p.order(test.cut)
				err := s.Commit(t.Context(), &omemo.Changes{Outbox: []omemo.OutboxRow{{Seq: seq + 1}}})
				if test.done != (err == nil) || errors.Is(err, omemo.ErrClosed) || errors.Is(err, omemo.ErrFenced) {
					t.Errorf("Commit: %v; done: %v", err, test.done)
				}
				if p.cuts != 1 {
					t.Fatal("the proxy missed the commit")
				}
				rows, err := s.Outbox(t.Context(), seq, 9)
				if err != nil || (len(rows) == 1) != test.done {
					t.Errorf("%d rows, %v; done: %v", len(rows), err, test.done)
				}
				if err := s.Commit(t.Context(), &omemo.Changes{Outbox: []omemo.OutboxRow{{Seq: seq + 1}}}); err != nil {
					t.Errorf("again: %v", err)
				}
			}
		})
	}
}

// TestUnknownOutcome: where nothing can be found out, the store is of no further
// use, and says so; the next one knows.
func TestUnknownOutcome(t *testing.T) {
	t.Parallel()
	url := server.Database(t)
	p := newProxy(t)
	s := open(t, p.url(url), account, sqlstore.WithLease(time.Minute), sqlstore.WithInstance("pod-0"))
	p.order(afterCommit)
	p.listener.Close() // nobody comes through any more
	err := s.Commit(t.Context(), &omemo.Changes{Outbox: []omemo.OutboxRow{{Seq: 1}}})
	if !errors.Is(err, omemo.ErrClosed) {
		t.Errorf("Commit: got %v, want omemo.ErrClosed", err)
	}
	<-s.Lost()
	if _, err := s.Load(t.Context()); !errors.Is(err, omemo.ErrClosed) {
		t.Errorf("Load: got %v, want omemo.ErrClosed", err)
	}
	next := open(t, url, account, sqlstore.WithInstance("pod-0"))
	if rows, err := next.Outbox(t.Context(), 0, 9); err != nil || len(rows) != 1 {
		t.Errorf("%d rows, %v, want what was committed", len(rows), err)
	}
	// The lease is the next one's now: giving it back does not take it away.
	p.stop()
	s.Close()
	if err := next.Commit(t.Context(), &omemo.Changes{DropOutbox: []uint64{1}}); err != nil {
		t.Error(err)
	}
}

// TestCancelledWithin: a context that ends while the transaction is open undoes
// it.
func TestCancelledWithin(t *testing.T) {
	s := open(t, server.Database(t), account)
	ctx, cancel := context.WithCancel(t.Context())
	err := s.Commit(ctx, &omemo.Changes{
		Outbox: []omemo.OutboxRow{{Seq: 1}},
		Within: func(context.Context, any, *omemo.Changes) error { cancel(); return nil },
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want context.Canceled", err)
	}
	if rows, err := s.Outbox(t.Context(), 0, 9); err != nil || len(rows) != 0 {
		t.Errorf("%d rows, %v", len(rows), err)
	}
	if err := s.Commit(t.Context(), &omemo.Changes{Outbox: []omemo.OutboxRow{{Seq: 1}}}); err != nil {
		t.Error(err)
	}
}
