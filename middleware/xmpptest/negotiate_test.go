package xmpptest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"io"
	"math/big"
	"net"
	"strings"
	"testing"
	"time"

	"mellium.im/sasl"
	"mellium.im/xmpp"
	"mellium.im/xmpp/jid"
	"mellium.im/xmpp/ping"
)

func TestSASL(t *testing.T) {
	plain := func(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }
	for _, test := range []struct{ name, mechanism, payload, want string }{
		{"right", "PLAIN", plain("\x00romeo\x00pw-romeo"), "success"},
		{"right, named", "PLAIN", plain("romeo@example.net\x00romeo\x00pw-romeo"), "success"},
		{"other identity", "PLAIN", plain("juliet@example.net\x00romeo\x00pw-romeo"), "invalid-authzid"},
		{"password", "PLAIN", plain("\x00romeo\x00pw-juliet"), "not-authorized"},
		{"user", "PLAIN", plain("\x00nobody\x00pw-romeo"), "not-authorized"},
		{"empty user", "PLAIN", plain("\x00\x00pw-romeo"), "not-authorized"},
		{"base64", "PLAIN", "?", "malformed-request"},
		{"empty", "PLAIN", "", "malformed-request"},
		{"mechanism", "SCRAM-SHA-1", plain("n,,n=romeo,r=1"), "invalid-mechanism"},
	} {
		t.Run(test.name, func(t *testing.T) {
			p := dial(t, newServer(t))
			p.open("example.net")
			p.send("<auth xmlns='%s' mechanism='%s'>%s</auth>", nsSASL, test.mechanism, test.payload)
			e := p.recv()
			got := e.name.Local
			if got == "failure" {
				got = e.elements()[0].name.Local
				p.recv() // the features again
			}
			if got != test.want {
				t.Errorf("got %s, want %s", got, test.want)
			}
		})
	}
	t.Run("again and again", func(t *testing.T) {
		p := dial(t, newServer(t))
		p.open("example.net")
		for range maxLogins {
			p.send("<auth xmlns='%s' mechanism='X'/>", nsSASL)
		}
		if got := p.ends(); got != "policy-violation" {
			t.Errorf("stream error %s", got)
		}
	})
}

func TestStreamErrors(t *testing.T) {
	header := "<stream:stream to='example.net' version='1.0' xmlns='jabber:client' xmlns:stream='" + nsStream + "'>"
	for _, test := range []struct{ name, send, want string }{
		{"unknown domain", strings.Replace(header, "example.net", "example.org", 1), "host-unknown"},
		{"no domain", strings.Replace(header, "to='example.net'", "", 1), "host-unknown"},
		{"version", strings.Replace(header, "'1.0'", "'0.9'", 1), "unsupported-version"},
		{"namespace", strings.Replace(header, nsStream, "urn:x", 1), "invalid-namespace"},
		{"stanza before login", header + "<message/>", "not-authorized"},
		{"not well-formed", header + "<a></b>", "not-well-formed"},
		{"text", header + "text<a/>", "bad-format"},
		{"comment", header + "<!-- x -->", "restricted-xml"},
		{"comment inside", header + "<a><!-- x --></a>", "restricted-xml"},
		{"directive", header + "<!DOCTYPE x>", "restricted-xml"},
		{"too large", header + "<a>" + strings.Repeat("x", 5000), "policy-violation"},
		{"too deep", header + strings.Repeat("<a>", maxDepth+1), "policy-violation"},
	} {
		t.Run(test.name, func(t *testing.T) {
			p := dial(t, newServer(t, MaxStanza(4096)))
			p.send("%s", test.send)
			b, err := io.ReadAll(p.conn)
			if err != nil {
				t.Fatal(err)
			}
			if !strings.HasSuffix(string(b), streamError(test.want)) {
				t.Errorf("got %q, want %s", b, test.want)
			}
		})
	}
	for _, test := range []struct{ name, send, want string }{
		{"unknown stanza", "<other/>", "unsupported-stanza-type"},
		{"too large", "<message><body>" + strings.Repeat("x", 5000) + "</body></message>", "policy-violation"},
		{"not well-formed", "<message", "not-well-formed"},
	} {
		t.Run("bound: "+test.name, func(t *testing.T) {
			p := login(t, newServer(t, MaxStanza(4096)), "romeo@example.net/a")
			p.send("%s<", test.send)
			if got := p.ends(); got != test.want {
				t.Errorf("got %s, want %s", got, test.want)
			}
		})
	}
}

func TestStartTLS(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"example.net"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(cert)
	srv := newServer(t, TLS(&tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}))
	address, err := srv.Addr()
	if err != nil {
		t.Fatal(err)
	}
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	session, err := xmpp.NewClientSession(waiting(t), jid.MustParse("romeo@example.net/a"), conn,
		xmpp.StartTLS(&tls.Config{RootCAs: roots, ServerName: "example.net"}),
		xmpp.SASL("", "pw-romeo", sasl.Plain), xmpp.BindResource())
	if err != nil {
		t.Fatal(err)
	}
	if !session.ConnectionState().HandshakeComplete {
		t.Error("not encrypted")
	}
	go func() { _ = session.Serve(nil) }()
	if err := ping.Send(waiting(t), session, jid.MustParse("example.net")); err != nil {
		t.Error(err)
	}
	_ = session.Close()

	t.Run("commands before the handshake", func(t *testing.T) {
		p := dial(t, srv)
		p.open("example.net")
		p.send("<starttls xmlns='%s'/><auth xmlns='%s' mechanism='PLAIN'/>", nsTLS, nsSASL)
		if got := p.ends(); got != "policy-violation" {
			t.Errorf("stream error %s", got)
		}
	})
}
