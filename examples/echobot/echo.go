package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/xml"
	"fmt"
	"log/slog"
	"net"
	"os"
	"time"

	"mellium.im/sasl"
	"mellium.im/xmlstream"
	"mellium.im/xmpp"
	"mellium.im/xmpp/dial"
	"mellium.im/xmpp/jid"
	xmppstanza "mellium.im/xmpp/stanza"

	"example.org/omellium/middleware"
)

// connectTimeout bounds the way from dialling to being ready.
const connectTimeout = time.Minute

type bot struct {
	log      *slog.Logger
	addr     jid.JID
	password string
	server   string // host:port, or empty
	tls      *tls.Config
	rooms    []jid.JID // with the nick of the bot
	om       *middleware.Middleware
}

// messageBody is a message with a body.
type messageBody struct {
	xmppstanza.Message
	Body string `xml:"body"`
}

// received is a message as the bot reads it.
type received struct {
	xmppstanza.Message
	Body  string           `xml:"body"`
	Info  *middleware.Info `xml:"urn:xmpp:omellium:info:0 info"`
	Delay *struct{}        `xml:"urn:xmpp:delay delay"`
}

// echo serves one connection until it breaks or ctx ends.
func (b *bot) echo(ctx context.Context) error {
	connecting, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	conn, err := b.dial(connecting)
	if err != nil {
		return fmt.Errorf("dial: %w", err)
	}
	defer conn.Close()
	// mellium sets a deadline for a moment when the context ends, and whoever waits
	// for a socket misses it: a server that says nothing would hold us for ever.
	stopClosing := context.AfterFunc(connecting, func() { conn.Close() })
	session, err := xmpp.NewClientSession(connecting, b.addr, conn,
		xmpp.BindResource(),
		xmpp.StartTLS(b.tls),
		xmpp.SASL("", b.password, sasl.ScramSha256, sasl.ScramSha1, sasl.Plain),
	)
	stopClosing()
	if err != nil {
		return fmt.Errorf("log in: %w", err)
	}

	// The third statement: from here on all messages are encrypted.
	session, err = b.om.Wrap(connecting, session)
	if err != nil {
		return fmt.Errorf("wrap: %w", err)
	}

	// What was answered already still leaves before the stream ends.
	closed := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(closed)
		if err := session.Close(); err != nil {
			b.log.Warn("close", "err", err)
		}
	})
	defer func() {
		if !stop() {
			<-closed
		}
	}()

	// The server delivers messages to those who are present.
	if err := session.Send(connecting, xmppstanza.Presence{Type: xmppstanza.AvailablePresence}.Wrap(nil)); err != nil {
		return fmt.Errorf("presence: %w", err)
	}
	if err := b.introduce(connecting, session.LocalAddr()); err != nil {
		return err
	}
	for _, room := range b.rooms {
		if err := join(connecting, session, room); err != nil {
			return fmt.Errorf("join %s: %w", room, err)
		}
	}
	return session.Serve(xmpp.HandlerFunc(b.handle))
}

// join enters a room, as any program does it (XEP-0045, section 7.2). There is no
// more to it: who is a member is the middleware's business.
func join(ctx context.Context, session *xmpp.Session, room jid.JID) error {
	x := xmlstream.Wrap(nil, xml.StartElement{Name: xml.Name{Space: "http://jabber.org/protocol/muc", Local: "x"}})
	return session.Send(ctx, xmppstanza.Presence{To: room}.Wrap(x))
}

// handle answers a message with its text.
func (b *bot) handle(t xmlstream.TokenReadEncoder, start *xml.StartElement) error {
	if start.Name.Local != "message" {
		return nil
	}
	var msg received
	d := xml.NewTokenDecoder(xmlstream.MultiReader(xmlstream.Token(*start), t))
	if err := d.Decode(&msg); err != nil {
		b.log.Warn("message not understood", "err", err)
		return nil
	}
	if msg.Body == "" || msg.Type == xmppstanza.GroupChatMessage && !b.answerable(&msg) ||
		msg.Type != xmppstanza.ChatMessage && msg.Type != xmppstanza.GroupChatMessage {
		return nil
	}
	reply := messageBody{
		Message: xmppstanza.Message{To: msg.From.Bare(), Type: msg.Type},
		Body:    msg.Body,
	}
	if b.inRoom(msg.From) && msg.Type == xmppstanza.ChatMessage {
		reply.To = msg.From // to this occupant alone
	}
	if err := t.Encode(reply); err != nil {
		b.log.Warn("reply", "err", err)
	}
	return nil
}

// answerable tells what somebody says in a room now from what the bot itself has
// said, with whatever device, and from what was said before it came.
func (b *bot) answerable(msg *received) bool {
	if msg.Delay != nil {
		return false
	}
	if msg.Info != nil {
		return msg.Info.Account != b.addr.Bare().String()
	}
	for _, room := range b.rooms {
		if msg.From.Equal(room) {
			return false
		}
	}
	return true
}

func (b *bot) inRoom(from jid.JID) bool {
	for _, room := range b.rooms {
		if from.Bare().Equal(room.Bare()) {
			return true
		}
	}
	return false
}

// introduce logs what people compare when they verify the bot.
func (b *bot) introduce(ctx context.Context, addr jid.JID) error {
	device, err := b.om.Manager().Device(ctx)
	if err != nil {
		return err
	}
	fingerprint, err := b.om.Manager().Fingerprint(ctx)
	if err != nil {
		return err
	}
	b.log.Info("online", "jid", addr.String(), "device", uint32(device.Device), "fingerprint", fingerprint.String())
	return nil
}

func (b *bot) dial(ctx context.Context) (net.Conn, error) {
	if b.server != "" {
		return new(net.Dialer).DialContext(ctx, "tcp", b.server)
	}
	d := dial.Dialer{TLSConfig: b.tls}
	return d.Dial(ctx, "tcp", b.addr)
}

// tlsConfig trusts the authorities in a PEM file, or without one the system's.
func tlsConfig(domain, file string) (*tls.Config, error) {
	config := &tls.Config{ServerName: domain, MinVersion: tls.VersionTLS12}
	if file == "" {
		return config, nil
	}
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	config.RootCAs = x509.NewCertPool()
	if !config.RootCAs.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("no certificate in %s", file)
	}
	return config, nil
}
