package middleware_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"example.org/omellium/middleware"
	"example.org/omellium/middleware/xmpptest"
	"example.org/omellium/omemo"
)

const garden = "garden@rooms.example.net"

// A program that was away gets what was said to it and in two rooms, each in
// order and once, though the rooms tell a part of it as their history, and the
// connection breaks twice.
func TestCatchUpRooms(t *testing.T) {
	for _, v := range omemo.Versions() {
		t.Run(v.String(), func(t *testing.T) {
			srv := archiving(t)
			ok(t, srv.AddRooms(roomsAt, fit))
			for _, room := range []string{hall, garden} {
				ok(t, srv.AddRoom(room, fit, map[string]string{romeo: "owner", juliet: "member"}))
			}
			b := load(t, juliet, catching(v))
			b.attach(login(t, srv, juliet+"/x"), nil)
			b.join(hall, "Juliet").join(garden, "Juliet")
			a := connected(t, srv, romeo, chat(v)).join(hall, "Romeo").join(garden, "Romeo")
			a.speak(hall, "hall before")
			b.awaitText("hall before")
			a.speak(garden, "garden before")
			b.awaitText("garden before")
			b.flush()
			b.leave(srv)
			var want []string
			for i := range 120 {
				for _, place := range []string{"hall", "garden", "chat"} {
					body := fmt.Sprintf("%s %d", place, i)
					want = append(want, body)
					switch place {
					case "hall":
						a.speak(hall, body)
					case "garden":
						a.speak(garden, body)
					default:
						a.tell(juliet, body)
					}
				}
			}
			a.flush()
			for _, last := range []string{"chat 0", "hall 49", ""} {
				b.attach(login(t, srv, juliet+"/x"), nil)
				b.present(hall+"/Juliet", "", `<x xmlns="http://jabber.org/protocol/muc"/>`)
				b.present(garden+"/Juliet", "", `<x xmlns="http://jabber.org/protocol/muc"/>`)
				if last != "" {
					b.awaitText(last)
					b.leave(srv)
				}
			}
			for _, place := range []string{"hall", "garden", "chat"} {
				b.awaitText(place + " 119")
			}
			b.flush()
			got := b.bodies()
			for _, place := range []string{"hall", "garden", "chat"} {
				of := func(all []string) []string {
					return slices.DeleteFunc(slices.Clone(all), func(s string) bool { return !strings.HasPrefix(s, place) || strings.HasSuffix(s, "before") })
				}
				if got, want := of(got), of(want); !slices.Equal(got, want) {
					t.Errorf("%s: %d messages: %q", place, len(got), got)
				}
			}
			for _, e := range b.all() {
				switch e.Kind {
				case middleware.Undecryptable, middleware.Refused, middleware.UnknownOccupant, middleware.PlaintextReceived:
					t.Errorf("%v %v", e.Kind, e.Err)
				}
			}
			for _, m := range b.received {
				if m.Body != "" && (m.Info == nil || m.Info.Account != romeo) {
					t.Errorf("%q: %+v", m.Body, m.Info)
				}
			}
			noLeak(t, srv, "hall 1", "garden 1", "chat 1")
		})
	}
}

// What the program has said itself in a room, and what was said there before, is
// not taken from the archive again.
func TestCatchUpRoomOwn(t *testing.T) {
	srv := archiving(t)
	ok(t, srv.AddRooms(roomsAt, xmpptest.RoomConfig{MembersOnly: true, NonAnonymous: true}))
	ok(t, srv.AddRoom(hall, xmpptest.RoomConfig{MembersOnly: true, NonAnonymous: true}, map[string]string{romeo: "owner", juliet: "member"}))
	b := load(t, juliet, catching(omemo.V2))
	b.attach(login(t, srv, juliet+"/x"), nil)
	b.join(hall, "Juliet")
	a := connected(t, srv, romeo, chat(omemo.V2)).join(hall, "Romeo")
	b.speak(hall, "from juliet")
	a.awaitText("from juliet")
	b.awaitText("from juliet")
	a.speak(hall, "from romeo")
	b.awaitText("from romeo")
	b.flush()
	b.leave(srv)
	a.speak(hall, "later")
	a.flush()
	b.attach(login(t, srv, juliet+"/x"), nil)
	b.join(hall, "Juliet")
	b.awaitText("later")
	b.flush()
	if got, want := b.bodies(), []string{"from juliet", "from romeo", "later"}; !slices.Equal(got, want) {
		t.Errorf("received %q", got)
	}
}
