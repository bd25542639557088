//go:build live

package interop

import (
	"context"
	"encoding/xml"
	"fmt"
	"slices"
	"sync"
	"testing"

	"mellium.im/xmlstream"
	"mellium.im/xmpp"
	"mellium.im/xmpp/jid"
	xmppstanza "mellium.im/xmpp/stanza"

	"example.org/omellium/middleware"
	"example.org/omellium/middleware/internal/lab"
	"example.org/omellium/middleware/internal/logscan"
	"example.org/omellium/omemo"
	"example.org/omellium/omemo/memstore"
)

// program is a program on mellium with the three statements, in this process.
type program struct {
	Account *lab.Account
	Device  uint32
	om      *middleware.Middleware
	session *xmpp.Session
	store   omemo.Store
	served  chan struct{}

	mu        sync.Mutex
	inbox     []received
	events    []middleware.Event
	presences map[string]string // the last type, by bare JID
}

// received is a message that a handler was given.
type received struct {
	xmppstanza.Message
	Body string           `xml:"body"`
	Info *middleware.Info `xml:"urn:xmpp:omellium:info:0 info"`
}

// newProgram logs a program in. It collects what it receives.
func newProgram(t testing.TB, s *lab.Server, a *lab.Account) *program {
	t.Helper()
	return newProgramWith(t, s, a, memstore.New(a.JID), nil)
}

// newProgramWith logs a program in that has a handler of its own, called after
// the message was collected.
func newProgramWith(t testing.TB, s *lab.Server, a *lab.Account, store omemo.Store, handler xmpp.Handler) *program {
	t.Helper()
	p := newHiddenProgram(t, s, a, store, handler)
	p.appear(t)
	return p
}

// newHiddenProgram is newProgramWith without presence: messages that wait for the
// account stay where they are.
func newHiddenProgram(t testing.TB, s *lab.Server, a *lab.Account, store omemo.Store, handler xmpp.Handler) *program {
	t.Helper()
	return newConfigured(t, s, a, middleware.Config{Store: store, AnswerStrangers: true}, handler)
}

// newConfigured is newHiddenProgram with another configuration.
func newConfigured(t testing.TB, s *lab.Server, a *lab.Account, c middleware.Config, handler xmpp.Handler) *program {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), deadline)
	defer cancel()
	p := &program{Account: a, store: c.Store, served: make(chan struct{}), presences: make(map[string]string)}
	var err error
	c.OnEvent = p.onEvent
	logscan.Watch(&c)
	p.om, err = middleware.New(ctx, c)
	if err != nil {
		t.Fatal(err)
	}
	session, err := s.Dial(ctx, a)
	if err != nil {
		t.Fatal(err)
	}
	if p.session, err = p.om.Wrap(ctx, session); err != nil {
		t.Fatal(err)
	}
	device, err := p.om.Manager().Device(ctx)
	if err != nil {
		t.Fatal(err)
	}
	p.Device = uint32(device.Device)
	go func() {
		defer close(p.served)
		if err := p.session.Serve(p.collect(handler)); err != nil {
			t.Logf("%s: serve: %v", a.JID, err)
		}
	}()
	t.Cleanup(func() {
		if err := p.om.Close(); err != nil {
			t.Errorf("%s: close: %v", a.JID, err)
		}
		<-p.served
		if t.Failed() {
			t.Log(p.report())
		}
	})
	return p
}

// newSpeaker is newProgram with a device that speaks some versions only.
func newSpeaker(t testing.TB, s *lab.Server, a *lab.Account, versions []string) *program {
	t.Helper()
	c := middleware.Config{Store: memstore.New(a.JID), AnswerStrangers: true}
	for _, v := range omemo.Versions() {
		if slices.Contains(versions, v.String()) {
			c.Versions = append(c.Versions, v)
		}
	}
	p := newConfigured(t, s, a, c, nil)
	p.appear(t)
	return p
}

// newSplitProgram is newProgram with one stanza for each version, if split.
func newSplitProgram(t testing.TB, s *lab.Server, a *lab.Account, split bool) *program {
	t.Helper()
	p := newConfigured(t, s, a, middleware.Config{
		Store: memstore.New(a.JID), AnswerStrangers: true, SplitStanzas: func(jid.JID) bool { return split },
	}, nil)
	p.appear(t)
	return p
}

// appear sends the presence.
func (p *program) appear(t testing.TB) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), deadline)
	defer cancel()
	if err := p.session.Send(ctx, xmppstanza.Presence{Type: xmppstanza.AvailablePresence}.Wrap(nil)); err != nil {
		t.Fatal(err)
	}
}

// collect notes each message with a body and hands everything on, the message
// from its first token.
func (p *program) collect(next xmpp.Handler) xmpp.Handler {
	return xmpp.HandlerFunc(func(t xmlstream.TokenReadEncoder, start *xml.StartElement) error {
		if start.Name.Local != "message" {
			p.see(start)
			if next != nil {
				return next.HandleXMPP(t, start)
			}
			return nil
		}
		tokens, err := xmlstream.ReadAll(t)
		if err != nil {
			return err
		}
		var m received
		whole := xmlstream.MultiReader(xmlstream.Token(*start), replay(tokens))
		if err := xml.NewTokenDecoder(whole).Decode(&m); err != nil {
			return err
		}
		if next != nil {
			err = next.HandleXMPP(struct {
				xml.TokenReader
				xmlstream.Encoder
			}{replay(tokens), t}, start)
		}
		p.mu.Lock()
		defer p.mu.Unlock()
		p.inbox = append(p.inbox, m)
		return err
	})
}

// see notes a presence.
func (p *program) see(start *xml.StartElement) {
	presence, err := xmppstanza.NewPresence(*start)
	if err != nil || start.Name.Local != "presence" {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.presences[presence.From.Bare().String()] = string(presence.Type); presence.Type == xmppstanza.AvailablePresence {
		p.presences[presence.From.Bare().String()] = "available"
	}
}

// AwaitPresence waits until a contact's last known presence is of a type:
// "available" or "unavailable".
func (p *program) AwaitPresence(t testing.TB, of, kind string) {
	t.Helper()
	if !lab.Until(deadline, func() bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		return p.presences[of] == kind
	}) {
		t.Fatalf("%s: waited in vain for %s to become %s", p.Account.JID, of, kind)
	}
}

func replay(tokens []xml.Token) xml.TokenReader {
	readers := make([]xml.TokenReader, len(tokens))
	for i, t := range tokens {
		readers[i] = xmlstream.Token(t)
	}
	return xmlstream.MultiReader(readers...)
}

func (p *program) onEvent(e middleware.Event) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.events = append(p.events, e)
}

// Messages returns what came from a bare JID and has a body, in order.
func (p *program) Messages(from string) []received {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(p.inbox), func(m received) bool {
		return m.From.Bare().String() != from || m.Body == "" || m.Type == xmppstanza.ErrorMessage
	})
}

// collected counts the messages of all senders.
func (p *program) collected() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.inbox)
}

// Bodies returns the texts from a bare JID, in order.
func (p *program) Bodies(from string) []string {
	var bodies []string
	for _, m := range p.Messages(from) {
		bodies = append(bodies, m.Body)
	}
	return bodies
}

// AwaitBody waits for a text from a bare JID, and checks that the middleware
// vouches for it.
func (p *program) AwaitBody(t testing.TB, from, body string) {
	t.Helper()
	if !lab.Until(deadline, func() bool { return slices.Contains(p.Bodies(from), body) }) {
		t.Fatalf("%s: waited in vain for %q from %s", p.Account.JID, body, from)
	}
	for _, m := range p.Messages(from) {
		if m.Info == nil || m.Info.Account != from {
			t.Errorf("%s: %q from %s has info %+v", p.Account.JID, m.Body, from, m.Info)
		}
	}
}

// AwaitEvent waits for an event.
func (p *program) AwaitEvent(t testing.TB, what string, match func(middleware.Event) bool) {
	t.Helper()
	if !lab.Until(deadline, func() bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		return slices.ContainsFunc(p.events, match)
	}) {
		t.Fatalf("%s: waited in vain for %s", p.Account.JID, what)
	}
}

// AwaitDevice waits until the program knows a client's device in all its versions
// when it is about to send. An event need not have told it: ejabberd may tell
// nobody of a list that changes while its client comes online.
func (p *program) AwaitDevice(t testing.TB, of *lab.PythonClient, versions []string) {
	t.Helper()
	p.awaitDevice(t, of.Account.JID, of.Device, versions)
}

func (p *program) awaitDevice(t testing.TB, account string, device uint32, versions []string) {
	t.Helper()
	if !lab.Until(deadline, func() bool {
		if err := p.om.Prepare(t.Context(), jid.MustParse(account)); err != nil {
			t.Fatal(err)
		}
		_, devices, err := p.om.Manager().Account(t.Context(), account)
		listed := 0
		for _, d := range devices {
			if d.Active && uint32(d.Peer.Device) == device {
				listed++
			}
		}
		return err == nil && listed == len(versions)
	}) {
		t.Fatalf("%s: waited in vain to learn of device %d of %s", p.Account.JID, device, account)
	}
}

// Send sends a text and waits until it left.
func (p *program) Send(t testing.TB, to, body string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), deadline)
	defer cancel()
	if _, err := p.om.Send(ctx, message(to), text(body)); err != nil {
		t.Fatalf("%s: send to %s: %v", p.Account.JID, to, err)
	}
}

func message(to string) xmppstanza.Message {
	return xmppstanza.Message{To: jid.MustParse(to), Type: xmppstanza.ChatMessage}
}

// text is a body as programs build it by hand.
func text(body string) xml.TokenReader {
	return xmlstream.Wrap(xmlstream.Token(xml.CharData(body)), xml.StartElement{Name: xml.Name{Local: "body"}})
}

func (p *program) report() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := fmt.Sprintf("program %s, device %d, last events:", p.Account.JID, p.Device)
	for _, e := range p.events[max(0, len(p.events)-60):] {
		s += fmt.Sprintf("\n%v account=%s device=%d version=%v id=%s err=%v", e.Kind, e.Account, e.Device, e.Version, e.ID, e.Err)
	}
	s += fmt.Sprintf("\n%d messages, the last:", len(p.inbox))
	for _, m := range p.inbox[max(0, len(p.inbox)-20):] {
		s += fmt.Sprintf("\nmessage from %s: %q", m.From, m.Body)
	}
	return s
}
