//go:build live

package interop

import (
	"fmt"
	"testing"

	"example.org/omellium/middleware/internal/lab"
)

// A device added later, on either side, gets the next message.

func TestLaterDeviceOfPeer(t *testing.T) {
	eachVersion(t, func(t *testing.T, s *lab.Server, versions []string) {
		one, user := s.Account(t, "program"), s.Account(t, "user")
		lab.Befriend(t, one, user)
		program := newProgram(t, s, one)
		first := python{lab.Python(t, s, user, lab.PythonOptions{Versions: versions})}
		there := texts("there", one, 3)
		sendAll(t, program, user.JID, there[:1])
		expect(t, first, one.JID, there[:1])

		second := python{lab.Python(t, s, user, lab.PythonOptions{Versions: versions})}
		program.AwaitDevice(t, second.PythonClient, versions)
		sendAll(t, program, user.JID, there[1:])
		expect(t, first, one.JID, there)
		expect(t, second, one.JID, there[1:])

		back := texts("back", user, 1)
		sendAll(t, second, one.JID, back)
		expect(t, program, user.JID, back)
		secret(t, s, there, back)
	})
}

func TestLaterDeviceOfGo(t *testing.T) {
	eachVersion(t, func(t *testing.T, s *lab.Server, versions []string) {
		one, user := s.Account(t, "program"), s.Account(t, "user")
		lab.Befriend(t, one, user)
		first := newProgram(t, s, one)
		peer := python{lab.Python(t, s, user, lab.PythonOptions{Versions: versions})}
		there := texts("there", user, 3)
		sendAll(t, peer, one.JID, there[:1])
		expect(t, first, user.JID, there[:1])

		second := newProgram(t, s, one)
		peer.AwaitDevice(t, one.JID, second.Device)
		sendAll(t, peer, one.JID, there[1:])
		expect(t, first, user.JID, there)
		expect(t, second, user.JID, there[1:])

		back := texts("back", one, 1)
		sendAll(t, second, user.JID, back)
		expect(t, peer, one.JID, back)
		secret(t, s, there, back)
	})
}

// Two Go programs: a device is added to the one, then to the other.
func TestLaterDeviceOfGoWithGo(t *testing.T) {
	eachVersion(t, func(t *testing.T, s *lab.Server, versions []string) {
		one, other := s.Account(t, "one"), s.Account(t, "other")
		lab.Befriend(t, one, other)
		a, b := newSpeaker(t, s, one, versions), newSpeaker(t, s, other, versions)
		there, back := texts("there", one, 2), texts("back", other, 2)
		sendAll(t, a, other.JID, there[:1])
		expect(t, b, one.JID, there[:1])

		secondB := newSpeaker(t, s, other, versions)
		a.awaitDevice(t, other.JID, secondB.Device, versions)
		sendAll(t, a, other.JID, there[1:])
		expect(t, b, one.JID, there)
		expect(t, secondB, one.JID, there[1:])
		sendAll(t, secondB, one.JID, back[:1])
		expect(t, a, other.JID, back[:1])

		secondA := newSpeaker(t, s, one, versions)
		b.awaitDevice(t, one.JID, secondA.Device, versions)
		sendAll(t, b, one.JID, back[1:])
		expect(t, a, other.JID, back)
		expect(t, secondA, other.JID, back[1:])
		secret(t, s, there, back)
	})
}

func TestLaterDeviceWithEchobot(t *testing.T) {
	eachVersion(t, func(t *testing.T, s *lab.Server, versions []string) {
		account, user := s.Account(t, "bot"), s.Account(t, "user")
		lab.Befriend(t, account, user)
		bot := newEchobot(t, s, account)
		first := python{lab.Python(t, s, user, lab.PythonOptions{Versions: versions})}
		bodies := texts("peer", user, 2)
		sendAll(t, first, account.JID, bodies[:1])
		expect(t, first, account.JID, bodies[:1])

		second := python{lab.Python(t, s, user, lab.PythonOptions{Versions: versions})}
		bot.awaitResources(t, user.JID, 2)
		sendAll(t, first, account.JID, bodies[1:])
		expect(t, first, account.JID, bodies)
		expect(t, second, account.JID, bodies[1:])
		secretEcho(t, s, account, bodies)
	})
}

// A legacy device joins Profanity's account, and one of the other kind that of
// the program that it writes to. Of that one Profanity learns, and leaves it out of
// its messages: it opens sessions when it is told to, and no other time. One that
// writes first it does not leave out.
func TestLaterDeviceWithProfanity(t *testing.T) {
	lab.Each(t, func(t *testing.T, s *lab.Server) {
		one, user := s.Account(t, "program"), s.Account(t, "user")
		lab.Befriend(t, one, user)
		program := newProgram(t, s, one)
		peer := lab.Profanity(t, s, user)
		there, back := texts("there", one, 3), texts("back", user, 4)
		sendAll(t, program, user.JID, there[:1])
		expect(t, peer, one.JID, there[:1])
		peer.Start(t, one.JID, program.Device)
		sendAll(t, peer, one.JID, back[:1])
		expect(t, program, user.JID, back[:1])

		joined := python{lab.Python(t, s, user, lab.PythonOptions{Versions: []string{lab.Legacy}})}
		program.AwaitDevice(t, joined.PythonClient, []string{lab.Legacy})
		sendAll(t, program, user.JID, there[1:2])
		expect(t, peer, one.JID, there[:2])
		expect(t, joined, one.JID, there[1:2])

		second := newProgram(t, s, one)
		peer.AwaitLogged(t, fmt.Sprintf(`RECV: <message .*<device id="%d"`, second.Device))
		sendAll(t, peer, one.JID, back[1:2])
		expect(t, program, user.JID, back[:2])
		peer.AwaitLogged(t, fmt.Sprintf(`cannot encrypt key for %s device id %d `, one.JID, second.Device))
		peer.Renew(t, one.JID, second.Device)
		sendAll(t, peer, one.JID, back[2:3])
		expect(t, program, user.JID, back[:3])
		expect(t, second, user.JID, back[2:3])

		third := newProgram(t, s, one)
		sendAll(t, third, user.JID, there[2:])
		expect(t, peer, one.JID, there)
		sendAll(t, peer, one.JID, back[3:])
		expect(t, program, user.JID, back)
		expect(t, second, user.JID, back[2:])
		expect(t, third, user.JID, back[3:])
		secret(t, s, there, back)
	})
}
