//go:build live

package interop

import (
	"fmt"
	"slices"
	"sync"
	"testing"

	"example.org/omellium/middleware/internal/lab"
	"example.org/omellium/omemo"
)

// Both sides start at the same time: two key exchanges cross on the way.

func TestBothStartGoWithGo(t *testing.T) {
	lab.Each(t, func(t *testing.T, s *lab.Server) {
		one, other := s.Account(t, "one"), s.Account(t, "other")
		lab.Befriend(t, one, other)
		a, b := newProgram(t, s, one), newProgram(t, s, other)
		there, back := texts("there", one, hundred), texts("back", other, hundred)
		var both sync.WaitGroup
		both.Go(func() { sendAll(t, a, other.JID, there) })
		both.Go(func() { sendAll(t, b, one.JID, back) })
		both.Wait()
		expect(t, b, one.JID, there)
		expect(t, a, other.JID, back)
		oneSession(t, a, other.JID, b.Device)
		oneSession(t, b, one.JID, a.Device)
		secret(t, s, there, back)
	})
}

// Python-OMEMO keeps one session with a device only: of what crosses its key
// exchange it may lose something, on its side. The Go side loses nothing, and
// both agree on one session soon.
func TestBothStartGoWithPython(t *testing.T) {
	eachVersion(t, func(t *testing.T, s *lab.Server, versions []string) {
		one, user := s.Account(t, "program"), s.Account(t, "user")
		lab.Befriend(t, one, user)
		program := newProgram(t, s, one)
		peer := python{lab.Python(t, s, user, lab.PythonOptions{Versions: versions})}
		there, back := texts("there", one, 1), texts("back", user, 1)
		var both sync.WaitGroup
		both.Go(func() { sendAll(t, program, user.JID, there) })
		both.Go(func() { sendAll(t, peer, one.JID, back) })
		both.Wait()
		expect(t, program, user.JID, back)
		back = append(back, agree(t, program, peer, user, 5)...)
		expect(t, program, user.JID, back)
		there, back = texts("later", one, hundred), append(back, texts("laterback", user, hundred)...)
		known := len(peer.Bodies(one.JID))
		sendAll(t, program, user.JID, there)
		sendAll(t, peer, one.JID, back[len(back)-hundred:])
		peer.AwaitBody(t, one.JID, there[hundred-1])
		if got := peer.Bodies(one.JID)[known:]; !slices.Equal(got, there) {
			t.Errorf("got %q, want %q", got, there)
		}
		expect(t, program, user.JID, back)
		secret(t, s, there, back)
	})
}

// agree lets the peer send and the program answer until an answer arrives, and
// returns what the peer has sent.
func agree(t *testing.T, program *program, peer python, user *lab.Account, rounds int) []string {
	t.Helper()
	for i := range rounds {
		question := fmt.Sprintf("canary-question-%s-%d", user.Local, i)
		peer.Send(t, program.Account.JID, question)
		program.AwaitBody(t, user.JID, question)
		answer := fmt.Sprintf("canary-answer-%s-%d", user.Local, i)
		failed := len(peer.Undecryptable())
		program.Send(t, user.JID, answer)
		if lab.Until(deadline, func() bool {
			return slices.Contains(peer.Bodies(program.Account.JID), answer) || len(peer.Undecryptable()) > failed
		}) && slices.Contains(peer.Bodies(program.Account.JID), answer) {
			questions := make([]string, i+1)
			for j := range questions {
				questions[j] = fmt.Sprintf("canary-question-%s-%d", user.Local, j)
			}
			return questions
		}
	}
	t.Fatalf("after %d messages each way the two sides still do not agree on a session", rounds)
	return nil
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
