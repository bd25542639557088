package middleware_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"example.org/omellium/middleware"
	"example.org/omellium/middleware/xmpptest"
	"example.org/omellium/omemo"
	"mellium.im/xmpp/jid"
	"mellium.im/xmpp/stanza"
)

// encryptedOf returns the <encrypted/> of a message on the wire.
func encryptedOf(t *testing.T, s string) string {
	t.Helper()
	from, to := strings.Index(s, "<encrypted"), strings.LastIndex(s, "</encrypted>")
	if from < 0 || to < 0 {
		t.Fatalf("not encrypted: %s", s)
	}
	return s[from : to+len("</encrypted>")]
}

// onWire returns the message of an account to the room that was sent last.
func onWire(t *testing.T, srv *xmpptest.Server, account string) (last string) {
	t.Helper()
	for _, s := range srv.Wire() {
		if fromTo(account, "<encrypted")(s) && strings.Contains(string(s.XML), "groupchat") {
			last = string(s.XML)
		}
	}
	if last == "" {
		t.Fatalf("%s has sent nothing to a room", account)
	}
	return last
}

// Who has sent a message is who has the nick when it comes: nicks change, are
// given up and taken by others.
func TestRoomNicks(t *testing.T) {
	for _, v := range omemo.Versions() {
		t.Run(v.String(), func(t *testing.T) {
			srv := building(t, fit)
			a := connected(t, srv, romeo, chat(v)).join(hall, "Romeo")
			b := connected(t, srv, juliet, chat(v)).join(hall, "Juliet")
			c := connected(t, srv, nurse, chat(v)).join(hall, "Nurse")
			b.speak(hall, "one")
			a.hears("one", hall+"/Juliet", juliet, false)
			b.present(hall+"/Rose", "", "") // another nick
			b.speak(hall, "two")
			a.hears("two", hall+"/Rose", juliet, false)
			b.hears("two", hall+"/Rose", juliet, true)
			c.present(hall+"/Juliet", "", "") // the old nick of somebody else
			// The history tells the time in milliseconds, and who had the nick is
			// remembered from the moment on that it was seen.
			b.flush()
			seen := time.Now()
			until(t, "it is seen before anything is said", func() bool { return time.Since(seen) > time.Millisecond })
			c.speak(hall, "three")
			a.hears("three", hall+"/Juliet", nurse, false)
			b.hears("three", hall+"/Juliet", nurse, false)
			b.present(hall+"/Rose", "unavailable", "")
			c.present(hall+"/Rose", "", "")
			c.speak(hall, "four")
			a.hears("four", hall+"/Rose", nurse, false)
			b.join(hall, "Juliet")
			b.speak(hall, "five")
			a.hears("five", hall+"/Juliet", juliet, false)
			a.present(hall+"/Juliet", "", "") // taken: refused
			a.speak(hall, "six")
			a.hears("six", hall+"/Romeo", romeo, true)
			// What was said while juliet was away, under the nick that had been hers.
			until(t, "a nick of the past", func() bool { return b.count(middleware.Undecryptable) == 1 })
			for _, p := range []*program{a, c} {
				if n := p.count(middleware.Undecryptable) + p.count(middleware.UnknownOccupant); n != 0 {
					t.Errorf("%d were not read", n)
				}
			}
		})
	}
}

// A nick that was refused, and another that was asked for before the refusal
// came.
func TestRoomNickConflict(t *testing.T) {
	srv := building(t, fit)
	connected(t, srv, juliet, chat(omemo.V2)).join(hall, "Juliet")
	a := connected(t, srv, romeo, chat(omemo.V2))
	enter := `<x xmlns="http://jabber.org/protocol/muc"/>`
	if err := a.session.Send(t.Context(), raw(`<presence xmlns="jabber:client" to="`+hall+`/Juliet">`+enter+`</presence>`)); err != nil {
		t.Fatal(err)
	}
	a.join(hall, "Romeo")
	a.speak(hall, "text")
	a.hears("text", hall+"/Romeo", romeo, true)
	// A room that does not let us in is none.
	srv2 := connected(t, srv, paris, chat(omemo.V2))
	srv2.present(hall+"/Paris", "", enter)
	if _, err := srv2.try(hall, "text"); !errors.Is(err, middleware.ErrNotJoined) {
		t.Errorf("got %v", err)
	}
}

// Private messages through a room are for the account behind the nick, in both
// directions; nobody is taken for an account of the room's address.
func TestRoomPrivate(t *testing.T) {
	for _, v := range omemo.Versions() {
		t.Run(v.String(), func(t *testing.T) {
			srv := building(t, fit)
			a := connected(t, srv, romeo, chat(v)).join(hall, "Romeo")
			b := connected(t, srv, juliet, chat(v)).join(hall, "Juliet")
			c := connected(t, srv, nurse, chat(v)).join(hall, "Nurse")
			a.flush()
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			send := func(from *program, nick, body string) {
				t.Helper()
				m := to(hall + "/" + nick)
				result, err := from.om.Send(ctx, m, children(`<body>`+body+`</body><x xmlns="http://jabber.org/protocol/muc#user"/>`))
				ok(t, err)
				if result.Plain {
					t.Error("in clear")
				}
			}
			send(a, "Juliet", "canary aside")
			if got := b.awaitText("canary aside"); got.Info.Account != romeo || got.From.String() != hall+"/Romeo" || got.Type != stanza.ChatMessage {
				t.Errorf("got %+v %+v", got.Message, got.Info)
			}
			send(b, "Romeo", "canary back")
			if got := a.awaitText("canary back"); got.Info.Account != juliet || got.From.String() != hall+"/Juliet" {
				t.Errorf("got %+v %+v", got.Message, got.Info)
			}
			if _, err := a.om.Send(ctx, to(hall+"/Nobody"), text("canary")); !errors.Is(err, middleware.ErrOccupant) {
				t.Errorf("to nobody: %v", err)
			}
			// The nick has moved on before the message comes: whom it was for cannot
			// read it, and whoever gets it cannot either.
			c.flush()
			if got := c.bodies(); len(got) != 0 {
				t.Errorf("the nurse reads %q", got)
			}
			noLeak(t, srv, "canary")
			for _, s := range srv.Wire() {
				if strings.Contains(string(s.XML), "pubsub") && strings.Contains(string(s.XML), `to="`+hall) {
					t.Errorf("the room is asked for devices: %s", s.XML)
				}
			}
		})
	}
}

// What a message says of who sent it counts for nothing: neither a real address
// in it, nor a device id that somebody else has, nor the address of the room.
func TestRoomSpoofedSender(t *testing.T) {
	srv := building(t, fit)
	a := connected(t, srv, romeo, chat(omemo.V2)).join(hall, "Romeo")
	b := connected(t, srv, juliet, chat(omemo.V2)).join(hall, "Juliet")
	connected(t, srv, nurse, chat(omemo.V2)).join(hall, "Nurse")
	b.speak(hall, "genuine")
	a.hears("genuine", hall+"/Juliet", juliet, false)
	b.flush()
	srv.SetFilter(func(_ context.Context, s xmpptest.Stanza) [][]byte {
		if s.Direction == xmpptest.ToClient && strings.HasPrefix(s.Session, romeo) && strings.Contains(string(s.XML), "<encrypted") {
			return nil
		}
		return [][]byte{s.XML}
	})
	b.speak(hall, "text")
	b.flush()
	a.flush()
	srv.SetFilter(nil)
	sealed := encryptedOf(t, onWire(t, srv, juliet))
	real := `<x xmlns="http://jabber.org/protocol/muc#user"><item jid="` + juliet + `" affiliation="member"/></x>`
	for _, tc := range []struct{ name, attributes, beside string }{
		{"another occupant", `type="groupchat" from="` + hall + `/Nurse"`, real},
		{"nobody", `type="groupchat" from="` + hall + `/Nobody"`, real},
		{"the room", `type="groupchat" from="` + hall + `"`, real},
		{"a room that is not joined", `type="groupchat" from="attic@rooms.example.net/Juliet"`, real},
		{"private", `type="chat" from="` + hall + `/Juliet"`, `<x xmlns="http://jabber.org/protocol/muc#user"/>`},
		{"private, without mark", `type="chat" from="` + hall + `/Juliet"`, ""},
		{"private, normal", `from="` + hall + `/Juliet"`, ""},
		{"alone", `type="chat" from="` + juliet + `/x"`, ""},
		{"error", `type="error" from="` + hall + `/Juliet"`, `<error type="cancel"/>`},
	} {
		before := len(a.all())
		ok(t, srv.Inject(romeo, `<message `+tc.attributes+` id="spoof" to="`+romeo+`">`+sealed+tc.beside+`</message>`))
		a.flush()
		if tc.name != "error" {
			until(t, tc.name+": an event", func() bool { return len(a.all()) > before })
		}
		if got := a.bodies(); len(got) != 1 {
			t.Errorf("%s: reads %q", tc.name, got)
		}
	}
	ok(t, srv.Inject(romeo, `<message type="groupchat" from="`+hall+`/Juliet" to="`+romeo+`">`+sealed+`</message>`))
	a.hears("text", hall+"/Juliet", juliet, false)
}

// Our own message is known by what it says, not by its id; and not by that alone.
func TestRoomReflection(t *testing.T) {
	for _, v := range omemo.Versions() {
		t.Run(v.String(), func(t *testing.T) {
			srv := building(t, fit)
			a := connected(t, srv, romeo, chat(v)).join(hall, "Romeo")
			connected(t, srv, juliet, chat(v)).join(hall, "Juliet")
			a.flush()
			srv.SetFilter(func(_ context.Context, s xmpptest.Stanza) [][]byte {
				if s.Direction == xmpptest.ToClient && strings.HasPrefix(s.Session, romeo) && strings.Contains(string(s.XML), "<encrypted") {
					return nil
				}
				return [][]byte{s.XML}
			})
			a.speak(hall, "mine")
			a.flush()
			srv.SetFilter(nil)
			genuine := onWire(t, srv, romeo)
			sealed, id := encryptedOf(t, genuine), attributeOf(t, genuine, "id")
			inject := func(nick, content, id string) {
				t.Helper()
				ok(t, srv.Inject(romeo, fmt.Sprintf(`<message type="groupchat" from="%s/%s" to="%s" id="%s">%s</message>`, hall, nick, romeo, id, content)))
				a.flush()
			}
			other := strings.Replace(sealed, "<payload>", "<payload>AAAA", 1)
			inject("Juliet", sealed, id)                                          // another occupant, everything else is right
			inject("Romeo", other, id)                                            // the right id, another text
			inject("Nobody", sealed, id)                                          // nobody
			inject("Romeo", strings.Replace(sealed, `sid="`, `sid="1`, 1), "any") // another device
			if got := a.bodies(); len(got) != 0 {
				t.Fatalf("reads %q", got)
			}
			inject("Romeo", sealed, "another-id")
			a.hears("mine", hall+"/Romeo", romeo, true)
			inject("Romeo", sealed, id)
			inject("Romeo", sealed, id)
			if got := a.bodies(); len(got) != 1 {
				t.Errorf("reads %q", got)
			}
			if rows, err := a.store.Echoes(t.Context()); err != nil || len(rows) != 0 {
				t.Errorf("%d texts are kept, %v", len(rows), err)
			}
		})
	}
}

func attributeOf(t *testing.T, s, name string) string {
	t.Helper()
	_, rest, found := strings.Cut(s, name+`="`)
	value, _, closed := strings.Cut(rest, `"`)
	if !found || !closed {
		t.Fatalf("no %s: %s", name, s)
	}
	return value
}

// A program that ends before its message came back finds it in the history of
// the room, with its text, once.
func TestRoomReflectionAfterRestart(t *testing.T) {
	srv := building(t, fit)
	connected(t, srv, juliet, chat(omemo.V2)).join(hall, "Juliet")
	a := connected(t, srv, romeo, chat(omemo.V2)).join(hall, "Romeo")
	srv.SetFilter(func(_ context.Context, s xmpptest.Stanza) [][]byte {
		if s.Direction == xmpptest.ToClient && strings.HasPrefix(s.Session, romeo) && strings.Contains(string(s.XML), "<encrypted") {
			return nil
		}
		return [][]byte{s.XML}
	})
	a.speak(hall, "mine")
	a.flush()
	ok(t, a.om.Close())
	<-a.done
	srv.SetFilter(nil)
	c := chat(omemo.V2)
	c.Store = reopened(a.store)
	again := connected(t, srv, romeo, c).join(hall, "Romeo")
	again.hears("mine", hall+"/Romeo", romeo, true)
	again.present(hall+"/Romeo", "unavailable", "")
	again.join(hall, "Romeo")
	again.speak(hall, "later")
	again.awaitText("later")
	if got := again.bodies(); !slices.Equal(got, []string{"mine", "later"}) {
		t.Errorf("reads %q", got)
	}
}

// The envelope names the room, and a message that does not is refused.
func TestRoomBinding(t *testing.T) {
	srv := building(t, fit)
	const attic = "attic@rooms.example.net"
	ok(t, srv.AddRoom(attic, fit, map[string]string{romeo: "owner", juliet: "member"}))
	a := connected(t, srv, romeo, chat(omemo.V2)).join(hall, "Romeo").join(attic, "Romeo")
	b := connected(t, srv, juliet, chat(omemo.V2)).join(hall, "Juliet").join(attic, "Juliet")
	a.flush()
	deaf := func(_ context.Context, s xmpptest.Stanza) [][]byte {
		if s.Direction == xmpptest.ToClient && strings.HasPrefix(s.Session, juliet) && strings.Contains(string(s.XML), "<encrypted") {
			return nil
		}
		return [][]byte{s.XML}
	}
	for _, to := range []string{hall, juliet} {
		srv.SetFilter(deaf)
		m := stanza.Message{To: jid.MustParse(to), Type: stanza.GroupChatMessage}
		if to == juliet {
			m.Type = stanza.ChatMessage
		}
		_, err := a.om.Send(t.Context(), m, text("moved words of "+jid.MustParse(to).Localpart()))
		ok(t, err)
		a.flush()
		b.flush()
		srv.SetFilter(nil)
		var sealed string
		for _, s := range srv.Wire() {
			if fromTo(romeo, "<encrypted")(s) && strings.Contains(string(s.XML), `to="`+to) {
				sealed = encryptedOf(t, string(s.XML))
			}
		}
		before := b.count(middleware.Undecryptable)
		ok(t, srv.Inject(juliet, `<message type="groupchat" from="`+attic+`/Romeo" to="`+juliet+`">`+sealed+`</message>`))
		until(t, "moved to another room: refused", func() bool { return b.count(middleware.Undecryptable) == before+1 })
		if to == hall {
			ok(t, srv.Inject(juliet, `<message type="chat" from="`+romeo+`/x" to="`+juliet+`">`+sealed+`</message>`))
			until(t, "moved out of the room: refused", func() bool { return b.count(middleware.Undecryptable) == before+2 })
			ok(t, srv.Inject(juliet, `<message type="groupchat" from="`+hall+`/Romeo" to="`+juliet+`">`+sealed+`</message>`))
			b.hears("moved words of hall", hall+"/Romeo", romeo, false)
		}
	}
}

// History is read by who had the nicks then; a key that nobody knew is believed
// only when the account has published it.
func TestRoomHistory(t *testing.T) {
	for _, v := range omemo.Versions() {
		t.Run(v.String(), func(t *testing.T) {
			srv := building(t, fit)
			a := connected(t, srv, romeo, chat(v)).join(hall, "Romeo")
			b := connected(t, srv, juliet, chat(v)).join(hall, "Juliet")
			b.speak(hall, "known")
			a.hears("known", hall+"/Juliet", juliet, false)
			ok(t, a.om.Close())
			<-a.done
			b.speak(hall, "while away")
			other := connected(t, srv, nurse, chat(v)).join(hall, "Nurse")
			other.speak(hall, "first of a device")
			b.awaitText("first of a device")
			// The nicks are others' when we are back.
			b.present(hall+"/Juliet", "unavailable", "")
			other.present(hall+"/Juliet", "", "")

			c := chat(v)
			c.Store = reopened(a.store)
			again := connected(t, srv, romeo, c).join(hall, "Romeo")
			again.hears("while away", hall+"/Juliet", juliet, false)
			other.present(hall+"/Nurse", "", "")
			again.flush()
			if v == omemo.V2 && slices.Contains(again.bodies(), "known") {
				t.Error("read again")
			}
			if n := again.count(middleware.Duplicate); n != 1 {
				t.Errorf("%d duplicates", n)
			}
		})
	}
}

// A device that has spoken for the first time while we were away.
func TestRoomHistoryNewDevice(t *testing.T) {
	for _, v := range omemo.Versions() {
		t.Run(v.String(), func(t *testing.T) {
			srv := building(t, fit)
			a := connected(t, srv, romeo, chat(v)).join(hall, "Romeo")
			b := connected(t, srv, juliet, chat(v)).join(hall, "Juliet")
			connected(t, srv, nurse, chat(v)).join(hall, "Nurse")
			a.flush()
			ok(t, a.om.Close())
			<-a.done
			b.speak(hall, "first")
			b.speak(hall, "second")
			b.awaitText("second")
			c := chat(v)
			c.Store = reopened(a.store)
			again := connected(t, srv, romeo, c).join(hall, "Romeo")
			again.hears("first", hall+"/Juliet", juliet, false)
			again.hears("second", hall+"/Juliet", juliet, false)
			if got := again.bodies(); !slices.Equal(got, []string{"first", "second"}) {
				t.Errorf("reads %q", got)
			}
			// The same by a nick that was never that account's.
			ok(t, again.om.Close())
			<-again.done
			fresh := connected(t, srv, juliet+"/other", chat(v)).join(hall, "Other")
			fresh.speak(hall, "third")
			fresh.awaitText("third")
			fresh.present(hall+"/Other", "unavailable", "")
			c.Store = reopened(again.store)
			third := connected(t, srv, romeo, c).join(hall, "Romeo")
			third.awaitEvent(middleware.UnknownOccupant)
			if got := third.bodies(); len(got) != 0 {
				t.Errorf("reads %q", got)
			}
		})
	}
}

// A message that is sent right after the room was joined waits for it, and one
// to a room that is not joined fails soon.
func TestRoomSendWhileJoining(t *testing.T) {
	srv := building(t, fit)
	b := connected(t, srv, juliet, chat(omemo.V2)).join(hall, "Juliet")
	a := connected(t, srv, romeo, chat(omemo.V2))
	ok(t, a.session.Send(t.Context(), raw(`<presence xmlns="jabber:client" to="`+hall+`/Romeo"><x xmlns="http://jabber.org/protocol/muc"/></presence>`)))
	a.speak(hall, "at once")
	b.hears("at once", hall+"/Romeo", romeo, false)
	if _, err := a.try("attic@rooms.example.net", "text"); !errors.Is(err, middleware.ErrNotJoined) {
		t.Errorf("got %v", err)
	}
}
