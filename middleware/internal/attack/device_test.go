package attack

import (
	"context"
	"fmt"
	"testing"
	"time"

	"example.org/omellium/bundle"
	"example.org/omellium/devicelist"
	"example.org/omellium/omemo"
	"example.org/omellium/omemo/memstore"
	"example.org/omellium/stanza"
)

// device is a device of another account, or another device of the victim's. It
// has no connection: what it seals is put on the victim's wire by hand.
type device struct {
	t       *testing.T
	account string
	m       *omemo.Manager
	omemo.Address
	sent int
}

func newDevice(t *testing.T, account string) *device {
	t.Helper()
	m, err := omemo.NewManager(t.Context(), memstore.New(account), omemo.Options{
		// What the contact thinks of the victim is not the point.
		Policy: func(omemo.TrustQuery) omemo.Trust { return omemo.TrustedBlindly },
		Prefer: func(string) omemo.Version { return omemo.V2 },
	})
	ok(t, err)
	a, err := m.Device(t.Context())
	ok(t, err)
	return &device{t: t, account: account, m: m, Address: a}
}

func ok(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (d *device) bundle(v omemo.Version) *omemo.Bundle {
	d.t.Helper()
	b, err := d.m.Bundle(context.Background(), v)
	ok(d.t, err)
	return b
}

// list returns the XML of a device list.
func list(v omemo.Version, ids ...omemo.DeviceID) string {
	l := devicelist.List{Version: v}
	for _, id := range ids {
		l.Devices = append(l.Devices, devicelist.Device{ID: id})
	}
	return string(l.Element().AppendXML(nil))
}

// publish puts the device on its account's list and its bundle beside it, in one
// version.
func (d *device) publish(s *stage, v omemo.Version) {
	d.t.Helper()
	ok(d.t, s.srv.Publish(d.account, devicelist.Node(v), "current", list(v, d.Device)))
	d.publishBundle(s, d.bundle(v))
}

func (d *device) publishBundle(s *stage, b *omemo.Bundle) {
	d.t.Helper()
	id := "current"
	if b.Version == omemo.V2 {
		id = fmt.Sprint(b.Owner.Device)
	}
	ok(d.t, s.srv.Publish(d.account, bundle.Node(b.Version, b.Owner.Device), id, string(bundle.Element(b).AppendXML(nil))))
}

// envelope returns the envelope of a text from one account to another.
func envelope(t *testing.T, from, to, text string) []byte {
	t.Helper()
	e := stanza.Envelope{
		From: from, To: to, Time: time.Now(), Content: []*stanza.Element{stanza.NewText(stanza.NSClient, "body", text)},
	}
	b, err := e.Marshal()
	ok(t, err)
	return b
}

// seal encrypts a plain text for the devices of an account in one version. It asks
// the victim for its bundle if one is needed that is not given.
func (d *device) seal(s *stage, v omemo.Version, p omemo.Plaintext, to string, bundles ...*omemo.Bundle) *omemo.Message {
	d.t.Helper()
	ctx := context.Background()
	if v == omemo.V2 {
		p.Legacy = nil
	} else {
		p.V2 = nil
	}
	ok(d.t, d.m.SetList(ctx, s.victim.JID, v, []omemo.DeviceID{s.victim.Device}))
	missing, err := d.m.Missing(ctx, p, []string{s.victim.JID})
	ok(d.t, err)
	if len(missing) > 0 && len(bundles) == 0 {
		bundles = append(bundles, s.bundle(v))
	}
	d.sent++
	id := fmt.Sprintf("%s-%d", d.account, d.sent)
	sealed, err := d.m.Encrypt(ctx, p, []string{s.victim.JID}, func(*omemo.Sealed) ([]omemo.Outgoing, error) {
		return []omemo.Outgoing{{ID: id, Chat: to, Stanza: []byte("<message/>"), Transient: true}}, nil
	}, bundles...)
	ok(d.t, err)
	if len(sealed.Messages) != 1 {
		d.t.Fatalf("%d messages", len(sealed.Messages))
	}
	return sealed.Messages[0]
}

// element returns the <encrypted/> element of a message.
func element(m *omemo.Message) *stanza.Element {
	e := stanza.Encrypted{Namespace: m.Version.Namespace(), Sender: uint32(m.Sender.Device), IV: m.IV, Payload: m.Payload}
	for _, k := range m.Keys {
		e.Keys = append(e.Keys, stanza.Key{JID: k.JID, Device: uint32(k.Device), Exchange: k.Exchange, Data: k.Data})
	}
	return e.Element()
}

// text returns an honest encrypted message to the victim, or, if it comes from
// another device of the victim's account, one to romeo.
func (d *device) text(s *stage, v omemo.Version, text string) *stanza.Element {
	d.t.Helper()
	to := s.victim.JID
	if d.account == to {
		to = romeo
	}
	p := omemo.Plaintext{Legacy: []byte(text), V2: envelope(d.t, d.account, to, text)}
	return d.stanza(s, to, element(d.seal(s, v, p, to)))
}

// stanza returns a message with children, as it would arrive.
func (d *device) stanza(s *stage, to string, children ...*stanza.Element) *stanza.Element {
	return stanza.NewElement(stanza.NSClient, "message", children...).
		SetAttribute("from", d.account+"/phone").SetAttribute("to", to).SetAttribute("type", "chat").
		SetAttribute("id", s.id("m"))
}

// reads has the device decrypt what the victim has sent to its account since the
// wire was last looked at.
func (d *device) reads(s *stage) {
	d.t.Helper()
	for _, st := range s.srv.Wire() {
		e, err := stanza.ParseElement(clientStanza(st.XML), stanza.DefaultLimits)
		if err != nil {
			continue
		}
		found, err := stanza.Find(e)
		if err != nil {
			continue
		}
		for _, element := range found {
			x, err := stanza.ParseEncrypted(element, stanza.OwnKey{JID: d.account, Device: uint32(d.Device)})
			if err != nil || len(x.Keys) == 0 {
				continue
			}
			m := &omemo.Message{Version: omemo.Legacy, Sender: s.victim, IV: x.IV, Payload: x.Payload}
			if x.Namespace == stanza.NSV2 {
				m.Version = omemo.V2
			}
			for _, k := range x.Keys {
				m.Keys = append(m.Keys, omemo.Key{Exchange: k.Exchange, Data: k.Data})
			}
			// What was read before is a duplicate.
			_, _ = d.m.Decrypt(context.Background(), m, func(o *omemo.Opened) (omemo.Delivery, error) { return omemo.Delivery{}, nil })
		}
	}
}

func bundleXML(b *omemo.Bundle) []byte { return bundle.Element(b).AppendXML(nil) }
