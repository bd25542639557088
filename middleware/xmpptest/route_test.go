package xmpptest

import (
	"encoding/xml"
	"fmt"
	"slices"
	"strings"
	"testing"
)

// TestMessages follows RFC 6121 §8.5.
func TestMessages(t *testing.T) {
	for _, test := range []struct {
		name    string
		to      string
		kind    string
		reaches string // resources of juliet, space separated
		bounces string
	}{
		{"full", "juliet@example.net/balcony", "chat", "balcony", ""},
		{"full, negative priority", "juliet@example.net/garden", "chat", "garden", ""},
		{"full, no presence", "juliet@example.net/cellar", "chat", "cellar", ""},
		{"full, absent", "juliet@example.net/x", "chat", "balcony chamber", ""},
		{"full, absent, normal", "juliet@example.net/x", "", "balcony chamber", ""},
		{"full, absent, groupchat", "juliet@example.net/x", "groupchat", "", "cancel service-unavailable"},
		{"full, absent, error", "juliet@example.net/x", "error", "", ""},
		{"full, error", "juliet@example.net/chamber", "error", "chamber", ""},
		{"bare", "juliet@example.net", "chat", "balcony chamber", ""},
		{"bare, normal", "juliet@example.net", "", "balcony chamber", ""},
		{"bare, headline", "juliet@example.net", "headline", "balcony chamber", ""},
		{"bare, groupchat", "juliet@example.net", "groupchat", "", "cancel service-unavailable"},
		{"bare, error", "juliet@example.net", "error", "", ""},
		{"another case", "JULIET@Example.NET/balcony", "chat", "balcony", ""},
		{"offline", "tybalt@example.net", "chat", "", "cancel service-unavailable"},
		{"offline, headline", "tybalt@example.net", "headline", "", ""},
		{"offline, full", "tybalt@example.net/x", "chat", "", "cancel service-unavailable"},
		{"unknown", "nobody@example.net", "chat", "", "cancel service-unavailable"},
		{"unknown, error", "nobody@example.net", "error", "", ""},
		{"host", "example.net", "chat", "", "cancel service-unavailable"},
		{"elsewhere", "juliet@example.org", "chat", "", "cancel remote-server-not-found"},
		{"malformed", "@", "chat", "", "modify jid-malformed"},
	} {
		t.Run(test.name, func(t *testing.T) {
			srv := newServer(t)
			romeo := login(t, srv, "romeo@example.net/orchard")
			juliet := map[string]*peer{
				"balcony": available(t, srv, "juliet@example.net/balcony"),
				"chamber": available(t, srv, "juliet@example.net/chamber"),
				"garden":  login(t, srv, "juliet@example.net/garden"),
				"cellar":  login(t, srv, "juliet@example.net/cellar"),
			}
			juliet["garden"].send("<presence><priority>-1</priority></presence>")
			for _, p := range juliet {
				p.sync()
			}
			kind := ""
			if test.kind != "" {
				kind = "type='" + test.kind + "'"
			}
			romeo.send("<message to='%s' id='m' from='tybalt@example.net/forged' %s><body>hello</body></message>", test.to, kind)
			got := romeo.sync()
			switch {
			case test.bounces == "" && len(got) != 0:
				t.Errorf("sender got %q", briefly(got))
			case test.bounces != "" && (len(got) != 1 || condition(got[0]) != test.bounces || got[0].get("id") != "m" ||
				got[0].get("from") != test.to || !got[0].is(nsClient, "message")):
				t.Errorf("sender got %q, want %s", briefly(got), test.bounces)
			}
			want := strings.Fields(test.reaches)
			for name, p := range juliet {
				got := slices.DeleteFunc(p.sync(), func(e *element) bool { return e.is(nsClient, "presence") })
				if !slices.Contains(want, name) {
					expect(t, name, got)
				} else if kind == "" {
					expect(t, name, got, "message romeo@example.net/orchard hello")
				} else {
					expect(t, name, got, "message "+test.kind+" romeo@example.net/orchard hello")
				}
			}
		})
	}
}

func TestMessageToSelf(t *testing.T) {
	srv := newServer(t)
	one := available(t, srv, "romeo@example.net/1")
	two := available(t, srv, "romeo@example.net/2")
	one.sync()
	one.send("<message type='chat'><body>note</body></message>")
	expect(t, "sender", one.sync(), "message chat romeo@example.net/1 note")
	expect(t, "other", two.sync(), "message chat romeo@example.net/1 note")
}

// TestOrder sends two interleaved streams of messages to two sessions.
func TestOrder(t *testing.T) {
	const count = 1000
	srv := newServer(t)
	recipients := []*peer{available(t, srv, "romeo@example.net/1"), available(t, srv, "romeo@example.net/2")}
	for _, p := range recipients {
		p.sync()
	}
	senders := []*peer{login(t, srv, "juliet@example.net/a"), login(t, srv, "tybalt@example.net/a")}
	for _, p := range senders {
		go func() {
			for i := range count {
				if _, err := fmt.Fprintf(p.conn, "<message to='romeo@example.net' type='chat'><body>%d</body></message>", i); err != nil {
					return
				}
			}
		}()
	}
	for _, p := range recipients {
		next := map[string]int{}
		for range 2 * count {
			e := p.recv()
			from := e.get("from")
			if want := fmt.Sprint(next[from]); allText(e) != want {
				t.Fatalf("%s got %s from %s, want %s", p.full, allText(e), from, want)
			}
			next[from]++
		}
	}
}

func TestContentIsKept(t *testing.T) {
	srv := newServer(t)
	romeo := available(t, srv, "romeo@example.net/a")
	juliet := login(t, srv, "juliet@example.net/a")
	const inner = `<body xml:lang="en">1 &lt; 2 &amp; "x" 'y'&#13;` + "\n" + `</body><x:a xmlns:x="urn:x" x:attr="1" b="&#10;"><c xmlns=""/><x:d/></x:a>`
	juliet.send("<message to='romeo@example.net' type='chat' xml:lang='de' xmlns:y='urn:y' y:z='1'>%s</message>", inner)
	juliet.sync()
	got := romeo.sync()
	want, err := parseElement([]byte("<message xmlns='jabber:client' xmlns:y='urn:y' xml:lang='de' y:z='1' type='chat'" +
		" from='juliet@example.net/a' to='romeo@example.net'>" + inner + "</message>"))
	if err != nil {
		t.Fatal(err)
	}
	if len(got) == 0 || string(canonical(got[len(got)-1])) != string(canonical(want)) {
		t.Errorf("got %q, want %s", briefly(got), want.xml())
	}
}

// canonical sorts attributes.
func canonical(e *element) []byte {
	var order func(e *element)
	order = func(e *element) {
		slices.SortFunc(e.attr, func(a, b xml.Attr) int { return strings.Compare(a.Name.Space+a.Name.Local, b.Name.Space+b.Name.Local) })
		for _, c := range e.children {
			order(c)
		}
	}
	order(e)
	return e.xml()
}

func TestOffline(t *testing.T) {
	srv := newServer(t, StoreOffline())
	juliet := login(t, srv, "juliet@example.net/a")
	for _, kind := range []string{"chat", "normal", "headline", "error"} {
		juliet.send("<message to='romeo@example.net' type='%s'><body>%[1]s</body></message>", kind)
	}
	expect(t, "sender", juliet.sync())
	juliet.send("<message to='nobody@example.net' type='chat'><body>x</body></message>")
	if got := juliet.sync(); len(got) != 1 || condition(got[0]) != "cancel service-unavailable" {
		t.Errorf("unknown account: %q", briefly(got))
	}
	romeo := login(t, srv, "romeo@example.net/a")
	romeo.send("<presence><priority>-1</priority></presence>")
	expect(t, "negative priority", romeo.sync())
	romeo.send("<presence/>")
	got := romeo.sync()
	expect(t, "available", got, "message chat juliet@example.net/a chat", "message normal juliet@example.net/a normal")
	for _, e := range got {
		if e.child(nsDelay, "delay") == nil {
			t.Errorf("no delay stamp: %s", e.xml())
		}
	}
	romeo.send("<presence type='unavailable'/><presence/>")
	expect(t, "once", romeo.sync())
}

// TestCarbons follows XEP-0280.
func TestCarbons(t *testing.T) {
	const body = "<body>hello</body>"
	for _, test := range []struct {
		name, to, kind, content string
		sent, received          bool
	}{
		{"full", "juliet@example.net/balcony", "chat", body, true, true},
		{"bare", "juliet@example.net", "chat", body, true, false},
		{"bounced", "nobody@example.net", "chat", body, true, false},
		{"chat without body", "juliet@example.net/balcony", "chat", "<active xmlns='http://jabber.org/protocol/chatstates'/>", true, true},
		{"normal with body", "juliet@example.net/balcony", "normal", body, true, true},
		{"receipt", "juliet@example.net/balcony", "normal", "<received xmlns='urn:xmpp:receipts' id='1'/>", true, true},
		{"normal without body", "juliet@example.net/balcony", "normal", "<x xmlns='urn:x'/>", false, false},
		{"headline", "juliet@example.net/balcony", "headline", body, false, false},
		{"private", "juliet@example.net/balcony", "chat", body + "<private xmlns='urn:xmpp:carbons:2'/>", false, false},
		{"no-copy", "juliet@example.net/balcony", "chat", body + "<no-copy xmlns='urn:xmpp:hints'/>", false, false},
		{"room", "juliet@example.net/balcony", "chat", body + "<x xmlns='http://jabber.org/protocol/muc#user'/>", false, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			srv := newServer(t)
			romeo := available(t, srv, "romeo@example.net/orchard")
			juliet := available(t, srv, "juliet@example.net/balcony")
			others := map[string]*peer{
				"sent":     available(t, srv, "romeo@example.net/other"),
				"received": available(t, srv, "juliet@example.net/other"),
			}
			for _, p := range others {
				if e := p.iq("set", "", "<enable xmlns='urn:xmpp:carbons:2'/>"); condition(e) != "" {
					t.Fatalf("enable: %s", e.xml())
				}
			}
			if e := juliet.iq("set", "", "<enable xmlns='urn:xmpp:carbons:2'/>"); condition(e) != "" {
				t.Fatal("enable")
			}
			romeo.send("<message to='%s' type='%s'>%s</message>", test.to, test.kind, test.content)
			romeo.sync()
			for _, e := range juliet.sync() {
				if e.child(nsCarbons, "sent") != nil || e.child(nsCarbons, "received") != nil || e.child(nsCarbons, "private") != nil {
					t.Errorf("the recipient got %s", e.xml())
				}
			}
			for direction, p := range others {
				var copies int
				for _, e := range p.sync() {
					c := e.child(nsCarbons, direction)
					if c == nil {
						continue
					}
					copies++
					if e.get("from") != p.bare || e.get("to") != p.full || e.get("type") != test.kind {
						t.Errorf("outer message: %s", e.xml())
					}
					m := c.child(nsForward, "forwarded").child(nsClient, "message")
					if m == nil || m.get("from") != romeo.full || m.get("to") != test.to {
						t.Errorf("inner message: %s", e.xml())
					}
				}
				want := 0
				if direction == "sent" && test.sent || direction == "received" && test.received {
					want = 1
				}
				if copies != want {
					t.Errorf("%s: %d copies, want %d", direction, copies, want)
				}
			}
		})
	}
	t.Run("disabled", func(t *testing.T) {
		srv := newServer(t)
		one, two := available(t, srv, "romeo@example.net/1"), available(t, srv, "romeo@example.net/2")
		two.iq("set", "example.net", "<enable xmlns='urn:xmpp:carbons:2'/>")
		two.iq("set", "", "<disable xmlns='urn:xmpp:carbons:2'/>")
		one.send("<message to='juliet@example.net' type='chat'><body>x</body></message>")
		one.sync()
		expect(t, "copies", two.sync())
	})
	t.Run("between own resources", func(t *testing.T) {
		srv := newServer(t)
		one, two, three := available(t, srv, "romeo@example.net/1"), available(t, srv, "romeo@example.net/2"), available(t, srv, "romeo@example.net/3")
		for _, p := range []*peer{one, two, three} {
			p.iq("set", "", "<enable xmlns='urn:xmpp:carbons:2'/>")
		}
		one.send("<message to='romeo@example.net/2' type='chat'><body>x</body></message>")
		expect(t, "one", one.sync())
		expect(t, "two", two.sync(), "message chat romeo@example.net/1 x")
		expect(t, "three", three.sync(), "message chat romeo@example.net x")
	})
}

func TestIQ(t *testing.T) {
	const ping = "<ping xmlns='urn:xmpp:ping'/>"
	for _, test := range []struct{ name, kind, to, payload, want string }{
		{"ping host", "get", "example.net", ping, ""},
		{"ping self", "get", "romeo@example.net", ping, ""},
		{"ping no address", "get", "", ping, ""},
		{"ping somebody", "get", "juliet@example.net", ping, "cancel service-unavailable"},
		{"ping nobody", "get", "nobody@example.net", ping, "cancel service-unavailable"},
		{"absent resource", "get", "juliet@example.net/x", ping, "cancel service-unavailable"},
		{"elsewhere", "get", "example.org", ping, "cancel remote-server-not-found"},
		{"malformed", "get", "@", ping, "modify jid-malformed"},
		{"unknown", "get", "example.net", "<x xmlns='urn:x'/>", "cancel service-unavailable"},
		{"unknown to self", "set", "", "<x xmlns='urn:x'/>", "cancel service-unavailable"},
		{"two payloads", "get", "example.net", ping + ping, "modify bad-request"},
		{"no payload", "get", "example.net", "", "modify bad-request"},
		{"no type", "", "example.net", ping, "modify bad-request"},
		{"carbons, unknown", "set", "", "<x xmlns='urn:xmpp:carbons:2'/>", "modify bad-request"},
		{"vcard", "get", "juliet@example.net", "<vCard xmlns='vcard-temp'/>", "cancel item-not-found"},
		{"own vcard", "get", "", "<vCard xmlns='vcard-temp'/>", "cancel item-not-found"},
		{"set vcard", "set", "", "<vCard xmlns='vcard-temp'/>", "cancel service-unavailable"},
		{"info host", "get", "example.net", "<query xmlns='http://jabber.org/protocol/disco#info'/>", ""},
		{"items host", "get", "example.net", "<query xmlns='http://jabber.org/protocol/disco#items'/>", ""},
		{"info self", "get", "", "<query xmlns='http://jabber.org/protocol/disco#info'/>", ""},
		{"info stranger", "get", "juliet@example.net", "<query xmlns='http://jabber.org/protocol/disco#info'/>", "cancel service-unavailable"},
		{"info node", "get", "", "<query xmlns='http://jabber.org/protocol/disco#info' node='x'/>", "cancel item-not-found"},
		{"roster of somebody", "get", "juliet@example.net", "<query xmlns='jabber:iq:roster'/>", "cancel service-unavailable"},
	} {
		t.Run(test.name, func(t *testing.T) {
			p := login(t, newServer(t), "romeo@example.net/a")
			if got := condition(p.iq(test.kind, test.to, test.payload)); got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
	t.Run("between clients", func(t *testing.T) {
		srv := newServer(t)
		romeo, juliet := login(t, srv, "romeo@example.net/a"), login(t, srv, "juliet@example.net/a")
		romeo.send("<iq type='get' id='q' to='%s'><query xmlns='jabber:iq:version'/></iq>", juliet.full)
		e := juliet.recv()
		if e.get("from") != romeo.full || e.get("id") != "q" {
			t.Errorf("request: %s", e.xml())
		}
		juliet.send("<iq type='result' id='q' to='%s'/>", e.get("from"))
		if e := romeo.recv(); e.get("from") != juliet.full || e.get("type") != "result" {
			t.Errorf("answer: %s", e.xml())
		}
		juliet.send("<iq type='result' id='q' to='romeo@example.net/absent'/><iq type='error' id='q'/>")
		expect(t, "after stray answers", juliet.sync())
	})
}
