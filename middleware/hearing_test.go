package middleware_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"example.org/omellium/middleware"
	"example.org/omellium/middleware/xmpptest"
	"example.org/omellium/omemo"
	"mellium.im/xmpp/stanza"
)

// What is sent to the account while the program is connected, but not available or of
// negative priority, stands in the archive alone. It is fetched when the program becomes
// available, in order and once, though messages to the full address have come meanwhile.
func TestWhatCameBeforeThePresenceIsFetched(t *testing.T) {
	away := map[string]func(p *program){
		"before the first presence": func(*program) {},
		"unavailable":               func(p *program) { p.broadcast(stanza.UnavailablePresence, "") },
		"negative priority":         func(p *program) { p.broadcast(stanza.AvailablePresence, "<priority>-1</priority>") },
	}
	for name, leave := range away {
		for _, v := range omemo.Versions() {
			t.Run(fmt.Sprintf("%s/%v", name, v), func(t *testing.T) {
				srv := archiving(t)
				if err := srv.AddAccount(mercutio, "secret"); err != nil {
					t.Fatal(err)
				}
				c := catching(v)
				c.Policy = middleware.Opportunistic
				b := load(t, juliet, c)
				b.back(srv, juliet+"/x")
				a := connected(t, srv, romeo, chat(v))
				p := plain(t)
				p.attach(login(t, srv, mercutio), nil)
				a.tell(juliet, "before")
				b.awaitText("before")
				if name == "before the first presence" {
					b.flush()
					b.leave(srv)
					b.serve(login(t, srv, juliet+"/x"), nil)
				} else {
					leave(b)
				}
				caught := b.count(middleware.CaughtUp)
				a.tell(juliet, "text 0")
				a.tell(juliet+"/x", "direct")
				b.awaitText("direct")
				p.sendRaw("plain", `type="chat" to="`+juliet+`/x"`, "<body>in clear</body>")
				b.awaitText("in clear")
				a.tell(juliet, "text 1")
				a.flush()
				b.broadcast(stanza.AvailablePresence, "")
				b.awaitText("text 1")
				a.tell(juliet, "after")
				b.awaitText("after")
				b.await("caught up", func() bool { return countOf(b.events, middleware.CaughtUp) > caught })
				want := []string{"before", "direct", "in clear", "text 0", "text 1", "after"}
				if got := b.bodies(); !slices.Equal(got, want) {
					t.Errorf("received %q", got)
				}
				// Nothing is left for the next connection.
				b.flush()
				b.leave(srv)
				b.back(srv, juliet+"/x")
				if got := b.bodies(); !slices.Equal(got, want) {
					t.Errorf("received later %q", got)
				}
			})
		}
	}
}

// The first time, the archive is caught up with from where it ended when the device
// was published: others write to it from then on.
func TestWhatComesBeforeTheFirstPresenceIsFetched(t *testing.T) {
	for _, v := range omemo.Versions() {
		t.Run(v.String(), func(t *testing.T) {
			srv := archiving(t)
			a := connected(t, srv, romeo, chat(v))
			b := load(t, juliet, catching(v))
			b.serve(login(t, srv, juliet+"/x"), nil)
			until(t, "the position is known", func() bool {
				_, known, err := b.om.Manager().Cursor(t.Context(), juliet)
				return known && err == nil
			})
			texts := numbered(60)
			for _, text := range texts {
				a.tell(juliet, text)
			}
			a.flush()
			b.broadcast(stanza.AvailablePresence, "")
			a.tell(juliet, "after")
			b.awaitText("after")
			if got := b.bodies(); !slices.Equal(got, append(texts, "after")) {
				t.Errorf("received %q", got)
			}
		})
	}
}

// Where an archive begins is not known at first: what comes live until it is told is
// not put back, since the position passes it.
func TestNothingWaitsForTheFirstPosition(t *testing.T) {
	srv := archiving(t)
	const ours = juliet + "/x"
	asked, goOn := make(chan struct{}), make(chan struct{})
	questions := 0
	srv.SetFilter(func(ctx context.Context, s xmpptest.Stanza) [][]byte {
		if s.Direction == xmpptest.FromClient && s.Session == ours && strings.Contains(string(s.XML), "urn:xmpp:mam:2") {
			switch questions++; questions {
			case 1: // refused, so that it is asked once more
				return [][]byte{[]byte(strings.Replace(string(s.XML), "<max>1<", "<max>x<", 1))}
			case 2:
				close(asked)
				select {
				case <-goOn:
				case <-ctx.Done():
				}
			}
		}
		return [][]byte{s.XML}
	})
	b := load(t, juliet, catching(omemo.V2))
	b.serve(login(t, srv, ours), nil)
	if err := b.session.Send(t.Context(), stanza.Presence{}.Wrap(nil)); err != nil {
		t.Fatal(err)
	}
	<-asked
	a := connected(t, srv, romeo, chat(omemo.V2))
	a.tell(ours, "text 0")
	b.awaitText("text 0")
	close(goOn)
	a.tell(juliet, "text 1")
	b.awaitText("text 1")
	if got := b.bodies(); !slices.Equal(got, numbered(2)) {
		t.Errorf("received %q", got)
	}
}

// An invitation that has come live is not fetched again, neither while the archive is
// caught up with nor by the next connection.
func TestInvitationsComeOnce(t *testing.T) {
	const invitation = `<x xmlns="http://jabber.org/protocol/muc#user"><invite from="` + romeo + `"/></x><store xmlns="urn:xmpp:hints"/>`
	srv := archiving(t)
	p := plain(t)
	p.attach(login(t, srv, romeo+"/plain"), nil)
	b := load(t, juliet, catching(omemo.V2))
	b.back(srv, juliet+"/x")
	invited := func() (ids []string) {
		b.mu.Lock()
		defer b.mu.Unlock()
		for _, m := range b.received {
			if strings.Contains(m.ID, " ") { // else it is word of a node
				ids = append(ids, m.ID)
			}
		}
		return ids
	}
	invite := func(id string) {
		p.sendRaw(id, `to="`+juliet+`"`, invitation)
		b.await(id, func() bool { return slices.ContainsFunc(b.received, func(m message) bool { return m.ID == id }) })
	}
	invite("while connected")
	b.flush()
	b.leave(srv)
	b.back(srv, juliet+"/x")
	b.flush()
	b.leave(srv)
	// The first question for a page is held up until another one has come.
	held := false
	srv.SetFilter(func(ctx context.Context, s xmpptest.Stanza) [][]byte {
		if s.Direction == xmpptest.FromClient && strings.HasPrefix(s.Session, juliet) && strings.Contains(string(s.XML), "urn:xmpp:mam:2") && !held {
			held = true
			p.sendRaw("while catching up", `to="`+juliet+`"`, invitation)
			until(t, "it is archived", func() bool {
				ids, err := srv.Archived(juliet)
				return err == nil && len(ids) == 2
			})
		}
		return [][]byte{s.XML}
	})
	b.back(srv, juliet+"/x")
	invite("at last")
	b.flush()
	if got := invited(); !slices.Equal(got, []string{"while connected", "while catching up", "at last"}) {
		t.Errorf("invited by %q", got)
	}
}
