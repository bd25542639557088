package middleware_test

import (
	"bytes"
	"context"
	"encoding/xml"
	"fmt"
	"net"
	"reflect"
	"slices"
	"testing"
	"time"

	"example.org/omellium/middleware"
	"example.org/omellium/middleware/internal/logscan"
	"example.org/omellium/middleware/internal/programs"
	"example.org/omellium/middleware/xmpptest"
	"example.org/omellium/omemo"
	"example.org/omellium/omemo/memstore"
	"mellium.im/xmlstream"
	"mellium.im/xmpp"
	"mellium.im/xmpp/disco"
	"mellium.im/xmpp/disco/info"
	"mellium.im/xmpp/jid"
	"mellium.im/xmpp/mux"
	"mellium.im/xmpp/receipts"
	"mellium.im/xmpp/stanza"
)

// Each program runs twice over TCP: on a plain session against a plain peer, and
// on a wrapped one against a wrapped peer. The peer does and expects the same.

// bot runs a program, with the three statements if wrapped.
func bot(t *testing.T, session *xmpp.Session, wrapped bool, v omemo.Version, run func(context.Context, *xmpp.Session) error) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	conn := session.Conn()
	if wrapped {
		c := chat(v)
		c.Store = memstore.New(session.LocalAddr().Bare().String())
		logscan.Watch(&c)
		om, err := middleware.New(ctx, c)
		if err != nil {
			t.Fatal(err)
		}
		if session, err = om.Wrap(ctx, session); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { om.Close() })
	}
	done := make(chan error, 1)
	go func() { done <- run(ctx, session) }()
	t.Cleanup(func() {
		cancel()
		conn.Close()
		if err := <-done; err != nil {
			t.Logf("the program has ended: %v", err)
		}
	})
}

// peer connects what the program talks with.
func peer(t *testing.T, srv *xmpptest.Server, wrapped bool, v omemo.Version, options ...mux.Option) *program {
	t.Helper()
	p := plain(t)
	if wrapped {
		p = load(t, juliet, chat(v))
	}
	collect := mux.MessageFunc(stanza.ChatMessage, xml.Name{Local: "body"}, func(_ stanza.Message, t xmlstream.TokenReadEncoder) error {
		var m message
		if err := xml.NewTokenDecoder(t).Decode(&m); err != nil {
			return err
		}
		p.mu.Lock()
		defer p.mu.Unlock()
		p.received = append(p.received, m)
		p.changed.Broadcast()
		return nil
	})
	return p.attach(dial(t, srv, juliet, nil), mux.New(stanza.NSClient, append(options, collect)...))
}

// bothWays runs a test without the middleware, and with it in both versions.
func bothWays(t *testing.T, test func(t *testing.T, wrapped bool, v omemo.Version)) {
	t.Run("plain", func(t *testing.T) { test(t, false, omemo.V2) })
	for _, v := range omemo.Versions() {
		t.Run(v.String(), func(t *testing.T) { test(t, true, v) })
	}
}

// isAvailable waits until the server has the presence of an account.
func isAvailable(t *testing.T, srv *xmpptest.Server, account string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	_, err := srv.Await(ctx, func(s xmpptest.Stanza) bool {
		return s.Direction == xmpptest.FromClient && bytes.HasPrefix(s.XML, []byte("<presence")) &&
			jid.MustParse(s.Session).Bare().String() == account
	})
	if err != nil {
		t.Fatal(err)
	}
}

// converse says some things and expects each of them back.
func converse(t *testing.T, srv *xmpptest.Server, p *program, wrapped bool) {
	t.Helper()
	for i := range 5 {
		s := fmt.Sprintf("canary %d <&> \u00e9\U0001f511", i)
		p.say(romeo, s)
		p.awaitText(s)
	}
	checkWire(t, srv, wrapped, "canary")
}

func checkWire(t *testing.T, srv *xmpptest.Server, wrapped bool, s string) {
	t.Helper()
	if wrapped {
		noLeak(t, srv, s)
	} else if wireHolds(srv, s) == "" {
		t.Error("the wire was not recorded")
	}
}

func TestTransparentEcho(t *testing.T) {
	bothWays(t, func(t *testing.T, wrapped bool, v omemo.Version) {
		srv := network(t, romeo, juliet)
		bot(t, dial(t, srv, romeo, nil), wrapped, v, programs.Echo)
		isAvailable(t, srv, romeo)
		converse(t, srv, peer(t, srv, wrapped, v), wrapped)
	})
}

func TestTransparentMux(t *testing.T) {
	bothWays(t, func(t *testing.T, wrapped bool, v omemo.Version) {
		srv := network(t, romeo, juliet)
		bot(t, dial(t, srv, romeo, nil), wrapped, v, programs.Mux)
		isAvailable(t, srv, romeo)
		converse(t, srv, peer(t, srv, wrapped, v), wrapped)
	})
}

// Legacy encrypts bodies only: receipts are neither asked for nor given.
func TestTransparentReceipts(t *testing.T) {
	bothWays(t, func(t *testing.T, wrapped bool, v omemo.Version) {
		srv := network(t, romeo, juliet)
		bot(t, dial(t, srv, romeo, nil), wrapped, v, programs.Receipts)
		isAvailable(t, srv, romeo)
		handler := &receipts.Handler{}
		p := peer(t, srv, wrapped, v, receipts.Handle(handler))
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		for i := range 3 {
			s := fmt.Sprintf("canary %d", i)
			if wrapped && v == omemo.Legacy {
				p.say(romeo, s)
				p.awaitText(s)
				continue
			}
			if err := handler.SendMessageElement(ctx, p.session, text(s), to(romeo)); err != nil {
				t.Fatalf("receipt for %q: %v", s, err)
			}
			p.awaitText(s)
			p.awaitText("received: " + s)
		}
		checkWire(t, srv, wrapped, "canary")
		checkWire(t, srv, wrapped, receipts.NS)
	})
}

func TestTransparentCarbons(t *testing.T) {
	bothWays(t, func(t *testing.T, wrapped bool, v omemo.Version) {
		srv := network(t, romeo, juliet)
		type copied struct {
			sent bool
			text string
		}
		copies := make(chan copied, 16)
		bot(t, dial(t, srv, romeo+"/bot", nil), wrapped, v, func(ctx context.Context, s *xmpp.Session) error {
			return programs.Carbons(ctx, s, func(sent bool, text string) { copies <- copied{sent, text} })
		})
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		if _, err := srv.Await(ctx, func(s xmpptest.Stanza) bool {
			return bytes.Contains(s.XML, []byte(`urn:xmpp:carbons:2`)) && s.Direction == xmpptest.FromClient
		}); err != nil {
			t.Fatal(err)
		}
		// Another client of the same account.
		other := plain(t)
		if wrapped {
			other = load(t, romeo, chat(v))
		}
		other.attach(dial(t, srv, romeo+"/phone", nil), nil)
		p := peer(t, srv, wrapped, v)
		expect := func(want copied) {
			t.Helper()
			select {
			case got := <-copies:
				if got != want {
					t.Fatalf("copy: got %+v, want %+v", got, want)
				}
			case <-time.After(patience):
				t.Fatalf("no copy: %+v", want)
			}
		}
		for i := range 3 {
			s := fmt.Sprintf("canary sent %d", i)
			other.say(juliet, s)
			p.awaitText(s)
			expect(copied{true, s})
			s = fmt.Sprintf("canary received %d", i)
			p.say(romeo+"/phone", s)
			other.awaitText(s)
			expect(copied{false, s})
		}
		p.say(romeo+"/bot", "canary to the bot")
		p.awaitText("canary to the bot")
		checkWire(t, srv, wrapped, "canary")
	})
}

// capsConn adds entity capabilities to what the server advertises: xmpptest has
// none.
type capsConn struct {
	net.Conn
	rest []byte
}

const serverCaps = `<c xmlns='http://jabber.org/protocol/caps' hash='sha-1' node='https://example.net/server' ver='QgayPKawpkPSDYmwT/WM94uAlu0='/>`

func (c *capsConn) Read(b []byte) (int, error) {
	if len(c.rest) == 0 {
		buffer := make([]byte, 4096)
		n, err := c.Conn.Read(buffer)
		if err != nil {
			return 0, err
		}
		const end = "</stream:features>"
		c.rest = bytes.Replace(buffer[:n], []byte(end), []byte(serverCaps+end), 1)
	}
	n := copy(b, c.rest)
	c.rest = c.rest[n:]
	return n, nil
}

func TestTransparentClient(t *testing.T) {
	var facts []programs.Facts
	bothWays(t, func(t *testing.T, wrapped bool, v omemo.Version) {
		srv := network(t, romeo, juliet)
		if err := srv.Befriend(romeo, juliet); err != nil {
			t.Fatal(err)
		}
		found := make(chan programs.Facts, 1)
		session := dial(t, srv, romeo, func(c net.Conn) net.Conn { return &capsConn{Conn: c} }, disco.StreamFeature())
		bot(t, session, wrapped, v, func(ctx context.Context, s *xmpp.Session) error {
			return programs.Client{Session: s}.Run(ctx, jid.MustParse("balcony@rooms.example.net"), func(f programs.Facts, err error) {
				if err != nil {
					t.Error(err)
				}
				found <- f
			})
		})
		f := <-found
		if !f.HasCaps || f.Caps.Node != "https://example.net/server" || !slices.Equal(f.Roster, []string{juliet}) ||
			!slices.Equal(f.Bookmarks, []string{"balcony@rooms.example.net"}) || len(f.Server) == 0 {
			t.Errorf("facts: %+v", f)
		}
		facts = append(facts, f)
		p := peer(t, srv, wrapped, v)
		converse(t, srv, p, wrapped)

		// What it says about itself holds its own features and, wrapped, ours.
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		answer, err := disco.GetInfo(ctx, "", session.LocalAddr(), p.session)
		if err != nil {
			t.Fatal(err)
		}
		has := func(feature string) bool {
			return slices.ContainsFunc(answer.Features, func(f info.Feature) bool { return f.Var == feature })
		}
		if !has(programs.FeatureOfClient) || has("urn:xmpp:omemo:2:devices+notify") != wrapped ||
			has("eu.siacs.conversations.axolotl.devicelist+notify") != wrapped {
			t.Errorf("features: %+v", answer.Features)
		}
	})
	for _, f := range facts {
		if !reflect.DeepEqual(f, facts[0]) {
			t.Errorf("with the middleware the program sees %+v, without %+v", f, facts[0])
		}
	}
}
