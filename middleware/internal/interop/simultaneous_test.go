//go:build live

package interop

import (
	"sync"
	"testing"

	"mellium.im/xmpp/jid"

	"example.org/omellium/middleware/internal/lab"
	"example.org/omellium/omemo"
)

// Both sides start at the same time: two key exchanges cross on the way. Each of these
// programs is behind a gate, so that they always do.

func TestBothStartGoWithGo(t *testing.T) {
	eachVersion(t, func(t *testing.T, s *lab.Server, versions []string) {
		one, other := s.Account(t, "one"), s.Account(t, "other")
		lab.Befriend(t, one, other)
		gate := s.Gate(t)
		a, b := newSpeaker(t, gate.Server, one, versions), newSpeaker(t, s, other, versions)
		there, back := texts("there", one, hundred), texts("back", other, hundred)
		crossing{s, gate, a, b, other}.send(t, there[0], back[0])
		expect(t, b, one.JID, there[:1])
		expect(t, a, other.JID, back[:1])
		bothBegan(t, a, other.JID, b.Device)
		bothBegan(t, b, one.JID, a.Device)
		var both sync.WaitGroup
		both.Go(func() { sendAll(t, a, other.JID, there[1:]) })
		both.Go(func() { sendAll(t, b, one.JID, back[1:]) })
		both.Wait()
		expect(t, b, one.JID, there)
		expect(t, a, other.JID, back)
		oneSession(t, a, other.JID, b.Device)
		oneSession(t, b, one.JID, a.Device)
		secret(t, s, there, back)
	})
}

func TestBothStartGoWithProfanity(t *testing.T) {
	lab.Each(t, func(t *testing.T, s *lab.Server) {
		one, user := s.Account(t, "program"), s.Account(t, "user")
		lab.Befriend(t, one, user)
		gate := s.Gate(t)
		program := newProgram(t, gate.Server, one)
		peer := lab.Profanity(t, s, user)
		peer.Start(t, one.JID, program.Device)
		there, back := texts("there", one, hundred), texts("back", user, hundred)
		crossing{s, gate, program, peer, user}.send(t, there[0], back[0])
		expect(t, peer, one.JID, there[:1])
		expect(t, program, user.JID, back[:1])
		bothBegan(t, program, user.JID, peer.Device)
		var both sync.WaitGroup
		both.Go(func() { sendAll(t, program, user.JID, there[1:]) })
		both.Go(func() { sendAll(t, peer, one.JID, back[1:]) })
		both.Wait()
		expect(t, peer, one.JID, there)
		expect(t, program, user.JID, back)
		oneSession(t, program, user.JID, peer.Device)
		secret(t, s, there, back)
	})
}

// Python-OMEMO keeps one session with a device only: after the two first messages,
// both of which are read, that which we have begun. Our reply to its key exchange it
// cannot read any more; but it holds no text. With its next message both agree.
func TestBothStartGoWithPython(t *testing.T) {
	eachVersion(t, func(t *testing.T, s *lab.Server, versions []string) {
		one, user := s.Account(t, "program"), s.Account(t, "user")
		lab.Befriend(t, one, user)
		gate := s.Gate(t)
		program := newProgram(t, gate.Server, one)
		peer := python{lab.Python(t, s, user, lab.PythonOptions{Versions: versions})}
		there, back := texts("there", one, hundred), texts("back", user, hundred)
		crossing{s, gate, program, peer, user}.send(t, there[0], back[0])
		expect(t, peer, one.JID, there[:1])
		expect(t, program, user.JID, back[:1])
		bothBegan(t, program, user.JID, peer.Device)
		sendAll(t, peer, one.JID, back[1:2])
		expect(t, program, user.JID, back[:2])
		sendAll(t, program, user.JID, there[1:])
		sendAll(t, peer, one.JID, back[2:])
		expect(t, peer, one.JID, there)
		expect(t, program, user.JID, back)
		oneSession(t, program, user.JID, peer.Device)
		secret(t, s, there, back)
	})
}

// crossing is a program behind a gate and whom it writes to while that writes to it.
type crossing struct {
	server  *lab.Server
	gate    *lab.Gate
	program *program
	other   party
	account *lab.Account // of the other
}

// send has each side send its first message, and the server deliver or have ready
// both, before the program may see that of the other: it goes out before either side
// has seen what the other has sent. Both are key exchanges.
func (c crossing) send(t *testing.T, there, back string) {
	t.Helper()
	// Behind the gate no bundle arrives either, nor a list, which is asked for anew
	// before something is sent to who has come online since.
	c.program.AwaitPresence(t, c.account.JID, "available")
	for range 2 { // a list of which there is news while it is fetched is fetched again
		ok(t, c.program.om.Prepare(t.Context(), jid.MustParse(c.account.JID)))
	}
	c.gate.Hold()
	defer c.gate.Release()
	c.other.Send(t, c.program.Account.JID, back)
	c.await(t, c.account.JID)
	ok(t, c.program.session.Send(t.Context(), message(c.account.JID).Wrap(text(there))))
	c.await(t, c.program.Account.JID)
	if got := c.program.Bodies(c.account.JID); len(got) > 0 {
		t.Errorf("%q came before the other side was written to", got)
	}
}

// await waits until the server has sent on the first message of an account.
func (c crossing) await(t *testing.T, from string) {
	t.Helper()
	var tap string
	if !lab.Until(deadline, func() bool {
		tap = c.server.Tap(t)
		return c.server.Encrypted(tap, from) > 0
	}) {
		t.Fatalf("%s has sent nothing", from)
	}
	if n := c.server.KeyExchanges(tap, from); n == 0 {
		t.Errorf("the first message of %s is no key exchange", from)
	}
}

// bothBegan checks that a program has two sessions with a device: one that it has begun
// itself, and one that the other side has begun, be it in the other version.
func bothBegan(t *testing.T, p *program, with string, device uint32) {
	t.Helper()
	begun := make(map[omemo.Initiation]bool)
	for _, v := range omemo.Versions() {
		peer := omemo.Peer{Version: v, Address: omemo.Address{JID: with, Device: omemo.DeviceID(device)}}
		sessions, err := p.om.Manager().Sessions(t.Context(), peer)
		ok(t, err)
		for _, session := range sessions {
			begun[session.Initiation()] = true
		}
	}
	if !begun[omemo.Active] || !begun[omemo.Passive] {
		t.Errorf("the sessions of %s with %s/%d are %v", p.Account.JID, with, device, begun)
	}
}

// oneSession checks that a program has a confirmed session with a device, in
// one version, as its current one.
func oneSession(t *testing.T, p *program, with string, device uint32) {
	t.Helper()
	confirmed := 0
	for _, v := range omemo.Versions() {
		peer := omemo.Peer{Version: v, Address: omemo.Address{JID: with, Device: omemo.DeviceID(device)}}
		sessions, err := p.om.Manager().Sessions(t.Context(), peer)
		if err != nil {
			t.Fatal(err)
		}
		if len(sessions) > 0 && sessions[0].Confirmed() {
			confirmed++
		}
	}
	if confirmed == 0 {
		t.Errorf("%s has no confirmed session with %s/%d", p.Account.JID, with, device)
	}
}
