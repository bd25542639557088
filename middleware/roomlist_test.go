package middleware_test

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"example.org/omellium/middleware"
	"example.org/omellium/middleware/xmpptest"
	"example.org/omellium/omemo"
)

const (
	nsRoom   = "http://jabber.org/protocol/muc"
	entering = `<x xmlns="` + nsRoom + `"/>`
)

var idOf = regexp.MustCompile(`<iq[^>]* id=["']([^"']+)["']`)

// deaf has nothing that rooms say reach an account, but answers.
func deaf(account string) xmpptest.Filter {
	return func(_ context.Context, s xmpptest.Stanza) [][]byte {
		x := string(s.XML)
		if s.Direction == xmpptest.ToClient && strings.HasPrefix(s.Session, account) && strings.Contains(x, hall) && !strings.Contains(x, "<iq") {
			return nil
		}
		return [][]byte{s.XML}
	}
}

// secretive has a room refuse an account the lists of owners and admins; what
// else it says is filtered further.
func secretive(account string, next xmpptest.Filter) xmpptest.Filter {
	return func(ctx context.Context, s xmpptest.Stanza) [][]byte {
		x := string(s.XML)
		if s.Direction == xmpptest.ToClient && strings.HasPrefix(s.Session, account) && strings.Contains(x, nsRoom+"#admin") &&
			!strings.Contains(x, `affiliation='member'`) {
			return [][]byte{fmt.Appendf(nil, `<iq xmlns="jabber:client" type="error" from="%s" to="%s" id="%s"><error type="auth"><forbidden xmlns="urn:ietf:params:xml:ns:xmpp-stanzas"/></error></iq>`,
				hall, s.Session, idOf.FindStringSubmatch(x)[1])}
		}
		return next(ctx, s)
	}
}

func passing(_ context.Context, s xmpptest.Stanza) [][]byte { return [][]byte{s.XML} }

// A room loses us, somebody is banned meanwhile, and the program joins once more
// (XEP-0410) without having left: whoever was banned gets no key any more, whether
// the room tells its lists or not.
func TestRoomBanWhileLost(t *testing.T) {
	for _, tc := range []struct {
		name, banned string
		hear         func(xmpptest.Filter) xmpptest.Filter
		want, before []string
	}{
		{"a member", nurse, func(f xmpptest.Filter) xmpptest.Filter { return f }, []string{juliet}, []string{juliet, nurse}},
		{"an owner, of whom the room tells only by presence", paris, func(f xmpptest.Filter) xmpptest.Filter { return secretive(romeo, f) }, []string{juliet, nurse}, []string{juliet, nurse, paris}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			srv := building(t, fit)
			if tc.banned == paris {
				ok(t, srv.Affiliate(hall, paris, "owner"))
				connected(t, srv, paris, chat(omemo.V2)).join(hall, "Paris")
			}
			connected(t, srv, juliet, chat(omemo.V2)).join(hall, "Juliet")
			connected(t, srv, nurse, chat(omemo.V2)).join(hall, "Nurse")
			srv.SetFilter(tc.hear(passing))
			a := connected(t, srv, romeo, chat(omemo.V2)).join(hall, "Romeo")
			if got := served(a.speak(hall, "canary one")); !slices.Equal(got, tc.before) {
				t.Errorf("before, reaches %v, want %v", got, tc.before)
			}
			srv.SetFilter(tc.hear(deaf(romeo)))
			ok(t, srv.Affiliate(hall, tc.banned, "outcast"))
			a.flush()
			srv.SetFilter(tc.hear(passing))
			a.present(hall+"/Romeo", "", entering)
			for range 2 {
				if got := served(a.speak(hall, "canary two")); !slices.Equal(got, tc.want) {
					t.Errorf("reaches %v, want %v", got, tc.want)
				}
			}
			noLeak(t, srv, "canary")
		})
	}
}

// What a list says counts for more than presence that we have not got.
func TestRoomBanUnseen(t *testing.T) {
	srv := building(t, fit)
	connected(t, srv, juliet, chat(omemo.V2)).join(hall, "Juliet")
	connected(t, srv, nurse, chat(omemo.V2)).join(hall, "Nurse")
	a := connected(t, srv, romeo, chat(omemo.V2)).join(hall, "Romeo")
	srv.SetFilter(deaf(romeo))
	ok(t, srv.Affiliate(hall, nurse, "outcast"))
	a.flush()
	srv.SetFilter(nil)
	ok(t, srv.Affiliate(hall, paris, "member")) // of this, we hear
	a.flush()
	if got := served(a.speak(hall, "canary")); slices.Contains(got, nurse) {
		t.Errorf("reaches %v", got)
	}
}

// Whoever is banned after the list of members was answered and before all lists
// are gets no key: neither when the room is asked first, nor later.
func TestRoomBanWhileAsked(t *testing.T) {
	for _, first := range []bool{true, false} {
		t.Run(map[bool]string{true: "first", false: "later"}[first], func(t *testing.T) {
			srv := building(t, fit)
			connected(t, srv, juliet, chat(omemo.V2)).join(hall, "Juliet")
			connected(t, srv, nurse, chat(omemo.V2)).join(hall, "Nurse")
			a := connected(t, srv, romeo, chat(omemo.V2))
			banned := nurse
			if !first {
				banned = paris
				a.join(hall, "Romeo")
				srv.SetFilter(deaf(romeo)) // he learns of it when paris comes
				ok(t, srv.Affiliate(hall, paris, "member"))
				a.flush()
			}
			var mu sync.Mutex
			var id, session string
			answered := false
			srv.SetFilter(func(_ context.Context, s xmpptest.Stanza) [][]byte {
				x := string(s.XML)
				mu.Lock()
				defer mu.Unlock()
				switch {
				case !strings.HasPrefix(s.Session, romeo) || !strings.Contains(x, nsRoom+"#admin"):
				case s.Direction == xmpptest.FromClient && strings.Contains(x, `"owner"`) && id == "":
					id, session = idOf.FindStringSubmatch(x)[1], s.Session
					return nil // it is answered below
				case s.Direction == xmpptest.ToClient && strings.Contains(x, banned):
					answered = true
				}
				return [][]byte{s.XML}
			})
			if first {
				a.present(hall+"/Romeo", "", entering)
			} else {
				connected(t, srv, paris, chat(omemo.V2)).present(hall+"/Paris", "", entering)
			}
			until(t, "the list of members", func() bool {
				mu.Lock()
				defer mu.Unlock()
				return answered && id != ""
			})
			a.flush()
			ok(t, srv.Affiliate(hall, banned, "outcast"))
			a.flush()
			ok(t, srv.Inject(romeo, `<iq xmlns="jabber:client" type="result" from="`+hall+`" to="`+session+`" id="`+id+`"><query xmlns="`+nsRoom+`#admin"><item affiliation="owner" jid="`+romeo+`"/></query></iq>`))
			until(t, "it is known", func() bool { return a.count(middleware.RoomReady) > 0 })
			for range 3 {
				if got := served(a.speak(hall, "canary")); slices.Contains(got, banned) || !slices.Contains(got, juliet) {
					t.Errorf("reaches %v", got)
				}
			}
			noLeak(t, srv, "canary")
		})
	}
}

// A member that does nothing but show itself has the room asked nothing, even one
// that the room does not list.
func TestRoomPresenceIsNoNews(t *testing.T) {
	srv := building(t, fit)
	b := connected(t, srv, juliet, chat(omemo.V2)).join(hall, "Juliet")
	a := connected(t, srv, romeo, chat(omemo.V2)).join(hall, "Romeo")
	asked := func() (n int) {
		a.speak(hall, "canary") // when it is on its way, all was asked
		for _, s := range srv.Wire() {
			if fromTo(romeo, nsRoom+"#admin")(s) {
				n++
			}
		}
		return n
	}
	unlisted := `<presence xmlns="jabber:client" from="` + hall + `/Op" to="` + romeo + `"><x xmlns="` + nsRoom + `#user"><item affiliation="owner" role="moderator" jid="op@example.net/x"/></x></presence>`
	ok(t, srv.Inject(romeo, unlisted))
	a.flush()
	if got := served(a.speak(hall, "canary")); slices.Contains(got, "op@example.net") {
		t.Errorf("reaches %v", got)
	}
	before := asked()
	for range 5 {
		ok(t, srv.Inject(romeo, unlisted))
		b.present(hall+"/Juliet", "", `<show>away</show>`)
	}
	a.flush()
	if n := asked(); n != before {
		t.Errorf("asked %d times, %d before", n, before)
	}
}
