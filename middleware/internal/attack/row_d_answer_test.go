package attack

import (
	"bytes"
	"context"
	"errors"
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
		s.settle(omemo.OwedHeartbeat) // one waits until mallory, a stranger, may see us
		s.quiet(mallory, 0)
	})
	s.in(t, "a friend at most once a minute", func() {
		ok(s.t, s.srv.AddAccount("friend@example.net", "secret"))
		friend := newDevice(s.t, "friend@example.net")
		friend.publish(s, v)
		_, err := s.say(friend.account, "hello")
		ok(s.t, err)
		s.settle(omemo.OwedHeartbeat)
		s.srv.ForgetWire()
		// It never reads our messages, so each of its own is a key exchange.
		for range 100 {
			s.honest(friend)
		}
		s.settle(omemo.OwedHeartbeat)
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
