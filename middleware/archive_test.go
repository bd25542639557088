package middleware_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"example.org/omellium/middleware"
	"example.org/omellium/middleware/xmpptest"
	"example.org/omellium/omemo"
)

// catching is chat with archives.
func catching(v omemo.Version) middleware.Config {
	c := chat(v)
	c.CatchUp = true
	return c
}

// archiving returns a server with archives and the accounts of romeo and juliet.
func archiving(t testing.TB, options ...xmpptest.Option) *xmpptest.Server {
	t.Helper()
	srv, err := xmpptest.NewServer(append(options, xmpptest.Archives())...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { srv.Close() })
	for _, a := range []string{romeo, juliet} {
		if err := srv.AddAccount(a, "secret"); err != nil {
			t.Fatal(err)
		}
	}
	return srv
}

// leave ends the session of a program, as a crash of the connection would.
func (p *program) leave(srv *xmpptest.Server) {
	p.t.Helper()
	if err := srv.Disconnect(p.session.LocalAddr().String()); err != nil {
		p.t.Fatal(err)
	}
	<-p.done
}

// tell sends a text and waits until it is written, and the server has it.
func (p *program) tell(address, body string) (id string) {
	p.t.Helper()
	result, err := p.om.Send(p.t.Context(), to(address), text(body))
	if err != nil {
		p.t.Fatal(err)
	}
	return result.ID
}

// back connects a program that has left.
func (p *program) back(srv *xmpptest.Server, address string) {
	p.t.Helper()
	caught := p.count(middleware.CaughtUp)
	p.attach(login(p.t, srv, address), nil)
	p.await("caught up", func() bool { return countOf(p.events, middleware.CaughtUp) > caught })
}

// numbered returns n texts.
func numbered(n int) []string {
	var texts []string
	for i := range n {
		texts = append(texts, fmt.Sprintf("text %d", i))
	}
	return texts
}

// What came while the program was not there is delivered in order, once, with its
// time, and the device has moved on.
func TestCatchUpByItself(t *testing.T) {
	for _, v := range omemo.Versions() {
		t.Run(v.String(), func(t *testing.T) {
			srv := archiving(t)
			b := load(t, juliet, catching(v))
			b.back(srv, juliet+"/x")
			a := connected(t, srv, romeo, chat(v))
			a.say(juliet, "before")
			b.awaitText("before")
			b.flush()
			b.leave(srv)
			texts := numbered(120)
			for _, text := range texts {
				a.tell(juliet, text)
			}
			a.flush()
			b.back(srv, juliet+"/x")
			b.awaitText(texts[len(texts)-1])
			if got := b.bodies(); !slices.Equal(got, append([]string{"before"}, texts...)) {
				t.Errorf("received %q", got)
			}
			b.mu.Lock()
			progress := 0
			for _, e := range b.events {
				switch {
				case e.Kind == middleware.Duplicate, e.Kind == middleware.Undecryptable, e.Kind == middleware.Refused:
					t.Errorf("%v %v", e.Kind, e.Err)
				case e.Kind == middleware.CatchingUp && e.Account == juliet:
					if e.Done < progress || e.Total < e.Done {
						t.Errorf("progress %d of %d after %d", e.Done, e.Total, progress)
					}
					progress = e.Done
				}
			}
			b.mu.Unlock()
			if progress < 120 {
				t.Errorf("progress to %d", progress)
			}
			// The position follows what comes live: the next time, it is not fetched.
			live := a.tell(juliet, "live")
			b.awaitText("live")
			b.flush()
			b.leave(srv)
			srv.ForgetWire()
			b.back(srv, juliet+"/x")
			for _, s := range srv.Wire() {
				if strings.Contains(string(s.XML), "<result") && strings.Contains(string(s.XML), live) {
					t.Errorf("fetched again: %s", s.XML)
				}
			}
			noLeak(t, srv, "text 1")
		})
	}
}

// A program that comes for the first time has nothing to catch up with; one
// whose archive was empty has all of it.
func TestCatchUpBegins(t *testing.T) {
	srv := archiving(t)
	p := plain(t)
	p.attach(login(t, srv, romeo+"/plain"), nil)
	if err := p.session.Send(t.Context(), to(juliet).Wrap(text("in clear, long ago"))); err != nil {
		t.Fatal(err)
	}
	p.flush()
	c := catching(omemo.V2)
	c.Policy = middleware.Off
	b := load(t, juliet, c)
	b.back(srv, juliet+"/x")
	b.leave(srv)
	if err := p.session.Send(t.Context(), to(juliet).Wrap(text("in clear, lately"))); err != nil {
		t.Fatal(err)
	}
	p.flush()
	b.back(srv, juliet+"/x")
	b.awaitText("in clear, lately")
	b.flush()
	b.leave(srv)
	b.back(srv, juliet+"/x")
	if got := b.bodies(); !slices.Equal(got, []string{"in clear, lately"}) {
		t.Errorf("received %q", got)
	}
}

// Under the policy required nothing in clear comes out of an archive.
func TestCatchUpInClear(t *testing.T) {
	srv := archiving(t)
	b := load(t, juliet, catching(omemo.V2))
	b.back(srv, juliet+"/x")
	b.leave(srv)
	p := plain(t)
	p.attach(login(t, srv, romeo+"/plain"), nil)
	for _, m := range []string{"<body>canary</body>", "<body>canary</body><encrypted xmlns='urn:xmpp:omemo:2'/>",
		"<body>canary</body><received xmlns='urn:xmpp:receipts' id='canary'/>"} {
		if err := p.session.Send(t.Context(), to(juliet).Wrap(children(m))); err != nil {
			t.Fatal(err)
		}
	}
	p.flush()
	b.back(srv, juliet+"/x")
	b.flush()
	if got := b.bodies(); len(got) != 0 {
		t.Errorf("received %q", got)
	}
	if b.count(middleware.PlaintextReceived) != 2 || b.count(middleware.Refused) != 1 {
		t.Errorf("%d in clear, %d refused", b.count(middleware.PlaintextReceived), b.count(middleware.Refused))
	}
}

// What comes live while the archive is being read waits, is delivered once, and
// after what came before it.
func TestCatchUpWhileLive(t *testing.T) {
	for _, v := range omemo.Versions() {
		t.Run(v.String(), func(t *testing.T) {
			srv := archiving(t)
			b := load(t, juliet, catching(v))
			b.back(srv, juliet+"/x")
			a := connected(t, srv, romeo, chat(v))
			a.say(juliet, "before")
			b.awaitText("before")
			b.flush()
			b.leave(srv)
			texts := numbered(130)
			for _, text := range texts[:120] {
				a.tell(juliet, text)
			}
			a.flush()
			// The answer to the second question is held back until more has come live.
			asked, goOn := make(chan struct{}), make(chan struct{})
			questions := 0
			srv.SetFilter(func(ctx context.Context, s xmpptest.Stanza) [][]byte {
				if s.Direction == xmpptest.FromClient && strings.HasPrefix(s.Session, juliet) && strings.Contains(string(s.XML), "urn:xmpp:mam:2") {
					if questions++; questions == 2 {
						close(asked)
						select {
						case <-goOn:
						case <-ctx.Done():
						}
					}
				}
				return [][]byte{s.XML}
			})
			session := login(t, srv, juliet+"/x")
			done := make(chan struct{})
			go func() {
				defer close(done)
				b.attach(session, nil)
			}()
			<-asked
			// Available already, though the program's own presence waits behind the question.
			for _, text := range texts[120:] {
				if _, err := a.om.Send(t.Context(), to(juliet+"/x"), children("<body>"+text+"</body>")); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := srv.Await(t.Context(), func(s xmpptest.Stanza) bool {
				return s.Direction == xmpptest.ToClient && strings.HasPrefix(s.Session, juliet) && strings.Contains(string(s.XML), "<encrypted") && !strings.Contains(string(s.XML), "urn:xmpp:mam:2")
			}); err != nil {
				t.Fatal(err)
			}
			close(goOn)
			<-done
			b.awaitText(texts[129])
			b.flush()
			if got := b.bodies(); !slices.Equal(got, append([]string{"before"}, texts...)) {
				t.Errorf("received %q", got)
			}
		})
	}
}
