//go:build live

package interop

import (
	"context"
	"encoding/xml"
	"fmt"
	"slices"
	"strings"
	"testing"

	"mellium.im/xmlstream"
	"mellium.im/xmpp/jid"
	xmppstanza "mellium.im/xmpp/stanza"

	"example.org/omellium/middleware"
	"example.org/omellium/middleware/internal/lab"
	"example.org/omellium/omemo"
)

// roomConfig is what an owner submits for a room that can be encrypted.
const roomConfig = `<query xmlns="http://jabber.org/protocol/muc#owner"><x xmlns="jabber:x:data" type="submit">` +
	`<field var="FORM_TYPE"><value>http://jabber.org/protocol/muc#roomconfig</value></field>` +
	`<field var="muc#roomconfig_persistentroom"><value>1</value></field>` +
	`<field var="muc#roomconfig_membersonly"><value>1</value></field>` +
	`<field var="muc#roomconfig_whois"><value>%s</value></field></x></query>`

// hall is a room of the Go program that owns it.
type hall struct {
	t     *testing.T
	jid   string
	owner *program
}

// newHall creates a room, configures it and joins it.
func newHall(t *testing.T, owner *program, whois string) *hall {
	t.Helper()
	h := &hall{t, "hall-" + owner.Account.Local + "@muc." + lab.Domain, owner}
	owner.enter(t, h.jid, "Owner")
	h.ask(fmt.Sprintf(roomConfig, whois))
	return h
}

// enter joins a room as any program does, and waits until the middleware knows
// what the room is.
func (p *program) enter(t *testing.T, room, nick string) {
	t.Helper()
	p.present(t, room, nick, `<x xmlns="http://jabber.org/protocol/muc"/>`)
	p.AwaitEvent(t, "the room", func(e middleware.Event) bool {
		return (e.Kind == middleware.RoomReady || e.Kind == middleware.RoomUnfit) && e.Account == room
	})
}

func (p *program) present(t *testing.T, room, nick, inner string) {
	t.Helper()
	raw := fmt.Sprintf(`<presence xmlns="jabber:client" to="%s/%s">%s</presence>`, room, nick, inner)
	if err := p.session.Send(t.Context(), xml.NewDecoder(strings.NewReader(raw))); err != nil {
		t.Fatal(err)
	}
}

// ask has the room do something.
func (h *hall) ask(query string) {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(h.t.Context(), deadline)
	defer cancel()
	r, err := h.owner.session.SendIQElement(ctx, xml.NewDecoder(strings.NewReader(query)), xmppstanza.IQ{To: jid.MustParse(h.jid), Type: xmppstanza.SetIQ})
	if err != nil {
		h.t.Fatal(err)
	}
	defer r.Close()
	token, err := r.Token()
	if err != nil {
		h.t.Fatal(err)
	}
	if iq, err := xmppstanza.NewIQ(token.(xml.StartElement)); err != nil || iq.Type != xmppstanza.ResultIQ {
		all, _ := xmlstream.ReadAll(r)
		h.t.Fatalf("%s: %v, %v", query, err, all)
	}
}

// affiliate changes affiliations.
func (h *hall) affiliate(affiliation string, accounts ...*lab.Account) {
	h.t.Helper()
	for _, a := range accounts {
		h.ask(fmt.Sprintf(`<query xmlns="http://jabber.org/protocol/muc#admin"><item affiliation="%s" jid="%s"/></query>`, affiliation, a.JID))
	}
}

// tell sends a text to a room and returns what became of it.
func (p *program) tell(t *testing.T, room, body string) (*middleware.Result, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), deadline)
	defer cancel()
	return p.om.Send(ctx, xmppstanza.Message{To: jid.MustParse(room), Type: xmppstanza.GroupChatMessage}, text(body))
}

// hears waits for a text in a room, and checks who has said it.
func (p *program) hears(t *testing.T, room, account, body string) {
	t.Helper()
	if !lab.Until(deadline, func() bool { return slices.Contains(p.Bodies(room), body) }) {
		t.Fatalf("%s: waited in vain for %q in %s", p.Account.JID, body, room)
	}
	for _, m := range p.Messages(room) {
		if m.Body == body && (m.Info == nil || m.Info.Account != account) {
			t.Errorf("%s: %q of %s has info %+v", p.Account.JID, body, account, m.Info)
		}
	}
}

// reaches checks whose devices have got a message.
func reaches(t *testing.T, r *middleware.Result, err error, want ...*lab.Account) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	var got, expected []string
	for _, d := range r.Devices {
		if d.Err == nil && !slices.Contains(got, d.Peer.JID) {
			got = append(got, d.Peer.JID)
		}
	}
	for _, a := range want {
		expected = append(expected, a.JID)
	}
	slices.Sort(got)
	slices.Sort(expected)
	if !slices.Equal(got, expected) {
		t.Errorf("reaches %v, want %v (%v)", got, expected, r.Unserved)
	}
}

// A room with python-omemo in both versions, a Go program and the bot, which
// repeats what is said: everybody reads everybody whose version it speaks.
func TestRoom(t *testing.T) {
	lab.Each(t, func(t *testing.T, s *lab.Server) {
		one, legacyUser, v2User, botUser, late := s.Account(t, "program"), s.Account(t, "legacy"), s.Account(t, "young"), s.Account(t, "bot"), s.Account(t, "late")
		owner := newProgram(t, s, one)
		h := newHall(t, owner, "anyone")
		h.affiliate("member", legacyUser, botUser)
		h.affiliate("admin", v2User)
		old := lab.Python(t, s, legacyUser, lab.PythonOptions{Versions: []string{lab.Legacy}})
		young := lab.Python(t, s, v2User, lab.PythonOptions{Versions: []string{lab.V2}})
		bot := newRoomBot(t, s, botUser, h.jid+"/Echo")
		old.Join(t, h.jid, "Old")
		young.Join(t, h.jid, "Young")
		bot.awaitLog(t, `event="room ready" account=`+h.jid)
		// The bot, which answers at once, chooses pre keys when those are replaced that the
		// program has chosen: of two that choose the same, a device reads the first alone.
		bot.stop(t)
		greeting := texts("greeting", one, 1)[0]
		owner.awaitOffers(t, []member{{account: legacyUser, device: old.Device}, {account: v2User, device: young.Device}}, func() {
			_, err := owner.tell(t, h.jid, greeting)
			ok(t, err)
		})
		old.AwaitBody(t, h.jid, greeting)
		young.AwaitBody(t, h.jid, greeting)
		owner.hears(t, h.jid, one.JID, greeting)
		bot.start(t)
		bot.awaitLog(t, `event="room ready" account=`+h.jid)

		ours := texts("owner", one, 3)
		for _, body := range ours {
			r, err := owner.tell(t, h.jid, body)
			reaches(t, r, err, legacyUser, v2User, botUser)
			for _, p := range []*lab.PythonClient{old, young} {
				if e := p.AwaitBody(t, h.jid, body); e.Sender != one.JID && e.Sender != botUser.JID {
					t.Errorf("%s: %q from %s", p.Account.JID, body, e.Sender)
				}
				// And from the bot: they have one session for each device, and would lose one
				// of two that are begun at the same time.
				if !lab.Until(deadline, func() bool { return count(p.Bodies(h.jid), body) == 2 }) {
					t.Errorf("%s has not read the bot's %q", p.Account.JID, body)
				}
			}
			owner.hearsFirst(t, h.jid, one.JID, body) // its own
		}
		said := texts("python", legacyUser, 3)
		for _, body := range said {
			old.Send(t, h.jid, body)
			young.AwaitBody(t, h.jid, body) // from the bot: the two have no version in common
		}
		back := texts("python", v2User, 3)
		for _, body := range back {
			young.Send(t, h.jid, body)
			old.AwaitBody(t, h.jid, body)
		}
		repeated := func(body string) {
			t.Helper()
			if !lab.Until(deadline, func() bool {
				n := 0
				for _, m := range owner.Messages(h.jid) {
					if m.Body == body {
						n++
					}
				}
				return n == 2 // what was said, and the bot's answer
			}) {
				t.Errorf("%q is not heard twice", body)
			}
		}
		for _, body := range slices.Concat(ours, said, back) {
			repeated(body)
		}
		for _, m := range owner.Messages(h.jid)[1:] {
			if own := m.Info != nil && m.Info.Account == one.JID; m.Info == nil || own != m.Info.Own || own != slices.Contains(ours, m.Body) && m.Info.Account != botUser.JID {
				t.Errorf("%q: %+v", m.Body, m.Info)
			}
		}

		// Somebody who is added reads what comes then, and nothing before.
		before := texts("before", one, 1)[0]
		if _, err := owner.tell(t, h.jid, before); err != nil {
			t.Fatal(err)
		}
		old.AwaitBody(t, h.jid, before)
		repeated(before)
		bot.stop(t)
		added := lab.Python(t, s, late, lab.PythonOptions{Versions: []string{lab.V2, lab.Legacy}})
		h.affiliate("member", late)
		added.Join(t, h.jid, "Late")
		after := texts("after", one, 1)[0]
		owner.awaitOffers(t, []member{{account: late, device: added.Device}}, func() {
			r, err := owner.tell(t, h.jid, after)
			reaches(t, r, err, legacyUser, v2User, botUser, late)
			added.AwaitBody(t, h.jid, after)
		})
		bot.start(t)
		bot.awaitLog(t, `event="room ready" account=`+h.jid)
		if slices.Contains(added.Bodies(h.jid), before) {
			t.Errorf("%s reads %q", late.JID, before)
		}

		// Whoever is banned gets no key any more.
		h.affiliate("outcast", legacyUser)
		banned := texts("banned", one, 1)[0]
		r, err := owner.tell(t, h.jid, banned)
		reaches(t, r, err, v2User, botUser, late)
		young.AwaitBody(t, h.jid, banned)
		if slices.Contains(old.Bodies(h.jid), banned) {
			t.Errorf("%s reads %q", legacyUser.JID, banned)
		}

		// Nicks: taken, given up, used by somebody else.
		young.Nick(t, h.jid, "Rose")
		rose := texts("rose", v2User, 1)[0]
		young.Send(t, h.jid, rose)
		owner.hearsFirst(t, h.jid, v2User.JID, rose)
		added.Nick(t, h.jid, "Young")
		other := texts("nick", late, 1)[0]
		added.Send(t, h.jid, other)
		owner.hearsFirst(t, h.jid, late.JID, other)
		for _, p := range []*lab.PythonClient{old, young, added} {
			if bad := p.Undecryptable(); len(bad) > 0 {
				t.Errorf("%s: %+v", p.Account.JID, bad)
			}
		}
		secretIn(t, s, h.jid, ours, said, back, []string{greeting, before, after, banned, rose, other})
	})
}

// hearsFirst waits for a text that others repeat, and checks who has said it
// first.
func (p *program) hearsFirst(t *testing.T, room, account, body string) {
	t.Helper()
	if !lab.Until(deadline, func() bool { return slices.Contains(p.Bodies(room), body) }) {
		t.Fatalf("%s: waited in vain for %q in %s", p.Account.JID, body, room)
	}
	for _, m := range p.Messages(room) {
		if m.Body == body {
			if m.Info == nil || m.Info.Account != account {
				t.Errorf("%q of %s has info %+v", body, account, m.Info)
			}
			return
		}
	}
}

// Contacts and rooms whose devices differ in version: one stanza with both
// elements, or two.
func TestMixedDevices(t *testing.T) {
	for _, split := range []bool{false, true} {
		t.Run(fmt.Sprintf("split %t", split), func(t *testing.T) {
			lab.Each(t, func(t *testing.T, s *lab.Server) {
				one, user := s.Account(t, "program"), s.Account(t, "user")
				p := newSplitProgram(t, s, one, split)
				h := newHall(t, p, "anyone")
				h.affiliate("member", user)
				old := lab.Python(t, s, user, lab.PythonOptions{Versions: []string{lab.Legacy}})
				young := lab.Python(t, s, user, lab.PythonOptions{Versions: []string{lab.V2}})
				old.Join(t, h.jid, "Old")
				young.Join(t, h.jid, "Young")
				bodies := texts("mixed", one, 6)
				for i, body := range bodies {
					to := h.jid
					if i%2 == 0 {
						to = user.JID
						p.Send(t, to, body)
					} else {
						r, err := p.tell(t, to, body)
						reaches(t, r, err, user)
						versions := make(map[omemo.Version]int)
						for _, d := range r.Devices {
							versions[d.Peer.Version]++
						}
						if versions[omemo.Legacy] != 1 || versions[omemo.V2] != 1 {
							t.Errorf("devices: %+v", r.Devices)
						}
					}
					from := h.jid
					if i%2 == 0 {
						from = one.JID
					}
					for _, c := range []*lab.PythonClient{old, young} {
						c.AwaitBody(t, from, body)
					}
				}
				for _, c := range []*lab.PythonClient{old, young} {
					if got := c.Bodies(h.jid); len(got) != 3 {
						t.Errorf("in the room %s reads %q", c.Account.JID, got)
					}
					if bad := c.Undecryptable(); len(bad) > 0 {
						t.Errorf("%+v", bad)
					}
				}
				answer := texts("answer", user, 2)
				old.Send(t, h.jid, answer[0])
				young.Send(t, h.jid, answer[1])
				p.hears(t, h.jid, user.JID, answer[0])
				p.hears(t, h.jid, user.JID, answer[1])
				secretOf(t, s, sent{one.JID: 3, h.jid: 3 + len(answer)}, bodies, answer)
			})
		})
	}
}

// A room that shows addresses to moderators only is refused.
func TestRoomAnonymous(t *testing.T) {
	lab.Each(t, func(t *testing.T, s *lab.Server) {
		owner := newProgram(t, s, s.Account(t, "program"))
		h := newHall(t, owner, "moderators")
		if !lab.Until(deadline, func() bool {
			_, err := owner.tell(t, h.jid, "canary-anonymous")
			return err != nil && strings.Contains(err.Error(), middleware.ErrRoomAnonymous.Error())
		}) {
			t.Error("it was not refused")
		}
		secretOnly(t, s, "canary-anonymous")
	})
}

func secretOnly(t *testing.T, s *lab.Server, body string) {
	t.Helper()
	if strings.Contains(s.Tap(t), body) {
		t.Errorf("the server has seen %q", body)
	}
}

// A room with Profanity: both read each other.
func TestRoomWithProfanity(t *testing.T) {
	lab.Each(t, func(t *testing.T, s *lab.Server) {
		one, user := s.Account(t, "program"), s.Account(t, "user")
		lab.Befriend(t, one, user)
		owner := newProgram(t, s, one)
		h := newHall(t, owner, "anyone")
		h.affiliate("member", user)
		peer := lab.Profanity(t, s, user)
		peer.Join(t, h.jid, "Peer")
		peer.AwaitSession(t, one.JID, owner.Device)
		out, back := texts("go", one, 3), texts("peer", user, 3)
		for i := range out {
			r, err := owner.tell(t, h.jid, out[i])
			reaches(t, r, err, user)
			peer.AwaitShown(t, out[i])
			peer.Say(t, back[i])
			owner.hears(t, h.jid, user.JID, back[i])
		}
		secretIn(t, s, h.jid, out, back)
	})
}
