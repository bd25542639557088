package middleware_test

import (
	"bytes"
	"context"
	"encoding/xml"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"example.org/omellium/bundle"
	"example.org/omellium/devicelist"
	"example.org/omellium/middleware"
	"example.org/omellium/middleware/xmpptest"
	"example.org/omellium/omemo"
	"example.org/omellium/omemo/memstore"
	"example.org/omellium/omemo/sqlstore/sqlite"
	"example.org/omellium/stanza/pep"
	"mellium.im/xmlstream"
	"mellium.im/xmpp/jid"
	"mellium.im/xmpp/stanza"
)

// BenchmarkManyDevices is a message to a room of 1,000 devices, ten an account,
// and to a contact with 250 (a list has at most devicelist.MaxDevices), by a program
// on SQLite: "first" is the first one, for which every device list and bundle is
// fetched from an xmpptest server, "next" each one after it. The devices do not
// answer. stanza-B is how long a message is on the wire.
func BenchmarkManyDevices(b *testing.B) {
	for _, v := range omemo.Versions() {
		b.Run(v.String(), func(b *testing.B) {
			bundles := hundredBundles(b, v)
			room := stanza.Message{To: jid.MustParse(hall), Type: stanza.GroupChatMessage}
			b.Run("room", func(b *testing.B) { newMany(b, v, bundles, 100, 10, room).bench(b) })
			b.Run("contact", func(b *testing.B) { newMany(b, v, bundles, 1, 250, to(manyName(0))).bench(b) })
		})
	}
}

// many is a server with accounts whose devices have no program.
type many struct {
	v        omemo.Version
	srv      *xmpptest.Server
	devices  int
	receiver stanza.Message
	senders  int
	dir      string // of the stores
}

func manyName(nth int) string { return fmt.Sprintf("many%d@example.net", nth) }

// hundredBundles returns the bundles of a hundred devices: to make a thousand
// would take longer than all that is measured.
func hundredBundles(b *testing.B, v omemo.Version) (bundles []*omemo.Bundle) {
	for range 100 {
		m, err := omemo.NewManager(b.Context(), memstore.New(manyName(0)), omemo.Options{})
		must(b, err)
		own, err := m.Bundle(b.Context(), v)
		must(b, err)
		bundles = append(bundles, own)
	}
	return bundles
}

func must(b *testing.B, err error) {
	b.Helper()
	if err != nil {
		b.Fatal(err)
	}
}

// newMany publishes devices, which share the keys in the bundles. All accounts
// are members of a room.
func newMany(b *testing.B, v omemo.Version, bundles []*omemo.Bundle, accounts, each int, receiver stanza.Message) *many {
	srv, err := xmpptest.NewServer()
	must(b, err)
	b.Cleanup(func() { must(b, srv.Close()) })
	members := make(map[string]string)
	for i := range accounts {
		account := manyName(i)
		members[account] = "member"
		must(b, srv.AddAccount(account, "secret"))
		session, err := srv.Client(b.Context(), account+"/bench", "secret")
		must(b, err)
		go func() { _ = session.Serve(nil) }()
		list := devicelist.List{Version: v}
		for n := range each {
			id := omemo.DeviceID(1 + i*each + n)
			own := *bundles[int(id)%len(bundles)]
			own.Owner = omemo.Address{JID: account, Device: id}
			must(b, bundle.Publish(b.Context(), pep.SessionRequester(session), &own))
			list.Devices = append(list.Devices, devicelist.Device{ID: id})
		}
		must(b, devicelist.Publish(b.Context(), pep.SessionRequester(session), list))
		must(b, session.Conn().Close())
	}
	must(b, srv.AddRooms(roomsAt, fit))
	must(b, srv.AddRoom(hall, fit, members))
	return &many{v: v, srv: srv, devices: accounts * each, receiver: receiver, dir: b.TempDir()}
}

func (m *many) bench(b *testing.B) {
	var send, end func(*testing.B)
	b.Run("first", func(sub *testing.B) {
		sub.ReportAllocs()
		for range sub.N {
			sub.StopTimer()
			if end != nil {
				end(sub)
			}
			send, end = m.sender(sub)
			sub.StartTimer()
			send(sub)
		}
		m.report(sub)
	})
	b.Run("next", func(sub *testing.B) {
		if send == nil {
			send, end = m.sender(sub)
			send(sub)
		}
		sub.ReportAllocs()
		for sub.Loop() {
			send(sub)
		}
		m.report(sub)
	})
	if end != nil {
		end(b)
	}
}

// sender connects a program of an account that was never there before. What it
// sends must reach every device.
func (m *many) sender(b *testing.B) (send, end func(*testing.B)) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute) // longer than a part of the benchmark
	account := fmt.Sprintf("sender%d@example.net", m.senders)
	m.senders++
	must(b, m.srv.AddAccount(account, "secret"))
	must(b, m.srv.Affiliate(hall, account, "admin"))
	store, err := sqlite.Open(ctx, filepath.Join(m.dir, account), account)
	must(b, err)
	ready := make(chan struct{}, 10)
	om, err := middleware.New(ctx, middleware.Config{
		Store: store, MaxStanza: xmpptest.DefaultMaxStanza,
		Prefer: func(jid.JID) omemo.Version { return m.v },
		OnEvent: func(e middleware.Event) {
			if e.Kind == middleware.RoomReady {
				ready <- struct{}{}
			}
		},
	})
	must(b, err)
	raw, err := m.srv.Client(ctx, account+"/bench", "secret")
	must(b, err)
	session, err := om.Wrap(ctx, raw)
	must(b, err)
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = session.Serve(nil)
	}()
	must(b, session.Send(ctx, stanza.Presence{}.Wrap(nil)))
	if m.receiver.Type == stanza.GroupChatMessage {
		nick, err := m.receiver.To.WithResource("Sender")
		must(b, err)
		join := xmlstream.Wrap(nil, xml.StartElement{Name: xml.Name{Space: "http://jabber.org/protocol/muc", Local: "x"}})
		must(b, session.Send(ctx, stanza.Presence{To: nick}.Wrap(join)))
		select {
		case <-ready:
		case <-ctx.Done():
			b.Fatal("the room is not known")
		}
	}
	m.srv.ForgetWire()
	send = func(b *testing.B) {
		b.Helper()
		result, err := om.Send(ctx, m.receiver, text("canary"))
		must(b, err)
		if len(result.Devices) != m.devices || len(result.Unserved) != 0 {
			b.Fatalf("%d devices, %d accounts without", len(result.Devices), len(result.Unserved))
		}
		for _, d := range result.Devices {
			if d.Err != nil {
				b.Fatalf("%v: %v", d.Peer, d.Err)
			}
		}
	}
	end = func(b *testing.B) {
		b.Helper()
		must(b, om.Close())
		<-served
		must(b, store.Close())
		must(b, m.srv.Affiliate(hall, account, "none"))
		cancel()
	}
	return send, end
}

// report tells how long a message was, and how much time a device took.
func (m *many) report(b *testing.B) {
	b.StopTimer()
	sent, err := m.srv.Await(b.Context(), func(s xmpptest.Stanza) bool {
		return s.Direction == xmpptest.FromClient && bytes.Contains(s.XML, []byte("<encrypted"))
	})
	must(b, err)
	b.ReportMetric(float64(len(sent.XML)), "stanza-B")
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*m.devices), "ns/device")
}
