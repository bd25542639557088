//go:build live

package interop

import (
	"slices"
	"testing"

	"example.org/omellium/middleware"
	"example.org/omellium/middleware/internal/lab"
	"example.org/omellium/omemo/memstore"
)

// A python client writes 100 messages while the program is not there. The
// middleware catches up with the archive by itself: all come, once and in order,
// before what is sent then.
func TestCatchUpByItself(t *testing.T) {
	eachVersion(t, func(t *testing.T, s *lab.Server, versions []string) {
		one, user := s.Account(t, "program"), s.Account(t, "user")
		lab.Befriend(t, one, user)
		archiveAll(t, client(t, s, one))
		store := memstore.New(one.JID)
		c := middleware.Config{Store: store, AnswerStrangers: true, CatchUp: true}
		before := newConfigured(t, s, one, c, nil)
		before.appear(t)
		before.AwaitEvent(t, "the end of catching up", caughtUp)
		peer := python{lab.Python(t, s, user, lab.PythonOptions{Versions: versions})}
		bodies := texts("missed", user, 105)
		sendAll(t, peer, one.JID, bodies[:2])
		expect(t, before, user.JID, bodies[:2])
		ok(t, before.om.Close())
		peer.AwaitPresence(t, one.JID, "unavailable")
		sendAll(t, peer, one.JID, bodies[2:102])
		peer.Devices(t, one.JID) // answered after the server has put them away

		c.Store = store.Reopen()
		program := newConfigured(t, s, one, c, nil)
		program.appear(t)
		program.AwaitEvent(t, "the end of catching up", caughtUp)
		program.AwaitBody(t, user.JID, bodies[101])
		sendAll(t, peer, one.JID, bodies[102:])
		expect(t, program, user.JID, bodies[2:])
		program.mu.Lock()
		defer program.mu.Unlock()
		if !slices.ContainsFunc(program.events, func(e middleware.Event) bool {
			return e.Kind == middleware.CatchingUp && e.Account == one.JID && e.Done >= 100
		}) {
			t.Error("no progress was seen")
		}
		for _, e := range program.events {
			if e.Kind == middleware.Undecryptable || e.Kind == middleware.Refused || e.Kind == middleware.ArchiveGap || e.Kind == middleware.Trouble {
				t.Errorf("%v: %v", e.Kind, e.Err)
			}
		}
		secret(t, s, bodies)
	})
}

func caughtUp(e middleware.Event) bool { return e.Kind == middleware.CaughtUp }
