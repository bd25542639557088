package front

import (
	"context"
	"crypto/tls"
	"encoding/xml"
	"errors"
	"io"
	"net"
	"os"
	"reflect"
	"testing"
	"testing/synctest"
	"time"

	"mellium.im/xmpp"
	"mellium.im/xmpp/disco"
	"mellium.im/xmpp/jid"
	xmppstanza "mellium.im/xmpp/stanza"
	"mellium.im/xmpp/stream"

	"example.org/omellium/stanza"
)

func TestAnswersAsTheRealSession(t *testing.T) {
	run(t, Config{Features: []xmpp.StreamFeature{ownFeature}}, func(t *testing.T, x *fixture) {
		front, real := x.session, x.real
		if got, want := front.In(), real.In(); !reflect.DeepEqual(got, want) || want.ID != "7" {
			t.Errorf("In: %+v, want %+v", got, want)
		}
		if got, want := front.Out(), real.Out(); !reflect.DeepEqual(got, want) {
			t.Errorf("Out: %+v, want %+v", got, want)
		}
		if got := front.LocalAddr().String(); got != local {
			t.Errorf("LocalAddr: %s", got)
		}
		if got := front.RemoteAddr().String(); got != remote {
			t.Errorf("RemoteAddr: %s", got)
		}
		if got, want := front.State(), real.State(); got != want || want != xmpp.Ready|xmpp.Secure|xmpp.Authn {
			t.Errorf("State: %v, want %v", got, want)
		}
		if got := front.ConnectionState(); got.Version != tls.VersionTLS13 || got.ServerName != remote {
			t.Errorf("ConnectionState: %+v", got)
		}
		if got, want := front.Conn().RemoteAddr(), real.Conn().RemoteAddr(); got != want {
			t.Errorf("Conn().RemoteAddr: %v, want %v", got, want)
		}
		if got, want := front.Conn().LocalAddr(), real.Conn().LocalAddr(); got != want {
			t.Errorf("Conn().LocalAddr: %v, want %v", got, want)
		}
		if caps, ok := disco.ServerCaps(front); !ok || caps.Node != "urn:example" || caps.Ver != "dmVy" {
			t.Errorf("caps: %+v, %v", caps, ok)
		}
		for ns, want := range map[string]bool{
			"urn:example:own":                     true,
			"urn:xmpp:sm:3":                       true, // advertised, and not parsed
			"urn:xmpp:csi:0":                      false,
			"urn:ietf:params:xml:ns:xmpp-bind":    false,
			"http://jabber.org/features/compress": false,
		} {
			data, ok := front.Feature(ns)
			if realData, realOK := real.Feature(ns); ok != want || ok != realOK || data != realData {
				t.Errorf("Feature(%s): %v, %v, want %v, %v", ns, data, ok, realData, realOK)
			}
		}
	})
}

// An address may hold what must be escaped in XML.
func TestStrangeAddress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, conn := net.Pipe()
		const strange = `juliet@example.net/it's "<&>"`
		s := &server{conn: conn, gone: make(chan struct{})}
		go s.read(xml.NewDecoder(conn))
		real, err := xmpp.NewSession(t.Context(), jid.MustParse(remote), jid.MustParse(strange), client, xmpp.Secure|xmpp.Authn, plain(xmppstanza.NSClient))
		if err != nil {
			t.Fatal(err)
		}
		r := &relay{}
		r.f, err = New(t.Context(), Config{Real: real, Handler: r, Limits: stanza.DefaultLimits})
		if err != nil {
			t.Fatal(err)
		}
		if got := r.f.Session().LocalAddr().String(); got != strange {
			t.Errorf("LocalAddr: %s", got)
		}
		// The connection has no end tag that a decoder would accept here.
		conn.Close()
		r.f.Close()
	})
}

// plain is a negotiator that exchanges nothing.
func plain(xmlns string) xmpp.Negotiator {
	return func(_ context.Context, in, out *stream.Info, _ *xmpp.Session, _ any) (xmpp.SessionState, io.ReadWriter, any, error) {
		in.XMLNS, out.XMLNS = xmlns, xmlns
		return xmpp.Ready, nil, nil, nil
	}
}

func TestUnsupported(t *testing.T) {
	make := func(state xmpp.SessionState, xmlns string) *xmpp.Session {
		s, err := xmpp.NewSession(t.Context(), jid.MustParse(remote), jid.MustParse(local), readWriter{}, state, plain(xmlns))
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	closed := make(xmpp.Authn, xmppstanza.NSClient)
	if err := closed.Close(); err != nil {
		t.Fatal(err)
	}
	unfinished, err := xmpp.NewSession(t.Context(), jid.MustParse(remote), jid.MustParse(local), readWriter{}, 0,
		func(context.Context, *stream.Info, *stream.Info, *xmpp.Session, any) (xmpp.SessionState, io.ReadWriter, any, error) {
			return 0, nil, nil, io.ErrUnexpectedEOF
		})
	if err == nil {
		t.Fatal("no error")
	}
	tests := map[string]struct {
		session *xmpp.Session
		want    error
	}{
		"client":           {make(xmpp.Authn, xmppstanza.NSClient), nil},
		"server to server": {make(xmpp.Authn|xmpp.S2S, xmppstanza.NSServer), ErrUnsupported},
		"server namespace": {make(xmpp.Authn, xmppstanza.NSServer), ErrUnsupported},
		"received":         {make(xmpp.Authn|xmpp.Received, xmppstanza.NSClient), ErrUnsupported},
		"component":        {make(xmpp.Authn, "jabber:component:accept"), ErrUnsupported},
		"closed":           {closed, ErrUnsupported},
		"not negotiated":   {unfinished, ErrUnsupported},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			f, err := New(t.Context(), Config{Real: test.session, Handler: &relay{}, Limits: stanza.DefaultLimits})
			if !errors.Is(err, test.want) {
				t.Fatalf("error %v, want %v", err, test.want)
			}
			if f == nil {
				return
			}
			// This session has neither addresses nor deadlines.
			c := f.Session().Conn()
			if c.LocalAddr() != nil || c.RemoteAddr() != nil {
				t.Errorf("addresses %v, %v", c.LocalAddr(), c.RemoteAddr())
			}
			f.Close()
		})
	}
	if _, err := New(t.Context(), Config{}); err == nil {
		t.Error("no session: no error")
	}
}

// readWriter is a stream that has ended.
type readWriter struct{}

func (readWriter) Read([]byte) (int, error)    { return 0, io.EOF }
func (readWriter) Write(b []byte) (int, error) { return len(b), nil }

func TestDeadlines(t *testing.T) {
	run(t, Config{QueueStanzas: 1}, func(t *testing.T, x *fixture) {
		c := x.session.Conn()
		buf := make([]byte, 10)
		began := time.Now()
		for name, set := range map[string]func(time.Time) error{"read": c.SetReadDeadline, "both": c.SetDeadline} {
			for _, d := range []time.Duration{time.Minute, -time.Minute} {
				if err := set(time.Now().Add(d)); err != nil {
					t.Error(err)
				}
				if _, err := c.Read(buf); !errors.Is(err, os.ErrDeadlineExceeded) {
					t.Errorf("%s %v: %v", name, d, err)
				}
			}
		}
		if d := time.Since(began); d != 2*time.Minute {
			t.Errorf("waited %v", d)
		}
		if err := c.SetDeadline(time.Time{}); err != nil {
			t.Error(err)
		}
		x.f.Deliver([]byte("<presence/>"), nil)
		if n, err := c.Read(buf); err != nil || string(buf[:n]) != "<presence/"[:n] {
			t.Errorf("after: %q, %v", buf[:n], err)
		}

		// A full queue: a deadline stops the Write, one that is past does not.
		release := make(chan struct{})
		x.outgoing = func(context.Context, *stanza.Element) { <-release }
		const one = `<presence id="1"/>`
		for range 3 { // one handled, one queued, one parsed
			if _, err := io.WriteString(c, one); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		c.SetWriteDeadline(time.Now().Add(time.Second))
		if n, err := io.WriteString(c, one); n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%d bytes written, %v", n, err)
		}
		c.SetWriteDeadline(time.Time{})
		done := make(chan error)
		go func() {
			_, err := io.WriteString(c, one)
			done <- err
		}()
		synctest.Wait()
		c.SetWriteDeadline(time.Unix(1, 0))
		synctest.Wait()
		close(release)
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// Front.Send waits for other writers until its context ends; then nothing is
// written.
func TestFrontSendContextEnds(t *testing.T) {
	run(t, Config{}, func(t *testing.T, x *fixture) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		x.f.sending <- struct{}{}
		if err := x.f.Send(ctx, presence("1")); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("while another writes: %v", err)
		}
		<-x.f.sending
		if err := x.f.Send(ctx, presence("2")); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("after the end of the context: %v", err)
		}
		if err := x.f.Send(t.Context(), presence("3")); err != nil {
			t.Error(err)
		}
		synctest.Wait()
		if got := x.server.got(); len(got) != 1 || got[0] != `<presence xmlns="jabber:client" id="3"/>` {
			t.Errorf("server got %q", got)
		}
	})
}

// The context of a Send may end while the queue is full, and the session can be
// used all the same.
func TestSendContextEnds(t *testing.T) {
	run(t, Config{QueueStanzas: 1}, func(t *testing.T, x *fixture) {
		release := make(chan struct{})
		x.outgoing = func(ctx context.Context, e *stanza.Element) {
			<-release
			if err := x.f.SendElement(ctx, e); err != nil {
				t.Error(err)
			}
		}
		send := func() error {
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			defer cancel()
			return x.session.Send(ctx, message("", "x"))
		}
		for range 3 { // one handled, one queued, one parsed
			if err := send(); err != nil {
				t.Fatal(err)
			}
		}
		blocked := make(chan error)
		go func() { blocked <- send() }()
		time.Sleep(2 * time.Second) // in the bubble's time
		close(release)
		if err := <-blocked; err != nil {
			t.Error(err)
		}
		if err := send(); err != nil {
			t.Error(err)
		}
		synctest.Wait()
		if got := len(x.server.got()); got != 5 {
			t.Errorf("server got %d, want 5", got)
		}
	})
}
