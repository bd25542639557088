package middleware_test

import (
	"bytes"
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"example.org/omellium/middleware"
	"example.org/omellium/middleware/xmpptest"
	"example.org/omellium/omemo"
	"example.org/omellium/omemo/memstore"
	"mellium.im/xmlstream"
	"mellium.im/xmpp"
)

// encryptedFrom returns the encrypted messages with an id that the clients of an
// account have written.
func encryptedFrom(srv *xmpptest.Server, account, id string) (all [][]byte) {
	for _, s := range srv.Wire() {
		if fromTo(account, `id="`+id+`"`)(s) && bytes.Contains(s.XML, []byte("<encrypted")) {
			all = append(all, s.XML)
		}
	}
	return all
}

// What the server has not confirmed is sent again after the next Wrap: the same
// bytes, never sealed again; and it is shown once.
func TestOutboxIsResent(t *testing.T) {
	const ping = "urn:xmpp:ping"
	for name, lost := range map[string]func(s xmpptest.Stanza) bool{
		"before the server has it": func(s xmpptest.Stanza) bool {
			return s.Direction == xmpptest.FromClient && (bytes.Contains(s.XML, []byte("<encrypted")) || bytes.Contains(s.XML, []byte(ping)))
		},
		"after the server has it": func(s xmpptest.Stanza) bool {
			return s.Direction == xmpptest.FromClient && bytes.Contains(s.XML, []byte(ping))
		},
	} {
		t.Run(name, func(t *testing.T) {
			for _, v := range omemo.Versions() {
				t.Run(v.String(), func(t *testing.T) {
					srv := network(t, romeo, juliet)
					c := chat(v)
					c.Store = memstore.New(romeo)
					a := connected(t, srv, romeo, c)
					b := connected(t, srv, juliet, chat(v))
					a.say(juliet, "canary before")
					b.awaitText("canary before")
					b.say(romeo, "canary back") // confirms the session
					a.awaitText("canary back")
					a.settled()
					b.settled()
					srv.SetFilter(func(_ context.Context, s xmpptest.Stanza) [][]byte {
						if strings.HasPrefix(s.Session, romeo) && lost(s) {
							return nil
						}
						return [][]byte{s.XML}
					})
					var ids []string
					for i := range 3 {
						result, err := a.om.Send(t.Context(), to(juliet), text(fmt.Sprintf("canary %d", i)))
						ok(t, err)
						ids = append(ids, result.ID)
					}
					until(t, "the server has read all", func() bool { return len(encryptedFrom(srv, romeo, ids[2])) == 1 })
					between := stateOf(t, a.store)
					if len(between.Outbox) != 3 {
						t.Fatalf("outbox: %+v", between.Outbox)
					}
					ok(t, srv.Disconnect(romeo))
					<-a.done
					srv.SetFilter(nil)
					if name == "before the server has it" {
						// The program has died, too.
						ok(t, a.om.Close())
						a = load(t, romeo, c)
					}
					a.attach(login(t, srv, romeo), nil)
					a.settled()
					b.say(romeo, "canary last")
					a.awaitText("canary last")
					a.say(juliet, "canary end")
					b.awaitText("canary end")
					want := []string{"canary before", "canary 0", "canary 1", "canary 2", "canary end"}
					if got := b.bodies(); !reflect.DeepEqual(got, want) {
						t.Errorf("arrived: %q", got)
					}
					for _, id := range ids {
						sent := encryptedFrom(srv, romeo, id)
						if len(sent) != 2 || !bytes.Equal(sent[0], sent[1]) {
							t.Errorf("sent %d times: %s", len(sent), bytes.Join(sent, []byte("\n")))
						}
					}
					noLeak(t, srv, "canary")
				})
			}
		})
	}
}

// Chat states are not worth sending again.
func TestTransientIsNotResent(t *testing.T) {
	srv := network(t, romeo, juliet)
	a, _ := connected(t, srv, romeo, chat(omemo.V2)), connected(t, srv, juliet, chat(omemo.V2))
	a.sendRaw("state", `type="chat" to="`+juliet+`"`, `<composing xmlns="http://jabber.org/protocol/chatstates"/>`)
	if got := a.outcome(srv, romeo, "state"); got != "encrypted" {
		t.Fatal(got)
	}
	a.settled()
	ok(t, srv.Disconnect(romeo))
	<-a.done
	a.attach(login(t, srv, romeo), nil)
	a.settled()
	sent := encryptedFrom(srv, romeo, "state")
	if len(sent) != 1 || bytes.Contains(sent[0], []byte("<store")) {
		t.Errorf("sent %d times: %s", len(sent), bytes.Join(sent, []byte("\n")))
	}
	if a.count(middleware.Accepted) != 0 {
		t.Error("a chat state was promised")
	}
}

var errHandler = errors.New("test: handler has failed")

// failing is a handler that fails with each message whose body it is told to,
// with an error or a panic, after it has read it.
func (p *program) failing(fails func(body string) bool, panics bool) xmpp.Handler {
	return xmpp.HandlerFunc(func(r xmlstream.TokenReadEncoder, start *xml.StartElement) error {
		before := len(p.bodies())
		if err := p.handle(r, start); err != nil {
			return err
		}
		bodies := p.bodies()
		switch {
		case len(bodies) == before || !fails(bodies[before]):
			return nil
		case panics:
			panic(errHandler)
		}
		return errHandler
	})
}

// guarded ends the goroutine of Serve when a handler panics, as if the program
// had died.
func guarded(h xmpp.Handler) xmpp.Handler {
	return xmpp.HandlerFunc(func(r xmlstream.TokenReadEncoder, start *xml.StartElement) error {
		defer func() {
			if recover() != nil {
				runtime.Goexit()
			}
		}()
		return h.HandleXMPP(r, start)
	})
}

// A message that no handler has finished with comes again, under the same name,
// with the number of attempts; at some time it is given up, and the next one has
// its turn.
func TestDeadLetter(t *testing.T) {
	for _, panics := range []bool{false, true} {
		t.Run(fmt.Sprintf("panics=%v", panics), func(t *testing.T) {
			srv := network(t, romeo, juliet)
			c := chat(omemo.V2)
			c.Store = memstore.New(romeo)
			a := load(t, romeo, c)
			both := make(chan struct{}) // the next message is there, too
			fails := func(body string) bool {
				if body != "canary poison" {
					return false
				}
				<-both
				return true
			}
			handler := func() xmpp.Handler { return guarded(a.failing(fails, panics)) }
			a.attach(login(t, srv, romeo), handler())
			b := connected(t, srv, juliet, chat(omemo.V2))
			b.say(romeo, "canary good")
			a.awaitText("canary good")
			b.say(romeo, "canary poison")
			b.say(romeo, "canary behind")
			until(t, "both are in the inbox", func() bool {
				inbox := stateOf(t, a.store).Inbox
				return len(inbox) >= 2 && bytes.Contains(inbox[len(inbox)-1].Stanza, []byte("behind"))
			})
			close(both)
			<-a.done
			starts := 0
			for a.count(middleware.DeadLetter) == 0 {
				if starts++; starts > 10 {
					t.Fatal("never given up")
				}
				inbox := stateOf(t, a.store).Inbox
				inbox = inbox[len(inbox)-2:]
				if want := starts - 1; inbox[0].Attempts != want || inbox[1].Attempts != 0 {
					t.Fatalf("attempts: %d and %d, want %d and 0", inbox[0].Attempts, inbox[1].Attempts, want)
				}
				a.restart(t, srv, handler())
			}
			a.awaitText("canary behind")
			names := make(map[string]int)
			a.mu.Lock()
			for _, m := range a.received {
				if m.Body == "canary poison" {
					names[m.Info.Event]++
				}
			}
			a.mu.Unlock()
			if len(names) != 1 {
				t.Errorf("the message had %d names", len(names))
			}
			for _, n := range names {
				if n != 6 { // once, and five times again
					t.Errorf("handed over %d times", n)
				}
			}
			if got := strings.Count(strings.Join(a.bodies(), "\n"), "canary behind"); got != 1 {
				t.Errorf("the next message came %d times", got)
			}
			noLeak(t, srv, "canary")
		})
	}
}

// restart wraps a new session. Its handler ends it at once, unless the message
// that it fails with was given up.
func (p *program) restart(t *testing.T, srv *xmpptest.Server, handler xmpp.Handler) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	session, err := p.om.Wrap(ctx, login(t, srv, romeo))
	ok(t, err)
	p.session = session
	p.done = make(chan struct{})
	go func(done chan struct{}) {
		defer close(done)
		_ = session.Serve(handler)
	}(p.done)
	if p.count(middleware.DeadLetter) == 0 {
		<-p.done
	}
}

// logbook is a log that can be read while it is written.
type logbook struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (j *logbook) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.b.Write(p)
}

func (j *logbook) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.b.String()
}

// What was not handed over when the connection was lost comes after the next
// Wrap, and does not count as an attempt.
func TestInboxIsKept(t *testing.T) {
	srv := network(t, romeo, juliet)
	var logged logbook
	c := chat(omemo.V2)
	c.Logger = slog.New(slog.NewTextHandler(&logged, nil))
	a := load(t, romeo, c)
	b := connected(t, srv, juliet, chat(omemo.V2))
	release := make(chan struct{})
	var held atomic.Bool
	slow := xmpp.HandlerFunc(func(r xmlstream.TokenReadEncoder, start *xml.StartElement) error {
		if err := a.handle(r, start); err != nil {
			return err
		}
		if slices.Contains(a.bodies(), "canary 0") && !held.Swap(true) {
			<-release
		}
		return nil
	})
	a.attach(login(t, srv, romeo), slow)
	var want []string
	for i := range 5 {
		want = append(want, fmt.Sprintf("canary %d", i))
		b.say(romeo, want[i])
	}
	until(t, "the first is being read", held.Load)
	until(t, "all are in the inbox", func() bool { return len(stateOf(t, a.store).Inbox) == 5 })
	ok(t, srv.Disconnect(romeo))
	until(t, "the connection is lost", func() bool { return strings.Contains(logged.String(), "stream ended") })
	close(release)
	<-a.done
	if got := a.bodies(); !reflect.DeepEqual(got, want[:1]) {
		t.Errorf("after the connection was lost: %q", got)
	}
	// Several connections are lost before anything is read.
	for range 7 {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		_, err := a.om.Wrap(ctx, login(t, srv, romeo))
		cancel()
		ok(t, err)
	}
	a.attach(login(t, srv, romeo), nil)
	a.awaitText(want[4])
	if got := a.bodies(); !reflect.DeepEqual(got, want) {
		t.Errorf("arrived: %q", got)
	}
	until(t, "the inbox is empty", func() bool { return len(stateOf(t, a.store).Inbox) == 0 })
}

// A second Wrap takes over from the first.
func TestReplaced(t *testing.T) {
	srv := network(t, romeo, juliet)
	a := load(t, romeo, chat(omemo.V2))
	b := connected(t, srv, juliet, chat(omemo.V2))
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	first, err := a.om.Wrap(ctx, login(t, srv, romeo+"/one"))
	ok(t, err)
	ended := make(chan error, 1)
	go func() { ended <- first.Serve(xmpp.HandlerFunc(a.handle)) }()
	ok(t, first.Send(ctx, to(juliet).Wrap(text("canary one"))))
	b.awaitText("canary one")
	a.attach(login(t, srv, romeo+"/two"), nil)
	if err := <-ended; !errors.Is(err, middleware.ErrReplaced) {
		t.Errorf("Serve: %v", err)
	}
	if err := first.Send(ctx, to(juliet).Wrap(text("canary lost"))); err == nil {
		t.Error("the first session still takes messages")
	}
	a.say(juliet, "canary two")
	b.awaitText("canary two")
	b.say(romeo, "canary back")
	a.awaitText("canary back")
	ok(t, a.om.Close())
	if _, err := a.om.Wrap(ctx, login(t, srv, romeo+"/three")); !errors.Is(err, middleware.ErrClosed) {
		t.Errorf("Wrap after Close: %v", err)
	}
	if _, err := a.om.Send(ctx, to(juliet), text("canary late")); !errors.Is(err, middleware.ErrOffline) {
		t.Errorf("Send after Close: %v", err)
	}
	if got := b.bodies(); !reflect.DeepEqual(got, []string{"canary one", "canary two"}) {
		t.Errorf("arrived: %q", got)
	}
	noLeak(t, srv, "canary")
}

// A session of somebody else is refused, and left alone.
func TestWrapWrongAccount(t *testing.T) {
	srv := network(t, romeo, juliet)
	a := load(t, romeo, chat(omemo.V2))
	session := login(t, srv, juliet)
	if _, err := a.om.Wrap(t.Context(), session); !errors.Is(err, omemo.ErrWrongAccount) {
		t.Fatalf("Wrap: %v", err)
	}
	plain(t).attach(session, nil) // works
}

// Nothing of the middleware runs when its sessions have ended, whichever way.
func TestNoGoroutineLeft(t *testing.T) {
	srv := network(t, romeo, juliet)
	b := connected(t, srv, juliet, chat(omemo.V2))
	b.settled()
	before := runtime.NumGoroutine()
	a := load(t, romeo, chat(omemo.V2))
	for i, end := range []func(){
		func() { ok(t, srv.Disconnect(romeo)) },
		func() { ok(t, a.session.Close()) },
		func() { ok(t, a.session.Conn().Close()) },
		func() { inject(t, srv, `</stream:stream>`) },
		func() {
			inject(t, srv, `<stream:error xmlns:stream="http://etherx.jabber.org/streams"><conflict xmlns="urn:ietf:params:xml:ns:xmpp-streams"/></stream:error>`)
		},
		func() { inject(t, srv, `<broken`); ok(t, srv.Disconnect(romeo)) },
		func() { ok(t, a.om.Close()) },
	} {
		a.attach(login(t, srv, romeo), nil)
		s := fmt.Sprintf("canary %d", i)
		a.say(juliet, s)
		b.awaitText(s)
		end()
		<-a.done
	}
	var now int
	defer func() {
		if t.Failed() {
			buf := make([]byte, 1<<20)
			t.Logf("%d goroutines, %d before:\n%s", now, before, buf[:runtime.Stack(buf, true)])
		}
	}()
	until(t, "goroutines have ended", func() bool {
		now = runtime.NumGoroutine()
		return now <= before
	})
	noLeak(t, srv, "canary")
}
