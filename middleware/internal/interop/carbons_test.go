//go:build live

package interop

import (
	"context"
	"encoding/xml"
	"slices"
	"sync"
	"testing"

	"mellium.im/xmlstream"
	"mellium.im/xmpp/carbons"
	xmppstanza "mellium.im/xmpp/stanza"

	"example.org/omellium/middleware/internal/lab"
	"example.org/omellium/omemo"
	"example.org/omellium/omemo/memstore"
)

// copies collects what comes as a carbon, and whether it is of something sent.
type copies struct {
	mu       sync.Mutex
	sent     []received
	received []received
}

// HandleXMPP implements xmpp.Handler.
func (c *copies) HandleXMPP(t xmlstream.TokenReadEncoder, start *xml.StartElement) error {
	if start.Name.Local != "message" {
		return nil
	}
	return carbons.Handler{F: func(_ xmppstanza.Message, sent bool, inner xml.TokenReader) error {
		var m received
		if err := xml.NewTokenDecoder(inner).Decode(&m); err != nil {
			return err
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		switch {
		case m.Body == "":
		case sent:
			c.sent = append(c.sent, m)
		default:
			c.received = append(c.received, m)
		}
		return nil
	}}.HandleMessage(xmppstanza.Message{}, struct {
		xml.TokenReader
		xmlstream.Encoder
	}{xmlstream.MultiReader(xmlstream.Token(*start), t), t})
}

func (c *copies) of(sent bool) []received {
	c.mu.Lock()
	defer c.mu.Unlock()
	if sent {
		return slices.Clone(c.sent)
	}
	return slices.Clone(c.received)
}

// Two devices of one account, both this middleware: each is told by carbons what
// the other sends and receives, and what both say is told apart from what was
// said to them.
func TestCarbonsOfTwoDevices(t *testing.T) {
	eachVersion(t, func(t *testing.T, s *lab.Server, versions []string) {
		one, user := s.Account(t, "program"), s.Account(t, "user")
		lab.Befriend(t, one, user)
		seen := []*copies{{}, {}}
		devices := make([]*program, len(seen))
		for i := range seen {
			devices[i] = newProgramWith(t, s, one, memstore.New(one.JID), seen[i])
			ctx, cancel := context.WithTimeout(t.Context(), deadline)
			ok(t, carbons.Enable(ctx, devices[i].session))
			cancel()
		}
		devices[0].awaitSibling(t, devices[1])
		devices[1].awaitSibling(t, devices[0])
		peer := python{lab.Python(t, s, user, lab.PythonOptions{Versions: versions})}

		said := [][]string{texts("first", one, 5), texts("second", one, 5)}
		for i, d := range devices { // one after the other: see acquaint
			devices[0].awaitOffers(t, []member{{account: user, device: peer.Device}}, func() {
				d.AwaitDevice(t, peer.PythonClient, versions)
				d.Send(t, user.JID, said[i][0])
				peer.AwaitBody(t, one.JID, said[i][0])
			})
		}
		for n := 1; n < len(said[0]); n++ {
			for i, d := range devices {
				d.Send(t, user.JID, said[i][n])
				peer.AwaitBody(t, one.JID, said[i][n])
			}
		}
		for i, own := range seen {
			sender := devices[1-i]
			own.await(t, true, said[1-i])
			for _, m := range own.of(true) {
				if m.To.Bare().String() != user.JID || m.Info == nil || m.Info.Account != one.JID || uint32(m.Info.Device) != sender.Device || m.Info.Own {
					t.Errorf("device %d is told of %q to %v: %+v", devices[i].Device, m.Body, m.To, m.Info)
				}
			}
		}
		// What the peer sends to the account reaches both, be it by itself or as a copy.
		if n := len(peer.Devices(t, one.JID)); n != len(devices) {
			t.Fatalf("the peer sees %d devices", n)
		}
		back := texts("back", user, 5)
		sendAll(t, peer, one.JID, back)
		for i, d := range devices {
			if !lab.Until(deadline, func() bool { return len(d.Bodies(user.JID))+len(seen[i].of(false)) >= len(back) }) {
				t.Fatalf("device %d has %q and as copies %+v", d.Device, d.Bodies(user.JID), seen[i].of(false))
			}
			got := d.Bodies(user.JID)
			for _, m := range seen[i].of(false) {
				got = append(got, m.Body)
				if m.Info == nil || m.Info.Account != user.JID {
					t.Errorf("copy of %q: %+v", m.Body, m.Info)
				}
			}
			slices.Sort(got)
			if !slices.Equal(got, back) {
				t.Errorf("device %d has %q", d.Device, got)
			}
		}
		if bad := peer.Undecryptable(); len(bad) > 0 {
			t.Errorf("undecryptable: %+v", bad)
		}
		secret(t, s, said[0], said[1], back)
	})
}

// awaitSibling waits until the program knows another device of its account in
// both versions.
func (p *program) awaitSibling(t *testing.T, other *program) {
	t.Helper()
	if !lab.Until(deadline, func() bool {
		_, devices, err := p.om.Manager().Account(t.Context(), p.Account.JID)
		listed := 0
		for _, d := range devices {
			if d.Active && uint32(d.Peer.Device) == other.Device {
				listed++
			}
		}
		return err == nil && listed == len(omemo.Versions())
	}) {
		t.Fatalf("device %d has not learnt of device %d", p.Device, other.Device)
	}
}

// await waits for copies of these texts, in order, and no others.
func (c *copies) await(t *testing.T, sent bool, want []string) {
	t.Helper()
	bodies := func() (all []string) {
		for _, m := range c.of(sent) {
			all = append(all, m.Body)
		}
		return all
	}
	if !lab.Until(deadline, func() bool { return len(bodies()) >= len(want) }) || !slices.Equal(bodies(), want) {
		t.Errorf("copies %q, want %q", bodies(), want)
	}
}
