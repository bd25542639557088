package middleware_test

import (
	"context"
	"encoding/xml"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"example.org/omellium/middleware"
	"example.org/omellium/middleware/xmpptest"
	"example.org/omellium/omemo"
	"example.org/omellium/omemo/memstore"
	"example.org/omellium/omemo/sqlstore/sqlite"
	"mellium.im/xmlstream"
	"mellium.im/xmpp"
)

// queued is how many messages are queued: OMELLIUM_LOAD, or a number that does
// not keep anybody waiting. What the tests prove does not depend on it.
func queued(t *testing.T, standard int) int {
	t.Helper()
	s := os.Getenv("OMELLIUM_LOAD")
	if s == "" {
		return standard
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < standard {
		t.Fatalf("OMELLIUM_LOAD=%q, want %d at least", s, standard)
	}
	return n
}

// stores opens a store of each kind.
var stores = map[string]func(t *testing.T, account string) omemo.Store{
	"memory": func(_ *testing.T, account string) omemo.Store { return memstore.New(account) },
	"SQLite": func(t *testing.T, account string) omemo.Store {
		t.Helper()
		s, err := sqlite.Open(t.Context(), filepath.Join(t.TempDir(), "store.db"), account)
		ok(t, err)
		t.Cleanup(func() { s.Close() })
		return s
	},
}

// heap returns the bytes in use on the heap.
func heap() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// checkOrder fails unless each of n numbered texts has come once, in order.
func checkOrder(t *testing.T, got []string, prefix string, n int) {
	t.Helper()
	if len(got) != n {
		t.Errorf("%d messages, want %d", len(got), n)
	}
	for i, s := range got {
		if want := fmt.Sprintf("%s %d", prefix, i); s != want {
			t.Fatalf("message %d is %.100q", i, s)
		}
	}
}

// awaitProgress waits until a number is reached, as long as it grows.
func awaitProgress(t *testing.T, what string, n int, count func() int) {
	t.Helper()
	last, since := -1, time.Now()
	for {
		if now := count(); now != last {
			last, since = now, time.Now()
		}
		if last >= n {
			return
		}
		if time.Since(since) > patience {
			t.Fatalf("%s: only %d of %d", what, last, n)
		}
		time.Sleep(10 * time.Millisecond) // between two looks
	}
}

func (p *program) awaitCount(n int) {
	p.t.Helper()
	awaitProgress(p.t, "messages", n, func() int {
		p.mu.Lock()
		defer p.mu.Unlock()
		count := 0
		for _, m := range p.received {
			if m.Body != "" {
				count++
			}
		}
		return count
	})
}

// A handler that does not return: what arrives waits in the store, of which only
// numbers are in memory. When the handler goes on, everything comes in order, and
// once.
func TestLoadIn(t *testing.T) {
	const size = 2000 // of a message
	for name, open := range stores {
		t.Run(name, func(t *testing.T) {
			n := queued(t, 300)
			srv := network(t, romeo, juliet)
			a := connected(t, srv, romeo, chat(omemo.V2))
			c := chat(omemo.V2)
			c.Store = open(t, juliet)
			b := load(t, juliet, c)
			release := make(chan struct{})
			var held atomic.Bool
			b.attach(login(t, srv, juliet), xmpp.HandlerFunc(func(r xmlstream.TokenReadEncoder, start *xml.StartElement) error {
				err := b.handle(r, start)
				if !held.Load() && len(b.bodies()) > 0 {
					held.Store(true)
					<-release
				}
				return err
			}))
			before := heap()
			padding := strings.Repeat("x", size)
			for i := range n {
				ok(t, a.session.Send(t.Context(), to(juliet).Wrap(text(fmt.Sprintf("%s %d", padding, i)))))
			}
			awaitProgress(t, "inbox", n, func() int {
				srv.ForgetWire()
				return len(inboxOf(t, b.store))
			})
			srv.ForgetWire()
			grown := int64(heap()) - int64(before)
			t.Logf("%d messages of %d bytes wait: the heap has grown by %d KiB", n, size, grown>>10)
			if limit := int64(8<<20 + n*1000); name == "SQLite" && grown > limit {
				t.Errorf("the heap has grown by %d bytes, more than %d", grown, limit)
			}
			// Sending is not held up by the handler.
			ok(t, b.session.Send(t.Context(), to(romeo).Wrap(text("from inside"))))
			a.awaitText("from inside")
			close(release)
			b.awaitCount(n)
			checkOrder(t, b.bodies(), padding, n)
			until(t, "the inbox is empty", func() bool { return len(inboxOf(t, b.store)) == 0 })
		})
	}
}

func inboxOf(t *testing.T, s omemo.Store) []omemo.InboxRow {
	t.Helper()
	rows, err := s.Inbox(t.Context(), 0, 1<<20)
	ok(t, err)
	return rows
}

// A server that does not read: writing to the session blocks when the queue is
// full, and memory is bounded. When the server goes on, everything leaves in order,
// and once.
func TestLoadOut(t *testing.T) {
	const size = 2000 // of a message
	for name, open := range stores {
		t.Run(name, func(t *testing.T) {
			n := queued(t, 300)
			srv := network(t, romeo, juliet)
			b := connected(t, srv, juliet, chat(omemo.V2))
			c := chat(omemo.V2)
			c.Store = open(t, romeo)
			c.QueueStanzas = 64
			a := load(t, romeo, c).attach(login(t, srv, romeo), nil)
			a.say(juliet, "first")
			b.awaitText("first")
			a.settled()
			release := make(chan struct{})
			srv.SetFilter(func(ctx context.Context, s xmpptest.Stanza) [][]byte {
				if s.Direction == xmpptest.FromClient && strings.HasPrefix(s.Session, romeo) {
					select {
					case <-release:
					case <-ctx.Done():
					}
				}
				return [][]byte{s.XML}
			})
			before := heap()
			padding := strings.Repeat("x", size)
			var written atomic.Int64
			done := make(chan error, 1)
			go func() {
				for i := range n {
					if err := a.session.Send(t.Context(), to(juliet).Wrap(text(fmt.Sprintf("%s %d", padding, i)))); err != nil {
						done <- err
						return
					}
					written.Add(1)
				}
				done <- nil
			}()
			// It stands still when nothing more is taken.
			last, since := int64(-1), time.Now()
			until(t, "writing blocks", func() bool {
				if now := written.Load(); now != last {
					last, since = now, time.Now()
				}
				return time.Since(since) > 2*time.Second
			})
			grown := int64(heap()) - int64(before)
			t.Logf("%d of %d messages were taken: the heap has grown by %d KiB", last, n, grown>>10)
			if last >= int64(n) {
				t.Error("writing did not block")
			}
			if limit := int64(16 << 20); grown > limit {
				t.Errorf("the heap has grown by %d bytes, more than %d", grown, limit)
			}
			close(release)
			awaitProgress(t, "written", n, func() int {
				srv.ForgetWire()
				return int(written.Load())
			})
			ok(t, <-done)
			b.awaitCount(n + 1)
			checkOrder(t, b.bodies()[1:], padding, n)
			if got := a.failures(); len(got) != 0 {
				t.Errorf("failures: %+v", got)
			}
		})
	}
}

// Two programs that write and answer at the same time, without waiting for
// anything.
func TestLoadBothWays(t *testing.T) {
	for name, open := range stores {
		for _, v := range omemo.Versions() {
			t.Run(name+"/"+v.String(), func(t *testing.T) {
				n := queued(t, 200)
				srv := network(t, romeo, juliet)
				config := func(account string) middleware.Config {
					c := chat(v)
					c.Store = open(t, account)
					return c
				}
				a := load(t, romeo, config(romeo))
				a.attach(login(t, srv, romeo), xmpp.HandlerFunc(func(r xmlstream.TokenReadEncoder, start *xml.StartElement) error {
					if err := a.handle(r, start); err != nil {
						return err
					}
					s := a.newest()
					if start.Name.Local != "message" || !strings.HasPrefix(s, "ask") {
						return nil
					}
					return r.Encode(message{Message: to(juliet), Body: strings.Replace(s, "ask", "answer", 1)})
				}))
				b := connected(t, srv, juliet, config(juliet))
				sent := make(chan error, 2)
				say := func(p *program, account, what string) {
					for i := range n {
						if err := p.session.Send(t.Context(), to(account).Wrap(text(fmt.Sprintf("%s %d", what, i)))); err != nil {
							sent <- err
							return
						}
					}
					sent <- nil
				}
				go say(a, juliet, "tell")
				go say(b, romeo, "ask")
				for range 2 {
					ok(t, <-sent)
				}
				b.awaitCount(2 * n)
				a.awaitCount(n)
				got := b.bodies()
				of := func(what string) []string {
					return slices.DeleteFunc(slices.Clone(got), func(s string) bool { return !strings.HasPrefix(s, what) })
				}
				checkOrder(t, of("tell"), "tell", n)
				checkOrder(t, of("answer"), "answer", n)
				checkOrder(t, a.bodies(), "ask", n)
				for _, p := range []*program{a, b} {
					if f, u := p.failures(), p.count(middleware.Undecryptable); len(f)+u != 0 {
						t.Errorf("%d undecryptable, failures: %+v", u, f)
					}
				}
				a.settled()
				b.settled()
				noLeak(t, srv, "tell ", "ask ", "answer ")
			})
		}
	}
}

// newest returns the body of the message that was received last.
func (p *program) newest() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.received) == 0 {
		return ""
	}
	return p.received[len(p.received)-1].Body
}
