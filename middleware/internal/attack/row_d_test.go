//go:build catalogue

package attack

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"example.org/omellium/devicelist"
	"example.org/omellium/middleware"
	"example.org/omellium/middleware/xmpptest"
	"example.org/omellium/omemo"
	"example.org/omellium/stanza"
)

// otherVersion returns the version that is not v.
func otherVersion(v omemo.Version) omemo.Version {
	if v == omemo.V2 {
		return omemo.Legacy
	}
	return omemo.V2
}

// d1 hides the omemo:2 list of a contact that has spoken omemo:2.
func d1(t *testing.T, v omemo.Version) {
	if v == omemo.Legacy {
		s := newStage(t, v)
		s.in(t, "a list alone demonstrates nothing", func() {
			// Listed for omemo:2 from now on, and hidden again: legacy goes on.
			ok(s.t, s.srv.Publish(romeo, devicelist.Node(omemo.V2), "current", list(omemo.V2, s.romeo.Device)))
			s.inject(listEvent(romeo, devicelist.Node(omemo.V2), "current", list(omemo.V2, s.romeo.Device)))
			s.inject(listEvent(romeo, devicelist.Node(omemo.V2), "current", list(omemo.V2)))
			_, err := s.say(romeo, canary)
			ok(s.t, err)
			s.silent(canary)
			s.settle()
		})
		s.honest(s.romeo)
		return
	}
	hide := map[string]func(s *stage){
		"event": func(s *stage) {
			s.inject(listEvent(romeo, devicelist.Node(v), "current", list(v)))
		},
		"purge": func(s *stage) { s.inject(eventOf(romeo, "<purge node='"+devicelist.Node(v)+"'/>")) },
		"fetch": func(s *stage) {
			ok(s.t, s.srv.Publish(romeo, devicelist.Node(v), "current", list(v)))
			s.inject(eventOf(romeo, "<items node='"+devicelist.Node(v)+"'><item id='current'/></items>"))
		},
	}
	for name, f := range hide {
		s := newStage(t, v)
		s.in(t, name, func() {
			ok(s.t, s.srv.Publish(romeo, devicelist.Node(omemo.Legacy), "current", list(omemo.Legacy, s.romeo.Device)))
			s.romeo.publishBundle(s, s.romeo.bundle(omemo.Legacy))
			s.inject(listEvent(romeo, devicelist.Node(omemo.Legacy), "current", list(omemo.Legacy, s.romeo.Device)))
			f(s)
			if _, err := s.say(romeo, canary); !errors.Is(err, omemo.ErrDowngrade) {
				s.t.Errorf("error %v", err)
			}
			s.silent(canary)
		})
		s.honest(s.romeo)
	}
}

// d2 breaks every step of sending; nothing may leave in clear.
func d2(t *testing.T, v omemo.Version) {
	kinds := map[string]*stanza.Element{
		"body":     stanza.NewText(stanza.NSClient, "body", canary),
		"subject":  stanza.NewText(stanza.NSClient, "subject", canary),
		"reaction": stanza.NewElement("urn:xmpp:reactions:0", "reactions", stanza.NewText("urn:xmpp:reactions:0", "reaction", canary)),
		"thread":   stanza.NewText(stanza.NSClient, "thread", canary),
		"oob":      stanza.NewElement("jabber:x:oob", "x", stanza.NewText("jabber:x:oob", "url", "https://"+canary)),
		"unknown":  stanza.NewText("urn:example:new", "thing", canary),
		"html":     stanza.NewElement("http://jabber.org/protocol/xhtml-im", "html", stanza.NewText("http://www.w3.org/1999/xhtml", "body", canary)),
		"replace":  stanza.NewElement("urn:xmpp:message-correct:0", "replace").SetAttribute("id", canary),
	}
	faults := map[string]func(s *stage){
		"empty lists": func(s *stage) {},
		"forbidden lists": func(s *stage) {
			s.answer(func(e *stanza.Element) string {
				return fmt.Sprintf("<iq xmlns='jabber:client' type='error' from='%s' id='%s'><error type='auth'><forbidden xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></iq>",
					attribute(e, "to"), attribute(e, "id"))
			})
		},
		"broken lists": func(s *stage) {
			s.answer(func(e *stanza.Element) string {
				return fmt.Sprintf("<iq xmlns='jabber:client' type='result' from='%s' id='%s'><pubsub xmlns='http://jabber.org/protocol/pubsub'><items><item id='current'><nonsense/></item></items></pubsub></iq>",
					attribute(e, "to"), attribute(e, "id"))
			})
		},
		"silence": func(s *stage) { ok(s.t, s.srv.HangPEP("nobody@example.net", true)) },
		"no bundles": func(s *stage) {
			ok(s.t, s.srv.Publish("nobody@example.net", devicelist.Node(v), "current", list(v, 1, 2, 3)))
		},
	}
	policies := map[string]middleware.Policy{"required": middleware.Required}
	for fault, break1 := range faults {
		for name, policy := range policies {
			s := newScene(t, v, func(c *middleware.Config) {
				c.Policy = policy
				c.FetchTimeout = 300 * time.Millisecond
			})
			ok(t, s.srv.AddAccount("nobody@example.net", "secret"))
			break1(s)
			for kind, e := range kinds {
				s.in(t, fault+", "+name+", "+kind, func() {
					for _, typ := range []string{"chat", "normal", "headline", "strange"} {
						m := stanza.NewElement(stanza.NSClient, "message", e.Clone()).
							SetAttribute("to", "nobody@example.net").SetAttribute("type", typ).SetAttribute("id", s.id("out"))
						w := s.watch()
						ok(s.t, s.session.Send(context.Background(), m.TokenReader()))
						id := attribute(m, "id")
						s.await("outcome", func() bool {
							return slices.ContainsFunc(s.events[w.events:], func(e middleware.Event) bool {
								return e.ID == id && (e.Kind == middleware.SendFailed || e.Kind == middleware.NotSent)
							})
						})
					}
					s.silent(canary)
				})
			}
		}
	}
}

// answer answers the victim's questions about nodes of others itself.
func (s *stage) answer(f func(*stanza.Element) string) {
	s.srv.SetFilter(func(_ context.Context, st xmpptest.Stanza) [][]byte {
		if e := question(st); e != nil && attribute(e, "to") != "" {
			_ = s.srv.Inject(s.full, f(e))
			return nil
		}
		return [][]byte{st.XML}
	})
}

func d3(t *testing.T, v omemo.Version) {
	s := newStage(t, v)
	beside := map[string]*stanza.Element{
		"body":           stanza.NewText(stanza.NSClient, "body", canary),
		"foreign body":   stanza.NewText("urn:example", "body", canary),
		"server body":    stanza.NewText("jabber:server", "body", canary),
		"subject":        stanza.NewText(stanza.NSClient, "subject", canary),
		"html":           stanza.NewElement("http://jabber.org/protocol/xhtml-im", "html", stanza.NewText("http://www.w3.org/1999/xhtml", "body", canary)),
		"clear envelope": stanza.NewElement(stanza.NSSCE, "envelope", stanza.NewElement(stanza.NSSCE, "content", stanza.NewText(stanza.NSClient, "body", canary))),
	}
	for name, e := range beside {
		for _, way := range ways {
			for _, place := range []string{"before", "after"} {
				s.in(t, name+" "+place+", "+way, func() { s.reads(way, place, e) })
			}
		}
	}
	s.honest(s.romeo)
}

// reads has romeo send an honest message with an element beside what is
// encrypted. The message is delivered without it.
func (s *stage) reads(way, place string, beside ...*stanza.Element) {
	s.t.Helper()
	text := s.id("inside ")
	m := s.romeo.text(s, s.v, text)
	for _, e := range beside {
		n := stanza.Node{Element: e.Clone()}
		if place == "before" {
			m.Children = slices.Insert(m.Children, 0, n)
		} else {
			m.Children = append(m.Children, n)
		}
	}
	s.delivers(way, m, text)
}

// delivers injects a message of which exactly the text is delivered.
func (s *stage) delivers(way string, m *stanza.Element, text string) *stanza.Element {
	s.t.Helper()
	w := s.watch()
	s.inject(s.by(way, m))
	events, delivered := s.since(w)
	s.unharmed(events, delivered)
	if len(delivered) != 1 {
		s.t.Fatalf("%d delivered; events %v", len(delivered), events)
	}
	got := innermost(delivered[0])
	bodies := 0
	for c := range got.Elements() {
		if c.Name.Local == "body" {
			bodies++
			if c.Text() != text {
				s.t.Errorf("body %q", c.Text())
			}
		}
	}
	if bodies != 1 {
		s.t.Errorf("%d bodies", bodies)
	}
	return got
}

// enveloped returns a message of romeo's with any plain text.
func (s *stage) enveloped(plaintext string) *stanza.Element {
	s.t.Helper()
	return s.romeo.stanza(s, juliet, element(s.romeo.seal(s, s.v, omemo.Plaintext{Legacy: []byte(plaintext), V2: []byte(plaintext)}, juliet)))
}

const sce = "<envelope xmlns='urn:xmpp:sce:1'><content><body xmlns='jabber:client'>%s</body></content><rpad>x</rpad>%s</envelope>"

func d4(t *testing.T, v omemo.Version) {
	if v == omemo.Legacy {
		s := newStage(t, v)
		s.in(t, "legacy has no affixes", func() { s.honest(s.romeo) })
		return
	}
	s := newStage(t, v)
	wrong := []string{mallory, juliet, "romeo@example.net.evil.example", "example.net", "@", "", "romeo@", "romeo@evil.example/romeo@example.net"}
	for _, from := range wrong {
		for _, way := range ways {
			s.in(t, "from "+from+", "+way, func() {
				s.repels(s.by(way, s.enveloped(fmt.Sprintf(sce, canary, "<from jid='"+from+"'/>"))), middleware.Undecryptable)
			})
		}
	}
	s.in(t, "twice", func() {
		s.repels(s.by("direct", s.enveloped(fmt.Sprintf(sce, canary, "<from jid='"+romeo+"'/><from jid='"+romeo+"'/>"))), middleware.Undecryptable)
	})
	for _, from := range []string{"", "<from jid='" + romeo + "'/>", "<from jid='ROMEO@example.net/x'/>"} {
		for _, way := range ways {
			s.in(t, "accepted "+from+", "+way, func() {
				text := s.id("text ")
				got := s.delivers(way, s.enveloped(fmt.Sprintf(sce, text, from+"<to jid='"+juliet+"'/>")), text)
				if bound := attribute(got.Child(middleware.NSInfo, "info"), "bound"); bound != fmt.Sprint(from != "") {
					s.t.Errorf("bound %s", bound)
				}
			})
		}
	}
	s.honest(s.romeo)
}

func d6(t *testing.T, v omemo.Version) {
	s := newStage(t, v)
	if v == omemo.V2 {
		for _, way := range ways {
			s.in(t, "without padding, "+way, func() {
				text := s.id("text ")
				got := s.delivers(way, s.enveloped(fmt.Sprintf("<envelope xmlns='urn:xmpp:sce:1'><content><body xmlns='jabber:client'>%s</body></content></envelope>", text)), text)
				if attribute(got.Child(middleware.NSInfo, "info"), "padded") != "false" {
					s.t.Error("not marked")
				}
			})
		}
		s.in(t, "what we send hides its length", func() {
			lengths := make(map[int]int)
			for range 400 {
				lengths[len(envelope(s.t, juliet, romeo, "ok"))]++
			}
			low, high := 1<<20, 0
			for n := range lengths {
				low, high = min(low, n), max(high, n)
			}
			if len(lengths) < 120 || high-low > 200 || low < 256 {
				s.t.Errorf("%d lengths from %d to %d", len(lengths), low, high)
			}
		})
	} else {
		s.in(t, "legacy has no padding", func() { s.honest(s.romeo) })
	}
	s.honest(s.romeo)
}

func d7(t *testing.T, v omemo.Version) {
	s := newStage(t, v)
	if v == omemo.Legacy {
		s.in(t, "legacy has no time", func() { s.honest(s.romeo) })
		return
	}
	const year = 365 * 24 * time.Hour
	for _, skew := range []time.Duration{-year, -2 * time.Hour, -50 * time.Minute, 0, 50 * time.Minute, 2 * time.Hour, year} {
		for _, way := range ways {
			for _, delay := range []time.Duration{0, -year, -3 * time.Hour} {
				s.in(t, fmt.Sprintf("%v, delayed %v, %s", skew, delay, way), func() {
					text := s.id("text ")
					sent := time.Now().Add(delay)
					at := sent.Add(skew).UTC().Format(time.RFC3339)
					m := s.enveloped(fmt.Sprintf(sce, text, "<time stamp='"+at+"'/>"))
					stamp := sent.UTC().Format(time.RFC3339)
					raw := s.by("direct", m)
					switch way {
					case "direct":
						m.Append(stanza.NewElement(stanza.NSDelay, "delay").SetAttribute("stamp", stamp))
						raw = s.by("direct", m)
					case "carbon":
						raw = strings.Replace(s.by(way, m), "<forwarded xmlns='urn:xmpp:forward:0'>",
							"<forwarded xmlns='urn:xmpp:forward:0'><delay xmlns='urn:xmpp:delay' stamp='"+stamp+"'/>", 1)
					case "archive":
						s.openQuery()
						raw = replaceStamp(archived(juliet, s.query, raw), stamp) + s.closeQuery()
					}
					w := s.watch()
					s.inject(raw)
					events, delivered := s.since(w)
					s.unharmed(events, delivered)
					if len(delivered) != 1 {
						s.t.Fatalf("%d delivered: %v", len(delivered), events)
					}
					info := innermost(delivered[0]).Child(middleware.NSInfo, "info")
					if want := fmt.Sprint(skew.Abs() > middleware.TimeWindow); attribute(info, "skewed") != want {
						s.t.Errorf("skewed %s, want %s", attribute(info, "skewed"), want)
					}
				})
			}
		}
	}
	for _, stamp := range []string{"", "yesterday", "2026-13-01T00:00:00Z", "0000-00-00T00:00:00Z", "99999-01-01T00:00:00Z", "-1"} {
		s.in(t, "malformed "+stamp, func() {
			s.repels(s.by("direct", s.enveloped(fmt.Sprintf(sce, canary, "<time stamp='"+stamp+"'/>"))), middleware.Undecryptable)
		})
	}
	s.honest(s.romeo)
}

// replaceStamp changes the stamp of the first delay.
func replaceStamp(raw, stamp string) string {
	before, rest, _ := strings.Cut(raw, "stamp='")
	_, after, _ := strings.Cut(rest, "'")
	return before + "stamp='" + stamp + "'" + after
}

// besides are elements that mean something when they stand beside a body.
var besides = []*stanza.Element{
	stanza.NewElement("urn:xmpp:message-correct:0", "replace").SetAttribute("id", canary),
	stanza.NewElement("urn:xmpp:message-retract:0", "retract").SetAttribute("id", canary),
	stanza.NewElement("urn:xmpp:message-retract:1", "retract").SetAttribute("id", canary),
	stanza.NewElement("urn:xmpp:fasten:0", "apply-to").SetAttribute("id", canary),
	stanza.NewElement("urn:xmpp:reactions:0", "reactions", stanza.NewText("urn:xmpp:reactions:0", "reaction", canary)).SetAttribute("id", canary),
	stanza.NewElement("urn:xmpp:reply:0", "reply").SetAttribute("id", canary).SetAttribute("to", canary),
	stanza.NewElement("urn:xmpp:fallback:0", "fallback").SetAttribute("for", canary),
	stanza.NewText(stanza.NSClient, "thread", canary),
	stanza.NewText(stanza.NSClient, "subject", canary),
	stanza.NewElement("jabber:x:oob", "x", stanza.NewText("jabber:x:oob", "url", "https://"+canary)),
	stanza.NewElement("jabber:x:conference", "x").SetAttribute("jid", canary+"@example.net"),
	stanza.NewElement("http://jabber.org/protocol/muc#user", "x", stanza.NewElement("http://jabber.org/protocol/muc#user", "invite").SetAttribute("from", canary)),
	stanza.NewElement("urn:xmpp:receipts", "received").SetAttribute("id", canary),
	stanza.NewElement("urn:xmpp:receipts", "request").SetAttribute("x", canary),
	stanza.NewElement("urn:xmpp:chat-markers:0", "displayed").SetAttribute("id", canary),
	stanza.NewElement("http://jabber.org/protocol/chatstates", "active").SetAttribute("x", canary),
	stanza.NewElement("urn:xmpp:attention:0", "attention").SetAttribute("x", canary),
	stanza.NewElement("http://jabber.org/protocol/nick", "nick", stanza.NewText("x", "y", canary)),
	stanza.NewElement("jabber:x:data", "x", stanza.NewText("jabber:x:data", "title", canary)),
	stanza.NewElement("http://jabber.org/protocol/commands", "command").SetAttribute("node", canary),
	stanza.NewElement("http://jabber.org/protocol/address", "addresses", stanza.NewElement("http://jabber.org/protocol/address", "address").SetAttribute("jid", canary)),
	stanza.NewElement("http://jabber.org/protocol/pubsub#event", "event").SetAttribute("x", canary),
	stanza.NewElement("urn:xmpp:sfs:0", "file-sharing").SetAttribute("id", canary),
	stanza.NewElement("urn:xmpp:jingle-message:0", "propose").SetAttribute("id", canary),
	stanza.NewElement("urn:xmpp:call-invites:0", "invite").SetAttribute("x", canary),
	stanza.NewElement("urn:xmpp:spoiler:0", "spoiler").SetAttribute("x", canary),
	stanza.NewElement("urn:xmpp:styling:0", "unstyled").SetAttribute("x", canary),
	stanza.NewElement("urn:xmpp:markup:0", "markup").SetAttribute("x", canary),
	stanza.NewElement("http://jabber.org/protocol/geoloc", "geoloc", stanza.NewText("http://jabber.org/protocol/geoloc", "lat", canary)),
	stanza.NewElement("urn:xmpp:reference:0", "reference").SetAttribute("uri", canary),
	stanza.NewElement("http://jabber.org/protocol/xhtml-im", "html").SetAttribute("x", canary),
	stanza.NewElement("urn:xmpp:sce:1", "content", stanza.NewText(stanza.NSClient, "body", canary)),
	stanza.NewElement("urn:xmpp:omemo:2", "opt-out", stanza.NewText("urn:xmpp:omemo:2", "reason", canary)),
	stanza.NewElement("", "body", stanza.NewText("", "x", canary)),
	stanza.NewElement("urn:example:unknown", "x").SetAttribute("y", canary),
}

func d8(t *testing.T, v omemo.Version) {
	s := newStage(t, v)
	for _, way := range ways {
		for _, e := range besides {
			s.in(t, e.Name.Space+" "+e.Name.Local+", "+way, func() { s.reads(way, "after", e) })
		}
		s.in(t, "all of them, "+way, func() { s.reads(way, "before", besides...) })
	}
	s.honest(s.romeo)
}

// d9 corrects and retracts what others have written.
func d9(t *testing.T, v omemo.Version) {
	s := newStage(t, v)
	for _, way := range ways {
		for _, e := range []*stanza.Element{besides[0], besides[1], besides[2], besides[4]} {
			s.in(t, "in clear: "+e.Name.Local+", "+way, func() {
				for _, from := range []string{romeo + "/phone", mallory + "/x", romeo} {
					m := stanza.NewElement(stanza.NSClient, "message", e.Clone(), stanza.NewText(stanza.NSClient, "body", canary)).
						SetAttribute("from", from).SetAttribute("to", juliet).SetAttribute("type", "chat")
					s.repels(s.by(way, m), middleware.PlaintextReceived)
				}
			})
		}
		s.in(t, "encrypted: who says so is said, "+way, func() {
			if v == omemo.Legacy {
				s.arrives(s.romeo, way)
				return
			}
			text := s.id("correction ")
			m := s.enveloped(fmt.Sprintf("<envelope xmlns='urn:xmpp:sce:1'><content><body xmlns='jabber:client'>%s</body>"+
				"<replace xmlns='urn:xmpp:message-correct:0' id='4711'/></content></envelope>", text))
			got := s.delivers(way, m, text)
			f, err := s.romeo.m.Fingerprint(context.Background())
			ok(s.t, err)
			info := got.Child(middleware.NSInfo, "info")
			if attribute(got.Child("urn:xmpp:message-correct:0", "replace"), "id") != "4711" || attribute(info, "account") != romeo ||
				attribute(info, "device") != fmt.Sprint(s.romeo.Device) || attribute(info, "fingerprint") != fmt.Sprintf("%x", f[:]) {
				s.t.Errorf("%s", got.AppendXML(nil))
			}
		})
	}
	s.honest(s.romeo)
}

func d12(t *testing.T, v omemo.Version) {
	s := newStage(t, v)
	if v == omemo.Legacy {
		s.in(t, "legacy content is text", func() {
			for _, way := range ways {
				text := "<body xmlns='jabber:client'>" + s.id("text ") + "</body><encrypted xmlns='" + stanza.NSLegacy + "'/>"
				s.delivers(way, s.enveloped(text), text)
			}
		})
		s.honest(s.romeo)
		return
	}
	inside := func(content string) string {
		return "<envelope xmlns='urn:xmpp:sce:1'><content>" + content + "</content><rpad>x</rpad></envelope>"
	}
	dropped := map[string]string{
		"hints":             "<store xmlns='urn:xmpp:hints' x='" + canary + "'/>",
		"stanza-id":         "<stanza-id xmlns='urn:xmpp:sid:0' id='" + canary + "' by='example.net'/>",
		"addresses":         "<addresses xmlns='http://jabber.org/protocol/address' x='" + canary + "'/>",
		"encryption":        "<encryption xmlns='urn:xmpp:eme:0' namespace='" + canary + "'/>",
		"encrypted omemo:2": "<encrypted xmlns='urn:xmpp:omemo:2'><header sid='1'/><payload>" + canary + "</payload></encrypted>",
		"encrypted legacy":  "<encrypted xmlns='eu.siacs.conversations.axolotl'><header sid='1'/><payload>" + canary + "</payload></encrypted>",
		"envelope":          "<envelope xmlns='urn:xmpp:sce:1'><content><body xmlns='jabber:client'>" + canary + "</body></content></envelope>",
		"message":           "<message xmlns='jabber:client' from='" + mallory + "'><body>" + canary + "</body></message>",
		"iq":                "<iq xmlns='jabber:client' id='" + canary + "'/>",
		"presence":          "<presence xmlns='jabber:client' id='" + canary + "'/>",
		"stream error":      "<error xmlns='http://etherx.jabber.org/streams'>" + canary + "</error>",
		"delay":             "<delay xmlns='urn:xmpp:delay' stamp='" + canary + "'/>",
		"carbon":            "<received xmlns='urn:xmpp:carbons:2' x='" + canary + "'/>",
		"archive result":    "<result xmlns='urn:xmpp:mam:2' x='" + canary + "'/>",
		"event":             "<event xmlns='http://jabber.org/protocol/pubsub#event' x='" + canary + "'/>",
		"room":              "<x xmlns='http://jabber.org/protocol/muc#user' x='" + canary + "'/>",
		"error":             "<error xmlns='jabber:client' type='" + canary + "'/>",
	}
	refused := map[string]string{
		"two bodies":              inside("<body xmlns='jabber:client'>" + canary + "</body><body xmlns='jabber:client'>x</body>"),
		"no content":              "<envelope xmlns='urn:xmpp:sce:1'><rpad>" + canary + "</rpad></envelope>",
		"two contents":            "<envelope xmlns='urn:xmpp:sce:1'><content><body xmlns='jabber:client'>" + canary + "</body></content><content/></envelope>",
		"text":                    canary,
		"nothing":                 " ",
		"another root":            "<body xmlns='jabber:client'>" + canary + "</body>",
		"another namespace":       "<envelope xmlns='urn:xmpp:sce:2'><content><body xmlns='jabber:client'>" + canary + "</body></content></envelope>",
		"trailing data":           fmt.Sprintf(sce, canary, "") + "x",
		"two envelopes":           fmt.Sprintf(sce, canary, "") + fmt.Sprintf(sce, canary, ""),
		"comment":                 inside("<!-- --><body xmlns='jabber:client'>" + canary + "</body>"),
		"processing instruction":  "<?xml version='1.0'?>" + fmt.Sprintf(sce, canary, ""),
		"document type":           "<!DOCTYPE x [<!ENTITY a 'b'>]>" + fmt.Sprintf(sce, canary, ""),
		"entity":                  inside("<body xmlns='jabber:client'>" + canary + "&a;</body>"),
		"not closed":              "<envelope xmlns='urn:xmpp:sce:1'><content><body xmlns='jabber:client'>" + canary,
		"not UTF-8":               inside("<body xmlns='jabber:client'>" + canary + "\xff</body>"),
		"NUL":                     inside("<body xmlns='jabber:client'>" + canary + "\x00</body>"),
		"NUL as a reference":      inside("<body xmlns='jabber:client'>" + canary + "&#0;</body>"),
		"undeclared prefix":       inside("<a:body>" + canary + "</a:body>"),
		"33 deep":                 inside(strings.Repeat("<x xmlns='y'>", 40) + canary + strings.Repeat("</x>", 40)),
		"text in the content":     inside(canary),
		"40,000 elements":         inside("<body xmlns='jabber:client'>" + canary + "</body>" + strings.Repeat("<x xmlns=''/>", 20_001)),
		"attribute twice":         inside("<body xmlns='jabber:client' a='1' a='2'>" + canary + "</body>"),
		"65 attributes":           inside("<body xmlns='jabber:client'>" + canary + "</body><x xmlns='y'" + manyAttributes(65) + "/>"),
		"prefix without namspace": inside("<body xmlns='jabber:client' xmlns:a=''>" + canary + "</body>"),
	}
	for _, way := range ways {
		for name, e := range dropped {
			s.in(t, name+", "+way, func() {
				text := s.id("text ")
				s.delivers(way, s.enveloped(inside(e+"<body xmlns='jabber:client'>"+text+"</body>"+e)), text)
			})
		}
		for name, plaintext := range refused {
			s.in(t, name+", "+way, func() { s.repels(s.by(way, s.enveloped(plaintext)), middleware.Undecryptable) })
		}
	}
	s.honest(s.romeo)
}

func manyAttributes(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, " a%d='1'", i)
	}
	return b.String()
}

// d13 puts several elements into one message.
func d13(t *testing.T, v omemo.Version) {
	s := newStage(t, v)
	second := func() *stanza.Element {
		return element(s.romeo.seal(s, v, omemo.Plaintext{Legacy: []byte(canary), V2: envelope(s.t, romeo, juliet, canary)}, juliet))
	}
	foreign := func(w omemo.Version, ours bool) *stanza.Element {
		rid := "1"
		if ours {
			rid = fmt.Sprint(s.victim.Device)
		}
		raw := "<encrypted xmlns='%s'><header sid='%d'><key rid='%s'>AAAA</key><iv>AAAAAAAAAAAAAAAA</iv></header><payload>AAAA</payload></encrypted>"
		if w == omemo.V2 {
			raw = "<encrypted xmlns='%s'><header sid='%d'><keys jid='" + juliet + "'><key rid='%s'>AAAA</key></keys></header><payload>AAAA</payload></encrypted>"
		}
		e, err := stanza.ParseElement([]byte(fmt.Sprintf(raw, w.Namespace(), s.romeo.Device, rid)), stanza.DefaultLimits)
		ok(s.t, err)
		return e
	}
	for _, way := range ways {
		for _, place := range []string{"before", "after"} {
			s.in(t, "two of one version, "+place+", "+way, func() {
				m := s.romeo.stanza(s, juliet, element(s.romeo.seal(s, v, omemo.Plaintext{Legacy: []byte(canary), V2: envelope(s.t, romeo, juliet, canary)}, juliet)), second())
				if place == "before" {
					slices.Reverse(m.Children)
				}
				s.repels(s.by(way, m), middleware.Refused)
			})
			s.in(t, "the other version is for somebody else, "+place+", "+way, func() {
				s.reads(way, place, foreign(otherVersion(v), false))
			})
		}
		s.in(t, "the other version carries our key as well, "+way, func() {
			text := s.id("text ")
			m := s.romeo.text(s, v, text)
			m.Append(foreign(otherVersion(v), true))
			w := s.watch()
			s.inject(s.by(way, m))
			events, delivered := s.since(w)
			s.unharmed(events, delivered)
			// omemo:2 counts, and only that.
			if want := map[omemo.Version]int{omemo.V2: 1, omemo.Legacy: 0}[v]; len(delivered) != want {
				s.t.Errorf("%d delivered", len(delivered))
			}
		})
	}
	s.honest(s.romeo)
}

// d14 changes what a key is worth between two messages.
func d14(t *testing.T, v omemo.Version) {
	levels := []omemo.Trust{omemo.Undecided, omemo.TrustedBlindly, omemo.Verified}
	for _, least := range levels {
		s := newScene(t, v, func(c *middleware.Config) { c.Trust, c.MinTrust = omemo.Manual, least })
		s.romeo.publish(s, v)
		f, err := s.romeo.m.Fingerprint(t.Context())
		ok(t, err)
		for _, trust := range []omemo.Trust{omemo.Undecided, omemo.TrustedBlindly, omemo.Verified, omemo.Distrusted} {
			for _, way := range ways {
				s.in(t, fmt.Sprintf("%v, at least %v, %s", trust, least, way), func() {
					ok(s.t, s.om.Manager().SetTrust(context.Background(), romeo, f, trust))
					text := s.id("text ")
					w := s.watch()
					s.inject(s.by(way, s.romeo.text(s, v, text)))
					events, delivered := s.since(w)
					if want := trust != omemo.Distrusted && trust >= least; want {
						if len(delivered) != 1 || attribute(innermost(delivered[0]).Child(middleware.NSInfo, "info"), "trust") != trust.String() {
							s.t.Errorf("delivered %v", delivered)
						}
					} else if len(delivered) != 0 || !has(events, middleware.Untrusted, romeo) {
						s.t.Errorf("delivered %v, events %v", delivered, events)
					}
				})
			}
		}
		s.settle()
	}
}

func d15(t *testing.T, v omemo.Version) {
	s := newStage(t, v)
	bad := []string{"\x00" + canary, canary + "\x00", canary + "\xff\xfe", canary + "\xc0\xaf", canary + "\xed\xa0\x80", canary + "\xf4\x90\x80\x80",
		canary + "\x01", canary + "\x08", canary + "\x0b", canary + "\x1f", canary + "\ufffe", canary + "\uffff", "\xf0\x9f" + canary}
	good := []string{"\u202ereversed", "tab\tline\nfeed", "e\u0301", "\u200b", "😀", "<b>&amp;</b>", "]]>", "\u2028", "ﬁ", "\u0085"}
	wrap := func(text string) string {
		if v == omemo.Legacy {
			return text
		}
		return "<envelope xmlns='urn:xmpp:sce:1'><content><body xmlns='jabber:client'>" + text + "</body></content></envelope>"
	}
	escape := strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;")
	for _, way := range ways {
		for _, text := range bad {
			s.in(t, fmt.Sprintf("%q, %s", text, way), func() {
				s.repels(s.by(way, s.enveloped(wrap(text))), middleware.Undecryptable)
			})
		}
		for _, text := range good {
			s.in(t, fmt.Sprintf("%q is text, %s", text, way), func() {
				inner := text
				if v == omemo.V2 {
					inner = escape.Replace(text)
				}
				s.delivers(way, s.enveloped(wrap(inner)), text)
			})
		}
	}
	s.honest(s.romeo)
}

func d16(t *testing.T, v omemo.Version) {
	s := newStage(t, v)
	eme := stanza.Encryption(v.Namespace())
	for _, way := range ways {
		s.in(t, "announced, not encrypted, "+way, func() {
			m := s.romeo.stanza(s, juliet, eme.Clone(), stanza.NewText(stanza.NSClient, "body", canary))
			s.repels(s.by(way, m), middleware.PlaintextReceived)
		})
		s.in(t, "announced for another, "+way, func() { s.reads(way, "before", stanza.Encryption("urn:xmpp:openpgp:0")) })
		s.in(t, "encrypted, not announced, "+way, func() { s.arrives(s.romeo, way) })
		s.in(t, "announced alone, "+way, func() { s.repels(s.by(way, s.romeo.stanza(s, juliet, eme.Clone()))) })
	}
	s.honest(s.romeo)
}

// d17 documents that a legacy message does not say where it belongs.
func d17(t *testing.T, v omemo.Version) {
	s := newStage(t, v)
	for _, way := range ways {
		s.in(t, way, func() {
			text := s.id("text ")
			got := s.delivers(way, s.romeo.text(s, v, text), text)
			if bound := attribute(got.Child(middleware.NSInfo, "info"), "bound"); bound != fmt.Sprint(v == omemo.V2) {
				s.t.Errorf("bound %s", bound)
			}
		})
	}
	s.honest(s.romeo)
}

func d18(t *testing.T, v omemo.Version) {
	s := newStage(t, v)
	for _, way := range ways {
		for _, from := range []string{mallory + "/x", romeo + "/phone", romeo} {
			for _, typ := range []string{"chat", "normal", "headline", "", "error", "strange"} {
				s.in(t, fmt.Sprintf("%s from %s, %s", typ, from, way), func() {
					m := stanza.NewElement(stanza.NSClient, "message", stanza.NewText(stanza.NSClient, "body", canary)).
						SetAttribute("from", from).SetAttribute("to", juliet)
					if typ != "" {
						m.SetAttribute("type", typ)
					}
					s.repels(s.by(way, m))
				})
			}
		}
	}
	s.honest(s.romeo)
}

func d19(t *testing.T, v omemo.Version) {
	s := newStage(t, v)
	forged := func() *stanza.Element {
		return stanza.NewElement(middleware.NSInfo, "info").SetAttribute("account", canary).SetAttribute("trust", "verified")
	}
	places := map[string]func(m *stanza.Element){
		"beside":          func(m *stanza.Element) { m.Append(forged()) },
		"first":           func(m *stanza.Element) { m.Children = slices.Insert(m.Children, 0, stanza.Node{Element: forged()}) },
		"in encrypted":    func(m *stanza.Element) { m.Child(v.Namespace(), "encrypted").Append(forged()) },
		"deep":            func(m *stanza.Element) { m.Append(stanza.NewElement("urn:xmpp:sid:0", "origin-id", forged())) },
		"another element": func(m *stanza.Element) { m.Append(stanza.NewElement(middleware.NSInfo, "x").SetAttribute("y", canary)) },
	}
	for _, way := range ways {
		for name, change := range places {
			s.in(t, name+", "+way, func() {
				text := s.id("text ")
				m := s.romeo.text(s, v, text)
				change(m)
				s.oneInfo(s.delivers(way, m, text))
			})
			s.in(t, name+" of the wrapper, "+way, func() {
				m, err := stanza.ParseElement([]byte("<message xmlns='jabber:client' from='"+romeo+"' to='"+juliet+"' type='error'><error type='cancel'/></message>"), stanza.DefaultLimits)
				ok(s.t, err)
				if name != "in encrypted" {
					change(m)
				}
				s.repels(s.by(way, m))
			})
		}
		if v == omemo.V2 {
			s.in(t, "inside the envelope, "+way, func() {
				text := s.id("text ")
				info := string(forged().AppendXML(nil))
				m := s.enveloped("<envelope xmlns='urn:xmpp:sce:1'><content>" + info + "<body xmlns='jabber:client'>" + text +
					"</body><x xmlns='y'>" + info + "</x></content></envelope>")
				s.oneInfo(s.delivers(way, m, text))
			})
		}
		s.in(t, "in clear, "+way, func() {
			m := s.romeo.stanza(s, juliet, forged(), stanza.NewText(stanza.NSClient, "body", canary))
			s.repels(s.by(way, m), middleware.PlaintextReceived)
		})
	}
	s.in(t, "echoed by the program", func() {
		s.srv.ForgetWire()
		m := stanza.NewElement(stanza.NSClient, "message", stanza.NewText(stanza.NSClient, "body", "echo"), forged(), stanza.NewElement("urn:x", "x", forged())).
			SetAttribute("to", romeo).SetAttribute("type", "chat").SetAttribute("id", s.id("echo"))
		w := s.watch()
		ok(s.t, s.session.Send(context.Background(), m.TokenReader()))
		s.await("accepted", func() bool { return has(s.events[w.events:], middleware.Accepted, romeo) })
		s.silent(middleware.NSInfo)
		s.silent(canary)
		s.settle()
	})
	s.honest(s.romeo)
}

// oneInfo checks that the last child of a message is the only element of ours.
func (s *stage) oneInfo(m *stanza.Element) {
	s.t.Helper()
	count := 0
	var last *stanza.Element
	walk(m, func(e *stanza.Element) {
		if e.Name.Space == middleware.NSInfo {
			count++
		}
	})
	for c := range m.Elements() {
		last = c
	}
	if count != 1 || !last.Is(middleware.NSInfo, "info") || attribute(last, "account") != romeo {
		s.t.Errorf("%d elements of ours: %s", count, m.AppendXML(nil))
	}
}

func d20(t *testing.T, v omemo.Version) {
	s := newStage(t, v)
	for i, inner := range []*stanza.Element{
		stanza.NewText(stanza.NSClient, "body", canary), besides[0], stanza.NewText("urn:x", "y", canary), stanza.NewText(stanza.NSClient, "subject", canary),
	} {
		s.in(t, fmt.Sprint("answer ", i), func() {
			m := stanza.NewElement(stanza.NSClient, "message", inner.Clone(), stanza.NewElement(stanza.NSClient, "error").SetAttribute("type", "cancel")).
				SetAttribute("to", romeo).SetAttribute("type", "error").SetAttribute("id", s.id("error"))
			id := attribute(m, "id")
			ok(s.t, s.session.Send(context.Background(), m.TokenReader()))
			_, err := s.srv.Await(context.Background(), func(st xmpptest.Stanza) bool {
				return st.Direction == xmpptest.FromClient && bytes.Contains(st.XML, []byte(`"`+id+`"`))
			})
			ok(s.t, err)
			s.silent(canary)
		})
	}
	s.honest(s.romeo)
}

// d21 sends what cannot be decrypted, and listens for any answer.
func d21(t *testing.T, v omemo.Version) {
	s := newStage(t, v)
	things := map[string]func() *stanza.Element{
		"garbage in a session": func() *stanza.Element {
			return s.rekey(s.romeo.text(s, v, canary), func(b []byte, _ bool) []byte { b[len(b)-1] ^= 1; return b })
		},
		"garbage in a key exchange": func() *stanza.Element {
			return s.rekey(newDevice(s.t, mallory).text(s, v, canary), func(b []byte, _ bool) []byte { b[len(b)-1] ^= 1; return b })
		},
		"plain text": func() *stanza.Element {
			return s.romeo.stanza(s, juliet, stanza.NewText(stanza.NSClient, "body", canary))
		},
		"wrong affix": func() *stanza.Element { return s.enveloped(fmt.Sprintf(sce, canary, "<from jid='x@y'/>") + "\x00") },
		"no element": func() *stanza.Element {
			return s.romeo.stanza(s, juliet, stanza.NewElement(v.Namespace(), "encrypted"))
		},
	}
	for name, make1 := range things {
		for _, way := range ways {
			s.in(t, name+", "+way, func() {
				raw := s.by(way, make1())
				s.srv.ForgetWire()
				s.repels(raw)
				s.settle()
				for _, st := range s.srv.Wire() {
					if st.Direction == xmpptest.FromClient {
						s.t.Errorf("answered: %s", st.XML)
					}
				}
			})
		}
	}
	s.in(t, "our own failure", func() {
		s.srv.ForgetWire()
		m := stanza.NewElement(stanza.NSClient, "message", stanza.NewText(stanza.NSClient, "body", canary)).
			SetAttribute("to", "nobody@example.net").SetAttribute("type", "chat").SetAttribute("id", "fails")
		w := s.watch()
		ok(s.t, s.session.Send(context.Background(), m.TokenReader()))
		s.await("failure", func() bool { return has(s.events[w.events:], middleware.SendFailed, "nobody@example.net") })
		for _, st := range s.srv.Wire() {
			if st.Direction == xmpptest.FromClient && bytes.Contains(st.XML, []byte("fails")) {
				s.t.Errorf("on the wire: %s", st.XML)
			}
		}
	})
	s.honest(s.romeo)
}

func d22(t *testing.T, v omemo.Version) {
	s := newStage(t, v, func(c *middleware.Config) { c.AnswerStrangers = false })
	s.in(t, "a stranger is not answered", func() {
		s.srv.ForgetWire()
		evil := newDevice(s.t, mallory)
		var raws []string
		for range 1000 {
			raws = append(raws, string(evil.text(s, v, "from a stranger").AppendXML(nil)))
		}
		for batch := range slices.Chunk(raws, 100) {
			s.inject(strings.Join(batch, ""))
		}
		s.settle()
		s.quiet(mallory, 0)
	})
	s.in(t, "a friend at most once a minute", func() {
		ok(s.t, s.srv.AddAccount("friend@example.net", "secret"))
		friend := newDevice(s.t, "friend@example.net")
		friend.publish(s, v)
		_, err := s.say(friend.account, "hello")
		ok(s.t, err)
		s.settle()
		s.srv.ForgetWire()
		// It never reads our messages, so each of its own is a key exchange.
		for range 100 {
			s.honest(friend)
		}
		s.settle()
		s.quiet(friend.account, 1)
	})
	s.honest(s.romeo)
}

// quiet checks how many messages the victim has sent to an account.
func (s *stage) quiet(account string, most int) {
	s.t.Helper()
	n := 0
	for _, st := range s.srv.Wire() {
		if st.Direction == xmpptest.FromClient && bytes.HasPrefix(st.XML, []byte("<message")) && bytes.Contains(st.XML, []byte(account)) {
			n++
		}
	}
	// A heartbeat may come besides.
	if n > most+most*2 {
		s.t.Errorf("%d messages to %s", n, account)
	}
}

func d23(t *testing.T, v omemo.Version) {
	s := newStage(t, v)
	// Another device of ours is served; the recipient has none.
	both := list(v, s.victim.Device, s.other.Device)
	w := s.watch()
	ok(t, s.srv.Publish(juliet, devicelist.Node(v), "current", both))
	s.other.publishBundle(s, s.other.bundle(v))
	s.await("list", func() bool { return has(s.events[w.events:], middleware.ListChanged, juliet) })
	tests := map[string]func(account string) error{
		"no list": func(string) error { return nil },
		"empty list": func(a string) error {
			return s.srv.Publish(a, devicelist.Node(v), "current", list(v))
		},
		"no bundle": func(a string) error {
			return s.srv.Publish(a, devicelist.Node(v), "current", list(v, 4711))
		},
		"distrusted": func(a string) error {
			d := newDevice(s.t, a)
			d.publish(s, v)
			f, err := d.m.Fingerprint(context.Background())
			ok(s.t, err)
			return s.om.Manager().SetTrust(context.Background(), a, f, omemo.Distrusted)
		},
	}
	for name, prepare := range tests {
		s.in(t, name, func() {
			account := strings.ReplaceAll(name, " ", "-") + "@example.net"
			ok(s.t, s.srv.AddAccount(account, "secret"))
			ok(s.t, prepare(account))
			_, err := s.say(account, canary)
			if !errors.Is(err, omemo.ErrNoDevices) && !errors.Is(err, omemo.ErrNoBundle) && !errors.Is(err, omemo.ErrUntrusted) {
				s.t.Errorf("error %v", err)
			}
			s.silent(canary)
			s.quiet(account, 0)
		})
	}
	s.in(t, "the note to ourselves is served", func() {
		result, err := s.say(romeo, "to romeo and to the other device")
		ok(s.t, err)
		served := 0
		for _, d := range result.Devices {
			if d.Err == nil {
				served++
			}
		}
		if served != 2 {
			s.t.Errorf("%+v", result.Devices)
		}
	})
	s.settle()
	s.honest(s.romeo)
}
