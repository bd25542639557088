//go:build live

package interop

import (
	"testing"

	"example.org/omellium/middleware/internal/lab"
)

// The bot answers 100 messages of a peer, which starts the conversation.

func TestEchobotWithPython(t *testing.T) {
	eachVersion(t, func(t *testing.T, s *lab.Server, versions []string) {
		account, user := s.Account(t, "bot"), s.Account(t, "user")
		lab.Befriend(t, account, user)
		bot := newEchobot(t, s, account)
		peer := python{lab.Python(t, s, user, lab.PythonOptions{Versions: versions})}
		bodies := texts("peer", user, hundred)
		sendAll(t, peer, bot.Account.JID, bodies)
		expect(t, peer, bot.Account.JID, bodies)
		secretEcho(t, s, account, bodies)
	})
}

func TestEchobotWithStranger(t *testing.T) {
	eachVersion(t, func(t *testing.T, s *lab.Server, versions []string) {
		bot := newEchobot(t, s, s.Account(t, "bot"))
		user := s.Account(t, "user")
		peer := python{lab.Python(t, s, user, lab.PythonOptions{Versions: versions})}
		bodies := texts("stranger", user, 3)
		for i, body := range bodies {
			peer.Send(t, bot.Account.JID, body)
			expect(t, peer, bot.Account.JID, bodies[:i+1])
		}
		secretEcho(t, s, bot.Account, bodies)
	})
}

func TestEchobotWithProfanity(t *testing.T) {
	lab.Each(t, func(t *testing.T, s *lab.Server) {
		account, user := s.Account(t, "bot"), s.Account(t, "user")
		lab.Befriend(t, account, user)
		bot := newEchobot(t, s, account)
		peer := lab.Profanity(t, s, user)
		peer.Start(t, bot.Account.JID, bot.Device)
		bodies := texts("peer", user, hundred)
		sendAll(t, peer, bot.Account.JID, bodies)
		expect(t, peer, bot.Account.JID, bodies)
		secretEcho(t, s, account, bodies)
	})
}

// A Go program starts; then 100 messages go each way.

func TestGoStartsWithPython(t *testing.T) {
	eachVersion(t, func(t *testing.T, s *lab.Server, versions []string) {
		one, user := s.Account(t, "program"), s.Account(t, "user")
		lab.Befriend(t, one, user)
		program := newProgram(t, s, one)
		peer := python{lab.Python(t, s, user, lab.PythonOptions{Versions: versions})}
		out, back := texts("go", one, hundred), texts("peer", user, hundred)
		sendAll(t, program, user.JID, out)
		expect(t, peer, one.JID, out)
		sendAll(t, peer, one.JID, back)
		expect(t, program, user.JID, back)
		secret(t, s, out, back)
	})
}

func TestGoStartsWithProfanity(t *testing.T) {
	lab.Each(t, func(t *testing.T, s *lab.Server) {
		one, user := s.Account(t, "program"), s.Account(t, "user")
		lab.Befriend(t, one, user)
		program := newProgram(t, s, one)
		peer := lab.Profanity(t, s, user)
		out, back := texts("go", one, hundred), texts("peer", user, hundred)
		sendAll(t, program, user.JID, out)
		expect(t, peer, one.JID, out)
		peer.Start(t, one.JID, program.Device)
		sendAll(t, peer, one.JID, back)
		expect(t, program, user.JID, back)
		secret(t, s, out, back)
	})
}

func TestGoWithEchobot(t *testing.T) {
	eachVersion(t, func(t *testing.T, s *lab.Server, versions []string) {
		account, user := s.Account(t, "bot"), s.Account(t, "user")
		lab.Befriend(t, account, user)
		bot := newEchobot(t, s, account)
		program := newSpeaker(t, s, user, versions)
		bodies := texts("go", user, hundred)
		sendAll(t, program, bot.Account.JID, bodies)
		expect(t, program, bot.Account.JID, bodies)
		secretEcho(t, s, account, bodies)
	})
}
