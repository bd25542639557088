package crash

import (
	"context"
	"crypto/rand"
	"encoding/xml"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"

	"mellium.im/sasl"
	"mellium.im/xmlstream"
	"mellium.im/xmpp"
	"mellium.im/xmpp/jid"
	xmppstanza "mellium.im/xmpp/stanza"

	"example.org/omellium/middleware"
	"example.org/omellium/middleware/internal/logscan"
	"example.org/omellium/omemo"
)

const (
	romeo    = "romeo@example.net"
	juliet   = "juliet@example.net"
	hall     = "hall@rooms.example.net"
	password = "secret"
)

// received is a message as a handler reads it.
type received struct {
	xmppstanza.Message
	Body string           `xml:"body"`
	Info *middleware.Info `xml:"urn:xmpp:omellium:info:0 info"`
	// Archived is the message in a result of an archive.
	Archived *received `xml:"result>forwarded>message"`
}

// program is a program on mellium, with the three statements in it, on a
// machine.
type program struct {
	account string
	device  string // resource; empty: the server's choice
	version omemo.Version
	open    func(ctx context.Context) (omemo.Store, error)
	file    string // of the store, if it has one
	anchors string // directory of its anchors
	dial    func(ctx context.Context) (net.Conn, error)
	receive func(p *program, c *middleware.Config) // nil: handlers
	tell    func(text string)                      // told of what a handler reads; may be nil
	catchUp bool                                   // asks the archive after each login
	catches bool                                   // the middleware does
	answers bool                                   // its handler answers, and waits for that
	nick    string                                 // in the room; empty: it is not there
	carbons bool                                   // it asks for carbons
	// unwatched: what it logs is not searched, for there are many like it.
	unwatched bool

	m       *machine
	store   omemo.Store
	om      *middleware.Middleware
	session *xmpp.Session
	served  chan struct{}

	mu       sync.Mutex
	received []received
	events   []middleware.Event
	attempts map[string]int    // by text: how often it was given to Send, or written
	accepted map[string]bool   // by text: Send has returned without an error
	ids      map[string]string // text → id of the message that was accepted
	waiting  map[string]string // id → text that was written and not heard of again
}

func newProgram(account string, v omemo.Version, dial func(context.Context) (net.Conn, error)) *program {
	return &program{
		account: account, version: v, dial: dial, m: new(machine),
		attempts: make(map[string]int), accepted: make(map[string]bool), waiting: make(map[string]string), ids: make(map[string]string),
	}
}

// live starts the program: store, middleware, connection.
func (p *program) live(ctx context.Context) error {
	var err error
	if p.store, err = p.open(ctx); err != nil {
		return err
	}
	c := middleware.Config{
		Store:           &disk{p.store, p.m},
		Prefer:          func(jid.JID) omemo.Version { return p.version },
		AnswerStrangers: true,
		CatchUp:         p.catches,
		OnEvent:         p.onEvent,
	}
	if p.receive != nil {
		p.receive(p, &c)
	}
	if !p.unwatched {
		logscan.Watch(&c)
	}
	if p.om, err = middleware.New(ctx, c); err != nil {
		return err
	}
	return p.connect(ctx)
}

// connect logs in and puts the middleware before the session.
func (p *program) connect(ctx context.Context) error {
	raw, err := p.dial(ctx)
	if err != nil {
		return err
	}
	address, err := jid.MustParse(p.account).WithResource(p.device)
	if err != nil {
		return err
	}
	session, err := login(ctx, address, p.m.wire(raw))
	if err != nil {
		raw.Close()
		return err
	}
	if p.session, err = p.om.Wrap(ctx, session); err != nil {
		raw.Close()
		return err
	}
	p.served = make(chan struct{})
	go func(session *xmpp.Session, served chan struct{}) {
		defer close(served)
		_ = session.Serve(xmpp.HandlerFunc(p.handle)) // ends with the connection, as it may
	}(p.session, p.served)
	if p.carbons {
		enable := xmlstream.Wrap(nil, xml.StartElement{Name: xml.Name{Space: "urn:xmpp:carbons:2", Local: "enable"}})
		if err := p.session.Send(ctx, xmppstanza.IQ{ID: "carbons", Type: xmppstanza.SetIQ}.Wrap(enable)); err != nil {
			return err
		}
	}
	if err := p.session.Send(ctx, xmppstanza.Presence{}.Wrap(nil)); err != nil {
		return err
	}
	if p.nick != "" {
		x := xmlstream.Wrap(nil, xml.StartElement{Name: xml.Name{Space: "http://jabber.org/protocol/muc", Local: "x"}})
		if err := p.session.Send(ctx, xmppstanza.Presence{To: jid.MustParse(hall + "/" + p.nick)}.Wrap(x)); err != nil {
			return err
		}
	}
	if p.catchUp {
		iq := xmppstanza.IQ{ID: "archive", Type: xmppstanza.SetIQ}
		query := xmlstream.Wrap(nil, xml.StartElement{
			Name: xml.Name{Space: nsArchive, Local: "query"},
			Attr: []xml.Attr{{Name: xml.Name{Local: "queryid"}, Value: "all"}},
		})
		return p.session.Send(ctx, iq.Wrap(query))
	}
	return nil
}

func login(ctx context.Context, j jid.JID, conn net.Conn) (*xmpp.Session, error) {
	features := []xmpp.StreamFeature{xmpp.SASL("", password, sasl.Plain), xmpp.BindResource()}
	// mellium sets a deadline for a moment when the context ends, which can be missed.
	stopClosing := context.AfterFunc(ctx, func() { conn.Close() })
	defer stopClosing()
	return xmpp.NewSession(ctx, j.Domain(), j, conn, xmpp.Secure,
		xmpp.NewNegotiator(func(*xmpp.Session, *xmpp.StreamConfig) xmpp.StreamConfig {
			return xmpp.StreamConfig{Features: features}
		}))
}

// die ends the program, and all that it had in memory is gone.
func (p *program) die() error {
	p.m.hangUp()
	var failures []error
	if p.om != nil {
		// It may fail: what it had left to write is not written any more.
		_ = p.om.Close()
	}
	if p.served != nil {
		<-p.served
	}
	if p.store != nil {
		failures = append(failures, p.store.Close())
	}
	p.om, p.session, p.served, p.store = nil, nil, nil, nil
	clear(p.waiting)
	return errors.Join(failures...)
}

// quit ends the program in order.
func (p *program) quit() error {
	if err := p.om.Close(); err != nil {
		return err
	}
	return p.die()
}

func (p *program) onEvent(e middleware.Event) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.events = append(p.events, e)
	if text, ok := p.waiting[e.ID]; ok && (e.Kind == middleware.Accepted || e.Kind == middleware.SendFailed) {
		p.accepted[text] = e.Kind == middleware.Accepted
		delete(p.waiting, e.ID)
	}
}

func (p *program) handle(r xmlstream.TokenReadEncoder, start *xml.StartElement) error {
	if start.Name.Local != "message" {
		return nil
	}
	var m received
	if err := xml.NewTokenDecoder(xmlstream.MultiReader(xmlstream.Token(*start), r)).Decode(&m); err != nil {
		return err
	}
	if m.Archived != nil {
		m = *m.Archived
	}
	if m.Type == xmppstanza.ErrorMessage || m.Info == nil {
		return nil
	}
	p.got(m)
	if p.answers {
		// Its own Send, not the session's: when that returns, the answer is committed,
		// and only then is the message acknowledged.
		return p.trySend(context.Background(), m.From.Bare().String(), answerTo(m.Body))
	}
	return nil
}

func answerTo(text string) string { return "answer to " + text }

func (p *program) got(m received) {
	p.mu.Lock()
	p.received = append(p.received, m)
	p.mu.Unlock()
	if p.tell != nil {
		p.tell(m.Body)
	}
}

// trySend sends a text with Send.
func (p *program) trySend(ctx context.Context, to, text string) error {
	p.mu.Lock()
	p.attempts[text]++
	p.mu.Unlock()
	message := xmppstanza.Message{To: jid.MustParse(to), Type: kindOf(to)}
	result, err := p.om.Send(ctx, message, body(text))
	p.mu.Lock()
	defer p.mu.Unlock()
	if err == nil {
		p.accepted[text], p.ids[text] = true, result.ID
	}
	return err
}

// kindOf returns the type of messages to an address.
func kindOf(to string) xmppstanza.MessageType {
	if to == hall {
		return xmppstanza.GroupChatMessage
	}
	return xmppstanza.ChatMessage
}

func body(text string) xml.TokenReader {
	return xmlstream.Wrap(xmlstream.Token(xml.CharData(text)), xml.StartElement{Name: xml.Name{Local: "body"}})
}

// say sends texts that were not accepted yet, as a program does that keeps a
// list of them.
func (p *program) say(ctx context.Context, to string, texts ...string) error {
	for _, text := range texts {
		p.mu.Lock()
		done := p.accepted[text]
		p.mu.Unlock()
		if done {
			continue
		}
		if err := p.trySend(ctx, to, text); err != nil {
			return err
		}
	}
	return nil
}

// write is say for a program that writes to the session.
func (p *program) write(ctx context.Context, to string, texts ...string) {
	for _, text := range texts {
		p.mu.Lock()
		done := p.accepted[text]
		id := rand.Text()
		if !done {
			p.attempts[text]++
			p.waiting[id] = text
		}
		p.mu.Unlock()
		if done {
			continue
		}
		message := xmppstanza.Message{ID: id, To: jid.MustParse(to), Type: kindOf(to)}
		if err := p.session.Send(ctx, message.Wrap(body(text))); err != nil {
			p.mu.Lock()
			delete(p.waiting, id)
			p.mu.Unlock()
			return
		}
	}
}

// unheardOf returns the texts that were written and of which nothing was heard.
func (p *program) unheardOf() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Collect(maps.Values(p.waiting))
}

// heard returns how often a text was delivered, and under how many event ids.
func (p *program) heard(text string) (times, events int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	ids := make(map[string]bool)
	for _, m := range p.received {
		if m.Body == text {
			times++
			ids[m.Info.Event] = true
		}
	}
	return times, len(ids)
}

// order returns the texts that were delivered, each where it was delivered first.
func (p *program) order() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	var order []string
	for _, m := range p.received {
		if !slices.Contains(order, m.Body) {
			order = append(order, m.Body)
		}
	}
	return order
}

// complaints returns the events that must not come up whatever happens to the
// program.
func (p *program) complaints() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	var found []string
	for _, e := range p.events {
		switch e.Kind {
		case middleware.Undecryptable, middleware.NotForUs, middleware.PlaintextReceived, middleware.Refused,
			middleware.DeadLetter, middleware.IdentityChanged, middleware.OwnDeviceRemoved, middleware.StateRolledBack:
			found = append(found, fmt.Sprintf("%v %s/%d: %v", e.Kind, e.Account, e.Device, e.Err))
		}
	}
	return found
}

// left says what the program still has to do.
func (p *program) left(ctx context.Context) (string, error) {
	var left []string
	note := func(what string, n int) {
		if n > 0 {
			left = append(left, fmt.Sprintf("%d rows of the %s", n, what))
		}
	}
	m := p.om.Manager()
	outbox, err := m.Outbox(ctx, 0, 1000)
	if err != nil {
		return "", err
	}
	note("outbox", len(outbox))
	inbox, err := m.Inbox(ctx, 0, 1000)
	if err != nil {
		return "", err
	}
	note("inbox", len(inbox))
	echoes, err := p.store.Echoes(ctx)
	if err != nil {
		return "", err
	}
	note("echoes", len(echoes))
	journal, err := m.Kept(ctx, omemo.Address{})
	if err != nil {
		return "", err
	}
	note("journal", len(journal))
	owed, err := m.Owed(ctx)
	if err != nil {
		return "", err
	}
	for _, row := range owed {
		left = append(left, fmt.Sprintf("owed work of kind %d for %v since %v", row.Kind, row.Peer, row.Since))
	}
	return strings.Join(left, ", "), nil
}

// ok fails a test.
func ok(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
