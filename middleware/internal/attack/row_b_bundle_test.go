package attack

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"example.org/omellium/bundle"
	"example.org/omellium/devicelist"
	"example.org/omellium/middleware"
	"example.org/omellium/middleware/xmpptest"
	"example.org/omellium/omemo"
	"example.org/omellium/stanza"
)

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
