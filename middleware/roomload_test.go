package middleware_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"example.org/omellium/bundle"
	"example.org/omellium/devicelist"
	"example.org/omellium/middleware"
	"example.org/omellium/middleware/xmpptest"
	"example.org/omellium/omemo"
	"example.org/omellium/omemo/memstore"
	omemostanza "example.org/omellium/stanza"
	"mellium.im/xmpp/jid"
)

// simulated is a device without a program: its bundle is published, and it reads
// what it is given.
type simulated struct {
	version omemo.Version
	own     omemo.Address
	manager *omemo.Manager
}

// simulate publishes devices of an account, in the versions given.
func simulate(t *testing.T, srv *xmpptest.Server, account string, versions ...omemo.Version) (devices []*simulated) {
	t.Helper()
	lists := make(map[omemo.Version]*devicelist.List)
	for _, v := range versions {
		m, err := omemo.NewManager(t.Context(), memstore.New(account), omemo.Options{})
		ok(t, err)
		d := &simulated{version: v, manager: m}
		d.own, err = m.Device(t.Context())
		ok(t, err)
		b, err := m.Bundle(t.Context(), v)
		ok(t, err)
		item := "current"
		if v == omemo.V2 {
			item = decimal(d.own.Device)
		}
		ok(t, srv.Publish(account, bundle.Node(v, d.own.Device), item, string(bundle.Element(b).AppendXML(nil))))
		if lists[v] == nil {
			lists[v] = &devicelist.List{Version: v}
		}
		lists[v].Devices = append(lists[v].Devices, devicelist.Device{ID: d.own.Device})
		devices = append(devices, d)
	}
	for v, list := range lists {
		ok(t, srv.Publish(account, devicelist.Node(v), "current", string(list.Element().AppendXML(nil))))
	}
	return devices
}

// read decrypts a message as the device would.
func (d *simulated) read(t *testing.T, raw string, sender string) (string, error) {
	t.Helper()
	e, err := omemostanza.ParseElement([]byte(raw), omemostanza.DefaultLimits)
	ok(t, err)
	found, err := omemostanza.Find(e)
	ok(t, err)
	for _, element := range found {
		x, err := omemostanza.ParseEncrypted(element, omemostanza.OwnKey{JID: d.own.JID, Device: uint32(d.own.Device)})
		ok(t, err)
		if len(x.Keys) == 0 || x.Namespace != d.version.Namespace() {
			continue
		}
		m := &omemo.Message{
			Version: d.version, Sender: omemo.Address{JID: sender, Device: omemo.DeviceID(x.Sender)}, IV: x.IV, Payload: x.Payload,
			Keys: []omemo.Key{{Exchange: x.Keys[0].Exchange, Data: x.Keys[0].Data}},
		}
		var text string
		_, err = d.manager.Decrypt(t.Context(), m, func(o *omemo.Opened) (omemo.Delivery, error) {
			if d.version == omemo.Legacy {
				text = string(o.Plaintext)
				return omemo.Delivery{}, nil
			}
			envelope, err := omemostanza.ParseEnvelope(o.Plaintext)
			if err == nil {
				err = envelope.Verify(omemostanza.Expect{From: sender, To: hall, Group: true})
				text, _ = envelope.Body()
			}
			return omemo.Delivery{}, err
		})
		return text, err
	}
	return "", omemo.ErrNotForUs
}

// unserved returns the members that a message has not reached, in order.
func unserved(r *middleware.Result) (accounts []string) {
	for _, u := range r.Unserved {
		accounts = append(accounts, u.JID)
	}
	slices.Sort(accounts)
	return accounts
}

// A room of fifty with two hundred devices of both versions, one without a
// bundle, and one member whose server does not answer: all others read, soon, and
// the result says who does not.
func TestRoomOfFifty(t *testing.T) { synctest.Test(t, roomOfFifty) }

func roomOfFifty(t *testing.T) {
	srv := network(t, romeo)
	ok(t, srv.AddRooms(roomsAt, fit))
	affiliations := map[string]string{romeo: "owner"}
	var devices []*simulated
	account := func(i int) string { return fmt.Sprintf("m%02d@example.net", i) }
	for i := range 49 {
		ok(t, srv.AddAccount(account(i), "secret"))
		affiliations[account(i)] = []string{"owner", "admin", "member", "member"}[i%4]
		// One of omemo:2: a node that the server makes holds one item.
		versions := []omemo.Version{omemo.Legacy, omemo.V2, omemo.Legacy, omemo.Legacy}
		if i == 0 {
			versions = append(versions, omemo.Legacy, omemo.Legacy, omemo.Legacy, omemo.Legacy)
		}
		devices = append(devices, simulate(t, srv, account(i), versions...)...)
	}
	if len(devices) != 200 {
		t.Fatalf("%d devices", len(devices))
	}
	ok(t, srv.AddRoom(hall, fit, affiliations))
	const hanging, bare = 7, 11 // accounts
	ok(t, srv.HangPEP(account(hanging), true))
	lost := devices[4+4*bare] // the first device of that account
	node := bundle.Node(lost.version, lost.own.Device)
	ok(t, srv.Publish(account(bare), node, "current", `<nothing xmlns="urn:example"/>`))

	c := chat(omemo.Legacy)
	c.AnswerStrangers = false
	a := connected(t, srv, romeo, c).join(hall, "Romeo")
	began := time.Now()
	result := a.speak(hall, "canary one")
	if took := time.Since(began); took > middleware.DefaultFetchTimeout+time.Second { // in the bubble, nothing but waiting takes time
		t.Errorf("the first message leaves after %v", took)
	}
	if got := unserved(result); !slices.Equal(got, []string{account(hanging)}) {
		t.Errorf("not reached: %v", got)
	}
	if err := result.Unserved[0]; !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("reason: %v", err)
	}
	reached := 0
	for _, d := range result.Devices {
		if d.Err == nil {
			reached++
		} else if d.Peer.Address != lost.own || !errors.Is(d.Err, omemo.ErrNoBundle) {
			t.Errorf("%v: %v", d.Peer, d.Err)
		}
	}
	if reached != 195 {
		t.Errorf("%d devices are reached", reached)
	}
	a.hears("canary one", hall+"/Romeo", romeo, true)
	began = time.Now()
	a.speak(hall, "canary two")
	if took := time.Since(began); took > time.Second {
		t.Errorf("the second message leaves after %v", took)
	}
	a.hears("canary two", hall+"/Romeo", romeo, true)

	var wire []string
	for _, s := range srv.Wire() {
		if fromTo(romeo, "<encrypted")(s) {
			wire = append(wire, string(s.XML))
		}
	}
	if len(wire) != 2 {
		t.Fatalf("%d stanzas", len(wire))
	}
	for i, body := range []string{"canary one", "canary two"} {
		for _, d := range devices {
			got, err := d.read(t, wire[i], romeo)
			switch {
			case d == lost || d.own.JID == account(hanging):
				if !errors.Is(err, omemo.ErrNotForUs) {
					t.Errorf("%v: %q, %v", d.own, got, err)
				}
			case err != nil || got != body:
				t.Errorf("%v reads %q, %v", d.own, got, err)
			}
		}
	}
	noLeak(t, srv, "canary")
}

// One member who cannot be served keeps the others from nothing, unless that was
// asked for.
func TestRoomStrict(t *testing.T) {
	for _, strict := range []bool{false, true} {
		t.Run(fmt.Sprintf("strict %t", strict), func(t *testing.T) {
			srv := building(t, fit) // the nurse has no devices
			b := connected(t, srv, juliet, chat(omemo.V2)).join(hall, "Juliet")
			c := chat(omemo.V2)
			c.StrictRooms, c.ListAge = strict, time.Millisecond
			a := connected(t, srv, romeo, c).join(hall, "Romeo")
			result, err := a.try(hall, "canary")
			if got := unserved(result); !slices.Equal(got, []string{nurse}) || !errors.Is(result.Unserved[0], omemo.ErrNoDevices) {
				t.Errorf("not reached: %v", got)
			}
			if !strict {
				ok(t, err)
				b.hears("canary", hall+"/Romeo", romeo, false)
				return
			}
			if !errors.Is(err, middleware.ErrRoomMember) || !errors.Is(err, omemo.ErrNoDevices) {
				t.Errorf("got %v", err)
			}
			if rows, err := a.store.Outbox(t.Context(), 0, 10); err != nil || len(rows) != 0 {
				t.Errorf("%d rows, %v", len(rows), err)
			}
			connected(t, srv, nurse, chat(omemo.V2))
			a.speak(hall, "canary two")
			b.hears("canary two", hall+"/Romeo", romeo, false)
			noLeak(t, srv, "canary")
		})
	}
}

// A room whose members' devices differ in version gets one stanza with both
// elements, or two if it is said so; the text comes back once.
func TestRoomMixedVersions(t *testing.T) {
	for _, split := range []bool{false, true} {
		t.Run(fmt.Sprintf("split %t", split), func(t *testing.T) {
			srv := building(t, fit)
			old, young := chat(omemo.Legacy), chat(omemo.V2)
			old.Versions, young.Versions = []omemo.Version{omemo.Legacy}, []omemo.Version{omemo.V2}
			c := chat(omemo.Legacy)
			c.AllowDowngrade = true // the others list one version, and speak both
			c.SplitStanzas = func(j jid.JID) bool { return split && j.String() == hall }
			b := connected(t, srv, juliet, old).join(hall, "Juliet")
			d := connected(t, srv, nurse, young).join(hall, "Nurse")
			a := connected(t, srv, romeo, c).join(hall, "Romeo")
			for i := range 3 {
				body := fmt.Sprintf("canary %d", i)
				a.speak(hall, body)
				if got := b.hears(body, hall+"/Romeo", romeo, false); got.Info.Version != omemo.Legacy {
					t.Errorf("version %v", got.Info.Version)
				}
				if got := d.hears(body, hall+"/Romeo", romeo, false); got.Info.Version != omemo.V2 {
					t.Errorf("version %v", got.Info.Version)
				}
				a.hears(body, hall+"/Romeo", romeo, true)
				b.speak(hall, body+" back")
				a.hears(body+" back", hall+"/Juliet", juliet, false)
				d.speak(hall, body+" too")
				a.hears(body+" too", hall+"/Nurse", nurse, false)
			}
			if got := a.bodies(); len(got) != 9 {
				t.Errorf("reads %q", got)
			}
			for _, p := range []*program{a, b, d} {
				if n := p.count(middleware.NotForUs) + p.count(middleware.Undecryptable); n != 0 {
					t.Errorf("%d were not read", n)
				}
			}
			stanzas, elements := 0, 0
			for _, s := range srv.Wire() {
				if fromTo(romeo, "groupchat")(s) && strings.Contains(string(s.XML), "<encrypted") {
					stanzas++
					elements += strings.Count(string(s.XML), "<encrypted")
				}
			}
			if want := map[bool]int{false: 3, true: 6}[split]; stanzas != want || elements != 6 {
				t.Errorf("%d elements in %d stanzas", elements, stanzas)
			}
			noLeak(t, srv, "canary")
		})
	}
}

// What a room's archive holds is read by who had the nicks, and only what the
// room itself has said there.
func TestRoomArchive(t *testing.T) {
	srv := building(t, fit)
	a := connected(t, srv, romeo, chat(omemo.V2)).join(hall, "Romeo")
	b := connected(t, srv, juliet, chat(omemo.V2)).join(hall, "Juliet")
	b.speak(hall, "hello")
	a.hears("hello", hall+"/Juliet", juliet, false)
	srv.SetFilter(func(_ context.Context, s xmpptest.Stanza) [][]byte {
		if s.Direction == xmpptest.ToClient && strings.HasPrefix(s.Session, romeo) && strings.Contains(string(s.XML), "<encrypted") {
			return nil
		}
		return [][]byte{s.XML}
	})
	b.speak(hall, "archived")
	b.flush()
	a.flush()
	srv.SetFilter(func(_ context.Context, s xmpptest.Stanza) [][]byte {
		if s.Direction == xmpptest.FromClient && strings.Contains(string(s.XML), "urn:xmpp:mam:2") {
			return nil // the query stays open
		}
		return [][]byte{s.XML}
	})
	b.present(hall+"/Juliet", "unavailable", "")
	a.flush()
	sealed := encryptedOf(t, onWire(t, srv, juliet))
	query := `<iq xmlns="jabber:client" type="set" id="q1" to="` + hall + `"><query xmlns="urn:xmpp:mam:2" queryid="one"/></iq>`
	ok(t, a.session.Send(t.Context(), raw(query)))
	a.flush()
	result := func(nick, archive string) string {
		return `<message from="` + archive + `" to="` + romeo + `"><result xmlns="urn:xmpp:mam:2" queryid="one" id="1">` +
			`<forwarded xmlns="urn:xmpp:forward:0"><delay xmlns="urn:xmpp:delay" stamp="` + time.Now().UTC().Format(time.RFC3339) + `"/>` +
			`<message xmlns="jabber:client" type="groupchat" from="` + hall + `/` + nick + `" id="m">` + sealed + `</message></forwarded></result></message>`
	}
	for _, bad := range []string{result("Nobody", hall), result("Juliet", "attic@rooms.example.net"), result("Juliet", romeo)} {
		before := len(a.all())
		ok(t, srv.Inject(romeo, bad))
		a.flush()
		until(t, "an event", func() bool { return len(a.all()) > before })
	}
	a.mu.Lock()
	before := len(a.received)
	a.mu.Unlock()
	ok(t, srv.Inject(romeo, result("Juliet", hall)))
	until(t, "it is read", func() bool {
		a.mu.Lock()
		defer a.mu.Unlock()
		return len(a.received) > before
	})
	if n := a.count(middleware.Undecryptable); n != 0 {
		t.Errorf("%d were not read", n)
	}
	if rows, err := a.store.Occupants(t.Context(), hall); err != nil || len(rows) != 2 {
		t.Errorf("%d nicks, %v", len(rows), err)
	}
}
