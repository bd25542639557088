package middleware_test

import (
	"bytes"
	"context"
	"strconv"
	"strings"
	"testing"

	"example.org/omellium/middleware"
	"example.org/omellium/middleware/xmpptest"
	"example.org/omellium/omemo"
	"example.org/omellium/omemo/memstore"
	"example.org/omellium/stanza"
	xmppstanza "mellium.im/xmpp/stanza"
)

// inside are the elements that people's chats consist of, as programs write
// them. Each holds a canary where it can, else its namespace is one.
var inside = []struct{ name, xml, space string }{
	{"subject", `<subject>canary</subject>`, ""},
	{"thread", `<thread>canary</thread>`, ""},
	{"receipt requested (0184)", `<request xmlns='urn:xmpp:receipts'/>`, "urn:xmpp:receipts"},
	{"receipt (0184)", `<received xmlns='urn:xmpp:receipts' id='canary'/>`, "urn:xmpp:receipts"},
	{"markable (0333)", `<markable xmlns='urn:xmpp:chat-markers:0'/>`, "urn:xmpp:chat-markers:0"},
	{"displayed (0333)", `<displayed xmlns='urn:xmpp:chat-markers:0' id='canary'/>`, "urn:xmpp:chat-markers:0"},
	{"active (0085)", `<active xmlns='http://jabber.org/protocol/chatstates'/>`, "http://jabber.org/protocol/chatstates"},
	{"composing (0085)", `<composing xmlns='http://jabber.org/protocol/chatstates'/>`, "http://jabber.org/protocol/chatstates"},
	{"paused (0085)", `<paused xmlns='http://jabber.org/protocol/chatstates'/>`, "http://jabber.org/protocol/chatstates"},
	{"correction (0308)", `<replace xmlns='urn:xmpp:message-correct:0' id='canary'/>`, "urn:xmpp:message-correct:0"},
	{"reactions (0444)", `<reactions xmlns='urn:xmpp:reactions:0' id='canary'><reaction>👋</reaction></reactions>`, "urn:xmpp:reactions:0"},
	{"reply (0461)", `<reply xmlns='urn:xmpp:reply:0' to='romeo@example.net/canary' id='canary'/>`, "urn:xmpp:reply:0"},
	{"fallback (0428)", `<fallback xmlns='urn:xmpp:fallback:0' for='canary'><body start='0' end='4'/></fallback>`, "urn:xmpp:fallback:0"},
	{"retraction (0424)", `<retract xmlns='urn:xmpp:message-retract:1' id='canary'/>`, "urn:xmpp:message-retract:1"},
	{"out-of-band data (0066)", `<x xmlns='jabber:x:oob'><url>aesgcm://example.net/canary</url></x>`, "jabber:x:oob"},
	{"file sharing (0447)", `<file-sharing xmlns='urn:xmpp:sfs:0'><file xmlns='urn:xmpp:file:metadata:0'><name>canary</name></file></file-sharing>`, "urn:xmpp:sfs:0"},
	{"encrypted file (0448)", `<encrypted xmlns='urn:xmpp:esfs:0' cipher='urn:xmpp:ciphers:aes-256-gcm-nopadding:0'><key>canary</key></encrypted>`, "urn:xmpp:esfs:0"},
	{"location (0080)", `<geoloc xmlns='http://jabber.org/protocol/geoloc'><lat>canary</lat></geoloc>`, "http://jabber.org/protocol/geoloc"},
	{"markup (0394)", `<markup xmlns='urn:xmpp:markup:0'><bcode start='0' end='1'/></markup>`, "urn:xmpp:markup:0"},
	{"formatted text (0071)", `<html xmlns='http://jabber.org/protocol/xhtml-im'><body xmlns='http://www.w3.org/1999/xhtml'>canary</body></html>`, "http://jabber.org/protocol/xhtml-im"},
	{"spoiler (0382)", `<spoiler xmlns='urn:xmpp:spoiler:0'>canary</spoiler>`, "urn:xmpp:spoiler:0"},
	{"call invitation (0353)", `<propose xmlns='urn:xmpp:jingle-message:0' id='canary'/>`, "urn:xmpp:jingle-message:0"},
	{"unknown", `<canary xmlns='urn:example:canary'/>`, "urn:example:canary"},
}

// isolated connects an account whose handler keeps whole messages, and another
// that writes to it; they have talked already.
func isolated(t *testing.T, srv *xmpptest.Server, v omemo.Version) (writer, victim *program, r *reader) {
	t.Helper()
	c := chat(v)
	c.Store = memstore.New(juliet)
	r = newReader()
	victim = load(t, juliet, c).attach(login(t, srv, juliet+"/x"), r)
	writer = connected(t, srv, romeo, chat(v))
	writer.say(juliet, "hello")
	r.await(t, "hello", func(e *stanza.Element) bool { return shown(e) == "hello" })
	return writer, victim, r
}

// All that a chat consists of travels in the envelope of omemo:2. In legacy, which
// can encrypt nothing but a text, it is not sent: neither beside the text nor alone.
func TestInside(t *testing.T) {
	for _, v := range omemo.Versions() {
		t.Run(v.String(), func(t *testing.T) {
			srv := network(t, romeo, juliet)
			a, b, r := isolated(t, srv, v)
			for i, c := range inside {
				t.Run(c.name, func(t *testing.T) {
					srv.ForgetWire()
					body := "canary " + strconv.Itoa(i)
					_, err := a.om.Send(t.Context(), to(juliet), raw("<body>"+body+"</body>"+c.xml))
					if err != nil {
						t.Fatal(err)
					}
					got := r.await(t, body, func(e *stanza.Element) bool { return shown(e) == body })
					want, err := stanza.ParseElement([]byte("<message xmlns='jabber:client'>"+c.xml+"</message>"), stanza.DefaultLimits)
					if err != nil {
						t.Fatal(err)
					}
					element := want.Children[0].Element
					found := got.Child(element.Name.Space, element.Name.Local)
					switch {
					case v == omemo.Legacy && found != nil:
						t.Errorf("came by legacy: %s", found.AppendXML(nil))
					case v == omemo.V2 && (found == nil || !bytes.Equal(found.AppendXML(nil), element.AppendXML(nil))):
						t.Errorf("came as %s", got.AppendXML(nil))
					}
					infoOf(t, got)

					alone := to(juliet)
					alone.ID = "alone" + strconv.Itoa(i)
					result, err := a.om.Send(t.Context(), alone, raw(c.xml))
					signalling := strings.Contains(c.space, "receipts") || strings.Contains(c.space, "chat-markers") || strings.Contains(c.space, "chatstates")
					switch {
					case v == omemo.V2:
						if err != nil {
							t.Errorf("alone: %v", err)
						}
						r.await(t, alone.ID, func(e *stanza.Element) bool {
							id, _ := e.Attribute("id")
							return id == alone.ID && e.Child(element.Name.Space, element.Name.Local) != nil
						})
					case signalling:
						// Dropped, with an event: there is nothing that the user could do.
						if err != nil || result.Plain {
							t.Errorf("alone: %+v, %v", result, err)
						}
						a.await("not sent", func() bool {
							for _, e := range a.events {
								if e.Kind == middleware.NotSent && e.ID == alone.ID {
									return true
								}
							}
							return false
						})
					case err == nil:
						t.Errorf("alone: no error in legacy: %+v", result)
					}
					a.flush()
					for _, s := range srv.Wire() {
						x := string(s.XML)
						if strings.Contains(x, "<message") && (strings.Contains(x, "canary") || c.space != "" && strings.Contains(x, c.space)) {
							t.Errorf("on the wire: %s", x)
						}
					}
				})
			}
			b.flush()
		})
	}
}

// smuggled are elements that somebody on the way adds beside <encrypted/>: what
// changes the meaning of a message, and what would be another one.
var smuggled = []string{
	`<body>canary</body>`,
	`<body xml:lang='de'>canary</body>`,
	`<subject>canary</subject>`,
	`<thread>canary</thread>`,
	`<request xmlns='urn:xmpp:receipts'/>`,
	`<received xmlns='urn:xmpp:receipts' id='canary'/>`,
	`<markable xmlns='urn:xmpp:chat-markers:0'/>`,
	`<displayed xmlns='urn:xmpp:chat-markers:0' id='canary'/>`,
	`<composing xmlns='http://jabber.org/protocol/chatstates'/>`,
	`<gone xmlns='http://jabber.org/protocol/chatstates'/>`,
	`<replace xmlns='urn:xmpp:message-correct:0' id='canary'/>`,
	`<reactions xmlns='urn:xmpp:reactions:0' id='canary'><reaction>x</reaction></reactions>`,
	`<reply xmlns='urn:xmpp:reply:0' to='canary@example.net' id='canary'/>`,
	`<fallback xmlns='urn:xmpp:fallback:0' for='urn:xmpp:reply:0'/>`,
	`<retract xmlns='urn:xmpp:message-retract:1' id='canary'/>`,
	`<apply-to xmlns='urn:xmpp:fasten:0' id='canary'><retract xmlns='urn:xmpp:message-retract:0'/></apply-to>`,
	`<moderated xmlns='urn:xmpp:message-moderate:1'/>`,
	`<x xmlns='jabber:x:oob'><url>https://evil.example/canary</url></x>`,
	`<file-sharing xmlns='urn:xmpp:sfs:0'><file xmlns='urn:xmpp:file:metadata:0'/></file-sharing>`,
	`<reference xmlns='urn:xmpp:reference:0' type='data' uri='https://evil.example/canary'/>`,
	`<html xmlns='http://jabber.org/protocol/xhtml-im'><body xmlns='http://www.w3.org/1999/xhtml'>canary</body></html>`,
	`<markup xmlns='urn:xmpp:markup:0'/>`,
	`<spoiler xmlns='urn:xmpp:spoiler:0'>canary</spoiler>`,
	`<geoloc xmlns='http://jabber.org/protocol/geoloc'><lat>0</lat></geoloc>`,
	`<attention xmlns='urn:xmpp:attention:0'/>`,
	`<propose xmlns='urn:xmpp:jingle-message:0' id='canary'/>`,
	`<x xmlns='http://jabber.org/protocol/muc#user'><invite from='canary@example.net'/></x>`,
	`<x xmlns='jabber:x:conference' jid='canary@rooms.example.net'/>`,
	`<x xmlns='jabber:x:data' type='form'><field var='canary'/></x>`,
	`<event xmlns='http://jabber.org/protocol/pubsub#event'><items node='canary'/></event>`,
	`<envelope xmlns='urn:xmpp:sce:1'><content><body xmlns='jabber:client'>canary</body></content></envelope>`,
	`<content xmlns='urn:xmpp:sce:1'><body xmlns='jabber:client'>canary</body></content>`,
	`<opt-out xmlns='urn:xmpp:omemo:2'><reason>canary</reason></opt-out>`,
	`<encrypted xmlns='urn:xmpp:esfs:0'><key>canary</key></encrypted>`,
	`<nick xmlns='http://jabber.org/protocol/nick'>canary</nick>`,
	`<trust-message xmlns='urn:xmpp:tm:1' usage='canary'/>`,
	`<addresses xmlns='http://jabber.org/protocol/address'><address type='ofrom' jid='canary@example.net'/></addresses>`,
	`<info xmlns='urn:xmpp:omellium:info:0' account='canary@example.net'/>`,
	`<error type='cancel'/>`,
	`<message xmlns='jabber:client'><body>canary</body></message>`,
	`<canary xmlns='urn:example:canary'/>`,
}

// Attacks D3, D8 and D12: what was added beside <encrypted/> reaches no handler,
// neither at the front nor at the end, neither directly nor in a carbon.
func TestSmuggled(t *testing.T) {
	for _, v := range omemo.Versions() {
		t.Run(v.String(), func(t *testing.T) {
			srv := network(t, romeo, juliet)
			_, copies := second(t, srv, juliet+"/y", chat(v))
			a, _, r := isolated(t, srv, v)
			for i, added := range smuggled {
				for _, first := range []bool{true, false} {
					srv.SetFilter(func(_ context.Context, s xmpptest.Stanza) [][]byte {
						x := string(s.XML)
						if s.Direction != xmpptest.ToClient || !strings.HasPrefix(s.Session, juliet) || !strings.Contains(x, "<encrypted") {
							return [][]byte{s.XML}
						}
						// Of a carbon, into the innermost message.
						if first {
							at := strings.LastIndex(x[:strings.Index(x, "<encrypted")], "<message")
							at += strings.Index(x[at:], ">") + 1
							return [][]byte{[]byte(x[:at] + added + x[at:])}
						}
						at := strings.Index(x, "</message>")
						return [][]byte{[]byte(x[:at] + added + x[at:])}
					})
					body := "text " + strconv.Itoa(i) + strconv.FormatBool(first)
					m := xmppstanza.Message{To: to(juliet + "/x").To, Type: xmppstanza.ChatMessage}
					if _, err := a.om.Send(t.Context(), m, text(body)); err != nil {
						t.Fatal(err)
					}
					direct := r.await(t, body, func(e *stanza.Element) bool { return shown(e) == body })
					clean(t, added, direct)
					copied := copies.await(t, body, func(e *stanza.Element) bool {
						m := inCarbon(e, "received")
						return m != nil && shown(m) == body
					})
					clean(t, added, inCarbon(copied, "received"))
					if copied.Child(stanza.NSClient, "body") != nil {
						t.Errorf("%s: beside the carbon: %s", added, copied.AppendXML(nil))
					}
				}
			}
		})
	}
}

// clean checks that a message has nothing but a body, Info and what may stand
// outside.
func clean(t *testing.T, added string, m *stanza.Element) {
	t.Helper()
	for c := range m.Elements() {
		switch {
		case c.Is(stanza.NSClient, "body"), c.Is(middleware.NSInfo, "info"), c.Name.Space == stanza.NSHints, c.Name.Space == stanza.NSSID, c.Name.Space == stanza.NSDelay:
		default:
			t.Errorf("%s: reached the handler: %s", added, m.AppendXML(nil))
		}
	}
	if x := string(m.AppendXML(nil)); strings.Contains(x, "canary") {
		t.Errorf("%s: reached the handler: %s", added, x)
	}
	infoOf(t, m)
}
