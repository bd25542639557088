package main

import (
	"bytes"
	"fmt"
	"sync"
	"testing"

	tea "github.com/charmbracelet/bubbletea"
	"mellium.im/xmpp"
	"mellium.im/xmpp/jid"

	"example.org/omellium/middleware/xmpptest"
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
