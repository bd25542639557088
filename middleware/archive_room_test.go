package middleware_test

import (
	"context"
	"database/sql"
	"encoding/xml"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"example.org/omellium/middleware"
	"example.org/omellium/middleware/xmpptest"
	"example.org/omellium/omemo"
	"example.org/omellium/omemo/memstore"
	"example.org/omellium/omemo/sqlstore/sqlite"
	"mellium.im/xmlstream"
	"mellium.im/xmpp"
	"mellium.im/xmpp/jid"
	"mellium.im/xmpp/stanza"
)

const garden = "garden@rooms.example.net"

// A program that was not there for 510 messages, said to it and in two rooms, and
// is killed twice while it catches up, gets what was said in each place in order
// and once, though the rooms tell a part of it as their history. What a handler
// had seen and was not noted yet comes again as the same event. They are said in one
// version, or by two in one version each.
func TestCatchUpRooms(t *testing.T) {
	const each = 170
	places := map[string]string{"hall": hall, "garden": garden, "chat": juliet}
	nicks := map[string]string{romeo: "Romeo", mercutio: "Mercutio"}
	for name, versions := range map[string][]omemo.Version{"legacy": {omemo.Legacy}, "omemo:2": {omemo.V2}, "both": omemo.Versions()} {
		t.Run(name, func(t *testing.T) {
			srv := archiving(t)
			ok(t, srv.AddAccount(mercutio, "secret"))
			ok(t, srv.AddRooms(roomsAt, fit))
			for _, room := range []string{hall, garden} {
				ok(t, srv.AddRoom(room, fit, map[string]string{romeo: "owner", mercutio: "member", juliet: "member"}))
			}
			store := memstore.New(juliet)
			// start connects a program whose handler waits, after so many texts, until
			// the program is killed: then it writes nothing more and says nothing more.
			start := func(most int) (b *program, kill func()) {
				c := catching(omemo.V2)
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
			b, kill := start(2 * len(versions))
			for _, room := range []string{hall, garden} {
				b.await(room+" is known", func() bool {
					return slices.ContainsFunc(b.events, func(e middleware.Event) bool { return e.Kind == middleware.RoomReady && e.Account == room })
				})
			}
			speakers := make(map[string]*program)
			said := func(account, place string) string { return account + " in " + place }
			want := make(map[string][]string)
			for i, v := range versions {
				account := []string{romeo, mercutio}[i]
				a := connected(t, srv, account, chat(v)).join(hall, nicks[account]).join(garden, nicks[account])
				for _, place := range []string{"hall", "garden"} {
					body := place + " before " + nicks[account]
					a.speak(places[place], body)
					b.awaitText(body)
					want[said(account, place)] = []string{body}
				}
				speakers[account] = a
			}
			lives := []*program{b}
			kill()
			for i := range each {
				for account, a := range speakers {
					if i >= each/len(speakers) {
						continue
					}
					for _, place := range []string{"hall", "garden", "chat"} {
						body := fmt.Sprintf("%s %d %s", place, i, nicks[account])
						want[said(account, place)] = append(want[said(account, place)], body)
						if place == "chat" {
							a.tell(juliet, body)
						} else {
							a.speak(places[place], body)
						}
					}
				}
			}
			for _, a := range speakers {
				a.flush()
			}
			for _, most := range []int{110, 220, -1} {
				b, kill := start(most)
				lives = append(lives, b)
				if most > 0 {
					kill()
				}
			}
			for _, texts := range want {
				last := texts[len(texts)-1]
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
					if m.Info == nil || speakers[m.Info.Account] == nil || !strings.HasSuffix(m.Body, nicks[m.Info.Account]) {
						t.Errorf("%q: %+v", m.Body, m.Info)
						continue
					}
					if place, _, _ := strings.Cut(m.Body, " "); !events[m.Info.Event] {
						events[m.Info.Event] = true
						key := said(m.Info.Account, place)
						got[key] = append(got[key], m.Body)
					}
				}
				for _, e := range b.all() {
					if errors.Is(e.Err, omemo.ErrFenced) {
						break // it was killed: it reads nothing of the store any more
					}
					switch e.Kind {
					case middleware.Undecryptable, middleware.Refused, middleware.UnknownOccupant, middleware.PlaintextReceived:
						t.Errorf("%v %v", e.Kind, e.Err)
					case middleware.CatchingUp:
						progress[e.Account] = true
					}
				}
			}
			for key := range want {
				if !slices.Equal(got[key], want[key]) {
					t.Errorf("%s: %d messages: %q", key, len(got[key]), got[key])
				}
			}
			for _, account := range places {
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

// An own message that cannot be committed while its room's archive is read is not
// passed over: it is delivered later, once.
func TestCatchUpOwnRoomMessageLater(t *testing.T) {
	for _, v := range omemo.Versions() {
		t.Run(v.String(), func(t *testing.T) {
			srv := archiving(t)
			c := fit
			c.History = 0
			ok(t, srv.AddRooms(roomsAt, c))
			ok(t, srv.AddRoom(hall, c, map[string]string{romeo: "owner", juliet: "member"}))
			path := filepath.Join(t.TempDir(), "store.db")
			store, err := sqlite.Open(t.Context(), path, romeo)
			ok(t, err)
			t.Cleanup(func() { store.Close() })
			db, err := sql.Open("sqlite", path)
			ok(t, err)
			t.Cleanup(func() { db.Close() })
			_, err = db.ExecContext(t.Context(), "CREATE TABLE heard (id INTEGER PRIMARY KEY, text TEXT NOT NULL)")
			ok(t, err)
			// heard are the texts whose transactions were committed.
			heard := func() (texts []string) {
				rows, err := db.QueryContext(t.Context(), "SELECT text FROM heard ORDER BY id")
				ok(t, err)
				defer rows.Close()
				for rows.Next() {
					var text string
					ok(t, rows.Scan(&text))
					texts = append(texts, text)
				}
				ok(t, rows.Err())
				return texts
			}
			var refuse atomic.Bool
			var refused atomic.Int32
			config := catching(v)
			config.Store = store
			config.Receive = func(ctx context.Context, tx *sql.Tx, d middleware.Delivery) error {
				if refuse.Load() {
					refused.Add(1)
					return errors.New("not now")
				}
				var m message
				if err := xml.Unmarshal(d.Stanza, &m); err != nil {
					return err
				}
				_, err := tx.ExecContext(ctx, "INSERT INTO heard (text) VALUES (?)", m.Body)
				return err
			}
			connected(t, srv, juliet, chat(v)).join(hall, "Juliet")
			a := connected(t, srv, romeo, config).join(hall, "Romeo")
			a.speak(hall, "first")
			until(t, "the first is heard", func() bool { return slices.Equal(heard(), []string{"first"}) })
			srv.SetFilter(func(_ context.Context, s xmpptest.Stanza) [][]byte {
				if s.Direction == xmpptest.ToClient && strings.HasPrefix(s.Session, romeo) && strings.Contains(string(s.XML), "groupchat") {
					return nil
				}
				return [][]byte{s.XML}
			})
			a.speak(hall, "second")
			until(t, "the server has it", func() bool {
				rows, err := store.Outbox(t.Context(), 0, 10)
				return err == nil && len(rows) == 0
			})
			a.flush()
			a.leave(srv)
			srv.SetFilter(nil)
			refuse.Store(true)
			a.attach(login(t, srv, romeo), nil)
			a.join(hall, "Romeo")
			until(t, "it is refused", func() bool { return refused.Load() > 0 })
			a.speak(hall, "third")
			until(t, "the third is refused", func() bool { return refused.Load() > 1 })
			a.flush()
			a.leave(srv)
			refuse.Store(false)
			a.attach(login(t, srv, romeo), nil)
			a.join(hall, "Romeo")
			until(t, "both are heard", func() bool { return len(heard()) > 2 })
			a.flush()
			a.leave(srv)
			a.attach(login(t, srv, romeo), nil)
			a.join(hall, "Romeo")
			a.flush()
			if rows, err := a.om.Manager().Kept(t.Context(), omemo.Address{}); err != nil || len(rows) != 0 {
				t.Errorf("journal %v, %v", rows, err)
			}
			if got := heard(); !slices.Equal(got, []string{"first", "second", "third"}) {
				t.Errorf("heard %q", got)
			}
		})
	}
}
