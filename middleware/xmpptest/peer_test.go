package xmpptest

import (
	"context"
	"crypto/sha1"
	"encoding/base64"
	"encoding/xml"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"mellium.im/xmpp/jid"
)

// patience bounds every wait of these tests; it is never reached unless something is wrong.
const patience = 60 * time.Second

// peer is a client that speaks XML by hand, so that tests see exactly what the server does.
type peer struct {
	t    testing.TB
	conn net.Conn
	dec  *xml.Decoder
	full string
	bare string
	n    int
}

// newServer starts a server with the accounts of romeo, juliet and tybalt.
func newServer(t testing.TB, options ...Option) *Server {
	t.Helper()
	srv, err := NewServer(options...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = srv.Close() })
	for _, name := range []string{"romeo", "juliet", "tybalt"} {
		if err := srv.AddAccount(name+"@example.net", "pw-"+name); err != nil {
			t.Fatal(err)
		}
	}
	return srv
}

func dial(t testing.TB, srv *Server) *peer {
	t.Helper()
	conn, err := srv.Dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	p := &peer{t: t, conn: conn}
	t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(patience))
	return p
}

// login connects with a full JID, without presence.
func login(t testing.TB, srv *Server, full string) *peer {
	t.Helper()
	p := dial(t, srv)
	j := jid.MustParse(full)
	p.full, p.bare = full, j.Bare().String()
	p.open(j.Domainpart())
	p.send("<auth xmlns='%s' mechanism='PLAIN'>%s</auth>", nsSASL,
		base64.StdEncoding.EncodeToString([]byte("\x00"+j.Localpart()+"\x00pw-"+j.Localpart())))
	if e := p.recv(); !e.is(nsSASL, "success") {
		t.Fatalf("login as %s: %s", full, e.xml())
	}
	p.open(j.Domainpart())
	p.send("<iq type='set' id='b'><bind xmlns='%s'><resource>%s</resource></bind></iq>", nsBind, j.Resourcepart())
	if e := p.recv(); e.get("type") != "result" || e.elements()[0].elements()[0].content() != full {
		t.Fatalf("bind %s: %s", full, e.xml())
	}
	return p
}

// available logs in and sends presence that announces the features.
func available(t testing.TB, srv *Server, full string, features ...string) *peer {
	t.Helper()
	p := login(t, srv, full)
	if len(features) == 0 {
		p.send("<presence/>")
		p.sync()
		return p
	}
	p.announce(features...)
	return p
}

// announce sends presence with capabilities, and answers the server's question about them.
func (p *peer) announce(features ...string) {
	p.t.Helper()
	slices.Sort(features)
	sum := sha1.Sum([]byte("client/bot//<" + strings.Join(features, "<") + "<"))
	ver := base64.StdEncoding.EncodeToString(sum[:])
	p.send("<presence><c xmlns='%s' hash='sha-1' node='urn:test' ver='%s'/></presence>", nsCaps, ver)
	for {
		e := p.recv()
		if !e.is(nsClient, "iq") || e.get("type") != "get" {
			continue
		}
		if q := e.child(nsInfo, "query"); q == nil || q.get("node") != "urn:test#"+ver || e.get("from") != p.bare {
			p.t.Fatalf("question about capabilities: %s", e.xml())
		}
		answer := info("client", "bot", features)
		p.send("<iq type='result' id='%s'>%s</iq>", e.get("id"), answer.xml())
		return
	}
}

func (p *peer) open(to string) {
	p.t.Helper()
	p.send("<?xml version='1.0'?><stream:stream to='%s' version='1.0' xmlns='jabber:client' xmlns:stream='%s'>", to, nsStream)
	p.dec = xml.NewDecoder(p.conn)
	for {
		token, err := p.dec.Token()
		if err != nil {
			p.t.Fatal(err)
		}
		if start, ok := token.(xml.StartElement); ok {
			if start.Name != (xml.Name{Space: nsStream, Local: "stream"}) {
				p.t.Fatalf("stream header: %v", start)
			}
			break
		}
	}
	if e := p.recv(); !e.is(nsStream, "features") {
		p.t.Fatalf("features: %s", e.xml())
	}
}

func (p *peer) send(format string, args ...any) {
	p.t.Helper()
	if _, err := fmt.Fprintf(p.conn, format, args...); err != nil {
		p.t.Fatal(err)
	}
}

// read returns the next element, or the end of the stream as an error.
func (p *peer) read() (*element, error) {
	token, err := nextToken(p.dec)
	if err != nil {
		return nil, err
	}
	start, ok := token.(xml.StartElement)
	if !ok {
		return nil, io.EOF
	}
	return readElement(p.dec, start, 1)
}

func (p *peer) recv() *element {
	p.t.Helper()
	e, err := p.read()
	if err != nil {
		p.t.Fatalf("%s: %v", p.full, err)
	}
	return e
}

// ends expects a stream error, and returns its condition.
func (p *peer) ends() string {
	p.t.Helper()
	for {
		e, err := p.read()
		if err != nil {
			p.t.Fatalf("%s: stream ended without an error: %v", p.full, err)
		}
		if e.is(nsStream, "error") {
			return e.elements()[0].name.Local
		}
	}
}

// sync returns everything that the server had for the peer so far.
func (p *peer) sync() []*element {
	p.t.Helper()
	p.n++
	id := fmt.Sprintf("sync-%d", p.n)
	p.send("<iq type='get' id='%s' to='example.net'><ping xmlns='%s'/></iq>", id, nsPing)
	var found []*element
	for {
		e := p.recv()
		if e.is(nsClient, "iq") && e.get("id") == id {
			return found
		}
		found = append(found, e)
	}
}

// iq sends a request and returns the answer; what came before it is dropped.
func (p *peer) iq(kind, to, payload string) *element {
	p.t.Helper()
	p.n++
	id := fmt.Sprintf("iq-%d", p.n)
	address := ""
	if to != "" {
		address = "to='" + to + "'"
	}
	p.send("<iq type='%s' id='%s' %s>%s</iq>", kind, id, address, payload)
	for {
		if e := p.recv(); e.is(nsClient, "iq") && e.get("id") == id && e.get("type") != "get" {
			if e.get("from") != to {
				p.t.Errorf("answer from %q, want %q", e.get("from"), to)
			}
			return e
		}
	}
}

// condition returns the conditions of a stanza's error, joined with spaces; empty for a result.
func condition(e *element) string {
	child := e.child(nsClient, "error")
	if child == nil {
		return ""
	}
	words := []string{child.get("type")}
	for _, c := range child.elements() {
		words = append(words, c.name.Local)
	}
	return strings.Join(words, " ")
}

// briefly describes stanzas: kind, type, sender and the text that they carry at any depth.
func briefly(list []*element) []string {
	var lines []string
	for _, e := range list {
		words := []string{e.name.Local, e.get("type"), e.get("from"), allText(e)}
		words = slices.DeleteFunc(words, func(w string) bool { return w == "" })
		lines = append(lines, strings.Join(words, " "))
	}
	return lines
}

func allText(e *element) string {
	if e.name.Local == "" {
		return e.text
	}
	var b strings.Builder
	for _, c := range e.children {
		b.WriteString(allText(c))
	}
	return b.String()
}

func expect(t testing.TB, what string, got []*element, want ...string) {
	t.Helper()
	if lines := briefly(got); !slices.Equal(lines, want) {
		t.Errorf("%s:\n got %q\nwant %q", what, lines, want)
	}
}

func waiting(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}
