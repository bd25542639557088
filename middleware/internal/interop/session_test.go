//go:build live

package interop

import (
	"testing"

	"mellium.im/xmpp/jid"

	"example.org/omellium/middleware"
	"example.org/omellium/middleware/internal/lab"
	"example.org/omellium/omemo"
)

// Sessions are replaced by hand, from either side.
func TestReplaceWithPython(t *testing.T) {
	eachVersion(t, func(t *testing.T, s *lab.Server, versions []string) {
		one, user := s.Account(t, "program"), s.Account(t, "user")
		lab.Befriend(t, one, user)
		program := newProgram(t, s, one)
		peer := python{lab.Python(t, s, user, lab.PythonOptions{Versions: versions})}
		there, back := texts("there", one, 6), texts("back", user, 6)
		talk := func(i int) {
			t.Helper()
			program.Send(t, user.JID, there[i])
			expect(t, peer, one.JID, there[:i+1])
			peer.Send(t, one.JID, back[i])
			expect(t, program, user.JID, back[:i+1])
		}
		talk(0)
		results, err := program.om.Replace(t.Context(), jid.MustParse(user.JID))
		ok(t, err)
		for _, r := range results {
			if r.Err != nil {
				t.Errorf("%v: %v", r.Peer, r.Err)
			}
		}
		talk(1)
		talk(2)
		// Python forgets the session before: what we would send in it, it cannot read.
		replaced := func() (n int) {
			program.mu.Lock()
			defer program.mu.Unlock()
			for _, e := range program.events {
				if e.Kind == middleware.SessionReplaced {
					n++
				}
			}
			return n
		}
		before := replaced()
		peer.ReplaceSessions(t, one.JID)
		if !lab.Until(deadline, func() bool { return replaced() > before }) {
			t.Fatal("no session was replaced")
		}
		talk(3)
		talk(4)
		// The other side speaks first after it was replaced.
		_, err = program.om.Replace(t.Context(), jid.MustParse(user.JID))
		ok(t, err)
		peer.Send(t, one.JID, back[5])
		expect(t, program, user.JID, back)
		program.Send(t, user.JID, there[5])
		expect(t, peer, one.JID, there)
		secret(t, s, there, back)
	})
}

// 150 messages one way: the heartbeats of the other side keep the chain short.
func TestOneWay(t *testing.T) {
	const messages, heartbeat = 150, 53
	eachVersion(t, func(t *testing.T, s *lab.Server, versions []string) {
		one, user := s.Account(t, "program"), s.Account(t, "user")
		lab.Befriend(t, one, user)
		program := newProgram(t, s, one)
		peer := python{lab.Python(t, s, user, lab.PythonOptions{Versions: versions})}
		there, back := texts("there", one, messages), texts("back", user, messages)
		chains := func(chain func(*omemo.Session) int) (longest int) {
			for _, v := range omemo.Versions() {
				sessions, err := program.om.Manager().Sessions(t.Context(), omemo.Peer{
					Version: v, Address: omemo.Address{JID: user.JID, Device: omemo.DeviceID(peer.Device)},
				})
				ok(t, err)
				for _, session := range sessions {
					longest = max(longest, chain(session))
				}
			}
			return longest
		}
		for i, body := range there {
			program.Send(t, user.JID, body)
			if i%10 == 9 { // so that the other side's answers find their way in between
				peer.AwaitBody(t, one.JID, body)
			}
		}
		expect(t, peer, one.JID, there)
		if !lab.Until(deadline, func() bool { return chains((*omemo.Session).SendingChain) < 2*heartbeat }) {
			t.Errorf("no heartbeat of the other side in %d messages", messages)
		}
		for i, body := range back {
			peer.Send(t, one.JID, body)
			if i%10 == 9 {
				program.AwaitBody(t, user.JID, body)
			}
		}
		expect(t, program, user.JID, back)
		if n := chains((*omemo.Session).ReceivingChain); n >= 2*heartbeat {
			t.Errorf("a receiving chain of %d messages: our heartbeat was not heard", n)
		}
		if bad := peer.Undecryptable(); len(bad) > 0 {
			t.Errorf("undecryptable: %+v", bad)
		}
		secret(t, s, there, back)
	})
}
