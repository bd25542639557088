package middleware_test

import (
	"bytes"
	"context"
	"encoding/xml"
	"net"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"example.org/omellium/middleware"
	"example.org/omellium/middleware/internal/logscan"
	"example.org/omellium/middleware/xmpptest"
	"example.org/omellium/omemo"
	"example.org/omellium/omemo/memstore"
	omemostanza "example.org/omellium/stanza"
	"mellium.im/sasl"
	"mellium.im/xmlstream"
	"mellium.im/xmpp"
	"mellium.im/xmpp/jid"
	"mellium.im/xmpp/ping"
	"mellium.im/xmpp/stanza"
)

// patience is how long a test waits for what must happen. A slow machine does
// not need it.
const patience = 40 * time.Second

// network returns a server with accounts, the password of all being "secret".
func network(t *testing.T, accounts ...string) *xmpptest.Server {
	t.Helper()
	srv := newServer(t)
	for _, a := range accounts {
		if err := srv.AddAccount(a, "secret"); err != nil {
			t.Fatal(err)
		}
	}
	return srv
}

// dial logs in over a TCP connection. The connection may be changed by wrap.
func dial(t *testing.T, srv *xmpptest.Server, address string, wrap func(net.Conn) net.Conn, features ...xmpp.StreamFeature) *xmpp.Session {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	host, err := srv.Addr()
	if err != nil {
		t.Fatal(err)
	}
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", host)
	if err != nil {
		t.Fatal(err)
	}
	if wrap != nil {
		conn = wrap(conn)
	}
	j := jid.MustParse(address)
	all := append([]xmpp.StreamFeature{xmpp.SASL("", "secret", sasl.Plain), xmpp.BindResource()}, features...)
	session, err := xmpp.NewSession(ctx, j.Domain(), j, conn, xmpp.Secure, xmpp.NewNegotiator(
		func(*xmpp.Session, *xmpp.StreamConfig) xmpp.StreamConfig { return xmpp.StreamConfig{Features: all} },
	))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return session
}

// load returns a program that is not connected. Unless plain, it has the
// middleware.
func load(t *testing.T, address string, c middleware.Config) *program {
	t.Helper()
	p := &program{t: t, store: c.Store, done: make(chan struct{})}
	p.changed = sync.NewCond(&p.mu)
	close(p.done)
	if p.store == nil {
		p.store = memstore.New(address)
		c.Store = p.store
	}
	next := c.OnEvent
	c.OnEvent = func(e middleware.Event) {
		p.mu.Lock()
		p.events = append(p.events, e)
		p.changed.Broadcast()
		p.mu.Unlock()
		if next != nil {
			next(e)
		}
	}
	logscan.Watch(&c)
	var err error
	if p.om, err = middleware.New(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.om.Close()
		<-p.done
		if t.Failed() {
			p.mu.Lock()
			defer p.mu.Unlock()
			for _, e := range p.events {
				switch e.Kind {
				case middleware.Published, middleware.ListPublished, middleware.ListChanged, middleware.Accepted, middleware.Progress, middleware.CatchingUp:
					continue
				}
				t.Logf("%s: %v %s/%d %v id=%s err=%v", address, e.Kind, e.Account, e.Device, e.Version, e.ID, e.Err)
			}
		}
	})
	return p
}

// plain returns a program without the middleware.
func plain(t *testing.T) *program {
	p := &program{t: t, done: make(chan struct{})}
	p.changed = sync.NewCond(&p.mu)
	close(p.done)
	t.Cleanup(func() {
		if p.session != nil {
			p.session.Conn().Close()
		}
		<-p.done
	})
	return p
}

// attach connects a program and makes it available.
func (p *program) attach(session *xmpp.Session, handler xmpp.Handler) *program {
	p.t.Helper()
	before := p.count(middleware.ListPublished)
	lists := p.serve(session, handler)
	p.broadcast(stanza.AvailablePresence, "")
	// Lists that were published before the presence are published once more.
	until(p.t, "own lists are published again", func() bool {
		return p.count(middleware.ListPublished) >= before+2*lists
	})
	return p
}

// serve takes a session, wraps it if the program has the middleware, and serves it.
// It returns how many own lists that has published.
func (p *program) serve(session *xmpp.Session, handler xmpp.Handler) (lists int) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.t.Context(), patience)
	defer cancel()
	if p.om != nil {
		var err error
		before := p.count(middleware.ListPublished)
		if session, err = p.om.Wrap(ctx, session); err != nil {
			p.t.Fatal(err)
		}
		lists = p.count(middleware.ListPublished) - before
	}
	p.session = session
	if handler == nil {
		handler = xmpp.HandlerFunc(p.handle)
	}
	p.done = make(chan struct{})
	go func(done chan struct{}) {
		defer close(done)
		_ = session.Serve(handler)
	}(p.done)
	p.flush()
	return lists
}

// broadcast sends presence and waits until the server has it.
func (p *program) broadcast(typ stanza.PresenceType, inner string) {
	p.t.Helper()
	if err := p.session.Send(p.t.Context(), stanza.Presence{Type: typ}.Wrap(children(inner))); err != nil {
		p.t.Fatal(err)
	}
	p.flush()
}

// flush waits until the server has all that was written: it works in order.
func (p *program) flush() {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.t.Context(), patience)
	defer cancel()
	if err := ping.Send(ctx, p.session, p.session.RemoteAddr()); err != nil {
		p.t.Fatal(err)
	}
}

// connected is load and attach over an in-process connection.
func connected(t *testing.T, srv *xmpptest.Server, address string, c middleware.Config) *program {
	t.Helper()
	return load(t, jid.MustParse(address).Bare().String(), c).attach(login(t, srv, address), nil)
}

func login(t *testing.T, srv *xmpptest.Server, address string) *xmpp.Session {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	session, err := srv.Client(ctx, address, "secret")
	if err != nil {
		t.Fatal(err)
	}
	return session
}

// chat returns the configuration of a program that speaks one version, and
// completes sessions with everybody.
func chat(v omemo.Version) middleware.Config {
	return middleware.Config{AnswerStrangers: true, Prefer: func(jid.JID) omemo.Version { return v }}
}

// text returns the tokens of a <body/>, as applications build it: without
// namespace.
func text(s string) xml.TokenReader {
	return xmlstream.Wrap(xmlstream.Token(xml.CharData(s)), xml.StartElement{Name: xml.Name{Local: "body"}})
}

// to returns a chat message without content.
func to(address string) stanza.Message {
	return stanza.Message{To: jid.MustParse(address), Type: stanza.ChatMessage}
}

// raw returns a token reader of XML.
func raw(s string) xml.TokenReader { return xml.NewDecoder(strings.NewReader(s)) }

// children returns a token reader of several elements.
func children(s string) xml.TokenReader {
	r := raw(`<message xmlns="jabber:client">` + s + `</message>`)
	_, _ = r.Token() // the start tag
	return xmlstream.Inner(r)
}

// count returns how many events there were of a kind.
func (p *program) count(kind middleware.EventKind) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := 0
	for _, e := range p.events {
		if e.Kind == kind {
			n++
		}
	}
	return n
}

// awaitFailure waits for the event that a message was not sent.
func (p *program) awaitFailure(id string) (found middleware.Event) {
	p.t.Helper()
	p.await("failure of "+id, func() bool {
		for _, e := range p.events {
			if e.Kind == middleware.SendFailed && e.ID == id {
				found = e
				return true
			}
		}
		return false
	})
	return found
}

// bodies returns the texts that were received, in order.
func (p *program) bodies() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	var all []string
	for _, m := range p.received {
		if m.Body != "" {
			all = append(all, m.Body)
		}
	}
	return all
}

// noLeak fails the test if a text is on the wire anywhere.
func noLeak(t *testing.T, srv *xmpptest.Server, texts ...string) {
	t.Helper()
	for _, s := range texts {
		if leak := wireHolds(srv, s); leak != "" {
			t.Errorf("%q is on the wire: %s", s, leak)
		}
	}
}

// recorder is a handler that keeps every stanza as XML.
type recorder struct {
	mu      sync.Mutex
	changed *sync.Cond
	stanzas []string
}

func newRecorder() *recorder {
	r := &recorder{}
	r.changed = sync.NewCond(&r.mu)
	return r
}

// HandleXMPP implements xmpp.Handler.
func (r *recorder) HandleXMPP(t xmlstream.TokenReadEncoder, start *xml.StartElement) error {
	e, err := omemostanza.ReadElement(t, *start, omemostanza.DefaultLimits)
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.stanzas = append(r.stanzas, string(e.AppendXML(nil)))
	r.changed.Broadcast()
	return nil
}

// await waits for a stanza that holds all of some texts.
func (r *recorder) await(t *testing.T, texts ...string) string {
	t.Helper()
	deadline := time.Now().Add(patience)
	defer time.AfterFunc(patience, r.changed.Broadcast).Stop()
	r.mu.Lock()
	defer r.mu.Unlock()
	for {
		for _, s := range r.stanzas {
			if holdsAll(s, texts) {
				return s
			}
		}
		if !time.Now().Before(deadline) {
			t.Fatalf("no stanza with %q; there were %q", texts, r.stanzas)
		}
		r.changed.Wait()
	}
}

// find returns the stanzas received so far that hold all of some texts.
func (r *recorder) find(texts ...string) (found []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, s := range r.stanzas {
		if holdsAll(s, texts) {
			found = append(found, s)
		}
	}
	return found
}

func holdsAll(s string, texts []string) bool {
	for _, t := range texts {
		if !strings.Contains(s, t) {
			return false
		}
	}
	return true
}

// until waits for a condition that nobody announces.
func until(t *testing.T, what string, condition func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for !condition() {
		if !time.Now().Before(deadline) {
			t.Fatalf("timeout: %s", what)
		}
		runtime.Gosched()
		time.Sleep(time.Millisecond) // between two looks, not for something to happen
	}
}

// fromTo matches stanzas that a client of an account has sent and that hold a
// text.
func fromTo(account, text string) func(xmpptest.Stanza) bool {
	return func(s xmpptest.Stanza) bool {
		return s.Direction == xmpptest.FromClient && strings.HasPrefix(s.Session, account) && bytes.Contains(s.XML, []byte(text))
	}
}

func decimal(id omemo.DeviceID) string { return strconv.FormatUint(uint64(id), 10) }
