//go:build live

package interop

import (
	"encoding/xml"
	"slices"
	"strings"
	"sync"
	"testing"

	"mellium.im/xmlstream"

	"example.org/omellium/bundle"
	"example.org/omellium/middleware"
	"example.org/omellium/middleware/internal/lab"
	"example.org/omellium/omemo"
	"example.org/omellium/omemo/memstore"
	"example.org/omellium/stanza"
	"example.org/omellium/stanza/pep"
)

// results collects what a query of an archive brings.
type results struct {
	mu       sync.Mutex
	messages []received
}

// HandleXMPP implements xmpp.Handler.
func (r *results) HandleXMPP(t xmlstream.TokenReadEncoder, start *xml.StartElement) error {
	if start.Name.Local != "message" {
		return nil
	}
	var outer struct {
		Message *received `xml:"result>forwarded>message"`
	}
	whole := xmlstream.MultiReader(xmlstream.Token(*start), t)
	if err := xml.NewTokenDecoder(whole).Decode(&outer); err != nil {
		return err
	}
	if outer.Message != nil {
		r.mu.Lock()
		r.messages = append(r.messages, *outer.Message)
		r.mu.Unlock()
	}
	return nil
}

// bodies returns the texts of an account, in order. The middleware has to vouch
// for each.
func (r *results) bodies(t *testing.T, from string) (all []string) {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, m := range r.messages {
		if m.From.Bare().String() != from {
			continue
		}
		if m.Info == nil || m.Info.Account != from {
			t.Errorf("%q has info %+v", m.Body, m.Info)
		}
		all = append(all, m.Body)
	}
	return all
}

// Two devices have chosen the same pre key while the program was away. The
// program reads both in its archive, keeps the pre key until it has caught up, and
// then moves on with an empty message for each.
func TestCatchUpWithAPreKeyUsedTwice(t *testing.T) {
	eachVersion(t, func(t *testing.T, s *lab.Server, versions []string) {
		one, users := s.Account(t, "program"), []*lab.Account{s.Account(t, "user"), s.Account(t, "user")}
		lab.Befriend(t, append(users, one)...)
		store := memstore.New(one.JID)
		before := newProgramWith(t, s, one, store, nil)
		ok(t, before.om.Close())
		store = store.Reopen()
		other := client(t, s, one)
		archiveAll(t, other)
		used := leaveOnePreKey(t, other, store)

		bodies := make([][]string, len(users))
		peers := make([]python, len(users))
		var spoken []string // versions
		for i, user := range users {
			bodies[i] = texts("while away", user, 3)
			peers[i] = python{lab.Python(t, s, user, lab.PythonOptions{Versions: versions})}
			for _, body := range bodies[i][:2] {
				spoken = append(spoken, peers[i].PythonClient.Send(t, one.JID, body).Versions...)
			}
			peers[i].Devices(t, one.JID) // answered after the server has put both away
		}

		archive := &results{}
		program := newHiddenProgram(t, s, one, store.Reopen(), archive)
		query := `<iq xmlns='jabber:client' type='set' id='catch-up'><query xmlns='urn:xmpp:mam:2' queryid='all'/></iq>`
		ok(t, program.session.Send(t.Context(), xml.NewDecoder(strings.NewReader(query))))
		for i, user := range users {
			if !lab.Until(deadline, func() bool { return slices.Equal(archive.bodies(t, user.JID), bodies[i][:2]) }) {
				t.Fatalf("of %s the archive has brought %q", user.JID, archive.bodies(t, user.JID))
			}
		}
		// The pre key is kept, but not published any more.
		if n := usedPreKeys(t, program, used); n == 0 {
			t.Error("no used pre key is kept")
		}
		for _, v := range omemo.Versions() {
			if slices.Contains(spoken, v.String()) && !lab.Until(deadline, func() bool {
				b, err := bundle.Fetch(t.Context(), other, omemo.Address{Device: omemo.DeviceID(program.Device)}, v)
				return err == nil && len(b.PreKeys) == omemo.PreKeyCount &&
					!slices.ContainsFunc(b.PreKeys, func(k omemo.PublicPreKey) bool { return k.ID == used[v] })
			}) {
				t.Errorf("%v: the pre key is still published", v)
			}
		}
		ok(t, program.om.CatchUp(t.Context(), false))
		program.AwaitEvent(t, "the end of catching up", func(e middleware.Event) bool { return e.Kind == middleware.CaughtUp })
		if n := usedPreKeys(t, program, used); n != 0 {
			t.Errorf("%d used pre keys are left", n)
		}
		for _, peer := range peers {
			peer.Await(t, "to be sent an empty message", func(e lab.PythonEvent) bool { return e.Event == "empty" && e.JID == one.JID })
		}
		// What waited for the account is what the archive had. Nothing comes twice.
		program.appear(t)
		for i, user := range users {
			peers[i].AwaitPresence(t, one.JID, "available")
			peers[i].Send(t, one.JID, bodies[i][2])
			program.AwaitBody(t, user.JID, bodies[i][2])
			if got := program.Bodies(user.JID); !slices.Equal(got, bodies[i][2:]) {
				t.Errorf("came: %q", got)
			}
			answers := texts("answer", one, 1)
			program.Send(t, user.JID, answers[0])
			expect(t, peers[i], one.JID, answers)
			if bad := peers[i].Undecryptable(); len(bad) > 0 {
				t.Errorf("undecryptable: %+v", bad)
			}
			secret(t, s, bodies[i], answers)
		}
	})
}

// archiveAll has the server archive everything of an account.
func archiveAll(t *testing.T, r pep.Requester) {
	t.Helper()
	const ns = "urn:xmpp:mam:2"
	prefs := stanza.NewElement(ns, "prefs", stanza.NewElement(ns, "always"), stanza.NewElement(ns, "never")).SetAttribute("default", "always")
	reply, err := r.Request(t.Context(), stanza.NewElement(stanza.NSClient, "iq", prefs).SetAttribute("type", "set"))
	ok(t, err)
	if kind, _ := reply.Attribute("type"); kind != "result" {
		t.Fatalf("archive: %s", reply.AppendXML(nil))
	}
}

// leaveOnePreKey publishes the bundles of a stopped program with one pre key
// each, so that everybody chooses that, and returns their ids.
func leaveOnePreKey(t *testing.T, r pep.Requester, store *memstore.Store) map[omemo.Version]uint32 {
	t.Helper()
	m, err := omemo.NewManager(t.Context(), store, omemo.Options{})
	ok(t, err)
	ids := make(map[omemo.Version]uint32)
	for _, v := range omemo.Versions() {
		b, err := m.Bundle(t.Context(), v)
		ok(t, err)
		b.PreKeys = b.PreKeys[:1]
		ids[v] = b.PreKeys[0].ID
		ok(t, bundle.Publish(t.Context(), r, b))
	}
	return ids
}

// usedPreKeys counts those of the pre keys that were used and are kept.
func usedPreKeys(t *testing.T, p *program, ids map[omemo.Version]uint32) (n int) {
	t.Helper()
	for v, id := range ids {
		rows, err := p.store.PreKeys(t.Context(), v, id)
		ok(t, err)
		for _, row := range rows {
			if !row.Used.IsZero() {
				n++
			}
		}
	}
	return n
}
