//go:build live

package interop

import (
	"context"
	"encoding/xml"
	"path/filepath"
	"runtime"
	"testing"

	"mellium.im/xmlstream"
	"mellium.im/xmpp"

	"example.org/omellium/middleware/internal/lab"
	"example.org/omellium/omemo/memstore"
	"example.org/omellium/omemo/sqlstore/sqlite"
)

// A handler that does not return for long, while 10,000 messages arrive (1,000
// with -short), holds up neither the stream nor the sender, and they do not pile
// up in memory.
func TestSlowHandler(t *testing.T) {
	count := 10_000
	if testing.Short() {
		count = 1000
	}
	const mostGrowth = 96 << 20 // bytes
	test := func(t *testing.T, s *lab.Server) {
		one, other := s.Account(t, "sender"), s.Account(t, "receiver")
		lab.Befriend(t, one, other)
		store, err := sqlite.Open(t.Context(), filepath.Join(t.TempDir(), "receiver.db"), other.JID)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := store.Close(); err != nil {
				t.Error(err)
			}
		})
		release := make(chan struct{})
		receiver := newProgramWith(t, s, other, store, xmpp.HandlerFunc(func(_ xmlstream.TokenReadEncoder, start *xml.StartElement) error {
			if start.Name.Local == "message" {
				<-release
			}
			return nil
		}))
		sender := newProgram(t, s, one)
		bodies := texts("many", one, count)
		before := heap()
		ctx, cancel := context.WithTimeout(t.Context(), 10*deadline)
		defer cancel()
		for _, body := range bodies {
			if err := sender.session.Send(ctx, message(other.JID).Wrap(text(body))); err != nil {
				t.Fatal(err)
			}
		}
		// All of them are in the store of the receiver, waiting for its handler.
		arrived, last := 0, uint64(0)
		if !lab.Until(10*deadline, func() bool {
			rows, err := receiver.om.Manager().Inbox(t.Context(), last, count)
			if err != nil {
				t.Fatal(err)
			}
			if arrived += len(rows); len(rows) > 0 {
				last = rows[len(rows)-1].Seq
			}
			return arrived >= count
		}) {
			t.Fatalf("only %d of %d messages arrived", arrived, count)
		}
		if growth := heap() - before; growth > mostGrowth {
			t.Errorf("%d messages take %d MiB", count, growth>>20)
		}
		close(release)
		if !lab.Until(10*deadline, func() bool { return receiver.collected() >= count }) {
			t.Fatalf("only %d of %d messages were handled", receiver.collected(), count)
		}
		expect(t, receiver, one.JID, bodies)
		secret(t, s, bodies)
	}
	// One after the other: both would count for the memory.
	t.Run("prosody", func(t *testing.T) { test(t, lab.Prosody(t)) })
	t.Run("ejabberd", func(t *testing.T) { test(t, lab.Ejabberd(t)) })
}

func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// A handler that sends and waits for the result answers while the next messages
// arrive.
func TestHandlerSendsAndWaits(t *testing.T) {
	eachVersion(t, func(t *testing.T, s *lab.Server, versions []string) {
		one, user := s.Account(t, "program"), s.Account(t, "user")
		lab.Befriend(t, one, user)
		var program *program
		ready := make(chan struct{})
		handler := xmpp.HandlerFunc(func(r xmlstream.TokenReadEncoder, start *xml.StartElement) error {
			var m received
			if start.Name.Local != "message" {
				return nil
			}
			if err := xml.NewTokenDecoder(xmlstream.MultiReader(xmlstream.Token(*start), r)).Decode(&m); err != nil {
				return err
			}
			if m.Body != "" {
				<-ready
				program.Send(t, user.JID, m.Body)
			}
			return nil
		})
		program = newProgramWith(t, s, one, memstore.New(one.JID), handler)
		close(ready)
		peer := python{lab.Python(t, s, user, lab.PythonOptions{Versions: versions})}
		bodies := texts("peer", user, hundred)
		sendAll(t, peer, one.JID, bodies)
		expect(t, peer, one.JID, bodies)
		secretEcho(t, s, one, bodies)
	})
}
