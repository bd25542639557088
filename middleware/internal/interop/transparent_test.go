//go:build live

package interop

import (
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"testing"
	"time"

	"mellium.im/xmlstream"
	"mellium.im/xmpp"
	"mellium.im/xmpp/disco"
	"mellium.im/xmpp/jid"
	xmppstanza "mellium.im/xmpp/stanza"

	"example.org/omellium/middleware"
	"example.org/omellium/middleware/internal/lab"
	"example.org/omellium/middleware/internal/logscan"
	"example.org/omellium/middleware/internal/programs"
	"example.org/omellium/omemo/memstore"
)

// Programs that know nothing of OMEMO, with the three statements before them,
// against Python-OMEMO.

// run starts a program for an account.
func run(t *testing.T, s *lab.Server, a *lab.Account, main func(context.Context, *xmpp.Session) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), deadline)
	defer cancel()
	session, err := s.Dial(ctx, a, disco.StreamFeature())
	if err != nil {
		t.Fatal(err)
	}
	c := middleware.Config{Store: memstore.New(a.JID), AnswerStrangers: true}
	logscan.Watch(&c)
	om, err := middleware.New(ctx, c)
	if err != nil {
		t.Fatal(err)
	}
	if session, err = om.Wrap(ctx, session); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- main(t.Context(), session) }()
	t.Cleanup(func() {
		if err := om.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
		if err := <-done; err != nil {
			t.Logf("the program has ended: %v", err)
		}
	})
}

// converse says some things and expects each of them back.
func converse(t *testing.T, s *lab.Server, peer python, with *lab.Account) {
	t.Helper()
	before := peer.Bodies(with.JID)
	bodies := texts("peer", peer.Account, 5)
	for i, body := range bodies {
		peer.Send(t, with.JID, body)
		expect(t, peer, with.JID, before, bodies[:i+1])
	}
	secretEcho(t, s, with, bodies)
}

func TestTransparentEcho(t *testing.T) { transparent(t, programs.Echo) }
func TestTransparentMux(t *testing.T)  { transparent(t, programs.Mux) }

func transparent(t *testing.T, main func(context.Context, *xmpp.Session) error) {
	eachVersion(t, func(t *testing.T, s *lab.Server, versions []string) {
		one, user := s.Account(t, "program"), s.Account(t, "user")
		lab.Befriend(t, one, user)
		run(t, s, one, main)
		converse(t, s, python{lab.Python(t, s, user, lab.PythonOptions{Versions: versions})}, one)
	})
}

// The program asks for receipts and gives them, all of it encrypted.
func TestTransparentReceipts(t *testing.T) {
	lab.Each(t, func(t *testing.T, s *lab.Server) {
		one, user := s.Account(t, "program"), s.Account(t, "user")
		lab.Befriend(t, one, user)
		run(t, s, one, programs.Receipts)
		peer := python{lab.Python(t, s, user, lab.PythonOptions{Versions: []string{lab.V2}})}
		bodies := texts("peer", user, 3)
		for _, body := range bodies {
			peer.SendAndAwaitReceipt(t, one.JID, body)
			peer.AwaitBody(t, one.JID, body)
			peer.AwaitBody(t, one.JID, "received: "+body)
		}
		secret(t, s, bodies)
	})
}

// The program is told what another client of its account has sent.
func TestTransparentCarbons(t *testing.T) {
	eachVersion(t, func(t *testing.T, s *lab.Server, versions []string) {
		one, user := s.Account(t, "program"), s.Account(t, "user")
		lab.Befriend(t, one, user)
		copies := make(chan string, 100)
		run(t, s, one, func(ctx context.Context, session *xmpp.Session) error {
			return programs.Carbons(ctx, session, func(sent bool, text string) {
				if sent {
					copies <- text
				}
			})
		})
		other := python{lab.Python(t, s, one, lab.PythonOptions{Versions: versions})}
		peer := python{lab.Python(t, s, user, lab.PythonOptions{Versions: versions})}
		bodies := texts("other", one, 3)
		for _, body := range bodies {
			other.Send(t, user.JID, body)
			peer.AwaitBody(t, one.JID, body)
			select {
			case text := <-copies:
				if text != body {
					t.Errorf("copy %q, want %q", text, body)
				}
			case <-time.After(deadline):
				t.Fatalf("no copy of %q", body)
			}
		}
		secret(t, s, bodies)
		converse(t, s, peer, one)
	})
}

// A type that embeds the session sees its surroundings as it does without the
// middleware.
func TestTransparentClient(t *testing.T) {
	lab.Each(t, func(t *testing.T, s *lab.Server) {
		plain, one, user := s.Account(t, "plain"), s.Account(t, "program"), s.Account(t, "user")
		lab.Befriend(t, plain, user)
		lab.Befriend(t, one, user)
		type outcome struct {
			programs.Facts
			err error
		}
		found := make(chan outcome, 1)
		main := func(ctx context.Context, session *xmpp.Session) error {
			return programs.Client{Session: session}.Run(ctx, jid.MustParse("balcony@muc.localhost"), func(f programs.Facts, err error) {
				found <- outcome{f, err}
			})
		}
		ctx, cancel := context.WithTimeout(t.Context(), deadline)
		defer cancel()
		session, err := s.Dial(ctx, plain, disco.StreamFeature())
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan error, 1)
		go func() { done <- main(ctx, session) }()
		without := <-found
		if err := errors.Join(session.Close(), <-done, session.Conn().Close()); err != nil {
			t.Fatal(err)
		}
		run(t, s, one, main)
		with := <-found
		if !reflect.DeepEqual(with, without) {
			t.Errorf("with the middleware the program sees %+v, without it %+v", with, without)
		}
		if !with.HasCaps || !slices.Equal(with.Roster, []string{user.JID}) {
			t.Errorf("the program sees %+v", with)
		}
		converse(t, s, python{lab.Python(t, s, user, lab.PythonOptions{})}, one)
	})
}

// Every way of sending that a session has.
func TestTransparentWays(t *testing.T) {
	type body struct {
		XMLName xml.Name `xml:"body"`
		Text    string   `xml:",chardata"`
	}
	type whole struct {
		xmppstanza.Message
		Body string `xml:"body"`
	}
	// These wait for an answer to the message, which does not come.
	waiting := func(r xmlstream.TokenReadCloser, err error) error {
		if r != nil {
			return errors.Join(errors.New("an answer"), r.Close())
		}
		if errors.Is(err, context.DeadlineExceeded) {
			return nil
		}
		return err
	}
	ways := []struct {
		name string
		send func(ctx context.Context, s *xmpp.Session, m xmppstanza.Message, text string) error
	}{
		{"Send", func(ctx context.Context, s *xmpp.Session, m xmppstanza.Message, b string) error {
			return s.Send(ctx, m.Wrap(text(b)))
		}},
		{"SendElement", func(ctx context.Context, s *xmpp.Session, m xmppstanza.Message, b string) error {
			return s.SendElement(ctx, text(b), m.StartElement())
		}},
		{"SendMessage", func(ctx context.Context, s *xmpp.Session, m xmppstanza.Message, b string) error {
			return waiting(s.SendMessage(ctx, m.Wrap(text(b))))
		}},
		{"SendMessageElement", func(ctx context.Context, s *xmpp.Session, m xmppstanza.Message, b string) error {
			return waiting(s.SendMessageElement(ctx, text(b), m))
		}},
		{"Encode", func(ctx context.Context, s *xmpp.Session, m xmppstanza.Message, b string) error {
			return s.Encode(ctx, whole{m, b})
		}},
		{"EncodeElement", func(ctx context.Context, s *xmpp.Session, m xmppstanza.Message, b string) error {
			return s.EncodeElement(ctx, whole{m, b}, m.StartElement()) // mellium takes no notice of the start element
		}},
		{"EncodeMessage", func(ctx context.Context, s *xmpp.Session, m xmppstanza.Message, b string) error {
			return waiting(s.EncodeMessage(ctx, whole{m, b}))
		}},
		{"EncodeMessageElement", func(ctx context.Context, s *xmpp.Session, m xmppstanza.Message, b string) error {
			return waiting(s.EncodeMessageElement(ctx, body{Text: b}, m))
		}},
		{"TokenWriter", func(_ context.Context, s *xmpp.Session, m xmppstanza.Message, b string) error {
			w := s.TokenWriter()
			_, err := xmlstream.Copy(w, m.Wrap(text(b)))
			return errors.Join(err, w.Flush(), w.Close())
		}},
	}
	lab.Each(t, func(t *testing.T, s *lab.Server) {
		one, user := s.Account(t, "program"), s.Account(t, "user")
		lab.Befriend(t, one, user)
		program := newProgram(t, s, one)
		peer := python{lab.Python(t, s, user, lab.PythonOptions{})}
		var bodies []string
		for _, way := range ways {
			bodies = append(bodies, fmt.Sprintf("canary-%s-%s", way.name, one.Local))
		}
		for i, way := range ways {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			if err := way.send(ctx, program.session, message(user.JID), bodies[i]); err != nil {
				t.Errorf("%s: %v", way.name, err)
			}
			cancel()
			expect(t, peer, one.JID, bodies[:i+1])
		}
		secretOf(t, s, sent{one.JID: len(bodies)}, bodies)
	})
}
