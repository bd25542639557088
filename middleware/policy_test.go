package middleware_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"example.org/omellium/middleware"
	"example.org/omellium/middleware/xmpptest"
	"example.org/omellium/omemo"
	"example.org/omellium/omemo/memstore"
	"mellium.im/xmpp/jid"
)

const (
	nsV2Devices     = "urn:xmpp:omemo:2:devices"
	nsLegacyDevices = "eu.siacs.conversations.axolotl.devicelist"
	mercutio        = "mercutio@example.net"
)

// sendRaw writes one message with the given children and attributes.
func (p *program) sendRaw(id, attributes, inner string) {
	p.t.Helper()
	m := fmt.Sprintf(`<message xmlns="jabber:client" id="%s" %s>%s</message>`, id, attributes, inner)
	if err := p.session.Send(p.t.Context(), raw(m)); err != nil {
		p.t.Fatal(err)
	}
}

// outcome waits until it is decided what became of a message: it is on the wire,
// or there is an event about it.
func (p *program) outcome(srv *xmpptest.Server, account, id string) string {
	p.t.Helper()
	result := ""
	until(p.t, "outcome of "+id, func() bool {
		for _, s := range srv.Wire() {
			if fromTo(account, `id="`+id+`"`)(s) && strings.HasPrefix(string(s.XML), "<message") {
				result = "plain"
				if strings.Contains(string(s.XML), "<encrypted") {
					result = "encrypted"
				}
				return true
			}
		}
		p.mu.Lock()
		defer p.mu.Unlock()
		for _, e := range p.events {
			if e.ID == id && (e.Kind == middleware.SendFailed || e.Kind == middleware.NotSent) {
				result = e.Kind.String()
				return true
			}
		}
		return false
	})
	return result
}

// What leaves, by class and policy. Juliet has an omemo:2 device, Mercutio has
// none.
func TestPolicyOut(t *testing.T) {
	const (
		body   = `<body>canary</body>`
		state  = `<composing xmlns="http://jabber.org/protocol/chatstates"/>`
		pubsub = `<event xmlns="http://jabber.org/protocol/pubsub#event"><items node="n"/></event>`
		crypt  = "encrypted"
	)
	for _, policy := range []middleware.Policy{middleware.Required, middleware.Opportunistic, middleware.Off} {
		t.Run(policy.String(), func(t *testing.T) {
			srv := network(t, romeo, juliet, mercutio)
			c := chat(omemo.V2)
			c.Policy = policy
			a := connected(t, srv, romeo, c)
			connected(t, srv, juliet, chat(omemo.V2))
			for i, tc := range []struct {
				name, attributes, inner        string
				required, opportunistic, plain string
			}{
				{"body", `type="chat" to="juliet@example.net"`, body, crypt, crypt, "plain"},
				{"body, normal", `to="juliet@example.net"`, body, crypt, crypt, "plain"},
				{"unknown element", `type="chat" to="juliet@example.net"`, `<x xmlns="y">canary</x>`, crypt, crypt, "plain"},
				{"chat state", `type="chat" to="juliet@example.net"`, state, crypt, crypt, "plain"},
				{"no device", `type="chat" to="mercutio@example.net"`, body, "send failed", "plain", "plain"},
				{"no device, unknown element", `type="chat" to="mercutio@example.net"`, `<x xmlns="y">canary</x>`, "send failed", "plain", "plain"},
				{"no device, chat state", `type="chat" to="mercutio@example.net"`, state, "not sent", "plain", "plain"},
				{"to the server", `type="chat" to="example.net"`, body, "send failed", "plain", "plain"},
				{"text without element", `type="chat" to="juliet@example.net"`, `canary`, "send failed", "send failed", "plain"},
				{"event", `type="headline" to="juliet@example.net"`, pubsub, "plain", "plain", "plain"},
				{"event with body", `type="headline" to="juliet@example.net"`, pubsub + body, "send failed", "send failed", "plain"},
				{"error", `type="error" to="juliet@example.net"`, body + `<error type="cancel"><item-not-found xmlns="urn:ietf:params:xml:ns:xmpp-stanzas"/></error>`, "plain", "plain", "plain"},
				{"room", `type="groupchat" to="balcony@rooms.example.net"`, body, "send failed", "send failed", "plain"},
				{"room, chat state", `type="groupchat" to="balcony@rooms.example.net"`, state, "not sent", "not sent", "plain"},
				{"room subject", `type="groupchat" to="balcony@rooms.example.net"`, `<subject>x</subject>`, "plain", "plain", "plain"},
				{"invitation", `to="juliet@example.net"`, `<x xmlns="jabber:x:conference" jid="balcony@rooms.example.net"/>`, "plain", "plain", "plain"},
				{"hints only", `type="chat" to="juliet@example.net"`, `<store xmlns="urn:xmpp:hints"/>`, "plain", "plain", "plain"},
				{"delay only, with text", `type="chat" canary="canary" to="juliet@example.net"`, `<delay xmlns="urn:xmpp:delay" stamp="2020-01-01T00:00:00Z">canary</delay>`, "plain", "plain", "plain"},
				{"delay with text", `type="chat" to="juliet@example.net"`, body + `<delay xmlns="urn:xmpp:delay" stamp="2020-01-01T00:00:00Z">canary</delay>`, crypt, crypt, "plain"},
				{"hint with a body", `type="chat" to="juliet@example.net"`, `<store xmlns="urn:xmpp:hints">` + body + `</store>`, "send failed", "send failed", "plain"},
				{"not an address", `type="chat" to="@"`, body, "send failed", "send failed", "send failed"},
			} {
				t.Run(tc.name, func(t *testing.T) {
					id := fmt.Sprintf("m%d-", i)
					want := map[middleware.Policy]string{
						middleware.Required: tc.required, middleware.Opportunistic: tc.opportunistic, middleware.Off: tc.plain,
					}[policy]
					a.sendRaw(id, tc.attributes, tc.inner)
					if got := a.outcome(srv, romeo, id); got != want {
						t.Errorf("%s, want %s", got, want)
					}
				})
			}
			if policy == middleware.Required {
				noLeak(t, srv, "canary")
			}
			// What an error answers never leaves.
			for _, s := range srv.Wire() {
				if fromTo(romeo, `type="error"`)(s) && strings.Contains(string(s.XML), "canary") {
					t.Errorf("error stanza: %s", s.XML)
				}
			}
			if policy != middleware.Off {
				for _, e := range a.failures() {
					if strings.Contains(e.Account, "rooms") && !errors.Is(e.Err, middleware.ErrNotJoined) {
						t.Errorf("room: %v", e.Err)
					}
				}
			}
		})
	}
}

func (p *program) failures() (all []middleware.Event) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, e := range p.events {
		if e.Kind == middleware.SendFailed {
			all = append(all, e)
		}
	}
	return all
}

// The policy of an address comes before that of the account.
func TestPolicyFor(t *testing.T) {
	srv := network(t, romeo, juliet, mercutio)
	c := chat(omemo.V2)
	var asked []jid.JID
	c.PolicyFor = func(j jid.JID) middleware.Policy {
		asked = append(asked, j)
		if j.Equal(jid.MustParse(mercutio)) {
			return middleware.Off
		}
		return middleware.Required
	}
	rec := newRecorder()
	a := load(t, romeo, c).attach(login(t, srv, romeo), rec)
	m := plain(t).attach(login(t, srv, mercutio), nil)
	j := plain(t).attach(login(t, srv, juliet), nil)
	a.say(mercutio, "in clear")
	m.awaitText("in clear")
	m.say(romeo, "to you too")
	rec.await(t, "to you too")
	j.say(romeo, "let me in")
	a.awaitEvent(middleware.PlaintextReceived)
	if got := rec.find("let me in"); len(got) > 0 {
		t.Errorf("delivered: %q", got)
	}
	if err := a.session.Send(t.Context(), to(juliet+"/balcony").Wrap(text("canary"))); err != nil {
		t.Fatal(err)
	}
	a.awaitEvent(middleware.SendFailed)
	noLeak(t, srv, "canary")
	for _, j := range asked {
		if j.Resourcepart() != "" {
			t.Errorf("asked about %v", j)
		}
	}
}

// What comes in clear, by class and policy.
func TestPolicyIn(t *testing.T) {
	const (
		body    = `<body>said</body>`
		state   = `<composing xmlns="http://jabber.org/protocol/chatstates"/>`
		receipt = `<received xmlns="urn:xmpp:receipts" id="1"/>`
		pubsub  = `<event xmlns="http://jabber.org/protocol/pubsub#event"><items node="urn:n"><item id="1"><n xmlns="urn:n"/></item></items></event>`
		crypt   = `<encrypted xmlns="urn:xmpp:omemo:2"><header sid="1"><keys jid="romeo@example.net"/></header><payload>AAAA</payload></encrypted>`
	)
	// Each for the policies required, opportunistic, off.
	const yes, no, dropped = "delivered", "plain text received", "signalling dropped"
	for _, policy := range []middleware.Policy{middleware.Required, middleware.Opportunistic, middleware.Off} {
		t.Run(policy.String(), func(t *testing.T) {
			srv := network(t, romeo, juliet, mercutio)
			c := chat(omemo.V2)
			c.Policy = policy
			c.AllowPlain = []string{"urn:xmpp:receipts"}
			rec := newRecorder()
			a := load(t, romeo, c).attach(login(t, srv, romeo), rec)
			// Romeo knows a device of Juliet's, and none of Mercutio's.
			connected(t, srv, juliet, chat(omemo.V2)).say(romeo, "first")
			rec.await(t, "first")
			for i, tc := range []struct {
				name, attributes, inner     string
				required, opportunistic, of string
			}{
				{"body", `type="chat" from="juliet@example.net/x"`, body, no, no, yes},
				{"body of a stranger", `type="chat" from="mercutio@example.net/x"`, body, no, yes, yes},
				{"body of an unknown account", `type="chat" from="x@elsewhere.example"`, body, no, yes, yes},
				{"text without element", `type="chat" from="juliet@example.net/x"`, `said`, no, no, yes},
				{"unknown element", `type="chat" from="juliet@example.net/x"`, `<x xmlns="y"/>`, no, no, yes},
				{"chat state", `type="chat" from="juliet@example.net/x"`, state, dropped, dropped, yes},
				{"chat state of a stranger", `type="chat" from="mercutio@example.net/x"`, state, dropped, yes, yes},
				{"allowed receipt", `type="chat" from="juliet@example.net/x"`, receipt, yes, yes, yes},
				{"allowed receipt with chat state", `type="chat" from="juliet@example.net/x"`, receipt + state, dropped, dropped, yes},
				{"allowed receipt with body", `type="chat" from="juliet@example.net/x"`, receipt + body, no, no, yes},
				{"event", `type="headline" from="juliet@example.net"`, pubsub, yes, yes, yes},
				{"event with body", `type="headline" from="juliet@example.net"`, pubsub + body, no, no, yes},
				{"from our server", `type="chat" from="example.net"`, body, yes, yes, yes},
				{"from another server", `type="chat" from="elsewhere.example"`, body, no, yes, yes},
				{"from our server's other half", `type="chat" from="example.net/x"`, body, no, yes, yes},
				{"error", `type="error" from="juliet@example.net/x"`, body + crypt, yes, yes, yes},
				{"room", `type="groupchat" from="b@rooms.example.net/x"`, body, no, no, yes},
				{"room subject", `type="groupchat" from="b@rooms.example.net/x"`, `<subject>s</subject>`, yes, yes, yes},
				{"room news", `from="b@rooms.example.net"`, `<x xmlns="http://jabber.org/protocol/muc#user"/>`, yes, yes, yes},
				{"hints only", `type="chat" from="juliet@example.net/x"`, `<store xmlns="urn:xmpp:hints"/>`, yes, yes, yes},
				{"own account", `type="chat"`, body, no, yes, yes},
			} {
				t.Run(tc.name, func(t *testing.T) {
					id := fmt.Sprintf("m%d-", i)
					want := map[middleware.Policy]string{
						middleware.Required: tc.required, middleware.Opportunistic: tc.opportunistic, middleware.Off: tc.of,
					}[policy]
					if tc.name == "own account" && policy == middleware.Opportunistic {
						want = no // of ourselves we know a device
					}
					if err := srv.Inject(romeo, fmt.Sprintf(`<message xmlns="jabber:client" id="%s" %s>%s</message>`, id, tc.attributes, tc.inner)); err != nil {
						t.Fatal(err)
					}
					got := ""
					until(t, "outcome", func() bool {
						if len(rec.find(`id="`+id+`"`)) > 0 {
							got = yes
						}
						a.mu.Lock()
						defer a.mu.Unlock()
						for _, e := range a.events {
							if e.ID == id {
								got = e.Kind.String()
							}
						}
						return got != ""
					})
					if got != want {
						t.Errorf("%s, want %s", got, want)
					}
				})
			}
			for _, s := range rec.find(`type="error"`) {
				if strings.Contains(s, "<encrypted") {
					t.Errorf("ciphertext in an error: %s", s)
				}
			}
		})
	}
}

// Signalling is not sent to legacy devices, and nobody is bothered with that.
func TestSignallingLegacy(t *testing.T) {
	srv := network(t, romeo, juliet)
	rec := newRecorder()
	a := load(t, romeo, chat(omemo.Legacy)).attach(login(t, srv, romeo), rec)
	b := connected(t, srv, juliet, chat(omemo.Legacy))
	for i, inner := range []string{
		`<composing xmlns="http://jabber.org/protocol/chatstates"/>`,
		`<received xmlns="urn:xmpp:receipts" id="1"/>`,
		`<displayed xmlns="urn:xmpp:chat-markers:0" id="1"/>`,
	} {
		id := fmt.Sprintf("s%d-", i)
		a.sendRaw(id, `type="chat" to="`+juliet+`"`, inner)
		if got := a.outcome(srv, romeo, id); got != "not sent" {
			t.Errorf("%s: %s", inner, got)
		}
	}
	a.say(juliet, "and a word")
	b.awaitText("and a word")
	if n := a.count(middleware.NotSent); n != 3 {
		t.Errorf("%d events", n)
	}
	if got := rec.find(`type="error"`); len(got) > 0 {
		t.Errorf("error stanzas: %q", got)
	}
}

// Opportunistic goes back to plain text for nobody of whom a device or an
// encrypted message was ever seen.
func TestOpportunistic(t *testing.T) {
	const crypt = `<encrypted xmlns="urn:xmpp:omemo:2"><header sid="1"><keys jid="somebody@example.net"><key rid="9">AAAA</key></keys></header><payload>AAAA</payload></encrypted>`
	const malformed = `<encrypted xmlns="urn:xmpp:omemo:2"/><encrypted xmlns="urn:xmpp:omemo:2"/>`
	list := func(ids string) string { return `<devices xmlns="urn:xmpp:omemo:2">` + ids + `</devices>` }
	publish := func(t *testing.T, srv *xmpptest.Server, ids string) {
		t.Helper()
		if err := srv.Publish(juliet, nsV2Devices, "current", list(ids)); err != nil {
			t.Fatal(err)
		}
	}
	opportunistic := chat(omemo.V2)
	opportunistic.Policy = middleware.Opportunistic
	opportunistic.ListAge = time.Nanosecond // each message asks

	for _, tc := range []struct {
		name  string
		seen  func(t *testing.T, srv *xmpptest.Server, a *program)
		after func(t *testing.T, srv *xmpptest.Server)
	}{
		{"device, list emptied", func(t *testing.T, srv *xmpptest.Server, a *program) {
			publish(t, srv, `<device id="77"/>`)
			a.sendRaw("see", `type="chat" to="`+juliet+`"`, `<body>canary</body>`)
			a.awaitFailure("see") // no bundle
		}, func(t *testing.T, srv *xmpptest.Server) { publish(t, srv, "") }},
		{"event, list emptied", func(t *testing.T, srv *xmpptest.Server, a *program) {
			// Befriended accounts are told.
			publish(t, srv, `<device id="77"/>`)
			a.await("list", func() bool {
				for _, e := range a.events {
					if e.Kind == middleware.ListChanged && e.Account == juliet && e.Version == omemo.V2 {
						return true
					}
				}
				return false
			})
		}, func(t *testing.T, srv *xmpptest.Server) { publish(t, srv, "") }},
		{"device, list hidden", func(t *testing.T, srv *xmpptest.Server, a *program) {
			publish(t, srv, `<device id="77"/>`)
			a.sendRaw("see", `type="chat" to="`+juliet+`"`, `<body>canary</body>`)
			a.awaitFailure("see")
		}, func(t *testing.T, srv *xmpptest.Server) {
			srv.SetFilter(answerPEP("item-not-found"))
		}},
		{"device, error", func(t *testing.T, srv *xmpptest.Server, a *program) {
			publish(t, srv, `<device id="77"/>`)
			a.sendRaw("see", `type="chat" to="`+juliet+`"`, `<body>canary</body>`)
			a.awaitFailure("see")
		}, func(t *testing.T, srv *xmpptest.Server) { srv.SetFilter(answerPEP("internal-server-error")) }},
		{"message for somebody else", func(t *testing.T, srv *xmpptest.Server, a *program) {
			inject(t, srv, `<message xmlns="jabber:client" id="c" type="chat" from="`+juliet+`/x">`+crypt+`</message>`)
			a.flush()
		}, nil},
		{"message that cannot be read", func(t *testing.T, srv *xmpptest.Server, a *program) {
			inject(t, srv, `<message xmlns="jabber:client" id="c" type="chat" from="`+juliet+`/x">`+malformed+`</message>`)
			a.awaitEvent(middleware.Refused)
		}, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			for _, restart := range []bool{false, true} {
				t.Run(fmt.Sprintf("restart=%v", restart), func(t *testing.T) {
					srv := network(t, romeo, juliet)
					if err := srv.Befriend(romeo, juliet); err != nil {
						t.Fatal(err)
					}
					c := opportunistic
					c.Store = memstore.New(romeo)
					a := connected(t, srv, romeo, c)
					tc.seen(t, srv, a)
					if restart {
						if err := a.om.Close(); err != nil {
							t.Fatal(err)
						}
						a = connected(t, srv, romeo, c)
					}
					if tc.after != nil {
						tc.after(t, srv)
					}
					a.sendRaw("late", `type="chat" to="`+juliet+`"`, `<body>canary</body>`)
					a.awaitFailure("late")
					noLeak(t, srv, "canary")
					inject(t, srv, `<message xmlns="jabber:client" id="in" type="chat" from="`+juliet+`/x"><body>x</body></message>`)
					a.awaitEvent(middleware.PlaintextReceived)
				})
			}
		})
	}
}

func inject(t *testing.T, srv *xmpptest.Server, xml string) {
	t.Helper()
	if err := srv.Inject(romeo, xml); err != nil {
		t.Fatal(err)
	}
}

// answerPEP lets every pubsub question about Juliet be answered by an error.
func answerPEP(condition string) xmpptest.Filter {
	return func(_ context.Context, s xmpptest.Stanza) [][]byte {
		start, err := s.Start()
		attr := make(map[string]string)
		for _, a := range start.Attr {
			attr[a.Name.Local] = a.Value
		}
		if err != nil || s.Direction != xmpptest.ToClient || start.Name.Local != "iq" || attr["from"] != juliet {
			return [][]byte{s.XML}
		}
		return [][]byte{fmt.Appendf(nil, `<iq xmlns="jabber:client" type="error" id="%s" from="%s" to="%s"><error type="cancel">`+
			`<%s xmlns="urn:ietf:params:xml:ns:xmpp-stanzas"/></error></iq>`, attr["id"], juliet, s.Session, condition)}
	}
}

// If it cannot be found out whether an account has devices, nothing leaves: not
// even if it had none when it was asked last.
func TestOpportunisticUncertain(t *testing.T) {
	for _, knownBefore := range []bool{false, true} {
		t.Run(fmt.Sprintf("known=%v", knownBefore), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				srv := network(t, romeo, juliet)
				c := chat(omemo.V2)
				c.Policy = middleware.Opportunistic
				a := connected(t, srv, romeo, c)
				if knownBefore {
					a.sendRaw("before", `type="chat" to="`+juliet+`"`, `<body>in clear</body>`)
					if got := a.outcome(srv, romeo, "before"); got != "plain" {
						t.Fatal(got)
					}
				}
				time.Sleep(2 * middleware.DefaultListAge)
				if err := srv.HangPEP(juliet, true); err != nil {
					t.Fatal(err)
				}
				for _, id := range []string{"one", "two"} { // the second does not wait again
					a.sendRaw(id, `type="chat" to="`+juliet+`"`, `<body>canary</body>`)
					a.awaitFailure(id)
				}
				noLeak(t, srv, "canary")
				if err := srv.HangPEP(juliet, false); err != nil {
					t.Fatal(err)
				}
				time.Sleep(2 * middleware.DefaultListAge)
				a.sendRaw("after", `type="chat" to="`+juliet+`"`, `<body>in clear</body>`)
				if got := a.outcome(srv, romeo, "after"); got != "plain" {
					t.Error(got)
				}
			})
		})
	}
}
