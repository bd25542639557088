package xmpptest

import (
	"bytes"
	"crypto/subtle"
	"crypto/tls"
	"encoding/base64"
	"encoding/xml"
	"fmt"
	"strings"
	"time"

	"mellium.im/xmpp/jid"
)

const (
	nsSASL = "urn:ietf:params:xml:ns:xmpp-sasl"
	nsTLS  = "urn:ietf:params:xml:ns:xmpp-tls"
	nsBind = "urn:ietf:params:xml:ns:xmpp-bind"

	// maxLogins is how often a client may fail to authenticate on one connection.
	maxLogins = 3
)

// negotiate leads the stream to the request for a resource (RFC 6120 §4.3 to §7), which it returns.
// The stanza is an IQ that has been validated; attach answers it.
func (c *session) negotiate() (*element, error) {
	header, err := c.open()
	if err != nil {
		return nil, err
	}
	for failed := 0; c.account == nil; {
		if err := c.write(c.loginFeatures()); err != nil {
			return nil, err
		}
		e, _, err := c.next()
		if err != nil {
			return nil, err
		}
		switch {
		case e.is(nsTLS, "starttls") && c.offersTLS():
			if err := c.startTLS(); err != nil {
				return nil, err
			}
			if header, err = c.open(); err != nil {
				return nil, err
			}
			continue
		case !e.is(nsSASL, "auth"):
			return nil, streamFault("not-authorized")
		}
		account, condition := c.login(e, header.domain)
		if condition != "" {
			if err := c.write(el(nsSASL, "failure").add(el(nsSASL, condition)).xml()); err != nil {
				return nil, err
			}
			if failed++; failed == maxLogins {
				return nil, streamFault("policy-violation")
			}
			continue
		}
		c.account, c.bare = account, account.bare
		if err := c.write(el(nsSASL, "success").xml()); err != nil {
			return nil, err
		}
	}
	c.restart()
	if header, err = c.open(); err != nil {
		return nil, err
	}
	if header.domain != c.account.jid.Domainpart() {
		return nil, streamFault("host-unknown")
	}
	if err := c.write(features(el(nsBind, "bind"))); err != nil {
		return nil, err
	}
	e, raw, err := c.next()
	if err != nil {
		return nil, err
	}
	c.srv.wire.record(Stanza{Time: time.Now(), Session: c.bare, Direction: FromClient, XML: raw})
	bind := e.child(nsBind, "bind")
	if !e.is(nsClient, "iq") || e.get("type") != "set" || e.get("id") == "" || bind == nil {
		return nil, streamFault("not-authorized")
	}
	resource := header.resource
	if r := bind.child(nsBind, "resource"); r != nil && r.content() != "" {
		resource = r.content()
	}
	if resource == "" {
		resource = newID()
	}
	if c.jid, err = c.account.jid.WithResource(resource); err != nil {
		return nil, streamFault("improper-addressing")
	}
	c.full = c.jid.String()
	return e, nil
}

// streamHeader is what the server reads from the start tag of a stream.
type streamHeader struct {
	domain   string // that the client asks for
	resource string // of the address that the client gives as its own
}

// open reads a stream header and answers it.
func (c *session) open() (streamHeader, error) {
	token, err := nextToken(c.dec)
	if p, ok := token.(xml.ProcInst); err == nil && ok && p.Target == "xml" {
		token, err = nextToken(c.dec)
	}
	if err != nil {
		return streamHeader{}, err
	}
	start, ok := token.(xml.StartElement)
	if !ok {
		return streamHeader{}, streamFault("bad-format")
	}
	e := &element{name: start.Name, attr: start.Attr}
	var h streamHeader
	from, to := e.get("from"), e.get("to")
	if j, err := jid.Parse(from); err == nil {
		h.resource = j.Resourcepart()
	}
	if j, err := jid.Parse(to); err == nil {
		h.domain = j.Domainpart()
	}
	c.srv.mu.Lock()
	_, served := c.srv.domains[h.domain]
	c.srv.mu.Unlock()

	// The header is answered even when the stream is then refused (RFC 6120 §4.9.1.2).
	b := []byte("<?xml version='1.0'?><stream:stream xmlns='" + nsClient + "' xmlns:stream='" + nsStream + "' version='1.0'")
	b = appendAttr(b, "id", newID())
	b = appendAttr(b, "from", to)
	if from != "" {
		b = appendAttr(b, "to", from)
	}
	if err := c.write(append(b, '>')); err != nil {
		return h, err
	}
	switch {
	case !e.is(nsStream, "stream"):
		return h, streamFault("invalid-namespace")
	case !strings.HasPrefix(e.get("version"), "1."):
		return h, streamFault("unsupported-version")
	case !served:
		return h, streamFault("host-unknown")
	}
	return h, nil
}

func features(list ...*element) []byte {
	b := []byte("<stream:features>")
	for _, f := range list {
		b = f.appendXML(b, nsClient)
	}
	return append(b, "</stream:features>"...)
}

func (c *session) offersTLS() bool { return c.srv.tls != nil && c.conn == c.raw }

func (c *session) loginFeatures() []byte {
	var list []*element
	if c.offersTLS() {
		list = append(list, el(nsTLS, "starttls"))
	}
	return features(append(list, el(nsSASL, "mechanisms").add(el(nsSASL, "mechanism").addText("PLAIN")))...)
}

func (c *session) startTLS() error {
	if c.in.r.Buffered() > 0 {
		return streamFault("policy-violation") // commands sent in clear would count as protected
	}
	if err := c.write(el(nsTLS, "proceed").xml()); err != nil {
		return err
	}
	secured := tls.Server(c.raw, c.srv.tls)
	if err := secured.HandshakeContext(c.ctx); err != nil {
		return fmt.Errorf("xmpptest: %w", err)
	}
	c.conn, c.in = secured, nil
	c.restart()
	return nil
}

// login checks a SASL PLAIN message (RFC 4616). It returns the account, or the condition of the
// failure.
func (c *session) login(auth *element, domain string) (*account, string) {
	if auth.get("mechanism") != "PLAIN" {
		return nil, "invalid-mechanism"
	}
	b, err := base64.StdEncoding.DecodeString(auth.content())
	parts := bytes.Split(b, []byte{0})
	if err != nil || len(parts) != 3 {
		return nil, "malformed-request"
	}
	j, err := jid.New(string(parts[1]), domain, "")
	if err != nil || j.Localpart() == "" {
		return nil, "not-authorized"
	}
	if authzid := string(parts[0]); authzid != "" && authzid != j.String() {
		return nil, "invalid-authzid"
	}
	c.srv.mu.Lock()
	defer c.srv.mu.Unlock()
	a := c.srv.accounts[j.String()]
	if a == nil || subtle.ConstantTimeCompare([]byte(a.password), parts[2]) != 1 {
		return nil, "not-authorized"
	}
	return a, ""
}
