package attack

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"example.org/omellium/devicelist"
	"example.org/omellium/middleware"
	"example.org/omellium/middleware/xmpptest"
	"example.org/omellium/omemo"
	"example.org/omellium/stanza"
)

// strangers are senders who are not the victim's account, though some look so.
var strangers = []string{
	mallory, mallory + "/x", romeo, romeo + "/phone", server, juliet + "/balcony", juliet + "/other",
	"juliet@example.net.evil.example", "juliet@evil.example", "example.net/" + juliet, "evil.example/" + juliet,
	"juliet\\40example.net@evil.example", "@", "juliet@", " ",
}

func a1(t *testing.T, v omemo.Version) {
	s := newStage(t, v)
	for _, side := range []string{"sent", "received"} {
		d := s.romeo
		if side == "sent" {
			d = s.other
		}
		for _, from := range strangers {
			s.in(t, side+" from "+from, func() {
				// The ciphertext is genuine: only the way is not.
				s.repels(carbon(from, side, string(d.text(s, v, canary).AppendXML(nil))), middleware.Refused)
			})
		}
	}
	s.in(t, "sent by somebody else", func() {
		s.repels(carbon(juliet, "sent", string(s.romeo.text(s, v, canary).AppendXML(nil))), middleware.Refused)
	})
	s.in(t, "received by somebody else", func() {
		m := s.romeo.text(s, v, canary).SetAttribute("to", mallory)
		s.repels(carbon(juliet, "received", string(m.AppendXML(nil))), middleware.Refused)
	})
	s.in(t, "both sides", func() {
		raw := string(s.romeo.text(s, v, canary).AppendXML(nil))
		both := strings.Replace(carbon(juliet, "received", raw), "</message>", "", 1)
		both = strings.TrimSuffix(both, "</message>") + "<sent xmlns='urn:xmpp:carbons:2'/></message>"
		both = strings.Replace(both, "</encrypted>", "</encrypted></message>", 1)
		s.repels(both)
	})
	s.in(t, "with more beside it", func() {
		raw := strings.TrimSuffix(carbon(juliet, "received", string(s.romeo.text(s, v, canary).AppendXML(nil))), "</message>")
		s.repels(raw+"<body>"+canary+"</body></message>", middleware.Refused)
	})
	s.in(t, "afterwards", func() { s.arrives(s.romeo, "carbon") })
}

func a2(t *testing.T, v omemo.Version) {
	s := newStage(t, v)
	raw := func() string { return string(s.romeo.text(s, v, canary).AppendXML(nil)) }
	s.openQuery()
	for _, from := range strangers {
		s.in(t, "from "+from, func() { s.repels(archived(from, s.query, raw()), middleware.Refused) })
	}
	for _, query := range []string{"", "unknown", s.query + " ", strings.ToUpper(s.query)} {
		s.in(t, "query "+query, func() { s.repels(archived(juliet, query, raw()), middleware.Refused) })
	}
	for way := range slices.Values([]string{"archive", "carbon"}) {
		for place, before := range map[string]string{
			"beside the wrapper": "</message>", "beside what is forwarded": "</forwarded>", "in what is forwarded": "</forwarded>", "in the wrapper": "</forwarded>",
		} {
			s.in(t, way+", "+place, func() {
				raw := s.by(way, s.romeo.text(s, v, canary))
				at := strings.LastIndex(raw, before)
				more := "<body>" + canary + "</body>"
				switch place {
				case "in what is forwarded":
					more = "<message xmlns='urn:example'>" + more + "</message>"
				case "in the wrapper":
					at += len(before)
				}
				s.repels(raw[:at]+more+raw[at:], middleware.Refused)
			})
		}
	}
	s.in(t, "the honest archive", func() { s.arrives(s.romeo, "archive") })
	s.in(t, "a spoofed end closes nothing", func() {
		s.openQuery()
		s.inject(strings.Replace(s.closeQuery(), "<iq ", "<iq from='"+mallory+"' ", 1))
		w := s.watch()
		s.inject(archived(juliet, s.query, string(s.romeo.text(s, v, "still open").AppendXML(nil))))
		if _, delivered := s.since(w); len(delivered) != 1 {
			s.t.Error("the query was closed")
		}
	})
	s.in(t, "after the end", func() {
		s.inject(s.closeQuery())
		s.repels(archived(juliet, s.query, raw()), middleware.Refused)
	})
	s.honest(s.romeo)
}

// a3 answers the victim's questions about a contact before the contact's server
// does.
func a3(t *testing.T, v omemo.Version) {
	s := newStage(t, v)
	evil := newDevice(t, mallory)
	spoofers := []string{mallory, mallory + "/x", juliet, juliet + "/balcony", server, "contact%d@example.net/phone", "", "evil.example"}
	for i, from := range spoofers {
		s.in(t, "reply from "+from, func() {
			account := fmt.Sprintf("contact%d@example.net", i)
			if strings.Contains(from, "%d") {
				from = account + "/phone"
			}
			ok(s.t, s.srv.AddAccount(account, "secret"))
			genuine := newDevice(s.t, account)
			genuine.publish(s, v)
			spoofed := 0
			s.srv.SetFilter(func(_ context.Context, st xmpptest.Stanza) [][]byte {
				if e := question(st); e != nil && attribute(e, "to") == account {
					spoofed++
					_ = s.srv.Inject(s.full, spoof(e, from, evil, v))
				}
				return [][]byte{st.XML}
			})
			defer s.srv.SetFilter(nil)
			result, err := s.say(account, "for the contact")
			ok(s.t, err)
			for _, d := range result.Devices {
				if d.Peer.JID == account && d.Peer.Address.Device != genuine.Device {
					s.t.Errorf("served %v", d.Peer)
				}
			}
			if spoofed == 0 {
				s.t.Error("nothing was asked")
			}
			s.settle()
		})
	}
	s.honest(s.romeo)
}

// question returns an IQ of the victim about another account's node, or nil.
func question(st xmpptest.Stanza) *stanza.Element {
	if st.Direction != xmpptest.FromClient {
		return nil
	}
	e, err := stanza.ParseElement(clientStanza(st.XML), stanza.DefaultLimits)
	if err != nil || e.Name.Local != "iq" || e.Child("http://jabber.org/protocol/pubsub", "pubsub") == nil {
		return nil
	}
	return e
}

func attribute(e *stanza.Element, name string) string {
	value, _ := e.Attribute(name)
	return value
}

// spoof returns an answer to a question that names the attacker's device.
func spoof(iq *stanza.Element, from string, evil *device, v omemo.Version) string {
	const ns = "http://jabber.org/protocol/pubsub"
	items := iq.Child(ns, "pubsub").Child(ns, "items")
	node := attribute(items, "node")
	payload, id := list(v, evil.Device), "current"
	if !strings.Contains(node, "devicelist") && !strings.Contains(node, ":devices") {
		payload = string(bundleXML(evil.bundle(v)))
		if item := items.Child(ns, "item"); item != nil {
			id = attribute(item, "id")
		}
	}
	sender := ""
	if from != "" {
		sender = " from='" + from + "'"
	}
	return fmt.Sprintf("<iq xmlns='jabber:client' type='result'%s id='%s' to='%s'><pubsub xmlns='%s'><items node='%s'><item id='%s'>%s</item></items></pubsub></iq>",
		sender, attribute(iq, "id"), juliet, ns, node, id, payload)
}

// listEvent is a notification about a device list, with any sender.
func listEvent(from, node, item, payload string) string {
	if from != "" {
		from = " from='" + from + "'"
	}
	return fmt.Sprintf("<message xmlns='jabber:client' type='headline'%s to='%s'><event xmlns='http://jabber.org/protocol/pubsub#event'>"+
		"<items node='%s'><item id='%s'>%s</item></items></event></message>", from, juliet, node, item, payload)
}

// devices returns the ids that the victim holds for active in one version.
func (s *stage) devices(account string) []omemo.DeviceID {
	s.t.Helper()
	_, devices, err := s.om.Manager().Account(context.Background(), account)
	ok(s.t, err)
	var ids []omemo.DeviceID
	for _, d := range devices {
		if d.Version == s.v && d.Active {
			ids = append(ids, d.Address.Device)
		}
	}
	return ids
}

func a4(t *testing.T, v omemo.Version) {
	s := newStage(t, v)
	node := devicelist.Node(v)
	evil := list(v, 666)
	for _, from := range strangers {
		if from == romeo {
			continue // it is romeo's to say which devices romeo has
		}
		s.in(t, "from "+from, func() {
			w := s.watch()
			s.inject(listEvent(from, node, "current", evil))
			events, delivered := s.since(w)
			s.unharmed(events, delivered)
			if ids := s.devices(romeo); !slices.Equal(ids, []omemo.DeviceID{s.romeo.Device}) {
				s.t.Errorf("romeo has %v", ids)
			}
			if ids := s.devices(juliet); !slices.Equal(ids, []omemo.DeviceID{s.victim.Device}) {
				s.t.Errorf("juliet has %v", ids)
			}
		})
	}
	for _, from := range []string{romeo + "/phone", "room@rooms.example.net/nick", juliet + "/other"} {
		s.in(t, "with a resource: "+from, func() { s.repels(listEvent(from, node, "current", evil), middleware.Refused) })
	}
	s.in(t, "in an error", func() {
		s.repels(strings.Replace(listEvent(romeo, node, "current", evil), "headline", "error", 1))
	})
	for _, way := range []string{"carbon", "archive"} {
		s.in(t, "in a "+way, func() {
			e, err := stanza.ParseElement([]byte(listEvent(romeo, node, "current", evil)), stanza.DefaultLimits)
			ok(s.t, err)
			s.repels(s.by(way, e))
		})
	}
	s.in(t, "with a body", func() {
		raw := strings.Replace(listEvent(romeo, node, "current", evil), "<event", "<body>"+canary+"</body><event", 1)
		s.repels(raw, middleware.PlaintextReceived)
	})
	s.honest(s.romeo)
}

// a5 claims to see the victim's presence, to be told that it is online.
func a5(t *testing.T, v omemo.Version) {
	s := newStage(t, v, func(c *middleware.Config) { c.AnswerStrangers = false })
	for _, from := range []string{mallory, romeo, server, mallory + "/x"} {
		s.in(t, "push from "+from, func() {
			s.inject(fmt.Sprintf("<iq xmlns='jabber:client' type='set' id='%s' from='%s'><query xmlns='jabber:iq:roster'>"+
				"<item jid='%s' subscription='both'/></query></iq>", s.id("push"), from, mallory))
			evil := newDevice(s.t, mallory)
			s.srv.ForgetWire()
			s.inject(string(evil.text(s, v, "from a stranger").AppendXML(nil)))
			s.settle()
			for _, st := range s.srv.Wire() {
				if st.Direction == xmpptest.FromClient && strings.HasPrefix(string(st.XML), "<message") {
					s.t.Errorf("answered: %s", st.XML)
				}
			}
		})
	}
	s.honest(s.romeo)
}

func a8(t *testing.T, v omemo.Version) {
	s := newStage(t, v)
	_, err := s.say(romeo, "that bounces")
	ok(t, err)
	s.settle()
	sent, err := s.srv.Await(t.Context(), func(st xmpptest.Stanza) bool {
		return st.Direction == xmpptest.FromClient && strings.Contains(string(st.XML), "<payload")
	})
	ok(t, err)
	own, err := stanza.ParseElement(clientStanza(sent.XML), stanza.DefaultLimits)
	ok(t, err)
	own.SetAttribute("from", romeo).SetAttribute("to", juliet).SetAttribute("type", "error")
	for _, way := range ways {
		s.in(t, "our own ciphertext, "+way, func() { s.repels(s.by(way, own)) })
		s.in(t, "a ciphertext of the contact, "+way, func() {
			honest := s.romeo.text(s, v, "that is not an error")
			bounced := honest.Clone().SetAttribute("type", "error")
			bounced.Append(stanza.NewElement(stanza.NSClient, "error").SetAttribute("type", "cancel"))
			s.repels(s.by(way, bounced))
			w := s.watch()
			s.inject(s.by(way, honest))
			if _, delivered := s.since(w); len(delivered) != 1 {
				s.t.Errorf("the honest one: %d delivered", len(delivered))
			}
		})
	}
	s.settle()
	s.honest(s.romeo)
}

func a9(t *testing.T, v omemo.Version) {
	s := newStage(t, v)
	wraps := map[string]func(string) string{
		"carbon":  func(raw string) string { return carbon(juliet, "received", raw) },
		"archive": func(raw string) string { return archived(juliet, s.query, raw) },
		"forwarded": func(raw string) string {
			return "<message xmlns='jabber:client' from='" + romeo + "' to='" + juliet + "'><forwarded xmlns='urn:xmpp:forward:0'>" + raw + "</forwarded></message>"
		},
	}
	for _, outer := range []string{"carbon", "archive"} {
		for _, inner := range []string{"carbon", "archive", "forwarded"} {
			for _, depth := range []int{2, 3, 10, 100, 1000} {
				s.in(t, fmt.Sprintf("%s in %s, depth %d", inner, outer, depth), func() {
					raw := string(s.romeo.text(s, v, canary).AppendXML(nil))
					s.openQuery()
					for range depth - 1 {
						raw = wraps[inner](raw)
					}
					if raw = wraps[outer](raw); len(raw) > 400<<10 {
						// The depth limit is met long before.
						raw = strings.Repeat("<x xmlns='jabber:client'>", depth) + strings.Repeat("</x>", depth)
						raw = "<message xmlns='jabber:client' from='" + romeo + "' to='" + juliet + "'>" + raw + "</message>"
					}
					s.repels(raw+s.closeQuery(), middleware.Refused)
				})
			}
		}
	}
	s.honest(s.romeo)
}

// a10 shuffles the parts of the shapes that messages have.
func a10(t *testing.T, v omemo.Version) {
	s := newStage(t, v)
	dead := func() string { // decrypts for nobody
		e := element(s.romeo.seal(s, v, omemo.Plaintext{Legacy: []byte(canary), V2: envelope(s.t, romeo, juliet, canary)}, juliet))
		for c := range e.Elements() {
			if c.Name.Local == "payload" {
				c.Children = []stanza.Node{{Text: "AAAAAAAAAAAAAAAAAAAAAA=="}}
			}
		}
		return string(e.AppendXML(nil))
	}
	const (
		forwarded = "<forwarded xmlns='urn:xmpp:forward:0'>"
		pubsub    = "<event xmlns='http://jabber.org/protocol/pubsub#event'>"
	)
	shapes := map[string][]string{
		"chat":      {dead(), "<body>" + canary + "</body>", "<encryption xmlns='urn:xmpp:eme:0'/>", "\n"},
		"carbon":    {"<received xmlns='urn:xmpp:carbons:2'>", forwarded, "</forwarded>", "</received>"},
		"archive":   {"<result xmlns='urn:xmpp:mam:2' queryid='q'>", forwarded, "</forwarded>", "</result>"},
		"event":     {pubsub, "<items node='" + devicelist.Node(v) + "'>", "</items>", "</event>"},
		"error":     {"<error type='cancel'/>", dead(), "<body>" + canary + "</body>", " "},
		"headers":   {"<header xmlns='" + v.Namespace() + "' sid='1'/>", "<encrypted xmlns='" + v.Namespace() + "'/>", "<payload/>", "\t"},
		"envelope":  {"<envelope xmlns='urn:xmpp:sce:1'/>", "<content xmlns='urn:xmpp:sce:1'/>", "<body>" + canary + "</body>", ""},
		"signals":   {"<received xmlns='urn:xmpp:receipts' id='1'/>", "<active xmlns='http://jabber.org/protocol/chatstates'/>", dead(), " \n"},
		"two forms": {"<encrypted xmlns='" + stanza.NSLegacy + "'/>", "<encrypted xmlns='" + stanza.NSV2 + "'/>", dead(), ""},
	}
	for name, parts := range shapes {
		for _, way := range ways {
			s.in(t, name+" "+way, func() {
				for p := range permutations(parts) {
					inner := strings.Join(p, "")
					e, err := stanza.ParseElement([]byte("<message xmlns='jabber:client' from='"+romeo+"/phone' to='"+juliet+"' type='chat'>"+inner+"</message>"), stanza.DefaultLimits)
					if err != nil {
						continue // no server can send it: the stream would end
					}
					s.repels(s.by(way, e))
				}
			})
		}
	}
	s.honest(s.romeo)
}

// permutations yields every order of the parts.
func permutations(parts []string) func(yield func([]string) bool) {
	return func(yield func([]string) bool) {
		p := slices.Clone(parts)
		var walk func(int) bool
		walk = func(n int) bool {
			if n == len(p) {
				return yield(slices.Clone(p))
			}
			for i := n; i < len(p); i++ {
				p[n], p[i] = p[i], p[n]
				if !walk(n + 1) {
					return false
				}
				p[n], p[i] = p[i], p[n]
			}
			return true
		}
		walk(0)
	}
}

// a13 writes one account in many ways.
func a13(t *testing.T, v omemo.Version) {
	s := newStage(t, v)
	for _, from := range []string{"ROMEO@example.net/x", "romeo@EXAMPLE.net/x", "Romeo@Example.Net", "romeo@example.net./x"} {
		for _, way := range []string{"direct", "archive"} {
			s.in(t, "romeo as "+from+", "+way, func() {
				text := s.id("from romeo ")
				w := s.watch()
				m := s.romeo.text(s, v, text).SetAttribute("from", from)
				s.inject(s.by(way, m))
				events, delivered := s.since(w)
				s.unharmed(events, delivered)
				if len(delivered) == 1 {
					if got := attribute(innermost(delivered[0]).Child(middleware.NSInfo, "info"), "account"); got != romeo {
						s.t.Errorf("account %q", got)
					}
				} else if !strings.HasSuffix(from, "./x") {
					s.t.Errorf("%d delivered, events %v", len(delivered), events)
				}
			})
		}
	}
	for _, from := range []string{"romeo@example.net.evil.example", "romeo@evil.example/romeo@example.net", "romeo\\20@example.net", "ro\u00admeo@example.net"} {
		for _, way := range []string{"direct", "archive"} {
			s.in(t, "not romeo: "+from+", "+way, func() {
				w := s.watch()
				m := s.romeo.text(s, v, canary).SetAttribute("from", from)
				s.inject(s.by(way, m))
				events, delivered := s.since(w)
				s.unharmed(events, delivered)
			})
		}
	}
	if v == omemo.V2 {
		for _, address := range []string{"JULIET@example.net", "juliet@EXAMPLE.NET"} {
			s.in(t, "our own address as "+address, func() {
				text := s.id("for ")
				m := s.romeo.text(s, v, text)
				for keys := range m.Child(stanza.NSV2, "encrypted").Child(stanza.NSV2, "header").Elements() {
					if attribute(keys, "jid") == juliet {
						keys.SetAttribute("jid", address)
					}
				}
				w := s.watch()
				s.send(m)
				if _, delivered := s.since(w); len(delivered) != 1 {
					s.t.Errorf("%d delivered", len(delivered))
				}
			})
		}
	}
	s.settle()
	s.honest(s.romeo)
}
