//go:build live

package interop

import (
	"slices"
	"testing"

	"example.org/omellium/middleware/internal/lab"
)

// The bot ends in the middle of a conversation, and goes on with the same
// database: what was sent meanwhile is answered, once and in order.
//
// A bot that is killed may not have noted yet that it has handled the last
// message. It is handed that one again then, under the same event id, and as an
// echo bot keeps no notes it answers twice. Nothing else may come twice.
func TestRestart(t *testing.T) {
	for _, killed := range []bool{false, true} {
		name := "SIGTERM"
		if killed {
			name = "SIGKILL"
		}
		t.Run(name, func(t *testing.T) {
			eachVersion(t, func(t *testing.T, s *lab.Server, versions []string) {
				account, user := s.Account(t, "bot"), s.Account(t, "user")
				lab.Befriend(t, account, user)
				bot := newEchobot(t, s, account)
				peer := python{lab.Python(t, s, user, lab.PythonOptions{Versions: versions})}
				bodies := texts("peer", user, 30)

				sendAll(t, peer, account.JID, bodies[:10])
				expect(t, peer, account.JID, bodies[:10])
				if killed {
					bot.kill()
				} else {
					bot.stop(t)
				}
				peer.AwaitPresence(t, account.JID, "unavailable")
				sendAll(t, peer, account.JID, bodies[10:20])
				bot.start(t)
				peer.AwaitBody(t, account.JID, bodies[19])
				sendAll(t, peer, account.JID, bodies[20:])
				peer.AwaitBody(t, account.JID, bodies[29])
				got := peer.Bodies(account.JID)
				if killed && len(got) > 10 && got[10] == bodies[9] {
					got = slices.Delete(got, 10, 11)
				}
				if !slices.Equal(got, bodies) {
					t.Errorf("got  %q\nwant %q", got, bodies)
				}
				secretEcho(t, s, account, bodies)
			})
		})
	}
}
