package middleware_test

import (
	"encoding/xml"
	"fmt"
	"slices"
	"strings"
	"testing"

	"example.org/omellium/middleware"
	"example.org/omellium/middleware/xmpptest"
	"example.org/omellium/omemo"
	"example.org/omellium/omemo/memstore"
	"mellium.im/xmlstream"
	"mellium.im/xmpp"
	"mellium.im/xmpp/jid"
	"mellium.im/xmpp/stanza"
)

const garden = "garden@rooms.example.net"

// A program that was not there for 510 messages, said to it and in two rooms, and
// is killed twice while it catches up, gets what was said in each place in order
// and once, though the rooms tell a part of it as their history. What a handler
// had seen and was not noted yet comes again as the same event.
func TestCatchUpRooms(t *testing.T) {
	const each = 170
	places := map[string]string{"hall": hall, "garden": garden, "chat": juliet}
	for _, v := range omemo.Versions() {
		t.Run(v.String(), func(t *testing.T) {
			srv := archiving(t)
			ok(t, srv.AddRooms(roomsAt, fit))
			for _, room := range []string{hall, garden} {
				ok(t, srv.AddRoom(room, fit, map[string]string{romeo: "owner", juliet: "member"}))
			}
			store := memstore.New(juliet)
			// start connects a program whose handler waits, after so many texts, until
			// the program is killed: then it writes nothing more and says nothing more.
			start := func(most int) (b *program, kill func()) {
				c := catching(v)
				c.Store = store
				b = load(t, juliet, c)
				killed := make(chan struct{})
				session, err := b.om.Wrap(t.Context(), login(t, srv, juliet+"/x"))
				ok(t, err)
				b.session, b.done = session, make(chan struct{})
				go func() {
					defer close(b.done)
					_ = session.Serve(xmpp.HandlerFunc(func(r xmlstream.TokenReadEncoder, start *xml.StartElement) error {
						if len(b.bodies()) == most {
							<-killed
							return middleware.ErrClosed
						}
						return b.handle(r, start)
					}))
				}()
				ok(t, session.Send(t.Context(), stanza.Presence{}.Wrap(nil)))
				for _, room := range []string{hall, garden} {
					join := stanza.Presence{To: jid.MustParse(room + "/Juliet")}
					ok(t, session.Send(t.Context(), join.Wrap(raw(`<x xmlns="http://jabber.org/protocol/muc"/>`))))
				}
				return b, func() {
					b.await(fmt.Sprintf("%d texts", most), func() bool { return len(b.received) >= most })
					store = store.Reopen()
					_ = srv.Disconnect(juliet + "/x") // it may have gone by itself already
					close(killed)
					<-b.done
				}
			}
			b, kill := start(2)
			for _, room := range []string{hall, garden} {
				b.await(room+" is known", func() bool {
					return slices.ContainsFunc(b.events, func(e middleware.Event) bool { return e.Kind == middleware.RoomReady && e.Account == room })
				})
			}
			a := connected(t, srv, romeo, chat(v)).join(hall, "Romeo").join(garden, "Romeo")
			a.speak(hall, "hall before")
			b.awaitText("hall before")
			a.speak(garden, "garden before")
			b.awaitText("garden before")
			lives := []*program{b}
			kill()
			want := map[string][]string{"hall": {"hall before"}, "garden": {"garden before"}}
			for i := range each {
				for _, place := range []string{"hall", "garden", "chat"} {
					body := fmt.Sprintf("%s %d", place, i)
					want[place] = append(want[place], body)
					if place == "chat" {
						a.tell(juliet, body)
					} else {
						a.speak(places[place], body)
					}
				}
			}
			a.flush()
			for _, most := range []int{110, 220, -1} {
				b, kill := start(most)
				lives = append(lives, b)
				if most > 0 {
					kill()
				}
			}
			for place := range places {
				last := fmt.Sprintf("%s %d", place, each-1)
				until(t, last, func() bool {
					return slices.ContainsFunc(lives, func(b *program) bool { return slices.Contains(b.bodies(), last) })
				})
			}
			lives[len(lives)-1].flush()
			got := make(map[string][]string)
			events := make(map[string]bool)
			progress := make(map[string]bool)
			for _, b := range lives {
				for _, m := range b.messages() {
					if m.Info == nil || m.Info.Account != romeo {
						t.Errorf("%q: %+v", m.Body, m.Info)
						continue
					}
					if place, _, _ := strings.Cut(m.Body, " "); !events[m.Info.Event] {
						events[m.Info.Event] = true
						got[place] = append(got[place], m.Body)
					}
				}
				for _, e := range b.all() {
					switch e.Kind {
					case middleware.Undecryptable, middleware.Refused, middleware.UnknownOccupant, middleware.PlaintextReceived:
						t.Errorf("%v %v", e.Kind, e.Err)
					case middleware.Progress:
						progress[e.Account] = true
					}
				}
			}
			for place, account := range places {
				if !slices.Equal(got[place], want[place]) {
					t.Errorf("%s: %d messages: %q", place, len(got[place]), got[place])
				}
				if !progress[account] {
					t.Errorf("no progress was seen in %s", account)
				}
			}
			noLeak(t, srv, "hall 1", "garden 1", "chat 1")
		})
	}
}

// messages returns what was received with a body, in order.
func (p *program) messages() []message {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(p.received), func(m message) bool { return m.Body == "" })
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
