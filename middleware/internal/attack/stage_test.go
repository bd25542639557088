package attack

import (
	"bytes"
	"context"
	"encoding/xml"
	"fmt"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"example.org/omellium/middleware"
	"example.org/omellium/middleware/internal/logscan"
	"example.org/omellium/middleware/xmpptest"
	"example.org/omellium/omemo"
	"example.org/omellium/stanza"
	"mellium.im/xmlstream"
	"mellium.im/xmpp"
	"mellium.im/xmpp/jid"
	xmppstanza "mellium.im/xmpp/stanza"
)

const (
	juliet  = "juliet@example.net" // the victim
	romeo   = "romeo@example.net"  // a contact
	mallory = "mallory@evil.example"
	server  = "example.net"
)

// canary is what must never reach the victim's program.
const canary = "canary-of-the-attacker"

// Bounds of one attack, far above what any of them needs on a slow machine.
const (
	maxTime  = 10 * time.Second
	maxBytes = 16 << 20 // allocated, the harness included
)

// stage is a victim on a server that does what the attacker wants.
type stage struct {
	t       *testing.T
	v       omemo.Version
	srv     *xmpptest.Server
	store   *tap
	om      *middleware.Middleware
	session *xmpp.Session
	victim  omemo.Address
	full    string
	romeo   *device
	other   *device // another device of the victim's account
	query   string  // id of an archive query that is open
	last    int     // for ids
	most    uint64  // bytes allocated, where an attack may cost more than maxBytes

	mu        sync.Mutex
	changed   *sync.Cond
	delivered []*stanza.Element // messages that the program has read
	markers   map[string]bool
	events    []middleware.Event
}

// newStage returns a stage on which victim and contact have talked already, in
// one version: sessions are established both ways.
func newStage(t *testing.T, v omemo.Version, change ...func(*middleware.Config)) *stage {
	t.Helper()
	s := newScene(t, v, change...)
	s.romeo.publish(s, v)
	_, err := s.say(romeo, "hello")
	ok(t, err)
	s.answered(s.romeo)
	s.honest(s.romeo)
	s.settle()
	return s
}

// answered waits until the victim has sent something to a device's account, and
// has the device read it.
func (s *stage) answered(d *device) {
	s.t.Helper()
	s.settle()
	ctx, cancel := context.WithTimeout(s.t.Context(), time.Minute)
	defer cancel()
	_, err := s.srv.Await(ctx, func(st xmpptest.Stanza) bool {
		return st.Direction == xmpptest.FromClient && bytes.HasPrefix(st.XML, []byte("<message")) && bytes.Contains(st.XML, []byte(`to="`+d.account))
	})
	ok(s.t, err)
	d.reads(s)
}

// newScene returns a stage on which nothing has happened yet.
func newScene(t *testing.T, v omemo.Version, change ...func(*middleware.Config)) *stage {
	t.Helper()
	s := unconnected(t, v, change...)
	ok(t, s.connect())
	return s
}

// unconnected returns a stage with a victim that is not online yet.
func unconnected(t *testing.T, v omemo.Version, change ...func(*middleware.Config)) *stage {
	t.Helper()
	srv, err := xmpptest.NewServer(xmpptest.StoreOffline())
	ok(t, err)
	t.Cleanup(func() { srv.Close() })
	for _, account := range []string{juliet, romeo, mallory} {
		ok(t, srv.AddAccount(account, "secret"))
	}
	s := &stage{t: t, v: v, srv: srv, store: newTap(juliet), markers: make(map[string]bool)}
	s.changed = sync.NewCond(&s.mu)
	s.romeo, s.other = newDevice(t, romeo), newDevice(t, juliet)
	c := middleware.Config{
		Store: s.store, AnswerStrangers: true,
		Prefer: func(jid.JID) omemo.Version { return v },
		OnEvent: func(e middleware.Event) {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.events = append(s.events, e)
			s.changed.Broadcast()
		},
	}
	for _, f := range change {
		f(&c)
	}
	logscan.Watch(&c)
	s.om, err = middleware.New(t.Context(), c)
	ok(t, err)
	s.victim, err = s.om.Manager().Device(t.Context())
	ok(t, err)
	t.Cleanup(func() { s.om.Close() })
	return s
}

func (s *stage) connect() error {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), time.Minute)
	defer cancel()
	earlier := s.had(middleware.ListPublished)
	session, err := s.srv.Client(ctx, juliet+"/balcony", "secret")
	ok(s.t, err)
	if s.session, err = s.om.Wrap(ctx, session); err != nil {
		return err
	}
	s.victim, err = s.om.Manager().Device(ctx)
	ok(s.t, err)
	s.full = s.session.LocalAddr().String()
	done := make(chan struct{})
	front := s.session
	go func() {
		defer close(done)
		_ = front.Serve(xmpp.HandlerFunc(s.handle))
	}()
	s.t.Cleanup(func() { s.om.Close(); <-done })
	published, changed := s.had(middleware.ListPublished), s.had(middleware.ListChanged)
	ok(s.t, s.session.Send(ctx, xmppstanza.Presence{}.Wrap(nil)))
	// Lists that were published before the presence are published once more, and the
	// server sends us both when it has learnt our features. Which comes first is
	// open, so that it may tell of them twice: all of that was read when a question
	// asked afterwards is answered.
	s.await("own device lists", func() bool {
		return s.tally(middleware.ListPublished) >= 2*published-earlier && s.tally(middleware.ListChanged) >= changed+len(omemo.Versions())
	})
	s.ask()
	s.settle()
	s.mark()
	return nil
}

func (s *stage) handle(r xmlstream.TokenReadEncoder, start *xml.StartElement) error {
	e, err := stanza.ReadElement(r, *start, stanza.Limits{Depth: 64, Tokens: 1 << 20, Bytes: 16 << 20})
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch e.Name.Local {
	case "message":
		s.delivered = append(s.delivered, e)
	case "presence", "iq":
		id, _ := e.Attribute("id")
		s.markers[id] = true
	}
	s.changed.Broadcast()
	return nil
}

func (s *stage) id(prefix string) string {
	s.last++
	return prefix + strconv.Itoa(s.last)
}

// send puts an element on the victim's wire.
func (s *stage) send(e *stanza.Element) { s.t.Helper(); s.inject(string(e.AppendXML(nil))) }

// watch remembers where events and deliveries stand.
type watch struct{ events, delivered int }

func (s *stage) watch() watch {
	s.mu.Lock()
	defer s.mu.Unlock()
	return watch{len(s.events), len(s.delivered)}
}

func (s *stage) since(w watch) ([]middleware.Event, []*stanza.Element) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.events[w.events:]), slices.Clone(s.delivered[w.delivered:])
}

// repels injects XML, and checks that the store is unchanged, nothing of it was
// delivered, nothing broke, and that it cost no more than it may. It returns the
// events.
func (s *stage) repels(raw string, want ...middleware.EventKind) []middleware.Event {
	s.t.Helper()
	events, delivered := s.suffers(raw)
	for _, e := range delivered {
		if e.Child(stanza.NSClient, "body") != nil || e.Child(middleware.NSInfo, "info") != nil {
			s.t.Errorf("delivered: %s", e.AppendXML(nil))
		}
	}
	for _, kind := range want {
		if !slices.ContainsFunc(events, func(e middleware.Event) bool { return e.Kind == kind }) {
			s.t.Errorf("no event %q: %v", kind, events)
		}
	}
	return events
}

// suffers injects XML and checks what holds for every attack, delivered or not:
// no change of the store, no canary, no panic, bounded time and memory.
func (s *stage) suffers(raw string) ([]middleware.Event, []*stanza.Element) {
	s.t.Helper()
	s.settle()
	before := s.store.dump()
	w := s.watch()
	var memory runtime.MemStats
	runtime.ReadMemStats(&memory)
	bytes, began := memory.TotalAlloc, time.Now()
	s.inject(raw)
	if took := time.Since(began); took > maxTime {
		s.t.Errorf("took %v", took)
	}
	runtime.ReadMemStats(&memory)
	if used := memory.TotalAlloc - bytes; used > max(s.most, maxBytes) {
		s.t.Errorf("%d bytes allocated for a stanza of %d", used, len(raw))
	}
	events, delivered := s.since(w)
	s.unharmed(events, delivered)
	if after := s.store.dump(); after != before {
		s.t.Errorf("the store has changed:\n%s", difference(before, after))
	}
	return events, delivered
}

// unharmed checks for canaries and internal errors.
func (s *stage) unharmed(events []middleware.Event, delivered []*stanza.Element) {
	s.t.Helper()
	for _, e := range delivered {
		if x := string(e.AppendXML(nil)); strings.Contains(x, canary) {
			s.t.Errorf("the canary was delivered: %s", x)
		}
	}
	for _, e := range events {
		if e.Kind == middleware.Trouble {
			s.t.Errorf("trouble: %v", e.Err)
		}
		if e.Err != nil && strings.Contains(e.Err.Error(), canary) {
			s.t.Errorf("the canary stands in an error: %v", e.Err)
		}
	}
}

// honest has a device send an honest message, which must be delivered with the
// right Info.
func (s *stage) honest(d *device) { s.t.Helper(); s.arrives(d, "direct") }

func (s *stage) arrives(d *device, way string) {
	s.t.Helper()
	text := s.id("honest text ")
	w := s.watch()
	message := d.text(s, s.v, text)
	s.inject(s.by(way, message))
	_, delivered := s.since(w)
	for _, e := range delivered {
		m := innermost(e)
		body, info := m.Child(stanza.NSClient, "body"), m.Child(middleware.NSInfo, "info")
		if body == nil || body.Text() != text || info == nil {
			continue
		}
		if account, _ := info.Attribute("account"); account != d.account {
			s.t.Fatalf("account %s, want %s", account, d.account)
		}
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.t.Fatalf("an honest message was lost; events %v", s.events[w.events:])
}

// innermost returns the message that an element carries, or itself.
func innermost(e *stanza.Element) *stanza.Element {
	for c := range e.Elements() {
		f := c.Child("urn:xmpp:forward:0", "forwarded")
		if f == nil {
			continue
		}
		if m := f.Child(stanza.NSClient, "message"); m != nil {
			return m
		}
	}
	return e
}

// openQuery has the program ask its archive. The answer never comes by itself: see
// closeQuery.
func (s *stage) openQuery() {
	s.t.Helper()
	s.query = s.id("query")
	id := s.query
	swallowed := make(chan struct{})
	s.srv.SetFilter(func(_ context.Context, st xmpptest.Stanza) [][]byte {
		if st.Direction == xmpptest.FromClient && bytes.Contains(st.XML, []byte(`queryid="`+id+`"`)) {
			close(swallowed)
			return nil
		}
		return [][]byte{st.XML}
	})
	defer s.srv.SetFilter(nil)
	query := stanza.NewElement("urn:xmpp:mam:2", "query").SetAttribute("queryid", s.query)
	iq := xmppstanza.IQ{ID: "iq-" + s.query, Type: xmppstanza.SetIQ}
	ok(s.t, s.session.Send(context.Background(), iq.Wrap(query.TokenReader())))
	select {
	case <-swallowed:
	case <-time.After(time.Minute):
		s.t.Fatal("the query did not leave")
	}
}

// closeQuery returns the archive's answer to the query that was opened last.
func (s *stage) closeQuery() string {
	return "<iq xmlns='jabber:client' type='result' id='iq-" + s.query + "'><fin xmlns='urn:xmpp:mam:2'/></iq>"
}

// ways are the ways by which a message comes in.
var ways = []string{"direct", "carbon", "archive"}

// by returns the XML of a message that comes by one of the ways.
func (s *stage) by(way string, m *stanza.Element) string {
	raw := string(m.AppendXML(nil))
	switch way {
	case "carbon":
		side := "received"
		if from, _ := m.Attribute("from"); strings.HasPrefix(from, juliet) {
			side = "sent"
		}
		return carbon(juliet, side, raw)
	case "archive":
		s.openQuery()
		return archived(juliet, s.query, raw) + s.closeQuery()
	}
	return raw
}

func carbon(from, side, raw string) string {
	return fmt.Sprintf("<message xmlns='jabber:client' from='%s' to='%s' type='chat'><%s xmlns='urn:xmpp:carbons:2'>"+
		"<forwarded xmlns='urn:xmpp:forward:0'>%s</forwarded></%s></message>", from, juliet, side, raw, side)
}

func archived(from, query, raw string) string {
	return fmt.Sprintf("<message xmlns='jabber:client' from='%s' to='%s'><result xmlns='urn:xmpp:mam:2' queryid='%s' id='1'>"+
		"<forwarded xmlns='urn:xmpp:forward:0'><delay xmlns='urn:xmpp:delay' stamp='%s'/>%s</forwarded></result></message>",
		from, juliet, query, time.Now().UTC().Format(time.RFC3339), raw)
}

// say has the victim's program send a text, and returns what became of it.
func (s *stage) say(to, text string) (*middleware.Result, error) {
	logscan.Text(text)
	body := stanza.NewText(stanza.NSClient, "body", text)
	return s.om.Send(s.t.Context(), xmppstanza.Message{To: jid.MustParse(to), Type: xmppstanza.ChatMessage}, body.TokenReader())
}

// silent checks that a text has not been on the wire.
func (s *stage) silent(text string) {
	s.t.Helper()
	for _, st := range s.srv.Wire() {
		if st.Direction == xmpptest.FromClient && bytes.Contains(st.XML, []byte(text)) {
			s.t.Errorf("on the wire: %s", st.XML)
		}
	}
}

// bundle returns the victim's bundle.
func (s *stage) bundle(v omemo.Version) *omemo.Bundle {
	s.t.Helper()
	b, err := s.om.Manager().Bundle(s.t.Context(), v)
	ok(s.t, err)
	return b
}

// clientStanza returns a stanza of the wire with its namespace declared.
func clientStanza(raw []byte) []byte {
	if i := bytes.IndexAny(raw, " />"); i > 0 && !bytes.Contains(raw[:bytes.IndexByte(raw, '>')], []byte("xmlns=")) {
		return slices.Concat(raw[:i], []byte(" xmlns='jabber:client'"), raw[i:])
	}
	return raw
}

// in runs a case as a subtest on the stage and counts it.
func (s *stage) in(t *testing.T, name string, f func()) {
	t.Helper()
	t.Run(name, func(t *testing.T) {
		outer := s.t
		s.t, s.romeo.t, s.other.t = t, t, t
		defer func() { s.t, s.romeo.t, s.other.t = outer, outer, outer }()
		cases.Add(1)
		f()
	})
}
