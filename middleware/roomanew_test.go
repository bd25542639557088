package middleware_test

import (
	"strings"
	"testing"

	"example.org/omellium/omemo"
)

// TestARoomThatIsJoinedOnceMoreIsCaughtUpWith: a program that finds that the room
// has lost it (XEP-0410) joins again, without having left. What was said meanwhile
// is fetched.
func TestARoomThatIsJoinedOnceMoreIsCaughtUpWith(t *testing.T) {
	t.Parallel()
	srv := archiving(t)
	ok(t, srv.AddRooms(roomsAt, fit))
	ok(t, srv.AddRoom(hall, fit, map[string]string{juliet: "member"}))
	b := load(t, juliet, catching(omemo.V2))
	b.attach(login(t, srv, juliet+"/x"), nil)
	asked := func() (n int) {
		for _, s := range srv.Wire() {
			if x := string(s.XML); strings.Contains(x, "<iq") && strings.Contains(x, `to="`+hall+`"`) && strings.Contains(x, `queryid=`) {
				n++
			}
		}
		return n
	}
	b.join(hall, "Juliet")
	until(t, "the room was caught up with", func() bool { return asked() == 2 }) // where it ends, and from there on
	b.flush()
	before := asked()
	b.present(hall+"/Juliet", "", "") // no more than presence
	b.flush()
	if n := asked(); n != before {
		t.Errorf("asked %d times, %d before", n, before)
	}
	b.present(hall+"/Juliet", "", `<x xmlns="http://jabber.org/protocol/muc"/>`)
	until(t, "it is asked again", func() bool { return asked() > before })
}
