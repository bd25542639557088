//go:build live

package interop

import (
	"testing"

	"example.org/omellium/middleware/internal/lab"
	"example.org/omellium/omemo"
	"example.org/omellium/omemo/memstore"
)

// The signed pre key is rotated while a message that uses the one before is on
// its way.
func TestRotationInFlight(t *testing.T) {
	eachVersion(t, func(t *testing.T, s *lab.Server, versions []string) {
		one, user := s.Account(t, "program"), s.Account(t, "user")
		lab.Befriend(t, one, user)
		store := memstore.New(one.JID)
		before := newProgramWith(t, s, one, store, nil)
		peer := python{lab.Python(t, s, user, lab.PythonOptions{Versions: versions})}
		peer.AwaitPresence(t, one.JID, "available")
		ok(t, before.om.Close())
		peer.AwaitPresence(t, one.JID, "unavailable")
		bodies := texts("late", user, 2)
		peer.Send(t, one.JID, bodies[0])
		// The answer comes after the server has put the message away: ejabberd keeps
		// one that it stores while its recipient comes online until the next time.
		peer.Devices(t, one.JID)

		store = store.Reopen()
		m, err := omemo.NewManager(t.Context(), store, omemo.Options{})
		ok(t, err)
		ok(t, m.Rotate(t.Context()))
		program := newProgramWith(t, s, one, store.Reopen(), nil)
		expect(t, program, user.JID, bodies[:1])
		peer.Send(t, one.JID, bodies[1])
		expect(t, program, user.JID, bodies)
		secret(t, s, bodies)
	})
}
