package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/xml"
	"fmt"
	"maps"
	"net"
	"net/http"
	"os"
	"sync"
	"time"

	tea "github.com/charmbracelet/bubbletea"
	"mellium.im/sasl"
	"mellium.im/xmlstream"
	"mellium.im/xmpp"
	"mellium.im/xmpp/carbons"
	"mellium.im/xmpp/dial"
	"mellium.im/xmpp/jid"
	"mellium.im/xmpp/roster"
	"mellium.im/xmpp/stanza"

	"example.org/omellium/middleware"
	"example.org/omellium/middleware/media"
	"example.org/omellium/omemo"
)

// client is the network side. What happens goes to the screen as messages.
type client struct {
	addr                 jid.JID
	password, server, ca string
	om                   *middleware.Middleware
	show                 func(tea.Msg)

	mu      sync.Mutex
	session *xmpp.Session
	web     *http.Client       // for files
	rooms   map[string]jid.JID // joined, with our nick
}

// Messages to the screen.
type (
	eventMsg    middleware.Event
	textMsg     incoming
	statusMsg   string // of the connection
	noteMsg     struct{ chat, text string }
	chatMsg     string // a contact
	questionMsg struct {
		question middleware.TrustQuestion
		answer   chan<- []omemo.Decision
	}
	withdrawnMsg struct{ answer chan<- []omemo.Decision }
)

// incoming is a message that a handler gets, or one that was sent.
type incoming struct {
	stanza.Message
	Body string           `xml:"body"`
	Info *middleware.Info `xml:"urn:xmpp:omellium:info:0 info"`

	Private *struct{} `xml:"http://jabber.org/protocol/muc#user x"` // through a room

	Sent     *carbon `xml:"urn:xmpp:carbons:2 sent"`
	Received *carbon `xml:"urn:xmpp:carbons:2 received"`
}

// carbon is the copy of a message of another device.
type carbon struct {
	Forwarded struct {
		Message incoming `xml:"jabber:client message"`
	} `xml:"urn:xmpp:forward:0 forwarded"`
}

// stayOnline connects again and again until ctx ends.
func (c *client) stayOnline(ctx context.Context) {
	for ctx.Err() == nil {
		c.show(statusMsg("connecting"))
		err := c.connect(ctx)
		c.show(statusMsg(fmt.Sprintf("offline: %v", err)))
		select {
		case <-time.After(5 * time.Second):
		case <-ctx.Done():
		}
	}
}

func (c *client) connect(ctx context.Context) error {
	limited, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	config := &tls.Config{ServerName: c.addr.Domainpart(), MinVersion: tls.VersionTLS12}
	if c.ca != "" {
		pem, err := os.ReadFile(c.ca)
		if err != nil {
			return err
		}
		config.RootCAs = x509.NewCertPool()
		config.RootCAs.AppendCertsFromPEM(pem)
	}
	c.mu.Lock()
	c.web = &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: config.RootCAs, MinVersion: tls.VersionTLS12}}}
	c.mu.Unlock()
	var conn net.Conn
	var err error
	if c.server != "" {
		conn, err = new(net.Dialer).DialContext(limited, "tcp", c.server)
	} else {
		conn, err = (&dial.Dialer{TLSConfig: config}).Dial(limited, "tcp", c.addr)
	}
	if err != nil {
		return err
	}
	defer conn.Close()
	// mellium sets a deadline for a moment when the context ends, and whoever waits
	// for a socket misses it: a server that says nothing would hold us for ever.
	stopClosing := context.AfterFunc(limited, func() { conn.Close() })
	session, err := xmpp.NewClientSession(limited, c.addr, conn, xmpp.StartTLS(config),
		xmpp.SASL("", c.password, sasl.ScramSha256, sasl.ScramSha1), xmpp.BindResource())
	stopClosing()
	if err != nil {
		return err
	}
	if session, err = c.om.Wrap(limited, session); err != nil {
		return err
	}
	served := make(chan error, 1)
	go func() { served <- session.Serve(xmpp.HandlerFunc(c.handle)) }()
	if err := c.begin(limited, session); err != nil {
		return err
	}
	c.show(statusMsg("online"))
	return <-served
}

// begin does what clients do first with a session that is served.
func (c *client) begin(ctx context.Context, session *xmpp.Session) error {
	c.mu.Lock()
	c.session = session
	rooms := maps.Clone(c.rooms) // the person may join others meanwhile
	c.mu.Unlock()
	if err := carbons.Enable(ctx, session); err != nil {
		c.show(noteMsg{text: "no carbons: " + err.Error()})
	}
	contacts := roster.Fetch(ctx, session)
	for contacts.Next() {
		c.show(chatMsg(contacts.Item().JID.Bare().String()))
	}
	if err := contacts.Close(); err != nil {
		return err
	}
	if err := session.Send(ctx, stanza.Presence{}.Wrap(nil)); err != nil {
		return err
	}
	for _, nick := range rooms {
		if err := c.join(ctx, nick); err != nil {
			return err
		}
	}
	return nil
}

func (c *client) handle(t xmlstream.TokenReadEncoder, start *xml.StartElement) error {
	if start.Name.Local != "message" {
		return nil
	}
	var m incoming
	if err := xml.NewTokenDecoder(xmlstream.MultiReader(xmlstream.Token(*start), t)).Decode(&m); err != nil {
		return err
	}
	for _, copied := range []*carbon{m.Sent, m.Received} {
		if copied != nil {
			m = copied.Forwarded.Message
		}
	}
	if m.Body != "" {
		c.show(textMsg(m))
	}
	return nil
}

// ask puts a question about undecided devices to the person.
func (c *client) ask(ctx context.Context, q middleware.TrustQuestion) ([]omemo.Decision, error) {
	answer := make(chan []omemo.Decision, 1)
	c.show(questionMsg{q, answer})
	select {
	case decisions := <-answer:
		return decisions, nil
	case <-ctx.Done():
		c.show(withdrawnMsg{answer})
		return nil, ctx.Err()
	}
}

func (c *client) online() (*xmpp.Session, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.session == nil {
		return nil, middleware.ErrOffline
	}
	return c.session, nil
}

func (c *client) join(ctx context.Context, nick jid.JID) error {
	session, err := c.online()
	if err != nil {
		return err
	}
	c.mu.Lock()
	c.rooms[nick.Bare().String()] = nick
	c.mu.Unlock()
	x := xmlstream.Wrap(nil, xml.StartElement{Name: xml.Name{Space: "http://jabber.org/protocol/muc", Local: "x"}})
	return session.Send(ctx, stanza.Presence{To: nick}.Wrap(x))
}

// send sends a text, or a file if path is set.
func (c *client) send(ctx context.Context, to jid.JID, room bool, text, path string) (line, error) {
	m := stanza.Message{To: to, Type: stanza.ChatMessage}
	if room {
		m.Type = stanza.GroupChatMessage
	}
	content := xmlstream.Wrap(xmlstream.Token(xml.CharData(text)), xml.StartElement{Name: xml.Name{Local: "body"}})
	if path != "" {
		session, err := c.online()
		if err != nil {
			return line{}, err
		}
		c.mu.Lock()
		uploader := &media.Uploader{Session: session, Client: c.web}
		c.mu.Unlock()
		file, err := uploader.UploadFile(ctx, path)
		if err != nil {
			return line{}, err
		}
		content, text = file.TokenReader(), "file "+path
	}
	result, err := c.om.Send(ctx, m, content)
	if err != nil {
		return line{}, err
	}
	l := line{who: "me", text: text, own: true, encrypted: !result.Plain, trust: omemo.Verified}
	for _, d := range result.Devices { // as good as the least of the keys that it was encrypted to
		if d.Err == nil && d.Trust != omemo.Verified {
			l.trust = omemo.TrustedBlindly
		}
	}
	return l, nil
}
