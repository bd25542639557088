package attack

import (
	"fmt"
	"slices"
	"testing"

	"example.org/omellium/devicelist"
	"example.org/omellium/middleware"
	"example.org/omellium/middleware/xmpptest"
	"example.org/omellium/omemo"
	"example.org/omellium/stanza"
	"mellium.im/xmpp/jid"
	xmppstanza "mellium.im/xmpp/stanza"
)

const (
	rooms = "rooms.example.net"
	hall  = "hall@" + rooms
)

// newRoomStage is a stage with the victim in a room, and a device of mallory, who
// is a member as well. Who else is there is for the attacker to say: he runs the
// room.
func newRoomStage(t *testing.T, v omemo.Version) (*stage, *device) {
	t.Helper()
	s := newStage(t, v)
	c := xmpptest.RoomConfig{MembersOnly: true, NonAnonymous: true}
	ok(t, s.srv.AddRooms(rooms, c))
	ok(t, s.srv.AddRoom(hall, c, map[string]string{juliet: "member", romeo: "owner", mallory: "member"}))
	x := stanza.NewElement("http://jabber.org/protocol/muc", "x")
	ok(t, s.session.Send(t.Context(), xmppstanza.Presence{To: jid.MustParse(hall + "/Juliet")}.Wrap(x.TokenReader())))
	s.await("the room", func() bool { return s.tally(middleware.RoomReady) == 1 })
	evil := newDevice(t, mallory)
	evil.publish(s, v)
	s.occupant("Romeo", romeo, "")
	s.occupant("Mallory", mallory, "")
	s.inject(evil.said(s, "Mallory", "good morrow")) // known from now on
	s.settle()
	return s, evil
}

// occupant has the room show who has a nick, or that he is gone.
func (s *stage) occupant(nick, account, typ string) {
	s.t.Helper()
	s.inject(fmt.Sprintf("<presence xmlns='jabber:client' id='%s' from='%s/%s' to='%s' type='%s'>"+
		"<x xmlns='http://jabber.org/protocol/muc#user'><item affiliation='member' role='participant' jid='%s/x'/></x></presence>",
		s.id("p"), hall, nick, s.full, typ, account))
}

// said returns what a device says in the room under a nick, with more beside it.
func (d *device) said(s *stage, nick, text string, beside ...*stanza.Element) string {
	d.t.Helper()
	p := omemo.Plaintext{Legacy: []byte(text), V2: envelope(d.t, d.account, hall, text)}
	m := d.stanza(s, s.full, append([]*stanza.Element{element(d.seal(s, s.v, p, hall))}, beside...)...)
	return string(m.SetAttribute("from", hall+"/"+nick).SetAttribute("type", "groupchat").AppendXML(nil))
}

// credits injects a message with a text and checks whom it is taken to be from.
func (s *stage) credits(raw, text, account string) {
	s.t.Helper()
	w := s.watch()
	s.inject(raw)
	_, delivered := s.since(w)
	for _, e := range delivered {
		body, info := e.Child(stanza.NSClient, "body"), e.Child(middleware.NSInfo, "info")
		if body == nil || body.Text() != text || info == nil {
			continue
		}
		if got, _ := info.Attribute("account"); got != account {
			s.t.Errorf("%q is credited to %s, not to %s", text, got, account)
		}
		return
	}
	s.t.Errorf("%q was not delivered", text)
}

// claim says in a message who its sender is, as only the room may in presence.
func claim(account string) *stanza.Element {
	item := stanza.NewElement("", "item").SetAttribute("jid", account+"/x").SetAttribute("affiliation", "owner")
	item.Name.Space = "http://jabber.org/protocol/muc#user"
	return stanza.NewElement("http://jabber.org/protocol/muc#user", "x", item)
}

// a6 wants to be taken for romeo in a room.
func a6(t *testing.T, v omemo.Version) {
	s, evil := newRoomStage(t, v)
	s.in(t, "claimed in the message", func() {
		text := s.id("text ")
		s.credits(evil.said(s, "Mallory", text, claim(romeo)), text, mallory)
	})
	for nick, want := range map[string]middleware.EventKind{
		"Nobody": middleware.UnknownOccupant, "romeo": middleware.UnknownOccupant, "Romeo ": middleware.UnknownOccupant,
		"Romeo\u200b": middleware.Refused, "": middleware.Refused, // no addresses
	} {
		s.in(t, "under the nick "+nick, func() { s.repels(evil.said(s, nick, canary, claim(romeo)), want) })
	}
	s.in(t, "presence of a stranger", func() {
		s.inject(fmt.Sprintf("<presence xmlns='jabber:client' from='attic@%s/Ghost' to='%s'>%s</presence>", rooms, s.full, claim(romeo).AppendXML(nil)))
		raw := evil.said(s, "Ghost", canary)
		s.repels(raw, middleware.UnknownOccupant)
	})
	s.in(t, "two claims in a presence", func() {
		both := string(claim(romeo).AppendXML(nil)) + string(claim(mallory).AppendXML(nil))
		s.inject(fmt.Sprintf("<presence xmlns='jabber:client' from='%s/Twice' to='%s'>%s</presence>", hall, s.full, both))
		s.repels(evil.said(s, "Twice", canary), middleware.UnknownOccupant)
	})
	s.in(t, "the nick of one who has left", func() {
		s.occupant("Romeo", romeo, "unavailable")
		s.repels(evil.said(s, "Romeo", canary), middleware.UnknownOccupant)
		s.occupant("Romeo", mallory, "")
		text := s.id("text ")
		s.credits(evil.said(s, "Romeo", text), text, mallory)
		s.occupant("Romeo", mallory, "unavailable")
		s.occupant("Romeo", romeo, "")
		text = s.id("text ")
		s.credits(s.romeo.said(s, "Romeo", text), text, romeo)
	})
	s.honest(s.romeo)
}

// a7 writes to the victim alone, through the room, as the room or as nobody.
func a7(t *testing.T, v omemo.Version) {
	s, evil := newRoomStage(t, v)
	posing := newDevice(t, hall) // the room's own devices, if it had any
	mark := stanza.NewElement("http://jabber.org/protocol/muc#user", "x")
	s.in(t, "a device list of the room", func() {
		w := s.watch()
		s.inject(listEvent(hall, devicelist.Node(v), "current", list(v, posing.Device)))
		events, delivered := s.since(w)
		s.unharmed(events, delivered)
	})
	for _, from := range []string{hall, hall + "/Nobody", "attic@" + rooms + "/Romeo"} {
		for _, typ := range []string{"chat", "normal", "headline"} {
			for _, marked := range []bool{true, false} {
				if !marked && from != hall && from != hall+"/Nobody" {
					continue // nothing tells it from a contact with that address
				}
				for _, d := range []*device{posing, evil} {
					s.in(t, fmt.Sprintf("%s, %s, marked %t, of %s", from, typ, marked, d.account), func() {
						p := omemo.Plaintext{Legacy: []byte(canary), V2: envelope(t, d.account, juliet, canary)}
						m := d.stanza(s, s.full, element(d.seal(s, v, p, juliet))).SetAttribute("from", from).SetAttribute("type", typ)
						if marked {
							m.Append(mark.Clone())
						}
						s.repels(string(m.AppendXML(nil)), middleware.UnknownOccupant)
					})
				}
			}
		}
	}
	s.in(t, "nobody is asked about the room's devices", func() {
		if ids := s.devices(hall); len(ids) > 0 && !slices.Equal(ids, []omemo.DeviceID{posing.Device}) {
			s.t.Errorf("devices of the room: %v", ids)
		}
	})
	s.in(t, "honest", func() {
		text := s.id("text ")
		p := omemo.Plaintext{Legacy: []byte(text), V2: envelope(t, mallory, juliet, text)}
		m := evil.stanza(s, s.full, element(evil.seal(s, v, p, juliet)), mark.Clone()).SetAttribute("from", hall+"/Mallory")
		s.credits(string(m.AppendXML(nil)), text, mallory)
	})
	s.honest(s.romeo)
}
