package middleware_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"example.org/omellium/middleware"
	"example.org/omellium/middleware/xmpptest"
	"example.org/omellium/omemo"
	"mellium.im/xmlstream"
	"mellium.im/xmpp/jid"
	"mellium.im/xmpp/stanza"
)

const (
	hall    = "hall@rooms.example.net"
	nurse   = "nurse@example.net"
	tybalt  = "tybalt@example.net"
	paris   = "paris@example.net"
	roomsAt = "rooms.example.net"
)

var fit = xmpptest.RoomConfig{MembersOnly: true, NonAnonymous: true, History: 20}

// building is network with a room: romeo owns it, juliet and the nurse are
// members, tybalt is banned, paris is nobody.
func building(t *testing.T, c xmpptest.RoomConfig) *xmpptest.Server {
	t.Helper()
	srv := network(t, romeo, juliet, nurse, tybalt, paris)
	ok(t, srv.AddRooms(roomsAt, c))
	ok(t, srv.AddRoom(hall, c, map[string]string{romeo: "owner", juliet: "member", nurse: "member", tybalt: "outcast"}))
	return srv
}

// join joins a room as programs do that send the presence themselves, and waits
// until the middleware knows whether it can be written to.
func (p *program) join(room, nick string) *program {
	p.t.Helper()
	before := p.count(middleware.RoomReady) + p.count(middleware.RoomUnfit)
	p.present(room+"/"+nick, "", `<x xmlns="http://jabber.org/protocol/muc"/>`)
	until(p.t, "room is known", func() bool {
		return p.count(middleware.RoomReady)+p.count(middleware.RoomUnfit) > before
	})
	return p
}

// present sends presence to an address.
func (p *program) present(to, typ, inner string) {
	p.t.Helper()
	start := stanza.Presence{To: jid.MustParse(to), Type: stanza.PresenceType(typ)}
	r := raw(`<presence xmlns="jabber:client">` + inner + `</presence>`)
	_, err := r.Token()
	ok(p.t, err)
	ok(p.t, p.session.Send(p.t.Context(), start.Wrap(xmlstream.Inner(r))))
	p.flush()
}

// speak sends a text to a room and waits until it is on its way.
func (p *program) speak(room, body string) *middleware.Result {
	p.t.Helper()
	result, err := p.try(room, body)
	ok(p.t, err)
	return result
}

func (p *program) try(room, body string) (*middleware.Result, error) {
	ctx, cancel := context.WithTimeout(p.t.Context(), patience)
	defer cancel()
	return p.om.Send(ctx, stanza.Message{To: jid.MustParse(room), Type: stanza.GroupChatMessage}, text(body))
}

// served returns the accounts that a message has reached, in order.
func served(r *middleware.Result) (accounts []string) {
	for _, d := range r.Devices {
		if d.Err == nil && !slices.Contains(accounts, d.Peer.JID) {
			accounts = append(accounts, d.Peer.JID)
		}
	}
	slices.Sort(accounts)
	return accounts
}

// hears checks that a text has come through a room, as it should.
func (p *program) hears(body, from, account string, own bool) message {
	p.t.Helper()
	got := p.awaitText(body)
	if got.From.String() != from || got.Type != stanza.GroupChatMessage {
		p.t.Errorf("%q from %v, %s", body, got.From, got.Type)
	}
	if got.Info == nil || got.Info.Account != account || got.Info.Own != own {
		p.t.Errorf("%q: info %+v", body, got.Info)
	}
	return got
}

// Everybody reads everybody, ourselves included; whoever is a member and not
// there gets a key, too.
func TestRoom(t *testing.T) {
	for _, v := range omemo.Versions() {
		t.Run(v.String(), func(t *testing.T) {
			srv := building(t, fit)
			a := connected(t, srv, romeo, chat(v)).join(hall, "Romeo")
			b := connected(t, srv, juliet, chat(v)).join(hall, "Juliet")
			connected(t, srv, nurse, chat(v)) // not in the room
			connected(t, srv, tybalt, chat(v))
			connected(t, srv, paris, chat(v))

			if got, want := served(a.speak(hall, "canary one")), []string{juliet, nurse}; !slices.Equal(got, want) {
				t.Errorf("reaches %v, want %v", got, want)
			}
			if info := b.hears("canary one", hall+"/Romeo", romeo, false).Info; info.Version != v || info.Bound != (v == omemo.V2) {
				t.Errorf("info: %+v", info)
			}
			if info := a.hears("canary one", hall+"/Romeo", romeo, true).Info; info.Version != v || info.First {
				t.Errorf("info of our own: %+v", info)
			}
			for range 3 {
				b.speak(hall, "canary two")
				a.speak(hall, "canary three")
			}
			for _, p := range []*program{a, b} {
				until(t, "all have come", func() bool { return len(p.bodies()) == 7 })
			}
			b.present(hall+"/Juliet", "unavailable", "")
			if _, err := b.try(hall, "canary four"); !errors.Is(err, middleware.ErrNotJoined) {
				t.Errorf("after it was left: %v", err)
			}
			if members, err := b.om.RoomMembers(t.Context(), jid.MustParse(hall)); !errors.Is(err, middleware.ErrNotJoined) {
				t.Errorf("after it was left: members %v, %v", members, err)
			}
			for _, s := range srv.Wire() {
				if x := string(s.XML); strings.Contains(x, "<encrypted") && strings.Contains(x, "groupchat") &&
					(strings.Contains(x, tybalt) || strings.Contains(x, paris)) {
					t.Errorf("a key for a stranger: %s", x)
				}
			}
			noLeak(t, srv, "canary")
			if n := a.count(middleware.Undecryptable) + a.count(middleware.Duplicate) + b.count(middleware.Undecryptable); n != 0 {
				t.Errorf("%d were not read", n)
			}
			outbox := func() int {
				rows, err := a.store.Outbox(t.Context(), 0, 100)
				ok(t, err)
				echoes, err := a.store.Echoes(t.Context())
				ok(t, err)
				return len(rows) + len(echoes)
			}
			until(t, "nothing waits any more", func() bool { return outbox() == 0 })
		})
	}
}

// Rooms that cannot be encrypted for are refused, and said to be so, when they
// are joined and when they become so.
func TestRoomFeatures(t *testing.T) {
	anonymous, open := fit, fit
	anonymous.NonAnonymous, open.MembersOnly = false, false
	for _, tc := range []struct {
		name string
		room xmpptest.RoomConfig
		want error
	}{{"anonymous", anonymous, middleware.ErrRoomAnonymous}, {"open", open, middleware.ErrRoomOpen}} {
		t.Run(tc.name, func(t *testing.T) {
			srv := building(t, tc.room)
			a := connected(t, srv, romeo, chat(omemo.V2)).join(hall, "Romeo")
			b := connected(t, srv, juliet, chat(omemo.V2)).join(hall, "Juliet")
			refused := func() {
				t.Helper()
				for _, p := range []*program{a, b} {
					if _, err := p.try(hall, "canary"); !errors.Is(err, tc.want) || !errors.Is(err, middleware.ErrRoomUnsupported) {
						t.Errorf("got %v, want %v", err, tc.want)
					}
					if members, err := p.om.RoomMembers(t.Context(), jid.MustParse(hall)); !errors.Is(err, tc.want) {
						t.Errorf("members %v, %v, want %v", members, err, tc.want)
					}
				}
			}
			refused()
			until(t, "both are told", func() bool { return a.count(middleware.RoomUnfit)+b.count(middleware.RoomUnfit) == 2 })
			ok(t, srv.ConfigureRoom(hall, fit))
			a.flush()
			b.flush()
			a.speak(hall, "fit now")
			b.hears("fit now", hall+"/Romeo", romeo, false)
			b.speak(hall, "indeed")
			a.hears("indeed", hall+"/Juliet", juliet, false)
			ok(t, srv.ConfigureRoom(hall, tc.room))
			a.flush()
			b.flush()
			refused()
			a.sendRaw("state", `type="groupchat" to="`+hall+`"`, `<active xmlns="http://jabber.org/protocol/chatstates"/>`)
			until(t, "a chat state is not sent", func() bool { return a.count(middleware.NotSent) == 1 })
			noLeak(t, srv, "canary", "chatstates", "fit now")
		})
	}
}

// A room that hides who is in it tells by its presence nothing that could be
// used: private messages are refused as well.
func TestRoomAnonymousPrivate(t *testing.T) {
	anonymous := fit
	anonymous.NonAnonymous = false
	srv := building(t, anonymous)
	a := connected(t, srv, romeo, chat(omemo.V2)).join(hall, "Romeo") // an owner sees everybody
	b := connected(t, srv, juliet, chat(omemo.V2)).join(hall, "Juliet")
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if _, err := b.om.Send(ctx, to(hall+"/Romeo"), text("canary")); !errors.Is(err, middleware.ErrOccupant) {
		t.Errorf("to a hidden occupant: %v", err)
	}
	a.flush() // it has read who is there
	if _, err := a.om.Send(ctx, to(hall+"/Juliet"), text("to you alone")); err != nil {
		t.Errorf("to an occupant that is shown: %v", err)
	}
	b.awaitEvent(middleware.UnknownOccupant)
	noLeak(t, srv, "canary", "alone")
}

// Recipients follow the affiliations: whoever is added gets the next message and
// not the one before, whoever is banned or loses membership gets none.
func TestRoomMembers(t *testing.T) {
	for _, there := range []bool{true, false} {
		t.Run(map[bool]string{true: "in the room", false: "not there"}[there], func(t *testing.T) {
			srv := building(t, fit)
			a := connected(t, srv, romeo, chat(omemo.V2)).join(hall, "Romeo")
			b := connected(t, srv, juliet, chat(omemo.V2)).join(hall, "Juliet")
			connected(t, srv, nurse, chat(omemo.V2))
			c := connected(t, srv, paris, chat(omemo.V2))
			for i, step := range []struct {
				change func()
				want   []string
			}{
				{func() {}, []string{juliet, nurse}},
				{func() {
					ok(t, srv.Affiliate(hall, paris, "member"))
					if there {
						c.join(hall, "Paris")
					}
				}, []string{juliet, nurse, paris}},
				{func() { ok(t, srv.Affiliate(hall, paris, "admin")) }, []string{juliet, nurse, paris}},
				{func() { ok(t, srv.Affiliate(hall, paris, "owner")) }, []string{juliet, nurse, paris}},
				{func() { ok(t, srv.Affiliate(hall, paris, "outcast")) }, []string{juliet, nurse}},
				{func() { ok(t, srv.Affiliate(hall, paris, "member")) }, []string{juliet, nurse, paris}},
				{func() { ok(t, srv.Affiliate(hall, paris, "none")) }, []string{juliet, nurse}},
				{func() { ok(t, srv.Affiliate(hall, nurse, "outcast")) }, []string{juliet}},
			} {
				step.change()
				a.flush() // our program has read what the room has said
				members, err := a.om.RoomMembers(t.Context(), jid.MustParse(hall+"/Romeo"))
				if ok(t, err); !slices.Equal(members, step.want) {
					t.Errorf("step %d: members %v, want %v", i, members, step.want)
				}
				slices.Reverse(members) // they are the program's own
				body := "canary " + string(rune('a'+i))
				if got := served(a.speak(hall, body)); !slices.Equal(got, step.want) {
					t.Errorf("step %d reaches %v, want %v", i, got, step.want)
				}
				b.hears(body, hall+"/Romeo", romeo, false)
			}
			added, removed := 0, 0
			for _, e := range a.all() {
				switch {
				case e.Kind == middleware.RecipientAdded && e.Account == paris && e.Room == hall:
					added++
				case e.Kind == middleware.RecipientRemoved && e.Account == paris && e.Room == hall:
					removed++
				}
			}
			if added != 2 || removed != 2 {
				t.Errorf("told of %d additions and %d removals", added, removed)
			}
			if there {
				want := []string{"canary b", "canary c", "canary d"}
				until(t, "paris has read", func() bool { return len(c.bodies()) >= len(want) })
				c.flush()
				if got := c.bodies(); !slices.Equal(got, want) {
					t.Errorf("paris reads %q, want %q", got, want)
				}
			}
			noLeak(t, srv, "canary")
		})
	}
}

func (p *program) all() []middleware.Event {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.events)
}

// A ban that arrives while devices are asked for counts.
func TestRoomBanWhilePreparing(t *testing.T) {
	srv := building(t, fit)
	connected(t, srv, nurse, chat(omemo.V2))
	connected(t, srv, juliet, chat(omemo.V2))
	a := connected(t, srv, romeo, chat(omemo.V2)).join(hall, "Romeo")
	held, release := make(chan struct{}, 8), make(chan struct{})
	srv.SetFilter(func(ctx context.Context, s xmpptest.Stanza) [][]byte {
		if s.Direction == xmpptest.FromClient && strings.Contains(string(s.XML), "bundles") && strings.Contains(string(s.XML), `to="`+nurse) {
			held <- struct{}{}
			select {
			case <-release:
			case <-ctx.Done():
			}
		}
		return [][]byte{s.XML}
	})
	sent := make(chan *middleware.Result, 1)
	go func() {
		result, err := a.try(hall, "canary")
		if err != nil {
			t.Error(err)
		}
		sent <- result
	}()
	select {
	case <-held:
	case <-time.After(patience):
		t.Fatal("no bundle is asked for")
	}
	ok(t, srv.Affiliate(hall, nurse, "outcast"))
	srv.SetFilter(nil)
	close(release)
	if got := served(<-sent); !slices.Equal(got, []string{juliet}) {
		t.Errorf("reaches %v", got)
	}
}

// A member that the server adds between two messages is an event, and gets no key
// unless its devices are trusted.
func TestRoomGhost(t *testing.T) {
	srv := building(t, fit)
	c := chat(omemo.V2)
	c.Trust = omemo.Manual
	a := connected(t, srv, romeo, c).join(hall, "Romeo")
	b := connected(t, srv, juliet, chat(omemo.V2)).join(hall, "Juliet")
	ghost := connected(t, srv, paris, chat(omemo.V2))
	b.speak(hall, "so that juliet's key is known")
	a.awaitText("so that juliet's key is known")
	fingerprint, err := b.om.Manager().Fingerprint(t.Context())
	ok(t, err)
	ok(t, a.om.Manager().SetTrust(t.Context(), juliet, fingerprint, omemo.Verified))
	if got := served(a.speak(hall, "canary one")); !slices.Equal(got, []string{juliet}) {
		t.Errorf("reaches %v", got)
	}
	ok(t, srv.Affiliate(hall, paris, "owner"))
	a.flush()
	result := a.speak(hall, "canary two")
	if got := served(result); !slices.Equal(got, []string{juliet}) {
		t.Errorf("reaches %v", got)
	}
	if got := unserved(result); !slices.Contains(got, paris) {
		t.Errorf("not reached: %v", got)
	}
	until(t, "an event", func() bool {
		return slices.ContainsFunc(a.all(), func(e middleware.Event) bool {
			return e.Kind == middleware.RecipientAdded && e.Account == paris && e.Room == hall
		})
	})
	b.awaitText("canary two")
	device, err := ghost.om.Manager().Device(t.Context())
	ok(t, err)
	for _, s := range srv.Wire() {
		if fromTo(romeo, `rid="`+decimal(device.Device)+`"`)(s) {
			t.Errorf("a key for the ghost: %s", s.XML)
		}
	}
	noLeak(t, srv, "canary")
}
