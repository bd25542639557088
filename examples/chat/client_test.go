package main

import (
	"bytes"
	"fmt"
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
	c := &client{addr: jid.MustParse(juliet), show: func(tea.Msg) {}}
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
