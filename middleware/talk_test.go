package middleware_test

import (
	"context"
	"encoding/xml"
	"strings"
	"sync"
	"testing"
	"time"

	"example.org/omellium/middleware"
	"example.org/omellium/middleware/internal/logscan"
	"example.org/omellium/middleware/xmpptest"
	"example.org/omellium/omemo"
	"example.org/omellium/omemo/memstore"
	"mellium.im/xmlstream"
	"mellium.im/xmpp"
	"mellium.im/xmpp/jid"
	"mellium.im/xmpp/ping"
	"mellium.im/xmpp/stanza"
)

// program is a program on mellium, with the three statements in it.
type program struct {
	t       *testing.T
	store   omemo.Store
	om      *middleware.Middleware
	session *xmpp.Session
	done    chan struct{}

	mu       sync.Mutex
	changed  *sync.Cond
	received []message
	events   []middleware.Event
}

type message struct {
	stanza.Message
	Body string           `xml:"body"`
	Info *middleware.Info `xml:"urn:xmpp:omellium:info:0 info"`
}

func newServer(t *testing.T, options ...xmpptest.Option) *xmpptest.Server {
	t.Helper()
	srv, err := xmpptest.NewServer(options...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { srv.Close() })
	return srv
}

// start logs an account in and wraps its session.
func start(t *testing.T, srv *xmpptest.Server, address string, c middleware.Config) *program {
	t.Helper()
	p := &program{t: t, store: c.Store}
	p.changed = sync.NewCond(&p.mu)
	if c.Store == nil {
		p.store = memstore.New(address)
		c.Store = p.store
	}
	c.OnEvent = func(e middleware.Event) {
		t.Logf("%s: %v %s/%d %v id=%s err=%v", address, e.Kind, e.Account, e.Device, e.Version, e.ID, e.Err)
		p.mu.Lock()
		defer p.mu.Unlock()
		p.events = append(p.events, e)
		p.changed.Broadcast()
	}
	logscan.Watch(&c)
	var err error
	if p.om, err = middleware.New(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	p.done = make(chan struct{})
	close(p.done)
	t.Cleanup(func() { p.om.Close(); <-p.done })
	p.connect(srv, address)
	return p
}

func (p *program) connect(srv *xmpptest.Server, address string) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.t.Context(), time.Minute)
	defer cancel()
	session, err := srv.Client(ctx, address, "secret")
	if err != nil {
		p.t.Fatal(err)
	}
	if p.session, err = p.om.Wrap(ctx, session); err != nil {
		p.t.Fatal(err)
	}
	p.done = make(chan struct{})
	session = p.session
	go func(done chan struct{}) {
		defer close(done)
		err := session.Serve(xmpp.HandlerFunc(p.handle))
		p.t.Logf("%s: serve: %v", address, err)
	}(p.done)
	if err := p.session.Send(ctx, stanza.Presence{}.Wrap(nil)); err != nil {
		p.t.Fatal(err)
	}
	// The server works in order: when it answers, it has our presence.
	if err := ping.Send(ctx, session, session.RemoteAddr()); err != nil {
		p.t.Fatal(err)
	}
}

func (p *program) handle(r xmlstream.TokenReadEncoder, start *xml.StartElement) error {
	if start.Name.Local != "message" {
		return nil
	}
	var m message
	if err := xml.NewTokenDecoder(xmlstream.MultiReader(xmlstream.Token(*start), r)).Decode(&m); err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.received = append(p.received, m)
	p.changed.Broadcast()
	return nil
}

// await waits until a condition holds.
func (p *program) await(what string, condition func() bool) {
	p.t.Helper()
	timeout := time.AfterFunc(time.Minute, func() { p.changed.Broadcast() })
	defer timeout.Stop()
	deadline := time.Now().Add(time.Minute)
	p.mu.Lock()
	defer p.mu.Unlock()
	for !condition() {
		if !time.Now().Before(deadline) {
			p.t.Fatalf("timeout: %s; received %+v", what, p.received)
		}
		p.changed.Wait()
	}
}

// awaitText waits for a message and returns it.
func (p *program) awaitText(text string) (found message) {
	p.t.Helper()
	p.await(text, func() bool {
		for _, m := range p.received {
			if m.Body == text {
				found = m
				return true
			}
		}
		return false
	})
	return found
}

func (p *program) awaitEvent(kind middleware.EventKind) (found middleware.Event) {
	p.t.Helper()
	p.await(kind.String(), func() bool {
		for _, e := range p.events {
			if e.Kind == kind {
				found = e
				return true
			}
		}
		return false
	})
	return found
}

func (p *program) say(to, text string) {
	p.t.Helper()
	logscan.Text(text)
	m := struct {
		stanza.Message
		Body string `xml:"body"`
	}{stanza.Message{To: jid.MustParse(to), Type: stanza.ChatMessage}, text}
	if err := p.session.Encode(p.t.Context(), m); err != nil {
		p.t.Fatal(err)
	}
}

// wireHolds returns the first stanza on the wire that holds a text.
func wireHolds(srv *xmpptest.Server, text string) string {
	for _, s := range srv.Wire() {
		if strings.Contains(string(s.XML), text) {
			return string(s.XML)
		}
	}
	return ""
}

const (
	romeo  = "romeo@example.net"
	juliet = "juliet@example.net"
)

func TestTalk(t *testing.T) {
	for _, v := range omemo.Versions() {
		t.Run(v.String(), func(t *testing.T) {
			srv := newServer(t)
			for _, a := range []string{romeo, juliet} {
				if err := srv.AddAccount(a, "secret"); err != nil {
					t.Fatal(err)
				}
			}
			prefer := func(jid.JID) omemo.Version { return v }
			a := start(t, srv, romeo, middleware.Config{Prefer: prefer, AnswerStrangers: true})
			b := start(t, srv, juliet, middleware.Config{Prefer: prefer, AnswerStrangers: true})
			a.say(juliet, "wherefore canary")
			got := b.awaitText("wherefore canary")
			if got.Info == nil || got.Info.Account != romeo || got.Info.Version != v {
				t.Fatalf("info: %+v", got.Info)
			}
			b.say(romeo, "art thou canary")
			a.awaitText("art thou canary")
			a.awaitEvent(middleware.SessionConfirmed)
			for i := range 20 {
				text := "canary " + strings.Repeat("x", i)
				a.say(juliet, text)
				b.awaitText(text)
			}
			if leak := wireHolds(srv, "canary"); leak != "" {
				t.Errorf("plain text on the wire: %s", leak)
			}
		})
	}
}
