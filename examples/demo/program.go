package main

import (
	"context"
	"encoding/xml"
	"errors"
	"fmt"

	"mellium.im/xmlstream"
	"mellium.im/xmpp"
	"mellium.im/xmpp/jid"
	"mellium.im/xmpp/ping"
	xmppstanza "mellium.im/xmpp/stanza"

	"example.org/omellium/middleware"
	"example.org/omellium/middleware/xmpptest"
	"example.org/omellium/omemo"
	"example.org/omellium/omemo/memstore"
)

const password = "secret"

// message is a chat message as this program reads and writes it. Info is there in
// what was decrypted.
type message struct {
	xmppstanza.Message
	Body string           `xml:"body"`
	Info *middleware.Info `xml:"urn:xmpp:omellium:info:0 info"`
}

// program is a chat program of one account.
type program struct {
	name        string
	addr        jid.JID
	device      omemo.Address
	fingerprint omemo.Fingerprint
	om          *middleware.Middleware
	session     *xmpp.Session
	events      *notebook
	received    chan message // what its user reads
	served      chan error   // how Serve ended
	ctx         context.Context
	cancel      context.CancelFunc
}

// start logs a program in.
func start(ctx context.Context, srv *xmpptest.Server, name string, prefer omemo.Version) (*program, error) {
	addr, err := jid.Parse(name + "@example.net")
	if err != nil {
		return nil, err
	}
	if err := srv.AddAccount(addr.String(), password); err != nil {
		return nil, err
	}
	p := &program{
		name: name, addr: addr, events: newNotebook(),
		received: make(chan message), served: make(chan error, 1),
	}
	p.ctx, p.cancel = context.WithCancel(ctx)
	if err := p.connect(ctx, srv, prefer); err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", name, err), p.close())
	}
	return p, nil
}

// connect holds the three statements. A program that may not forget its keys
// opens sqlite in the place of memstore.
func (p *program) connect(ctx context.Context, srv *xmpptest.Server, prefer omemo.Version) error {
	store := memstore.New(p.addr.String()) // 1
	om, err := middleware.New(ctx, middleware.Config{
		Store:   store,
		Prefer:  func(jid.JID) omemo.Version { return prefer },
		OnEvent: p.events.add,
	}) // 2
	if err != nil {
		return err
	}
	p.om = om

	session, err := srv.Client(ctx, p.addr.String(), password)
	if err != nil {
		return err
	}
	session, err = om.Wrap(ctx, session) // 3
	if err != nil {
		return err
	}
	p.session = session
	go func() { p.served <- session.Serve(xmpp.HandlerFunc(p.handle)) }()

	if err := session.Send(ctx, xmppstanza.Presence{}.Wrap(nil)); err != nil {
		return err
	}
	// Servers work in order: one that answers this has seen the presence.
	if err := ping.Send(ctx, session, session.RemoteAddr()); err != nil {
		return err
	}
	if p.device, err = om.Manager().Device(ctx); err != nil {
		return err
	}
	p.fingerprint, err = om.Manager().Fingerprint(ctx)
	return err
}

// say sends a chat message.
func (p *program) say(ctx context.Context, to *program, text string) error {
	return p.session.Encode(ctx, message{
		Message: xmppstanza.Message{To: to.addr, Type: xmppstanza.ChatMessage},
		Body:    text,
	})
}

// handle takes what arrives.
func (p *program) handle(t xmlstream.TokenReadEncoder, start *xml.StartElement) error {
	if start.Name.Local != "message" {
		return nil
	}
	var m message
	d := xml.NewTokenDecoder(xmlstream.MultiReader(xmlstream.Token(*start), t))
	if err := d.Decode(&m); err != nil {
		return err
	}
	if m.Body == "" {
		return nil
	}
	select {
	case p.received <- m:
	case <-p.ctx.Done():
	}
	return nil
}

// read waits for the next message.
func (p *program) read(ctx context.Context) (message, error) {
	select {
	case m := <-p.received:
		return m, nil
	case <-ctx.Done():
		return message{}, fmt.Errorf("%s: waiting for a message: %w", p.name, ctx.Err())
	}
}

// with returns the session in which messages to another program are encrypted.
func (p *program) with(ctx context.Context, v omemo.Version, other *program) (*omemo.Session, error) {
	held, err := p.om.Manager().Sessions(ctx, omemo.Peer{Version: v, Address: other.device})
	if err != nil {
		return nil, err
	}
	if len(held) == 0 || held[0].Archived() {
		return nil, fmt.Errorf("%s has no %s session with %s", p.name, v, other.name)
	}
	return held[0], nil
}

// close logs the program out and waits until nothing of it runs.
func (p *program) close() error {
	p.cancel()
	var err error
	if p.session != nil {
		err = errors.Join(p.session.Close(), <-p.served)
	}
	if p.om != nil {
		err = errors.Join(err, p.om.Close())
	}
	return err
}
