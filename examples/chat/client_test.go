package main

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	tea "github.com/charmbracelet/bubbletea"
	"mellium.im/xmpp"
	"mellium.im/xmpp/jid"
	"mellium.im/xmpp/stanza"

	"example.org/omellium/middleware"
	"example.org/omellium/middleware/xmpptest"
	"example.org/omellium/omemo"
	"example.org/omellium/omemo/memstore"
)

func ok(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// serve has a session served until the test ends.
func serve(t *testing.T, session *xmpp.Session, h xmpp.Handler) {
	t.Helper()
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = session.Serve(h)
	}()
	t.Cleanup(func() {
		session.Conn().Close()
		<-served
	})
}

// TestJoiningMeetsAReconnect: the rooms are joined once more while the person joins
// others.
func TestJoiningMeetsAReconnect(t *testing.T) {
	srv, err := xmpptest.NewServer()
	ok(t, err)
	t.Cleanup(func() { srv.Close() })
	ok(t, srv.AddAccount(juliet, "secret"))
	ok(t, srv.AddRooms("rooms.capulet.example", xmpptest.RoomConfig{}))
	room := func(i int) jid.JID { return jid.MustParse(fmt.Sprintf("hall%d@rooms.capulet.example/juliet", i)) }
	session, err := srv.Client(t.Context(), juliet, "secret")
	ok(t, err)
	serve(t, session, nil)
	c := &client{addr: jid.MustParse(juliet), show: func(tea.Msg) {}, session: session, rooms: make(map[string]jid.JID)}
	const before = 50
	for i := range before {
		c.rooms[room(i).Bare().String()] = room(i)
	}
	begun := make(chan struct{})
	all := before
	var wg sync.WaitGroup
	wg.Go(func() {
		for ; ; all++ {
			select {
			case <-begun:
				return
			default:
			}
			if err := c.join(t.Context(), room(all)); err != nil {
				t.Error(err)
			}
		}
	})
	if err := c.begin(t.Context(), session); err != nil {
		t.Error(err)
	}
	close(begun)
	wg.Wait()
	if len(c.rooms) != all {
		t.Errorf("%d rooms, want %d", len(c.rooms), all)
	}
	for i := range before {
		_, err := srv.Await(t.Context(), func(s xmpptest.Stanza) bool {
			return s.Direction == xmpptest.FromClient && bytes.Contains(s.XML, []byte(room(i).String()))
		})
		ok(t, err)
	}
}

// TestKeysOfARoom: the keys dialog of a room shows the devices of all members,
// those that were there before us among them.
func TestKeysOfARoom(t *testing.T) {
	const nurse, hall = "nurse@capulet.example", "hall@rooms.capulet.example"
	fit := xmpptest.RoomConfig{MembersOnly: true, NonAnonymous: true}
	srv, err := xmpptest.NewServer()
	ok(t, err)
	t.Cleanup(func() { srv.Close() })
	ok(t, srv.AddRooms("rooms.capulet.example", fit))
	connect := func(account string, config middleware.Config) (*middleware.Middleware, *xmpp.Session) {
		ok(t, srv.AddAccount(account, "secret"))
		config.Store = memstore.New(account)
		om, err := middleware.New(t.Context(), config)
		ok(t, err)
		t.Cleanup(func() { om.Close() })
		session, err := srv.Client(t.Context(), account, "secret")
		ok(t, err)
		session, err = om.Wrap(t.Context(), session)
		ok(t, err)
		serve(t, session, nil)
		ok(t, session.Send(t.Context(), stanza.Presence{}.Wrap(nil)))
		return om, session
	}
	want := []string{nurse, romeo}
	fingerprints := make(map[string]omemo.Fingerprint)
	for _, account := range want {
		om, _ := connect(account, middleware.Config{})
		fingerprints[account], err = om.Manager().Fingerprint(t.Context())
		ok(t, err)
	}
	c := &client{addr: jid.MustParse(juliet), show: func(tea.Msg) {}, rooms: make(map[string]jid.JID)}
	c.om, c.session = connect(juliet, middleware.Config{})
	ok(t, srv.AddRoom(hall, fit, map[string]string{juliet: "owner", romeo: "member", nurse: "member"}))
	ok(t, c.join(t.Context(), jid.MustParse(hall+"/juliet")))
	m := newModel(t.Context(), c)
	if _, err := c.send(t.Context(), jid.MustParse(hall), true, "hello", ""); err != nil {
		t.Fatal(err)
	}
	m.chat(hall).room = true
	m.Update(m.showKeys(false)())
	if m.dialog == nil || len(m.dialog.keys) != len(want) {
		t.Fatalf("%+v", m.dialog)
	}
	for i, account := range want {
		if k := m.dialog.keys[i]; k.JID != account || k.Fingerprint != fingerprints[account] || k.Trust != omemo.TrustedBlindly {
			t.Errorf("%+v, want a key of %s", k, account)
		}
	}
}

// TestAChangedKeyIsAccepted: a key that a device presents in place of the known one
// is shown as that, decided about by nothing else than accepting it, and then in
// use in both versions.
func TestAChangedKeyIsAccepted(t *testing.T) {
	var bundles [2][]*omemo.Bundle
	var fingerprints [2]omemo.Fingerprint
	var at omemo.Address
	for i := range bundles {
		other, err := omemo.NewManager(t.Context(), memstore.New(romeo), omemo.Options{})
		ok(t, err)
		fingerprints[i], err = other.Fingerprint(t.Context())
		ok(t, err)
		for _, v := range omemo.Versions() {
			b, err := other.Bundle(t.Context(), v)
			ok(t, err)
			if i == 0 {
				at = b.Owner
			}
			b.Owner = at
			bundles[i] = append(bundles[i], b)
		}
	}
	om, err := middleware.New(t.Context(), middleware.Config{Store: memstore.New(juliet)})
	ok(t, err)
	t.Cleanup(func() { om.Close() })
	for _, b := range slices.Concat(bundles[:]...) {
		ok(t, om.Manager().SetList(t.Context(), romeo, b.Version, []omemo.DeviceID{at.Device}))
		_, err := om.Manager().Compare(t.Context(), b)
		ok(t, err)
	}
	m := newModel(t.Context(), &client{addr: jid.MustParse(juliet), om: om})
	m.Update(tea.WindowSizeMsg{Width: 140, Height: 30})
	m.Update(chatMsg(romeo))
	// dialog opens the keys, and presses what is to be pressed on the changed one.
	dialog := func(keys ...string) (states map[omemo.Fingerprint]string) {
		m.Update(m.showKeys(false)())
		if m.dialog == nil {
			t.Fatal("no dialog")
		}
		states = make(map[omemo.Fingerprint]string)
		for _, k := range m.dialog.keys {
			states[k.Fingerprint] = k.state()
		}
		m.dialog.at = slices.IndexFunc(m.dialog.keys, func(k keyRow) bool { return k.Fingerprint == fingerprints[1] })
		press(m, keys...)
		if _, cmd := m.Update(tea.KeyMsg{Type: tea.KeyEnter}); cmd != nil {
			m.Update(cmd())
		}
		return states
	}
	for _, keys := range [][]string{{"v", "b", "d", "V"}, {"a", "a"}, {"a"}} {
		states := dialog(keys...)
		if len(states) != 2 || !strings.Contains(states[fingerprints[1]], "changed") || strings.Contains(states[fingerprints[0]], "changed") {
			t.Errorf("before %q: %v", keys, states)
		}
	}
	if states := dialog("v"); len(states) != 1 || states[fingerprints[1]] != omemo.TrustedBlindly.String() {
		t.Errorf("accepted: %v", states)
	}
	if states := dialog(); states[fingerprints[1]] != omemo.Verified.String() {
		t.Errorf("verified: %v", states)
	}
	_, devices, err := om.Manager().Account(t.Context(), romeo)
	ok(t, err)
	for _, d := range devices {
		if d.Fingerprint != fingerprints[1] || !d.Conflict.IsZero() {
			t.Errorf("%+v", d)
		}
	}
	if c := m.current(); len(c.lines) > 0 {
		t.Errorf("%+v", c.lines)
	}
}
