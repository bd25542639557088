package middleware_test

import (
	"context"
	"database/sql"
	"encoding/xml"
	"errors"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"example.org/omellium/middleware"
	"example.org/omellium/omemo"
	"example.org/omellium/omemo/sqlstore/sqlite"
)

// taker is a Config.Receive that counts what it took, by text.
type taker struct {
	refuses atomic.Value // func() error

	mu  sync.Mutex
	got map[string]int
}

func (r *taker) receive(_ context.Context, _ *sql.Tx, d middleware.Delivery) error {
	if f, ok := r.refuses.Load().(func() error); ok {
		if err := f(); err != nil {
			return err
		}
	}
	var m struct {
		Body string `xml:"body"`
	}
	if err := xml.Unmarshal(d.Stanza, &m); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.got == nil {
		r.got = make(map[string]int)
	}
	r.got[m.Body]++
	return nil
}

// all reports whether it took so many texts.
func (r *taker) all(n int) func() bool {
	return func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		return len(r.got) == n
	}
}

// once fails the test if a text was taken more than once.
func (r *taker) once(t *testing.T) {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	for text, n := range r.got {
		if n != 1 {
			t.Errorf("%q was taken %d times", text, n)
		}
	}
}

// taking has a program use it.
func (r *taker) taking(t *testing.T, account string, c middleware.Config) middleware.Config {
	t.Helper()
	store, err := sqlite.Open(t.Context(), filepath.Join(t.TempDir(), "store.db"), account)
	ok(t, err)
	t.Cleanup(func() { store.Close() })
	c.Store, c.Receive = store, r.receive
	return c
}

// A message whose handling panics is not lost: it is handled once more, by
// itself, and nothing of the panic reaches the log.
func TestReceivePanics(t *testing.T) {
	srv := network(t, romeo, juliet)
	b := connected(t, srv, juliet, chat(omemo.V2))
	var r taker
	a := connected(t, srv, romeo, r.taking(t, romeo, chat(omemo.V2)))
	b.say(romeo, "hello")
	until(t, "hello", r.all(1))
	panicked := make(chan bool, 1)
	r.refuses.Store(func() error {
		select {
		case panicked <- true:
			panic("a mistake of the program's")
		default:
			return nil
		}
	})
	b.say(romeo, "the one that panics")
	a.awaitEvent(middleware.Undecryptable)
	b.say(romeo, "next")
	until(t, "all are taken", r.all(3))
	r.once(t)
}

// What is caught up with while Config.Receive fails is delivered when it does not
// any more, more than the journal has room for, on the same connection.
func TestCatchUpWaitsForReceive(t *testing.T) {
	srv := archiving(t)
	var r taker
	b := load(t, juliet, r.taking(t, juliet, catching(omemo.V2)))
	b.back(srv, juliet+"/x")
	a := connected(t, srv, romeo, chat(omemo.V2))
	a.tell(juliet, "before")
	until(t, "before", r.all(1))
	b.flush()
	b.leave(srv)
	for _, text := range numbered(70) {
		a.tell(juliet, text)
	}
	r.refuses.Store(func() error { return errors.New("not now") })
	b.attach(login(t, srv, juliet+"/x"), nil)
	until(t, "the journal is full", func() bool {
		rows, err := b.om.Manager().Kept(t.Context(), omemo.Address{})
		ok(t, err)
		return len(rows) == omemo.JournalPerDevice
	})
	b.awaitEvent(middleware.Trouble) // the page is not read on
	r.refuses.Store(func() error { return nil })
	until(t, "all are taken", r.all(71))
	b.flush()
	r.once(t)
}
