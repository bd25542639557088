//go:build live

package interop

import (
	"slices"
	"testing"

	"example.org/omellium/middleware"
	"example.org/omellium/middleware/internal/lab"
)

// The bot ends in the middle of a conversation, and goes on with the same
// database: what was sent meanwhile is answered, once and in order, in the same
// session.

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
				restarts(t, s, bot, peer, user, len(versions) == 1, killed)
			})
		})
	}
}

func TestRestartWithProfanity(t *testing.T) {
	lab.Each(t, func(t *testing.T, s *lab.Server) {
		account, user := s.Account(t, "bot"), s.Account(t, "user")
		lab.Befriend(t, account, user)
		bot := newEchobot(t, s, account)
		peer := lab.Profanity(t, s, user)
		peer.Start(t, account.JID, bot.Device)
		restarts(t, s, bot, peer, user, true, false, true)
	})
}

func TestRestartWithGo(t *testing.T) {
	eachVersion(t, func(t *testing.T, s *lab.Server, versions []string) {
		account, user := s.Account(t, "bot"), s.Account(t, "user")
		lab.Befriend(t, account, user)
		bot := newEchobot(t, s, account)
		restarts(t, s, bot, newSpeaker(t, s, user, versions), user, len(versions) == 1, false, true)
	})
}

// visitor is a party that sees when the other one comes and goes.
type visitor interface {
	party
	AwaitPresence(t testing.TB, of, kind string)
}

// restarts has a peer talk with a bot, which ends so many times: killed, or as it is
// asked to. Ten messages are sent before, ten while it is away and ten after. If both
// speak one version only, all of it is one session: two that speak both may go on to
// the other one at any time.
//
// A bot that is killed may not have noted yet that it has handled the last message.
// It is handed that one again then, under the same event id, and as an echo bot keeps
// no notes it answers twice. Nor may it know that its last answers have reached the
// server: they leave again, the same bytes, of which Profanity shows that it cannot
// read them (again). Nothing else may come twice.
func restarts(t *testing.T, s *lab.Server, bot *echobot, peer visitor, user *lab.Account, oneVersion bool, killed ...bool) {
	t.Helper()
	const some = 10
	account := bot.Account
	bodies := texts("peer", user, some*(1+2*len(killed)))
	sent := some
	sendAll(t, peer, account.JID, bodies[:sent])
	expect(t, peer, account.JID, bodies[:sent])
	exchanges := func() int {
		tap := s.Tap(t)
		return s.KeyExchanges(tap, account.JID) + s.KeyExchanges(tap, user.JID)
	}
	begun := exchanges()
	if begun == 0 {
		t.Error("the conversation has begun without a key exchange")
	}
	var last []string // what was answered last before the bot was killed
	for _, kill := range killed {
		if kill {
			bot.kill()
			last = append(last, bodies[sent-1])
		} else {
			bot.stop(t)
		}
		peer.AwaitPresence(t, account.JID, "unavailable")
		sendAll(t, peer, account.JID, bodies[sent:sent+some])
		bot.start(t)
		peer.AwaitBody(t, account.JID, bodies[sent+some-1])
		sendAll(t, peer, account.JID, bodies[sent+some:sent+2*some])
		sent += 2 * some
		peer.AwaitBody(t, account.JID, bodies[sent-1])
	}
	got := peer.Bodies(account.JID)
	for _, body := range last {
		from := slices.Index(got, body) + 1
		to := from
		for to < min(len(got), from+some) && (got[to] == middleware.DefaultFallback || got[to] == body && !slices.Contains(got[from:to], body)) {
			to++
		}
		got = slices.Delete(got, from, to)
	}
	if !slices.Equal(got, bodies) {
		t.Errorf("got  %q\nwant %q", got, bodies)
	}
	if n := exchanges(); oneVersion && n != begun {
		t.Errorf("%d more key exchanges after the bot was started again: not in the same session", n-begun)
	}
	secretEcho(t, s, account, bodies)
}
