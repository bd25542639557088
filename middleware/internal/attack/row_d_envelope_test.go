package attack

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"example.org/omellium/middleware"
	"example.org/omellium/omemo"
	"example.org/omellium/stanza"
)

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

// d5 moves messages between chats. Into rooms and out of them: TestRoomBinding.
func d5(t *testing.T, v omemo.Version) {
	s := newStage(t, v)
	if v == omemo.Legacy {
		s.in(t, "legacy has no affixes", func() { s.honest(s.romeo) })
		return
	}
	for _, to := range []string{mallory, romeo, "room@rooms.example.net", "example.net", "@", "", "juliet@evil.example/juliet@example.net"} {
		for _, way := range ways {
			s.in(t, "to "+to+", "+way, func() {
				s.repels(s.by(way, s.enveloped(fmt.Sprintf(sce, canary, "<from jid='"+romeo+"'/><to jid='"+to+"'/>"))), middleware.Undecryptable)
			})
		}
	}
	s.in(t, "twice", func() {
		s.repels(s.by("direct", s.enveloped(fmt.Sprintf(sce, canary, "<to jid='"+juliet+"'/><to jid='"+juliet+"'/>"))), middleware.Undecryptable)
	})
	for _, to := range []string{juliet, "JULIET@example.net", juliet + "/balcony"} {
		for _, way := range ways {
			s.in(t, "accepted "+to+", "+way, func() {
				text := s.id("text ")
				s.delivers(way, s.enveloped(fmt.Sprintf(sce, text, "<to jid='"+to+"'/>")), text)
			})
		}
	}
	s.honest(s.romeo)
}

// d10 asks for plain text in clear.
func d10(t *testing.T, v omemo.Version) {
	s := newStage(t, v)
	for _, way := range ways {
		s.in(t, "alone, "+way, func() { s.repels(s.by(way, s.romeo.stanza(s, juliet, stanza.OptOut(canary)))) })
		s.in(t, "with a body, "+way, func() {
			s.repels(s.by(way, s.romeo.stanza(s, juliet, stanza.OptOut(canary), stanza.NewText(stanza.NSClient, "body", canary))))
		})
		s.in(t, "beside what is encrypted, "+way, func() { s.reads(way, "after", stanza.OptOut(canary)) })
		s.in(t, "from a stranger, "+way, func() {
			m := s.romeo.stanza(s, juliet, stanza.OptOut(canary)).SetAttribute("from", mallory)
			s.repels(s.by(way, m))
		})
	}
	s.in(t, "sending goes on, encrypted", func() {
		result, err := s.say(romeo, canary)
		ok(s.t, err)
		if result.Plain {
			s.t.Error("in clear")
		}
		s.silent(canary)
		s.settle()
	})
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
	stanza.NewText(stanza.NSHints, "body", canary),
	stanza.NewElement(stanza.NSHints, "store", stanza.NewText(stanza.NSClient, "body", canary)),
	stanza.NewElement(stanza.NSSID, "origin-id", stanza.NewText(stanza.NSClient, "body", canary)),
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
