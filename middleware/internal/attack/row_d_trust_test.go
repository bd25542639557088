package attack

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"example.org/omellium/middleware"
	"example.org/omellium/omemo"
	"example.org/omellium/stanza"
)

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
		for space, beside := range bodies {
			s.in(t, "<body/> of "+space+", "+way, func() {
				children := []*stanza.Element{stanza.NewText(space, "body", canary)}
				if beside != nil {
					children = append(children, beside.Clone())
				}
				for _, typ := range []string{"chat", "headline", "groupchat"} {
					s.repels(s.by(way, s.romeo.stanza(s, juliet, children...).SetAttribute("type", typ)))
				}
			})
		}
	}
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

// bodies are namespaces of elements that may come in clear, with an element that
// such a <body/> stands beside. A handler that looks for a body by its local name
// finds it in any of them.
var bodies = map[string]*stanza.Element{
	stanza.NSHints:                            nil,
	stanza.NSSID:                              nil,
	stanza.NSDelay:                            nil,
	stanza.NSEME:                              nil,
	"urn:xmpp:carbons:2":                      nil,
	"urn:xmpp:mam:2":                          nil,
	"urn:xmpp:receipts":                       nil,
	"urn:xmpp:chat-markers:0":                 nil,
	"http://jabber.org/protocol/chatstates":   stanza.NewElement("http://jabber.org/protocol/chatstates", "active"),
	"http://jabber.org/protocol/pubsub#event": stanza.NewElement("http://jabber.org/protocol/pubsub#event", "event"),
	"http://jabber.org/protocol/address":      stanza.NewElement("http://jabber.org/protocol/pubsub#event", "event"),
	"http://jabber.org/protocol/shim":         stanza.NewElement("http://jabber.org/protocol/pubsub#event", "event"),
	"http://jabber.org/protocol/muc#user":     stanza.NewElement("http://jabber.org/protocol/muc#user", "x"),
	"jabber:x:conference":                     stanza.NewElement("jabber:x:conference", "x"),
	"http://jabber.org/protocol/muc#request":  stanza.NewElement("jabber:x:conference", "x"),
	"jabber:x:data":                           stanza.NewElement("jabber:x:data", "x"),
	middleware.NSInfo:                         nil,
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
