//go:build live

package interop

import (
	"encoding/json"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"mellium.im/xmpp/jid"

	"example.org/omellium/middleware"
	"example.org/omellium/middleware/internal/lab"
	"example.org/omellium/omemo"
)

// One side has lost its session, and the other goes on in it: that is told, and
// each side can mend it.
func TestBrokenSessionWithPython(t *testing.T) {
	eachVersion(t, func(t *testing.T, s *lab.Server, versions []string) {
		one, user := s.Account(t, "program"), s.Account(t, "user")
		lab.Befriend(t, one, user)
		program := newProgram(t, s, one)
		options := lab.PythonOptions{Versions: versions, Store: filepath.Join(t.TempDir(), "store.json")}
		peer := python{lab.Python(t, s, user, options)}
		there, back := texts("there", one, 6), texts("back", user, 6)
		program.Send(t, user.JID, there[0])
		expect(t, peer, one.JID, there[:1])
		peer.Send(t, one.JID, back[0])
		expect(t, program, user.JID, back[:1])
		program.Send(t, user.JID, there[1]) // what is confirmed carries no key exchange any more
		expect(t, peer, one.JID, there[:2])

		// The peer loses its sessions, and the program mends it, or the peer itself.
		for i, mend := range []func(){
			func() {
				results, err := program.om.Replace(t.Context(), jid.MustParse(user.JID))
				ok(t, err)
				for _, r := range results {
					if r.Err != nil {
						t.Errorf("%v: %v", r.Peer, r.Err)
					}
				}
			},
			func() {
				before := program.count(middleware.SessionReplaced)
				peer.Send(t, one.JID, back[2]) // begins another
				expect(t, program, user.JID, back[:3])
				if program.count(middleware.SessionReplaced) == before {
					t.Error("no session was replaced")
				}
			},
		} {
			peer.Stop(t)
			loseSessions(t, options.Store, one.JID)
			peer = python{lab.Python(t, s, user, options)}
			program.Send(t, user.JID, there[2+2*i])
			peer.Await(t, "to get what it cannot read", func(e lab.PythonEvent) bool { return e.Event == "undecryptable" && e.JID == one.JID })
			mend()
			program.Send(t, user.JID, there[3+2*i])
			expect(t, peer, one.JID, there[3+2*i:4+2*i])
			peer.Send(t, one.JID, back[1+2*i])
			expect(t, program, user.JID, back[:2+2*i])
		}

		// The program loses its sessions.
		for _, v := range omemo.Versions() {
			address := omemo.Address{JID: user.JID, Device: omemo.DeviceID(peer.Device)}
			ok(t, program.om.Manager().ForgetSessions(t.Context(), omemo.Peer{Version: v, Address: address}))
		}
		peer.Send(t, one.JID, back[4])
		program.AwaitEvent(t, "what cannot be read", func(e middleware.Event) bool {
			return e.Kind == middleware.Undecryptable && errors.Is(e.Err, omemo.ErrNoSession)
		})
		before := program.count(middleware.SessionConfirmed)
		_, err := program.om.Replace(t.Context(), jid.MustParse(user.JID))
		ok(t, err)
		// The peer tells of the new session before it has stored it. Its answer comes
		// afterwards.
		if !lab.Until(deadline, func() bool { return program.count(middleware.SessionConfirmed) > before }) {
			t.Error("the new session is not answered")
		}
		peer.Send(t, one.JID, back[5])
		program.AwaitBody(t, user.JID, back[5])
		secret(t, s, there, back)
	})
}

// loseSessions takes the sessions with an account out of the store of a Python
// client that was stopped.
func loseSessions(t *testing.T, store, with string) {
	t.Helper()
	data, err := os.ReadFile(store)
	ok(t, err)
	var values map[string]json.RawMessage
	ok(t, json.Unmarshal(data, &values))
	before := len(values)
	maps.DeleteFunc(values, func(key string, _ json.RawMessage) bool {
		return !strings.HasPrefix(key, "/devices/") && !strings.HasPrefix(key, "/trust/") && strings.Contains(key, "/"+with+"/")
	})
	if len(values) == before {
		t.Fatalf("no sessions in %s", store)
	}
	data, err = json.Marshal(values)
	ok(t, err)
	ok(t, os.WriteFile(store, data, 0o600))
}

func (p *program) count(kind middleware.EventKind) (n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, e := range p.events {
		if e.Kind == kind {
			n++
		}
	}
	return n
}
