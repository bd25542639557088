package front

import (
	"context"
	"crypto/tls"
	"encoding/xml"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"mellium.im/xmlstream"
	"mellium.im/xmpp"
	"mellium.im/xmpp/disco"
	"mellium.im/xmpp/jid"

	"example.org/omellium/stanza"
)

const (
	local  = "juliet@example.net/balcony"
	remote = "example.net"
)

// server is the other side of the wire: it keeps what it receives and writes
// what it is told.
type server struct {
	conn net.Conn

	mu       sync.Mutex
	received []*stanza.Element
	ended    error // io.EOF after the client's end tag
	gone     chan struct{}
}

// read keeps what arrives until the stream ends, and closes its own stream then.
func (s *server) read(d *xml.Decoder) {
	defer close(s.gone)
	for {
		tok, err := d.Token()
		if start, ok := tok.(xml.StartElement); ok && err == nil {
			var e *stanza.Element
			if e, err = stanza.ReadElement(d, start, stanza.Limits{Depth: 1000, Tokens: 1 << 30, Bytes: 1 << 30}); err == nil {
				s.mu.Lock()
				s.received = append(s.received, e)
				s.mu.Unlock()
			}
		}
		if _, ok := tok.(xml.EndElement); ok {
			err = io.EOF
		}
		if err != nil {
			s.mu.Lock()
			s.ended = err
			s.mu.Unlock()
			return
		}
	}
}

func (s *server) write(t *testing.T, raw string) {
	t.Helper()
	if _, err := io.WriteString(s.conn, raw); err != nil {
		t.Errorf("server: %v", err)
	}
}

// got returns what was received, as XML.
func (s *server) got() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []string
	for _, e := range s.received {
		all = append(all, string(e.AppendXML(nil)))
	}
	return all
}

func (s *server) end() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ended
}

// stated is a connection that has a TLS state.
type stated struct{ net.Conn }

func (stated) ConnectionState() tls.ConnectionState {
	return tls.ConnectionState{Version: tls.VersionTLS13, ServerName: remote}
}

const features = `<c xmlns="http://jabber.org/protocol/caps" hash="sha-1" node="urn:example" ver="dmVy"/>` +
	`<sm xmlns="urn:xmpp:sm:3"/><own xmlns="urn:example:own">value</own><unknown xmlns="urn:example:unknown"/>`

// ownFeature stands for a feature of the application.
var ownFeature = xmpp.StreamFeature{
	Name: xml.Name{Space: "urn:example:own", Local: "own"},
	Parse: func(_ context.Context, d *xml.Decoder, start *xml.StartElement) (bool, any, error) {
		var data string
		err := d.DecodeElement(&data, start)
		return false, data, err
	},
}

// dial makes a real session and the server side of it.
func dial(t *testing.T) (*xmpp.Session, *server) {
	t.Helper()
	client, conn := net.Pipe()
	s := &server{conn: conn, gone: make(chan struct{})}
	go func() {
		d := xml.NewDecoder(conn)
		for {
			tok, err := d.Token()
			if err != nil {
				t.Errorf("server: %v", err)
				close(s.gone)
				return
			}
			if _, ok := tok.(xml.StartElement); ok {
				break
			}
		}
		s.write(t, `<stream:stream xmlns="jabber:client" xmlns:stream="http://etherx.jabber.org/streams" id="7" version="1.0" from="`+remote+`">`+
			`<stream:features>`+features+`</stream:features>`)
		s.read(d)
	}()
	negotiator := xmpp.NewNegotiator(func(*xmpp.Session, *xmpp.StreamConfig) xmpp.StreamConfig {
		return xmpp.StreamConfig{Features: []xmpp.StreamFeature{disco.StreamFeature(), ownFeature}}
	})
	// Not t.Context(): it ends before the cleanup that closes the session.
	real, err := xmpp.NewSession(context.Background(), jid.MustParse(remote), jid.MustParse(local), stated{client}, xmpp.Secure|xmpp.Authn, negotiator)
	if err != nil {
		t.Fatal(err)
	}
	return real, s
}

// relay is a Handler that passes everything on, unless told otherwise.
type relay struct {
	f        *Front
	outgoing func(ctx context.Context, e *stanza.Element)
	incoming func(ctx context.Context, e *stanza.Element)

	mu      sync.Mutex
	refused []string
	sent    int
	ended   []error
}

func (r *relay) Outgoing(ctx context.Context, e *stanza.Element) {
	r.mu.Lock()
	r.sent++
	r.mu.Unlock()
	if r.outgoing != nil {
		r.outgoing(ctx, e)
		return
	}
	// An error means that the wire has ended, which Ended tells as well.
	_ = r.f.SendElement(ctx, e)
}

func (r *relay) Incoming(ctx context.Context, e *stanza.Element) {
	if r.incoming != nil {
		r.incoming(ctx, e)
		return
	}
	r.f.Deliver(e.AppendXML(nil), nil)
}

func (r *relay) Refused(d Direction, start xml.StartElement, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.refused = append(r.refused, fmt.Sprintf("%d %s: %v", d, start.Name.Local, err))
}

func (r *relay) Ended(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ended = append(r.ended, err)
}

func (r *relay) refusals() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]string(nil), r.refused...)
}

func (r *relay) end() []error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]error(nil), r.ended...)
}

// fixture is a front between a server and an application.
type fixture struct {
	*relay
	real    *xmpp.Session
	server  *server
	session *xmpp.Session
	served  chan error
}

// run calls test with a front, in a bubble of synctest: test may wait for all
// goroutines to block, and none may be left when it ends.
func run(t *testing.T, c Config, test func(t *testing.T, x *fixture)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		x := &fixture{relay: &relay{}, served: make(chan error, 1)}
		x.real, x.server = dial(t)
		c.Real, c.Handler = x.real, x.relay
		if c.Limits == (stanza.Limits{}) {
			c.Limits = stanza.DefaultLimits
		}
		f, err := New(t.Context(), c)
		if err != nil {
			t.Fatal(err)
		}
		x.f, x.session = f, f.Session()
		f.Start()
		defer func() {
			go func() { // the server closes its stream when the client has
				<-x.server.gone
				io.WriteString(x.server.conn, closing)
				x.server.conn.Close()
			}()
			f.Close()
			synctest.Wait()
			if ended := x.end(); len(ended) != 1 {
				t.Errorf("Ended was called %d times: %v", len(ended), ended)
			}
		}()
		test(t, x)
	})
}

// serve runs the application's handler.
func (x *fixture) serve(h func(t xmlstream.TokenReadEncoder, start *xml.StartElement) error) {
	go func() { x.served <- x.session.Serve(xmpp.HandlerFunc(h)) }()
}

// tokens reads XML that stands on its own.
func tokens(raw string) xml.TokenReader { return xml.NewDecoder(strings.NewReader(raw)) }

// message is a message as the application sends it.
func message(id, body string) xml.TokenReader {
	e := stanza.NewElement("jabber:client", "message", stanza.NewText("jabber:client", "body", body))
	return e.SetAttribute("id", id).SetAttribute("to", "romeo@example.org").TokenReader()
}
