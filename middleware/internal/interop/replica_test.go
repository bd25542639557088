//go:build live && unix

package interop

import (
	"encoding/xml"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"mellium.im/xmlstream"
	xmppstanza "mellium.im/xmpp/stanza"

	"example.org/omellium/middleware/internal/lab"
	"example.org/omellium/omemo/memstore"
	"example.org/omellium/omemo/sqlstore"
	"example.org/omellium/omemo/storetest/pgtest"
)

// databasePassword stands in the URL of the database.
const databasePassword = "canary-database-password"

// replicas returns two bots that share an account in one PostgreSQL database.
func replicas(t *testing.T, s *lab.Server, a *lab.Account) (server *pgtest.Server, first, second *echobot) {
	t.Helper()
	server, err := pgtest.Start("fsync=on")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Stop(); err != nil {
			t.Error(err)
		}
	})
	url := strings.Replace(server.Database(t), "postgres@", "postgres:"+databasePassword+"@", 1)
	first, second = idleEchobot(t, s, a), idleEchobot(t, s, a)
	first.db, second.db = url, url
	t.Cleanup(func() {
		for _, bot := range []*echobot{first, second} {
			if strings.Contains(bot.report(), databasePassword) {
				t.Error("the password of the database was logged")
			}
		}
	})
	return server, first, second
}

// launchStandby starts a second bot and waits until it waits.
func launchStandby(t *testing.T, b *echobot) {
	t.Helper()
	b.launch(t)
	if !lab.Until(deadline, func() bool { return b.says("waiting for the account") }) {
		t.Fatal("the second bot does not wait")
	}
	if b.says("account taken") {
		t.Fatal("two bots have the account")
	}
}

// departures counts how often an account went offline, as another one sees it.
type departures struct {
	of string

	mu sync.Mutex
	n  int
}

// HandleXMPP implements xmpp.Handler.
func (d *departures) HandleXMPP(_ xmlstream.TokenReadEncoder, start *xml.StartElement) error {
	if start.Name.Local != "presence" {
		return nil
	}
	p, err := xmppstanza.NewPresence(*start)
	if err == nil && p.Type == xmppstanza.UnavailablePresence && p.From.Bare().String() == d.of {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.n++
	}
	return nil
}

func (d *departures) count() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.n
}

// TestReplicas kills the one of two bots that serves, and the other one after
// it. The waiting one takes over within the time of a lease, as the same device;
// what was sent in between is answered.
func TestReplicas(t *testing.T) {
	s := lab.Prosody(t)
	account, user := s.Account(t, "bot"), s.Account(t, "user")
	lab.Befriend(t, account, user)
	_, serving, waiting := replicas(t, s, account)
	serving.start(t)
	gone := &departures{of: account.JID}
	peer := newProgramWith(t, s, user, memstore.New(user.JID), gone)
	bodies := texts("peer", user, 40)
	sendAll(t, peer, account.JID, bodies[:10])
	expect(t, peer, account.JID, bodies[:10])
	for round := range 3 {
		from := 10 * (round + 1)
		launchStandby(t, waiting)
		waiting.Device = serving.Device
		serving.kill()
		killed := time.Now()
		// What is sent before the server notices is lost to any client without
		// XEP-0198 or an archive.
		if !lab.Until(deadline, func() bool { return gone.count() > round }) {
			t.Fatal("the server has not noticed that the bot is gone")
		}
		sendAll(t, peer, account.JID, bodies[from:from+5])
		if !lab.Until(deadline, func() bool { return waiting.says("account taken") }) {
			t.Fatal("nobody took the account over")
		}
		taken := time.Since(killed)
		waiting.awaitOnline(t)
		online := time.Since(killed)
		peer.AwaitBody(t, account.JID, bodies[from+4])
		answered := time.Since(killed)
		sendAll(t, peer, account.JID, bodies[from+5:from+10])
		peer.AwaitBody(t, account.JID, bodies[from+9])
		t.Logf("after a SIGKILL: the account was taken over after %v, the next bot online after %v, all of what was sent in between answered after %v",
			taken.Round(time.Millisecond), online.Round(time.Millisecond), answered.Round(time.Millisecond))
		// The rest is for looking, which is done five times a second, and for a busy
		// machine.
		if most := sqlstore.DefaultLease + 2*time.Second; taken > most {
			t.Errorf("the takeover took %v, want at most %v", taken, most)
		}
		serving, waiting = waiting, serving
	}
	// A bot that was killed may be handed the last message again.
	got := slices.Compact(peer.Bodies(account.JID))
	if !slices.Equal(got, bodies) {
		t.Errorf("got  %q\nwant %q", got, bodies)
	}
	secretEcho(t, s, account, bodies)
}

// TestLostLease stops a bot for longer than its lease lasts. The other one
// serves; when the first one wakes up, it ends with an error.
func TestLostLease(t *testing.T) {
	s := lab.Prosody(t)
	account, user := s.Account(t, "bot"), s.Account(t, "user")
	lab.Befriend(t, account, user)
	_, first, second := replicas(t, s, account)
	first.start(t)
	peer := newProgram(t, s, user)
	bodies := texts("peer", user, 10)
	sendAll(t, peer, account.JID, bodies[:5])
	expect(t, peer, account.JID, bodies[:5])
	launchStandby(t, second)
	if err := first.process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	second.Device = first.Device
	second.awaitOnline(t)
	if err := first.process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	select {
	case <-first.process.Done():
	case <-time.After(deadline):
		t.Fatal("a bot that lost its account goes on")
	}
	if first.process.Err() == nil || !first.says("the account was lost to another replica") {
		t.Errorf("the bot ended with %v", first.process.Err())
	}
	sendAll(t, peer, account.JID, bodies[5:])
	peer.AwaitBody(t, account.JID, bodies[9])
	if got := slices.Compact(peer.Bodies(account.JID)); !slices.Equal(got, bodies) {
		t.Errorf("got  %q\nwant %q", got, bodies)
	}
	secretEcho(t, s, account, bodies)
}

// TestDatabaseGone stops the database. The bot ends with an error within the
// time of its lease.
func TestDatabaseGone(t *testing.T) {
	s := lab.Prosody(t)
	account := s.Account(t, "bot")
	server, bot, _ := replicas(t, s, account)
	bot.start(t)
	if err := server.Stop(); err != nil {
		t.Fatal(err)
	}
	select {
	case <-bot.process.Done():
	case <-time.After(deadline):
		t.Fatal("a bot without its database goes on")
	}
	if bot.process.Err() == nil || !bot.says("the account was lost to another replica") {
		t.Errorf("the bot ended with %v", bot.process.Err())
	}
}
