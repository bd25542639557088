//go:build catalogue

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

	"example.org/omellium/bundle"
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

func b8(t *testing.T, v omemo.Version) {
	s := newStage(t, v)
	genuine := s.romeo.bundle(v)
	s.in(t, "every bit of the signature", func() {
		for bit := range 512 {
			b := *genuine
			b.Signature[bit/8] ^= 1 << (bit % 8)
			if err := b.Verify(); !errors.Is(err, omemo.ErrBundle) {
				s.t.Errorf("bit %d: %v", bit, err)
			}
		}
	})
	changes := map[string]func(e *stanza.Element){
		"no signature":          func(e *stanza.Element) { drop(e, "signedPreKeySignature", "spks") },
		"63 bytes":              func(e *stanza.Element) { cut(e, 63, "signedPreKeySignature", "spks") },
		"65 bytes":              func(e *stanza.Element) { cut(e, 65, "signedPreKeySignature", "spks") },
		"zero":                  func(e *stanza.Element) { set(e, make([]byte, 64), "signedPreKeySignature", "spks") },
		"another signed key":    func(e *stanza.Element) { set(e, key(v, 9), "signedPreKeyPublic", "spk") },
		"another identity":      func(e *stanza.Element) { set(e, key(v, 9), "identityKey", "ik") },
		"over another encoding": func(e *stanza.Element) { set(e, misencoded(s, v), "signedPreKeySignature", "spks") },
	}
	i := 0
	for name, change := range changes {
		i++
		s.in(t, name, func() {
			account := fmt.Sprintf("signer%d@example.net", i)
			ok(s.t, s.srv.AddAccount(account, "secret"))
			d := newDevice(s.t, account)
			ok(s.t, s.srv.Publish(account, devicelist.Node(v), "current", list(v, d.Device)))
			e := bundle.Element(d.bundle(v))
			change(e)
			s.publishRaw(d, e)
			if _, err := s.say(account, canary); err == nil {
				s.t.Error("sent")
			}
			s.silent(canary)
			s.unserved(d.Device)
		})
	}
	s.settle()
	s.honest(s.romeo)
}

// publishRaw publishes a bundle in whatever form.
func (s *stage) publishRaw(d *device, e *stanza.Element) {
	s.t.Helper()
	id := "current"
	if s.v == omemo.V2 {
		id = fmt.Sprint(d.Device)
	}
	ok(s.t, s.srv.Publish(d.account, bundle.Node(s.v, d.Device), id, string(e.AppendXML(nil))))
}

// part returns the part of a bundle that has one of the names.
func part(e *stanza.Element, names ...string) *stanza.Element {
	for c := range e.Elements() {
		if slices.Contains(names, c.Name.Local) {
			return c
		}
	}
	return nil
}

func drop(e *stanza.Element, names ...string) {
	e.Remove(func(c *stanza.Element) bool { return slices.Contains(names, c.Name.Local) })
}

func set(e *stanza.Element, b []byte, names ...string) {
	part(e, names...).Children = []stanza.Node{{Text: stanza.EncodeBase64(b)}}
}

func cut(e *stanza.Element, n int, names ...string) {
	b, err := stanza.DecodeBase64(part(e, names...).Text())
	if err != nil {
		panic(err)
	}
	set(e, append(b, 0)[:n], names...)
}

// key returns a public key as it travels: some u that is on the curve.
func key(v omemo.Version, u byte) []byte {
	b := make([]byte, 32)
	b[0] = u
	if v == omemo.Legacy {
		return append([]byte{5}, b...)
	}
	return b
}

// misencoded returns a signature over the signed pre key in the encoding of the
// other version.
func misencoded(s *stage, v omemo.Version) []byte {
	for _, other := range omemo.Versions() {
		if other != v {
			b := newDevice(s.t, romeo).bundle(other)
			return b.Signature[:]
		}
	}
	return nil
}

func b9(t *testing.T, v omemo.Version) {
	s := newStage(t, v)
	id, name := "preKeyId", "preKeyPublic"
	if v == omemo.V2 {
		id, name = "id", "pk"
	}
	preKeys := func(n int, same bool) func(e *stanza.Element) {
		return func(e *stanza.Element) {
			all := part(e, "prekeys")
			all.Children = nil
			for i := range n {
				k := key(v, 9)
				k[len(k)-2], k[len(k)-3] = byte(i), byte(i>>8)
				if same {
					k = key(v, 9)
				}
				all.Append(stanza.NewText(v.Namespace(), name, stanza.EncodeBase64(k)).SetAttribute(id, fmt.Sprint(i+1)))
			}
		}
	}
	tests := []struct {
		name   string
		change func(e *stanza.Element)
		sent   bool
	}{
		{"no pre key", preKeys(0, false), false},
		{"one", preKeys(1, false), true},
		{"24", preKeys(24, false), true},
		{"1000", preKeys(1000, false), true},
		{"1001", preKeys(1001, false), false},
		{"100,000", preKeys(5_000, false), false}, // what fits into a stanza
		{"the same key again and again", preKeys(10, true), false},
		{"ids twice", func(e *stanza.Element) {
			preKeys(10, false)(e)
			for c := range part(e, "prekeys").Elements() {
				c.SetAttribute(id, "1")
			}
		}, false},
		{"no prekeys element", func(e *stanza.Element) { drop(e, "prekeys") }, false},
		{"two prekeys elements", func(e *stanza.Element) { e.Append(part(e, "prekeys").Clone()) }, false},
		{"id missing", func(e *stanza.Element) {
			preKeys(10, false)(e)
			for c := range part(e, "prekeys").Elements() {
				c.Attr = nil
			}
		}, false},
	}
	for i, test := range tests {
		s.in(t, test.name, func() {
			account := fmt.Sprintf("keys%d@example.net", i)
			ok(s.t, s.srv.AddAccount(account, "secret"))
			d := newDevice(s.t, account)
			ok(s.t, s.srv.Publish(account, devicelist.Node(v), "current", list(v, d.Device)))
			e := bundle.Element(d.bundle(v))
			test.change(e)
			s.publishRaw(d, e)
			if _, err := s.say(account, canary); (err == nil) != test.sent {
				s.t.Errorf("error %v", err)
			}
			s.silent(canary)
			s.settle()
		})
	}
	s.in(t, "key exchange whose pre key was taken out", func() {
		d := newDevice(s.t, mallory)
		m := d.text(s, v, canary)
		number := byte(1) // of the pre key, in both formats
		s.rewrite(m, func(fields []field) []field {
			return slices.DeleteFunc(fields, func(f field) bool { return f.number == int(number) })
		})
		s.repels(s.by("direct", m), middleware.Undecryptable)
	})
	s.in(t, "the choice is uniform", func() {
		const keys, draws = 10, 600
		b := s.romeo.bundle(v)
		b.PreKeys = b.PreKeys[:keys]
		chooser := newDevice(s.t, mallory)
		count := make(map[uint64]int)
		for range draws {
			sealed, err := chooser.m.Replace(t.Context(), b, func(*omemo.Sealed) ([]omemo.Outgoing, error) { return nil, nil })
			ok(s.t, err)
			for _, f := range exchange(v, sealed.Messages[0].Keys[0].Data) {
				if f.number == 1 {
					count[f.varint()]++
				}
			}
		}
		chi := 0.0
		for _, k := range b.PreKeys {
			d := float64(count[uint64(k.ID)]) - draws/keys
			chi += d * d / (draws / keys)
		}
		// 9 degrees of freedom: 45 is exceeded once in a million runs.
		if len(count) != keys || chi > 45 {
			s.t.Errorf("chi square %v: %v", chi, count)
		}
	})
	s.honest(s.romeo)
}

func b10(t *testing.T, v omemo.Version) {
	s := newStage(t, v)
	if v == omemo.Legacy {
		s.in(t, "legacy has none", func() {
			s.inject(listEvent(romeo, devicelist.Node(v), "current", strings.Replace(list(v, s.romeo.Device), "<device ", "<device label='"+canary+"' ", 1)))
			s.noLabel(s.romeo)
		})
		s.honest(s.romeo)
		return
	}
	labels := map[string]devicelist.Device{
		"unsigned":              {Label: canary},
		"signed by another key": {Label: canary, LabelSig: s.otherLabel(canary)},
		"of another text":       {Label: canary, LabelSig: s.label(s.romeo, "phone")},
		"of zeros":              {Label: canary, LabelSig: make([]byte, 64)},
		"63 bytes":              {Label: canary, LabelSig: s.label(s.romeo, canary)[:63]},
		"54 characters":         {Label: strings.Repeat("x", 54), LabelSig: make([]byte, 64)},
		"10 kB":                 {Label: strings.Repeat(canary, 450), LabelSig: make([]byte, 64)},
	}
	for name, d := range labels {
		s.in(t, name, func() {
			d.ID = s.romeo.Device
			e := stanza.NewElement(v.Namespace(), "devices", stanza.NewElement(v.Namespace(), "device").
				SetAttribute("id", fmt.Sprint(d.ID)).SetAttribute("label", d.Label).SetAttribute("labelsig", stanza.EncodeBase64(d.LabelSig)))
			s.inject(listEvent(romeo, devicelist.Node(v), "current", string(e.AppendXML(nil))))
			s.noLabel(s.romeo)
		})
	}
	s.in(t, "a genuine one", func() {
		l := devicelist.List{Version: v, Devices: []devicelist.Device{{ID: s.romeo.Device, Label: "phone", LabelSig: s.label(s.romeo, "phone")}}}
		s.inject(listEvent(romeo, devicelist.Node(v), "current", string(l.Element().AppendXML(nil))))
		if got := s.labelOf(s.romeo); got != "phone" {
			s.t.Errorf("label %q", got)
		}
	})
	s.honest(s.romeo)
}

// label returns a device's signature of a text.
func (s *stage) label(d *device, text string) []byte {
	s.t.Helper()
	l, err := d.m.SignLabel(context.Background(), text)
	ok(s.t, err)
	return l.Signature[:]
}

func (s *stage) otherLabel(text string) []byte {
	s.t.Helper()
	return s.label(newDevice(s.t, romeo), text)
}

func (s *stage) labelOf(d *device) string {
	s.t.Helper()
	_, devices, err := s.om.Manager().Account(context.Background(), d.account)
	ok(s.t, err)
	for _, known := range devices {
		if known.Address == d.Address && known.Version == s.v {
			return known.VerifiedLabel()
		}
	}
	return ""
}

func (s *stage) noLabel(d *device) {
	s.t.Helper()
	if got := s.labelOf(d); got != "" {
		s.t.Errorf("label %q", got)
	}
}

// b11 lets the server hold another bundle than the one that was published.
func b11(t *testing.T, v omemo.Version) {
	for _, foreign := range []string{"another device's bundle", "one pre key less", "nothing"} {
		s := unconnected(t, v)
		s.in(t, foreign, func() {
			evil := newDevice(s.t, juliet)
			s.srv.SetFilter(func(_ context.Context, st xmpptest.Stanza) [][]byte {
				if st.Direction != xmpptest.ToClient || !bytes.Contains(st.XML, []byte("<item")) || !bytes.Contains(st.XML, []byte(bundle.Node(v, s.victim.Device))) {
					return [][]byte{st.XML}
				}
				e, err := stanza.ParseElement(st.XML, stanza.DefaultLimits)
				if err != nil {
					return [][]byte{st.XML}
				}
				const ns = "http://jabber.org/protocol/pubsub"
				pubsub := e.Child(ns, "pubsub")
				if pubsub == nil || pubsub.Child(ns, "items") == nil {
					return [][]byte{st.XML}
				}
				for item := range pubsub.Child(ns, "items").Elements() {
					for b := range item.Elements() {
						switch foreign {
						case "another device's bundle":
							*b = *bundle.Element(evil.bundle(v))
						case "one pre key less":
							all := part(b, "prekeys")
							all.Children = all.Children[1:]
						default:
							item.Children = nil
						}
						break
					}
				}
				return [][]byte{e.AppendXML(nil)}
			})
			ctx := t.Context()
			session, err := s.srv.Client(ctx, juliet+"/balcony", "secret")
			ok(s.t, err)
			_, err = s.om.Wrap(ctx, session)
			s.mu.Lock()
			defer s.mu.Unlock()
			for _, e := range s.events {
				if e.Kind == middleware.Published && e.Version == v {
					s.t.Error("held for published")
				}
			}
			if err == nil && !has(s.events, middleware.Withdrawn, "") {
				s.t.Errorf("no word of it: %v", s.events)
			}
		})
	}
}

func b12(t *testing.T, v omemo.Version) {
	s := newStage(t, v)
	s.in(t, "the bundle of another account", func() {
		ok(s.t, s.srv.AddAccount("paris@example.net", "secret"))
		d := newDevice(s.t, "paris@example.net")
		ok(s.t, s.srv.Publish(d.account, devicelist.Node(v), "current", list(v, d.Device)))
		s.publishRaw(d, bundle.Element(s.romeo.bundle(v)))
		w := s.watch()
		if _, err := s.say(d.account, canary); !errors.Is(err, omemo.ErrUntrusted) {
			s.t.Errorf("error %v", err)
		}
		if events, _ := s.since(w); !has(events, middleware.IdentityShared, d.account) && v.Valid() {
			s.t.Errorf("events %v", events)
		}
		s.silent(canary)
		s.unserved(d.Device)
	})
	s.in(t, "our own bundle", func() {
		ok(s.t, s.srv.AddAccount("tybalt@example.net", "secret"))
		d := newDevice(s.t, "tybalt@example.net")
		ok(s.t, s.srv.Publish(d.account, devicelist.Node(v), "current", list(v, d.Device)))
		s.publishRaw(d, bundle.Element(s.bundle(v)))
		if _, err := s.say(d.account, canary); !errors.Is(err, omemo.ErrUntrusted) {
			s.t.Errorf("error %v", err)
		}
		s.silent(canary)
	})
	if v == omemo.V2 {
		s.in(t, "an item of another id", func() {
			ok(s.t, s.srv.AddAccount("nurse@example.net", "secret"))
			d := newDevice(s.t, "nurse@example.net")
			ok(s.t, s.srv.Publish(d.account, devicelist.Node(v), "current", list(v, d.Device)))
			ok(s.t, s.srv.Publish(d.account, bundle.Node(v, d.Device), "4711", string(bundleXML(d.bundle(v)))))
			s.srv.SetFilter(func(_ context.Context, st xmpptest.Stanza) [][]byte {
				// The server ignores which item was asked for.
				return [][]byte{bytes.ReplaceAll(st.XML, []byte(fmt.Sprintf(`<item id="%d"/>`, d.Device)), []byte(`<item id="4711"/>`))}
			})
			defer s.srv.SetFilter(nil)
			if _, err := s.say(d.account, canary); !errors.Is(err, omemo.ErrNoBundle) {
				s.t.Errorf("error %v", err)
			}
			s.silent(canary)
		})
	}
	s.settle()
	s.honest(s.romeo)
}

// b13 lists one device id in both versions with different identity keys.
func b13(t *testing.T, v omemo.Version) {
	s := newStage(t, v)
	for _, distrusted := range omemo.Versions() {
		s.in(t, "distrust the key of "+distrusted.String(), func() {
			account := "twin" + fmt.Sprint(int(distrusted)) + "@example.net"
			ok(s.t, s.srv.AddAccount(account, "secret"))
			first := newDevice(s.t, account)
			keys := make(map[omemo.Version]omemo.Fingerprint)
			for _, w := range omemo.Versions() {
				d := first
				if w != v {
					d = newDevice(s.t, account)
				}
				f, err := d.m.Fingerprint(t.Context())
				ok(s.t, err)
				keys[w] = f
				b := d.bundle(w)
				b.Owner.Device = first.Device
				ok(s.t, s.srv.Publish(account, devicelist.Node(w), "current", list(w, first.Device)))
				d.publishBundle(s, b)
			}
			ok(s.t, s.om.Manager().SetTrust(t.Context(), account, keys[distrusted], omemo.Distrusted))
			result, err := s.say(account, canary)
			if (err == nil) != (distrusted != v) {
				s.t.Errorf("error %v", err)
			}
			for _, d := range result.Devices {
				if d.Peer.JID == account && (d.Peer.Version != v || d.Fingerprint != keys[v]) {
					s.t.Errorf("%+v", d)
				}
			}
			s.silent(canary)
			s.settle()
		})
	}
	s.honest(s.romeo)
}

func b14(t *testing.T, v omemo.Version) {
	s := newStage(t, v)
	node := devicelist.Node(v)
	evil := list(v, 666)
	item := func(id, payload string) string { return "<item id='" + id + "'>" + payload + "</item>" }
	corpus := map[string]string{
		"two items":              "<items node='" + node + "'>" + item("current", evil) + item("other", evil) + "</items>",
		"three":                  "<items node='" + node + "'>" + strings.Repeat(item("current", evil), 3) + "</items>",
		"item and retraction":    "<items node='" + node + "'>" + item("current", evil) + "<retract id='x'/></items>",
		"no payload":             "<items node='" + node + "'><item id='current'/></items>",
		"no item":                "<items node='" + node + "'/>",
		"another item retracted": "<items node='" + node + "'><retract id='other'/></items>",
		"two nodes":              "<items node='" + node + "'>" + item("current", evil) + "</items><items node='x'/>",
		"no node":                "<items>" + item("current", evil) + "</items>",
		"another node":           "<items node='" + node + "x'>" + item("current", evil) + "</items>",
		"a wrong payload":        "<items node='" + node + "'>" + item("current", "<x xmlns='y'/>") + "</items>",
		"configuration":          "<configuration node='" + node + "'/>",
		"subscription":           "<subscription node='" + node + "' jid='" + mallory + "' subscription='none'/>",
	}
	if v == omemo.V2 {
		corpus["wrong item id"] = "<items node='" + node + "'>" + item("1", evil) + "</items>"
		corpus["legacy's list"] = "<items node='" + node + "'>" + item("current", list(omemo.Legacy, 666)) + "</items>"
	}
	for name, inner := range corpus {
		s.in(t, name, func() {
			w := s.watch()
			before := s.store.dump()
			s.inject(eventOf(romeo, inner))
			events, delivered := s.since(w)
			s.unharmed(events, delivered)
			if after := s.store.dump(); after != before {
				s.t.Errorf("the store has changed: %s", difference(before, after))
			}
			_, err := s.say(romeo, "whatever the event said")
			ok(s.t, err)
			s.unserved(666)
			s.settle()
		})
	}
	s.in(t, "retraction", func() {
		s.inject(eventOf(romeo, "<items node='"+node+"'><retract id='current'/></items>"))
		_, devices, err := s.om.Manager().Account(t.Context(), romeo)
		ok(s.t, err)
		if len(devices) == 0 {
			s.t.Error("forgotten")
		}
	})
	s.honest(s.romeo)
}
