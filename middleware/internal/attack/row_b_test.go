package attack

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"example.org/omellium/devicelist"
	"example.org/omellium/middleware"
	"example.org/omellium/middleware/xmpptest"
	"example.org/omellium/omemo"
	"example.org/omellium/stanza"
)

// has reports whether one of the events is of a kind, and about an account.
func has(events []middleware.Event, kind middleware.EventKind, account string) bool {
	return slices.ContainsFunc(events, func(e middleware.Event) bool { return e.Kind == kind && e.Account == account })
}

// unserved checks that no stanza on the wire holds a key for a device.
func (s *stage) unserved(id omemo.DeviceID) {
	s.t.Helper()
	rid := fmt.Sprintf(`rid="%d"`, id)
	for _, st := range s.srv.Wire() {
		if st.Direction == xmpptest.FromClient && bytes.Contains(st.XML, []byte(rid)) {
			s.t.Errorf("a key for the attacker's device: %s", st.XML)
		}
	}
}

// contact makes an account with one device that is listed and has a bundle.
func (s *stage) contact(account string) *device {
	s.t.Helper()
	ok(s.t, s.srv.AddAccount(account, "secret"))
	d := newDevice(s.t, account)
	d.publish(s, s.v)
	return d
}

func b1(t *testing.T, v omemo.Version) {
	policies := map[string]omemo.TrustPolicy{
		"blind before verification": nil,
		"manual":                    omemo.Manual,
	}
	for name, policy := range policies {
		for _, how := range []string{"event", "fetch"} {
			s := newScene(t, v, func(c *middleware.Config) {
				c.Trust = policy
				if how == "fetch" {
					c.ListAge = 1 // every message asks anew
				}
			})
			s.in(t, "contact, "+name+", "+how, func() {
				s.romeo.publish(s, v)
				f, err := s.romeo.m.Fingerprint(t.Context())
				ok(s.t, err)
				ok(s.t, s.om.Manager().SetTrust(t.Context(), romeo, f, omemo.Verified))
				_, err = s.say(romeo, "before")
				ok(s.t, err)
				evil := newDevice(s.t, romeo)
				both := list(v, s.romeo.Device, evil.Device)
				ok(s.t, s.srv.Publish(romeo, devicelist.Node(v), "current", both))
				evil.publishBundle(s, evil.bundle(v))
				if how == "event" {
					s.inject(listEvent(romeo, devicelist.Node(v), "current", both))
				}
				result, err := s.say(romeo, "after")
				ok(s.t, err)
				refused := false
				for _, d := range result.Devices {
					if d.Peer.Address == evil.Address {
						refused = errors.Is(d.Err, omemo.ErrUntrusted)
					}
				}
				if !refused {
					s.t.Errorf("devices: %+v", result.Devices)
				}
				s.unserved(evil.Device)
				s.settle()
			})
		}
	}
	s := newStage(t, v, func(c *middleware.Config) { c.Trust = omemo.ManualOwn(omemo.BlindBeforeVerification) })
	s.in(t, "own account", func() {
		evil := newDevice(s.t, juliet)
		both := list(v, s.victim.Device, evil.Device)
		w := s.watch()
		ok(s.t, s.srv.Publish(juliet, devicelist.Node(v), "current", both))
		evil.publishBundle(s, evil.bundle(v))
		s.await("event", func() bool { return has(s.events[w.events:], middleware.OwnDeviceAdded, juliet) })
		_, err := s.say(romeo, "not for the new one")
		ok(s.t, err)
		s.unserved(evil.Device)
		s.settle()
	})
	s.honest(s.romeo)
}

// bigList returns a list of n devices.
func bigList(v omemo.Version, n int) string {
	ids := make([]omemo.DeviceID, n)
	for i := range ids {
		ids[i] = omemo.DeviceID(1000 + i)
	}
	return list(v, ids...)
}

// traffic counts the victim's requests for bundles, and how many were open at
// once.
type traffic struct {
	mu                  sync.Mutex
	asked, open, widest int
	ids                 map[string]bool
}

func (s *stage) count() *traffic {
	n := &traffic{ids: make(map[string]bool)}
	s.srv.SetFilter(func(_ context.Context, st xmpptest.Stanza) [][]byte {
		n.mu.Lock()
		defer n.mu.Unlock()
		if e := question(st); e != nil && bytes.Contains(st.XML, []byte("bundles")) && bytes.Contains(st.XML, []byte("type=\"get\"")) {
			n.asked++
			n.open++
			n.widest = max(n.widest, n.open)
			n.ids[attribute(e, "id")] = true
		}
		if st.Direction == xmpptest.ToClient {
			if e, err := stanza.ParseElement(st.XML, stanza.DefaultLimits); err == nil && n.ids[attribute(e, "id")] {
				n.open--
				delete(n.ids, attribute(e, "id"))
			}
		}
		return [][]byte{st.XML}
	})
	return n
}

func b2(t *testing.T, v omemo.Version) {
	s := newStage(t, v)
	node := devicelist.Node(v)
	for _, n := range []int{257, 1000, 10_000, 100_000} {
		s.in(t, fmt.Sprintf("event with %d", n), func() {
			fetches := s.count()
			defer s.srv.SetFilter(nil)
			if n == 100_000 {
				// 2 MB, four times what a stanza may be: the XML decoder reads them to their
				// end, each token of them allocated and dropped.
				s.most = 48 << 20
				defer func() { s.most = 0 }()
			}
			s.repels(listEvent(romeo, node, "current", bigList(v, n)), middleware.Refused)
			if fetches.asked != 0 {
				s.t.Errorf("%d fetches", fetches.asked)
			}
		})
		s.in(t, fmt.Sprintf("reply with %d", n), func() {
			account := fmt.Sprintf("crowd%d@example.net", n)
			ok(s.t, s.srv.AddAccount(account, "secret"))
			ok(s.t, s.srv.Publish(account, node, "current", bigList(v, n)))
			fetches := s.count()
			defer s.srv.SetFilter(nil)
			if _, err := s.say(account, canary); err == nil {
				s.t.Error("sent")
			}
			s.silent(canary)
			if fetches.asked != 0 {
				s.t.Errorf("%d fetches", fetches.asked)
			}
			s.settle()
		})
	}
	s.in(t, "256 devices without bundles", func() {
		ok(s.t, s.srv.AddAccount("many@example.net", "secret"))
		ok(s.t, s.srv.Publish("many@example.net", node, "current", bigList(v, 256)))
		fetches := s.count()
		defer s.srv.SetFilter(nil)
		for range 3 {
			if _, err := s.say("many@example.net", canary); !errors.Is(err, omemo.ErrNoBundle) {
				s.t.Errorf("error %v", err)
			}
		}
		if fetches.asked > 2*256 || fetches.widest > 4 {
			s.t.Errorf("%d fetches, %d at once", fetches.asked, fetches.widest)
		}
		s.silent(canary)
	})
	s.settle()
	s.honest(s.romeo)
}

func b3(t *testing.T, v omemo.Version) {
	s := newStage(t, v)
	good := s.romeo.Device
	bad := []string{
		"", "0", "-1", "+1", " 1", "1 ", "01", "00", "1.0", "1e3", "0x10", "4294967296", "4294967297", "9223372036854775808",
		"18446744073709551617", "340282366920938463463374607431768211457", "١", "１", "1\u00a0", "\u200b1", "1,2", "1;", "NaN", "null",
		"true", "-0", "--1", "1_000", "0b1", "0o7", "1/1", "#1", "%31", "\\1", "1\n", "\t1", "a", "²", "Ⅷ", "1'",
	}
	if v == omemo.V2 {
		bad = append(bad, "2147483648", "4294967295")
	}
	for _, id := range bad {
		s.in(t, fmt.Sprintf("id %q", id), func() {
			l, err := stanza.ParseElement([]byte(list(v, good)), stanza.DefaultLimits)
			ok(s.t, err)
			l.Append(stanza.NewElement(v.Namespace(), "device").SetAttribute("id", id))
			l.Append(stanza.NewElement(v.Namespace(), "device"))
			l.Append(stanza.NewElement(v.Namespace(), "device").SetAttribute("id", fmt.Sprint(good)))
			s.inject(listEvent(romeo, devicelist.Node(v), "current", string(l.AppendXML(nil))))
			if ids := s.devices(romeo); !slices.Equal(ids, []omemo.DeviceID{good}) {
				s.t.Errorf("devices %v", ids)
			}
		})
	}
	s.honest(s.romeo)
}

// eventOf returns an event about a node that holds something else than items.
func eventOf(from, inner string) string {
	return fmt.Sprintf("<message xmlns='jabber:client' type='headline' from='%s' to='%s'>"+
		"<event xmlns='http://jabber.org/protocol/pubsub#event'>%s</event></message>", from, juliet, inner)
}

func b4(t *testing.T, v omemo.Version) {
	node := devicelist.Node(v)
	hidden := map[string]func(s *stage){
		"an empty list": func(s *stage) { s.inject(listEvent(romeo, node, "current", list(v))) },
		"a purge":       func(s *stage) { s.inject(eventOf(romeo, "<purge node='"+node+"'/>")) },
		"a deletion":    func(s *stage) { s.inject(eventOf(romeo, "<delete node='"+node+"'/>")) },
		"a retraction": func(s *stage) {
			ok(s.t, s.srv.Publish(romeo, node, "current", list(v)))
			s.inject(eventOf(romeo, "<items node='"+node+"'><retract id='current'/></items>"))
		},
		"an older list": func(s *stage) { s.inject(listEvent(romeo, node, "current", list(v, 4711))) },
	}
	for _, policy := range []middleware.Policy{middleware.Required, middleware.Opportunistic} {
		for name, hide := range hidden {
			s := newStage(t, v, func(c *middleware.Config) { c.Policy = policy })
			s.in(t, name+", "+policy.String(), func() {
				hide(s)
				if _, err := s.say(romeo, canary); err == nil {
					s.t.Error("sent")
				}
				s.silent(canary)
				if _, devices, err := s.om.Manager().Account(t.Context(), romeo); err != nil || !slices.ContainsFunc(devices, func(d omemo.Device) bool {
					return d.Address == s.romeo.Address
				}) {
					s.t.Errorf("the device was forgotten: %v, %v", devices, err)
				}
				ok(s.t, s.srv.Publish(romeo, node, "current", list(v, s.romeo.Device)))
				s.inject(listEvent(romeo, node, "current", list(v, s.romeo.Device)))
				_, err := s.say(romeo, "again")
				ok(s.t, err)
				s.settle()
				s.honest(s.romeo)
			})
		}
	}
	s := newStage(t, v)
	s.in(t, "with the old session it is still read", func() {
		s.inject(listEvent(romeo, node, "current", list(v)))
		s.honest(s.romeo)
	})
}

func b5(t *testing.T, v omemo.Version) {
	s := newStage(t, v)
	s.in(t, "another client removes us", func() {
		node := devicelist.Node(v)
		publications := 0
		var mu sync.Mutex
		s.srv.SetFilter(func(_ context.Context, st xmpptest.Stanza) [][]byte {
			if st.Direction == xmpptest.FromClient && bytes.Contains(st.XML, []byte("<publish ")) && bytes.Contains(st.XML, []byte(node+`"`)) {
				mu.Lock()
				publications++
				mu.Unlock()
			}
			return [][]byte{st.XML}
		})
		defer s.srv.SetFilter(nil)
		contested := func() bool { return has(s.events, middleware.OwnDeviceContested, "") }
		for range 50 {
			w := s.watch()
			ok(s.t, s.srv.Publish(juliet, node, "current", list(v, 4711)))
			s.await("put back or given up", func() bool {
				back := false
				for _, e := range s.events[w.events:] {
					back = back || e.Kind == middleware.OwnDeviceRemoved
				}
				return back || contested()
			})
			s.settle()
			s.mu.Lock()
			done := contested()
			s.mu.Unlock()
			if done {
				break
			}
		}
		for range 20 {
			ok(s.t, s.srv.Publish(juliet, node, "current", list(v, 4711)))
		}
		s.mark()
		mu.Lock()
		defer mu.Unlock()
		if publications > 5 || publications == 0 {
			s.t.Errorf("%d publications", publications)
		}
	})
	s.honest(s.romeo)
}

func b6(t *testing.T, v omemo.Version) {
	s := unconnected(t, v)
	before := s.victim.Device
	other := newDevice(t, juliet)
	ok(t, s.srv.Publish(juliet, devicelist.Node(v), "current", list(v, before)))
	b := other.bundle(v)
	b.Owner.Device = before
	other.publishBundle(s, b)
	ok(t, s.connect())
	s.in(t, "our id is taken", func() {
		if s.victim.Device == before {
			s.t.Error("the id was kept")
		}
		items, err := s.srv.Items(juliet, devicelist.Node(v))
		ok(s.t, err)
		if !strings.Contains(string(items[0].Payload), fmt.Sprint(before)) {
			s.t.Errorf("the other device was removed: %s", items[0].Payload)
		}
	})
	s.romeo.publish(s, v)
	s.honest(s.romeo)
}

func b7(t *testing.T, v omemo.Version) {
	s := newStage(t, v)
	known, err := s.romeo.m.Fingerprint(t.Context())
	ok(t, err)
	keeps := func() {
		s.t.Helper()
		_, devices, err := s.om.Manager().Account(context.Background(), romeo)
		ok(s.t, err)
		for _, d := range devices {
			if d.Version == v && d.Address == s.romeo.Address && d.Fingerprint != known {
				s.t.Errorf("the key was overwritten by %v", d.Fingerprint)
			}
		}
	}
	for _, way := range ways {
		s.in(t, "key exchange, "+way, func() {
			evil := newDevice(s.t, romeo)
			m := evil.text(s, v, canary)
			m.Child(v.Namespace(), "encrypted").Child(v.Namespace(), "header").SetAttribute("sid", fmt.Sprint(s.romeo.Device))
			s.repels(s.by(way, m), middleware.IdentityChanged)
			keeps()
		})
	}
	s.in(t, "bundle", func() {
		evil := newDevice(s.t, romeo)
		b := evil.bundle(v)
		b.Owner.Device = s.romeo.Device
		evil.publishBundle(s, b)
		ok(s.t, s.om.Manager().ForgetSessions(context.Background(), omemo.Peer{Version: v, Address: s.romeo.Address}))
		w := s.watch()
		if _, err := s.say(romeo, canary); !errors.Is(err, omemo.ErrIdentityChanged) {
			s.t.Errorf("error %v", err)
		}
		s.silent(canary)
		keeps()
		if events, _ := s.since(w); !has(events, middleware.IdentityChanged, romeo) {
			s.t.Errorf("events %v", events)
		}
		s.romeo.publishBundle(s, s.romeo.bundle(v))
		_, err := s.say(romeo, "with the right bundle")
		ok(s.t, err)
		s.settle()
	})
	fresh := s.contact("benvolio@example.net")
	s.honest(fresh)
}
