package middleware_test

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"example.org/omellium/middleware"
	"example.org/omellium/middleware/xmpptest"
	"example.org/omellium/omemo"
	"example.org/omellium/omemo/sqlstore"
	"example.org/omellium/omemo/sqlstore/sqlite"
	"mellium.im/xmpp"
	"mellium.im/xmpp/carbons"
	xmppstanza "mellium.im/xmpp/stanza"
)

// onFile returns a configuration with a store in a file that has no anchor.
func onFile(t *testing.T, path string, c middleware.Config) middleware.Config {
	t.Helper()
	store, err := sqlite.Open(t.Context(), path, romeo, sqlstore.WithAnchor(""))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	c.Store = store
	return c
}

// copyFile copies the database of a store that is closed.
func copyFile(t *testing.T, from, to string) {
	t.Helper()
	b, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// off ends a program in order, and its store.
func (p *program) off() {
	p.t.Helper()
	if err := p.om.Close(); err != nil {
		p.t.Fatal(err)
	}
	<-p.done
	if err := p.store.Close(); err != nil {
		p.t.Fatal(err)
	}
}

// idle waits until programs have done what they owe, and the others have it.
func idle(t *testing.T, programs ...*program) {
	t.Helper()
	for range 2 { // an answer may be owed an answer
		for _, p := range programs {
			until(t, "nothing is owed", func() bool {
				rows, err := p.om.Manager().Owed(t.Context())
				return err == nil && len(rows) == 0
			})
			p.flush()
		}
	}
}

// acquainted lets romeo, on a file, and juliet write to each other.
func acquainted(t *testing.T, srv *xmpptest.Server, path string, c middleware.Config) (juliets *program) {
	t.Helper()
	juliets = connected(t, srv, juliet+"/x", c)
	romeos := connected(t, srv, romeo+"/x", onFile(t, path, c))
	if c.CatchUp {
		romeos.awaitEvent(middleware.CaughtUp)
	}
	for _, p := range []*program{juliets, romeos} {
		if err := p.om.CatchUp(t.Context(), false); err != nil { // what is owed need not wait
			t.Fatal(err)
		}
	}
	// The last word is romeo's, and nobody owes anything: what he sends next
	// stands in the chain that he has begun.
	for _, text := range []string{"hello", "how do you do", "goodbye"} {
		juliets.say(romeo, text+" romeo")
		romeos.awaitText(text + " romeo")
		idle(t, juliets, romeos)
		romeos.say(juliet, text+" juliet")
		juliets.awaitText(text + " juliet")
		idle(t, juliets, romeos)
	}
	if c.CatchUp {
		until(t, "the store knows how far the archive was read", func() bool {
			cursors, err := romeos.store.Cursors(t.Context())
			return err == nil && len(cursors) > 0
		})
	}
	romeos.off()
	return juliets
}

// briefly serves a session that will not last.
func (p *program) briefly(session *xmpp.Session) {
	p.t.Helper()
	session, err := p.om.Wrap(p.t.Context(), session)
	if err != nil {
		p.t.Fatal(err)
	}
	_ = session.Send(p.t.Context(), xmppstanza.Presence{}.Wrap(nil)) // it may have ended
	p.done = make(chan struct{})
	go func(done chan struct{}) {
		defer close(done)
		_ = session.Serve(xmpp.HandlerFunc(p.handle))
	}(p.done)
}

// readable checks that nothing that juliet got was refused. Duplicates there may
// be: a copy holds the outbox, and the same bytes leave again.
func readable(t *testing.T, juliets *program) {
	t.Helper()
	for _, kind := range []middleware.EventKind{middleware.Undecryptable, middleware.Refused} {
		if n := juliets.count(kind); n > 0 {
			t.Errorf("juliet: %d times %v", n, kind)
		}
	}
}

// TestClone runs two programs on copies of one store. The copy of the first
// message that one sends tells the other that it does not know all; it begins
// anew, before it has sent anything.
func TestClone(t *testing.T) {
	for _, v := range omemo.Versions() {
		t.Run(v.String(), func(t *testing.T) {
			srv := network(t, romeo, juliet)
			dir := t.TempDir()
			first, second := filepath.Join(dir, "first.db"), filepath.Join(dir, "second.db")
			juliets := acquainted(t, srv, first, chat(v))
			copyFile(t, first, second)
			one := connected(t, srv, romeo+"/one", onFile(t, first, chat(v)))
			two := connected(t, srv, romeo+"/two", onFile(t, second, chat(v)))
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			if err := carbons.Enable(ctx, two.session); err != nil {
				t.Fatal(err)
			}
			one.say(juliet, "from the one")
			juliets.awaitText("from the one")
			two.awaitEvent(middleware.StateRolledBack)
			<-two.done // the stream ends: what waited was of the old state
			two.attach(login(t, srv, romeo+"/two"), nil)
			two.say(juliet, "from the other")
			juliets.awaitText("from the other")
			if n := one.count(middleware.StateRolledBack); n != 0 {
				t.Errorf("the one that knows all has given up its state %d times", n)
			}
			readable(t, juliets)
		})
	}
}

// TestArchiveTellsOfARollback restores a copy of a store. Neither an anchor nor
// our bundle tells, but the archive does.
func TestArchiveTellsOfARollback(t *testing.T) {
	for _, v := range omemo.Versions() {
		t.Run(v.String(), func(t *testing.T) {
			srv := archiving(t)
			dir := t.TempDir()
			file, backup := filepath.Join(dir, "store.db"), filepath.Join(dir, "backup.db")
			juliets := acquainted(t, srv, file, catching(v))
			copyFile(t, file, backup)
			romeos := connected(t, srv, romeo+"/x", onFile(t, file, catching(v)))
			romeos.awaitEvent(middleware.CaughtUp)
			if romeos.count(middleware.StateRolledBack) != 0 {
				t.Fatal("suspected without a reason")
			}
			for _, text := range numbered(5) {
				romeos.say(juliet, text)
			}
			juliets.awaitText("text 4")
			romeos.flush()
			romeos.off()
			copyFile(t, backup, file)
			romeos = load(t, romeo, onFile(t, file, catching(v)))
			romeos.briefly(login(t, srv, romeo+"/x"))
			romeos.awaitEvent(middleware.StateRolledBack)
			<-romeos.done
			romeos.back(srv, romeo+"/x")
			romeos.say(juliet, "restored")
			juliets.awaitText("restored")
			juliets.say(romeo, "welcome back")
			romeos.awaitText("welcome back")
			if n := romeos.count(middleware.StateRolledBack); n != 1 {
				t.Errorf("the state was given up %d times", n)
			}
			readable(t, juliets)
		})
	}
}

// TestCloneInARoom runs two programs on copies of one store, both in a room. What
// one says there tells the other that it does not know all, before it has sent
// anything; what it has said itself tells it nothing, however often it is shown.
func TestCloneInARoom(t *testing.T) {
	for _, v := range omemo.Versions() {
		t.Run(v.String(), func(t *testing.T) {
			srv := building(t, fit)
			dir := t.TempDir()
			first, second := filepath.Join(dir, "first.db"), filepath.Join(dir, "second.db")
			juliets := acquainted(t, srv, first, chat(v)).join(hall, "Juliet")
			copyFile(t, first, second)
			one := connected(t, srv, romeo+"/one", onFile(t, first, chat(v))).join(hall, "Romeo")
			two := connected(t, srv, romeo+"/two", onFile(t, second, chat(v))).join(hall, "Montague")
			one.speak(hall, "from the one")
			juliets.awaitText("from the one")
			two.awaitEvent(middleware.StateRolledBack)
			<-two.done
			one.present(hall+"/Romeo", "unavailable", "")
			one.join(hall, "Romeo") // the room shows what was said
			one.flush()
			if n := one.count(middleware.StateRolledBack); n != 0 {
				t.Errorf("the one that knows all has given up its state %d times", n)
			}
			two.attach(login(t, srv, romeo+"/two"), nil).join(hall, "Montague")
			two.speak(hall, "from the other")
			juliets.awaitText("from the other")
			readable(t, juliets)
		})
	}
}
