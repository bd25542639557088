package attack

import (
	"context"
	"errors"
	"fmt"
	"slices"
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
			s.romeo.publishBundle(s, s.romeo.bundle(omemo.V2))
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
				c.FetchTimeout = 50 * time.Millisecond
			})
			ok(t, s.srv.AddAccount("nobody@example.net", "secret"))
			break1(s)
			for kind, e := range kinds {
				s.in(t, fault+", "+name+", "+kind, func() {
					w := s.watch()
					types := []string{"chat", "normal", "headline", "strange"}
					for _, typ := range types {
						m := stanza.NewElement(stanza.NSClient, "message", e.Clone()).
							SetAttribute("to", "nobody@example.net").SetAttribute("type", typ).SetAttribute("id", s.id("out"))
						ok(s.t, s.session.Send(context.Background(), m.TokenReader()))
					}
					s.await("outcomes", func() bool {
						n := 0
						for _, e := range s.events[w.events:] {
							if e.Kind == middleware.SendFailed || e.Kind == middleware.NotSent {
								n++
							}
						}
						return n == len(types)
					})
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
