package middleware_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"reflect"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"example.org/omellium/middleware"
	"example.org/omellium/middleware/xmpptest"
	"example.org/omellium/omemo"
	"example.org/omellium/omemo/memstore"
	"example.org/omellium/omemo/storetest"
)

// state is what sending changes in a store: sessions, keys, and what waits.
type state struct {
	Account  []byte
	Sessions []omemo.SessionRow
	PreKeys  []omemo.PreKeyRow
	Outbox   []omemo.OutboxRow
	Inbox    []omemo.InboxRow
}

func stateOf(t *testing.T, s omemo.Store) (all state) {
	t.Helper()
	ctx := t.Context()
	loaded, err := s.Load(ctx)
	ok(t, err)
	all.Account = loaded.Account
	accounts, err := s.Accounts(ctx)
	ok(t, err)
	var peers []omemo.Peer
	for _, d := range accounts.Devices {
		peers = append(peers, d.Peer)
	}
	all.Sessions, err = s.Sessions(ctx, peers)
	ok(t, err)
	for _, v := range omemo.Versions() {
		rows, err := s.PreKeys(ctx, v)
		ok(t, err)
		all.PreKeys = append(all.PreKeys, rows...)
	}
	all.Outbox, err = s.Outbox(ctx, 0, 1<<20)
	ok(t, err)
	all.Inbox, err = s.Inbox(ctx, 0, 1<<20)
	ok(t, err)
	return all
}

// settled waits until nothing is owed and nothing waits to be written down.
func (p *program) settled() {
	p.t.Helper()
	until(p.t, "nothing owed", func() bool {
		owed, err := p.om.Manager().Owed(p.t.Context())
		ok(p.t, err)
		outbox, err := p.store.Outbox(p.t.Context(), 0, 1)
		ok(p.t, err)
		return len(owed)+len(outbox) == 0
	})
}

// bundleOf is the node of a bundle and what stands there.
const (
	listOfOne   = `<devices xmlns="urn:xmpp:omemo:2"><device id="77"/></devices>`
	badBundle   = `<bundle xmlns="urn:xmpp:omemo:2"><spk id="1">AAAA</spk></bundle>`
	emptyBundle = `<bundle xmlns="urn:xmpp:omemo:2"/>`
)

// Whatever is in the way of a message, it does not leave in clear: the caller
// gets an error that says why, and the store is as it was.
func TestFailClosed(t *testing.T) {
	publish := func(t *testing.T, srv *xmpptest.Server, node, id, item string) {
		t.Helper()
		ok(t, srv.Publish(juliet, node, id, item))
	}
	type prepare func(t *testing.T, srv *xmpptest.Server)
	nothing := func(*testing.T, *xmpptest.Server) {}
	device := func(t *testing.T, srv *xmpptest.Server) { connected(t, srv, juliet, chat(omemo.V2)) }
	for _, tc := range []struct {
		name    string
		config  func(c *middleware.Config)
		prepare prepare
		inner   string // default: a body
		want    error
	}{
		{name: "no device", prepare: nothing, want: omemo.ErrNoDevices},
		{name: "empty list", prepare: func(t *testing.T, srv *xmpptest.Server) {
			publish(t, srv, nsV2Devices, "current", `<devices xmlns="urn:xmpp:omemo:2"/>`)
		}, want: omemo.ErrNoDevices},
		{name: "no bundle", prepare: func(t *testing.T, srv *xmpptest.Server) {
			publish(t, srv, nsV2Devices, "current", listOfOne)
		}, want: omemo.ErrNoBundle},
		{name: "malformed bundle", prepare: func(t *testing.T, srv *xmpptest.Server) {
			publish(t, srv, nsV2Devices, "current", listOfOne)
			publish(t, srv, "urn:xmpp:omemo:2:bundles", "77", badBundle)
		}, want: omemo.ErrNoBundle},
		{name: "empty bundle", prepare: func(t *testing.T, srv *xmpptest.Server) {
			publish(t, srv, nsV2Devices, "current", listOfOne)
			publish(t, srv, "urn:xmpp:omemo:2:bundles", "77", emptyBundle)
		}, want: omemo.ErrNoBundle},
		{name: "server error", prepare: func(t *testing.T, srv *xmpptest.Server) {
			device(t, srv)
			srv.SetFilter(answerPEP("internal-server-error"))
		}},
		{name: "server does not answer", prepare: func(t *testing.T, srv *xmpptest.Server) {
			device(t, srv)
			ok(t, srv.HangPEP(juliet, true))
		}, want: context.DeadlineExceeded},
		{name: "server answers for another", prepare: func(t *testing.T, srv *xmpptest.Server) {
			device(t, srv)
			srv.SetFilter(func(_ context.Context, s xmpptest.Stanza) [][]byte {
				raw := string(s.XML)
				if s.Direction == xmpptest.ToClient && strings.HasPrefix(raw, "<iq") {
					raw = strings.Replace(raw, juliet, "mallory@example.net", 1)
				}
				return [][]byte{[]byte(raw)}
			})
		}, want: context.DeadlineExceeded},
		{name: "untrusted", config: func(c *middleware.Config) { c.Trust = omemo.Manual }, prepare: device, want: omemo.ErrUntrusted},
		{name: "too large", config: func(c *middleware.Config) { c.MaxStanza = 100 }, prepare: device, want: middleware.ErrTooLarge},
		{name: "above the limits", config: func(c *middleware.Config) { c.Limits.Bytes, c.Limits.Depth, c.Limits.Tokens = 30_000, 32, 1000 }, prepare: device,
			inner: `<body>canary` + strings.Repeat("x", 31_000) + `</body>`},
		{name: "too deep", prepare: device, inner: strings.Repeat(`<a xmlns="b">`, 50) + "canary" + strings.Repeat(`</a>`, 50)},
		{name: "two bodies", prepare: device, inner: `<body>canary</body><body xml:lang="de">canary</body>`, want: middleware.ErrMessage},
		{name: "text without element", prepare: device, inner: `canary`, want: middleware.ErrMessage},
		{name: "message in a message", prepare: device, inner: `<message xmlns="jabber:client"><body>canary</body></message>`, want: middleware.ErrMessage},
		{name: "carbon", prepare: device, inner: `<sent xmlns="urn:xmpp:carbons:2">canary</sent>`, want: middleware.ErrMessage},
		{name: "unknown element for a legacy device", prepare: func(t *testing.T, srv *xmpptest.Server) {
			c := chat(omemo.Legacy)
			c.Versions = []omemo.Version{omemo.Legacy}
			connected(t, srv, juliet, c)
		}, inner: `<reaction xmlns="urn:example">canary</reaction>`, want: omemo.ErrNoForm},
		{name: "body in a hint", prepare: device, inner: `<store xmlns="urn:xmpp:hints"><body xmlns="jabber:client">canary</body></store>`, want: middleware.ErrMessage},
		{name: "body in a hint, beside a body", prepare: device, inner: `<body>x</body><store xmlns="urn:xmpp:hints"><body xmlns="jabber:client">canary</body></store>`, want: middleware.ErrMessage},
		{name: "text in a hint", prepare: device, inner: `<store xmlns="urn:xmpp:hints">canary</store>`, want: middleware.ErrMessage},
		{name: "body in an id", prepare: device, inner: `<body>x</body><origin-id xmlns="urn:xmpp:sid:0" id="1"><body xmlns="jabber:client">canary</body></origin-id>`, want: middleware.ErrMessage},
		{name: "text in an id beside an invitation", prepare: device, inner: `<x xmlns="jabber:x:conference" jid="a@b"/><origin-id xmlns="urn:xmpp:sid:0" id="1">canary</origin-id>`, want: middleware.ErrMessage},
		{name: "body in a delay", prepare: device, inner: `<delay xmlns="urn:xmpp:delay" stamp="2020-01-01T00:00:00Z"><body xmlns="jabber:client">canary</body></delay>`, want: middleware.ErrMessage},
		{name: "already encrypted", prepare: device, inner: `<encrypted xmlns="urn:xmpp:omemo:2"><payload>canary</payload></encrypted>`, want: middleware.ErrMessage},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				srv := network(t, romeo, juliet)
				c := chat(omemo.V2)
				c.Store = memstore.New(romeo)
				if tc.config != nil {
					tc.config(&c)
				}
				a := connected(t, srv, romeo, c)
				tc.prepare(t, srv)
				a.settled()
				before := stateOf(t, a.store)
				inner := tc.inner
				if inner == "" {
					inner = `<body>canary</body>`
				}
				result, err := a.om.Send(t.Context(), to(juliet), children(inner))
				if err == nil || tc.want != nil && !errors.Is(err, tc.want) {
					t.Errorf("Send: error %v, want %v; result %+v", err, tc.want, result)
				}
				a.sendRaw("session", `type="chat" to="`+juliet+`"`, inner)
				if e := a.awaitFailure("session"); tc.want != nil && !errors.Is(e.Err, tc.want) {
					t.Errorf("session: error %v, want %v", e.Err, tc.want)
				}
				noLeak(t, srv, "canary")
				for _, s := range srv.Wire() {
					if fromTo(romeo, "<message")(s) {
						t.Errorf("sent: %s", s.XML)
					}
				}
				if after := stateOf(t, a.store); !reflect.DeepEqual(before, after) {
					t.Errorf("the store has changed: %+v, before: %+v", after, before)
				}
			})
		})
	}
}

// Every call to the store fails once while a first message is sent. It leaves
// encrypted, or with an error not at all; sent again it arrives, and once.
func TestFailClosedStore(t *testing.T) {
	for number := 1; number <= 14; number++ {
		t.Run(fmt.Sprint(number), func(t *testing.T) {
			srv := network(t, romeo, juliet)
			b := connected(t, srv, juliet, chat(omemo.V2))
			c := chat(omemo.V2)
			faults := storetest.Faults(memstore.New(romeo))
			c.Store = faults
			a := connected(t, srv, romeo, c)
			a.settled()
			faults.FailCall(faults.Calls() + number)
			_, err := a.om.Send(t.Context(), to(juliet), text("canary first"))
			if err != nil {
				if !errors.Is(err, storetest.ErrInjected) {
					t.Errorf("error: %v", err)
				}
				for _, s := range srv.Wire() {
					if fromTo(romeo, "<message")(s) {
						t.Errorf("sent: %s", s.XML)
					}
				}
				if _, err := a.om.Send(t.Context(), to(juliet), text("canary first")); err != nil {
					t.Fatal(err)
				}
			}
			b.awaitText("canary first")
			if _, err := a.om.Send(t.Context(), to(juliet), text("canary second")); err != nil && !errors.Is(err, storetest.ErrInjected) {
				t.Error(err)
			}
			noLeak(t, srv, "canary")
			b.say(romeo, "canary back")
			a.awaitText("canary back") // the fault may hit what comes: it is kept and tried again
			for _, s := range []string{"canary first"} {
				if n := strings.Count(strings.Join(b.bodies(), "\n"), s); n != 1 {
					t.Errorf("%q arrived %d times", s, n)
				}
			}
			noLeak(t, srv, "canary")
		})
	}
}

// One call of the store fails while a message comes, of a new sender or of a known
// one. The message is delivered all the same, once, on the same connection.
func TestOneFaultLosesNoIncomingMessage(t *testing.T) {
	for _, known := range []bool{false, true} {
		for number := 1; number <= 12; number++ {
			t.Run(fmt.Sprintf("known %t/%d", known, number), func(t *testing.T) {
				t.Parallel()
				srv := network(t, romeo, juliet)
				b := connected(t, srv, juliet, chat(omemo.V2))
				c := chat(omemo.V2)
				faults := storetest.Faults(memstore.New(romeo))
				c.Store = faults
				a := connected(t, srv, romeo, c)
				if known {
					b.say(romeo, "hello")
					a.awaitText("hello")
					a.say(juliet, "hi")
					b.awaitText("hi")
				}
				a.settled()
				faults.FailCall(faults.Calls() + number)
				b.say(romeo, "canary back")
				a.awaitText("canary back")
				b.say(romeo, "canary last")
				a.awaitText("canary last")
				if n := strings.Count(strings.Join(a.bodies(), "\n"), "canary back"); n != 1 {
					t.Errorf("delivered %d times", n)
				}
			})
		}
	}
}

// A connection whose n-th write fails, counted from when it was armed.
type brittle struct {
	net.Conn
	mu     sync.Mutex
	writes int
	fail   int // 0: never
}

var errBrittle = errors.New("test: connection lost")

func (b *brittle) arm(n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.writes, b.fail = 0, n
}

func (b *brittle) Write(p []byte) (int, error) {
	b.mu.Lock()
	b.writes++
	fail := b.fail > 0 && b.writes >= b.fail
	b.mu.Unlock()
	if fail {
		b.Conn.Close()
		return 0, errBrittle
	}
	return b.Conn.Write(p)
}

// Every write to the network fails while a first message is sent. What Send has
// accepted arrives after the next Wrap, once; what it has not, never.
func TestFailClosedNetwork(t *testing.T) {
	for number := 1; number <= 9; number++ {
		t.Run(fmt.Sprint(number), func(t *testing.T) {
			srv := network(t, romeo, juliet)
			b := connected(t, srv, juliet, chat(omemo.V2))
			a := load(t, romeo, chat(omemo.V2))
			var conn *brittle
			a.attach(dial(t, srv, romeo, func(c net.Conn) net.Conn {
				conn = &brittle{Conn: c}
				return conn
			}), nil)
			a.settled()
			conn.arm(number)
			_, err := a.om.Send(t.Context(), to(juliet), text("canary first"))
			if err != nil && !errors.Is(err, middleware.ErrOffline) {
				t.Errorf("error: %v", err)
			}
			conn.arm(1)
			_, second := a.om.Send(t.Context(), to(juliet), text("canary second"))
			<-a.done // Serve has ended
			_, offline := a.om.Send(t.Context(), to(juliet), text("canary offline"))
			if offline != nil && !errors.Is(offline, middleware.ErrOffline) {
				t.Errorf("offline: error %v", offline)
			}
			a.attach(dial(t, srv, romeo, nil), nil)
			if _, err := a.om.Send(t.Context(), to(juliet), text("canary last")); err != nil {
				t.Fatal(err)
			}
			b.awaitText("canary last")
			var want []string
			if err == nil {
				want = append(want, "canary first")
			}
			if second == nil {
				want = append(want, "canary second")
			}
			if offline == nil {
				want = append(want, "canary offline")
			}
			want = append(want, "canary last")
			if got := b.bodies(); !reflect.DeepEqual(got, want) {
				t.Errorf("arrived: %q, want %q", got, want)
			}
			noLeak(t, srv, "canary")
		})
	}
}
