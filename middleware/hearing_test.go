package middleware_test

import (
	"fmt"
	"slices"
	"testing"

	"example.org/omellium/middleware"
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
				b.attach(login(t, srv, juliet+"/x"), nil)
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
