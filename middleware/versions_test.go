package middleware_test

import (
	"errors"
	"testing"
	"time"

	"example.org/omellium/devicelist"
	"example.org/omellium/middleware"
	"example.org/omellium/omemo"
)

// Config.Versions says what is advertised, and what leaves: not a key in another
// version, be it to a device that has been spoken with in it, or in answer to it.
func TestVersionsGovernWhatIsSent(t *testing.T) {
	t.Parallel()
	const mercutio = "mercutio@example.net"
	srv := network(t, romeo, juliet, mercutio)
	a := connected(t, srv, romeo, chat(omemo.V2))
	c := chat(omemo.V2)
	c.AllowDowngrade = true
	b := connected(t, srv, juliet, c)
	newer := chat(omemo.V2)
	newer.Versions = []omemo.Version{omemo.V2}
	connected(t, srv, mercutio, newer)
	a.say(juliet, "one")
	b.awaitText("one")
	b.say(romeo, "two")
	a.awaitText("two")
	a.om.Close()

	older := chat(omemo.V2)
	older.Store, older.Versions = reopened(a.store), []omemo.Version{omemo.Legacy}
	before := len(srv.Wire())
	a = connected(t, srv, romeo, older)
	if !errors.Is(a.om.Withdrawn(omemo.V2), middleware.ErrPurged) || listed(t, client(t, srv, juliet), romeo, omemo.V2).Contains(device(t, a)) {
		t.Error("still advertised")
	}
	// juliet does not know yet: what she writes in the old session is read.
	b.say(romeo, "three")
	if got := a.awaitText("three"); got.Info.Version != omemo.V2 {
		t.Fatalf("came in %v", got.Info.Version)
	}
	a.say(juliet, "four")
	if got := b.awaitText("four"); got.Info.Version != omemo.Legacy {
		t.Errorf("came in %v", got.Info.Version)
	}
	if _, err := a.om.Send(t.Context(), to(mercutio), text("canary")); !errors.Is(err, omemo.ErrVersion) {
		t.Errorf("to a device of the other version: %v", err)
	}
	if _, err := a.om.Replace(t.Context(), to(mercutio).To); !errors.Is(err, omemo.ErrNoDevices) {
		t.Errorf("replaced: %v", err)
	}
	a.flush()
	for _, s := range srv.Wire()[before:] {
		if fromTo(romeo, `<encrypted xmlns="urn:xmpp:omemo:2"`)(s) {
			t.Errorf("left: %s", s.XML)
		}
	}
	noLeak(t, srv, "canary")
}

// A device of a contact whose presence we do not see: no event brings its list,
// which is asked for before something is sent, when it is old.
func TestListsWithoutPresence(t *testing.T) {
	for _, prepared := range []bool{false, true} {
		srv := network(t, romeo, juliet)
		c := chat(omemo.V2)
		c.ListAge = time.Nanosecond
		a, b := connected(t, srv, romeo, c), connected(t, srv, juliet+"/one", chat(omemo.V2))
		a.say(juliet, "to one")
		b.awaitText("to one")
		later := connected(t, srv, juliet+"/two", chat(omemo.V2))
		a.flush()
		for _, s := range srv.Wire() {
			if s.Session == a.session.LocalAddr().String() && fromTo(romeo, "")(s) == false && holdsAll(string(s.XML), []string{"pubsub#event", devicelist.NodeV2, juliet}) {
				t.Fatalf("an event has come: %s", s.XML)
			}
		}
		if prepared {
			ok(t, a.om.Prepare(t.Context(), to(juliet).To))
		}
		a.say(juliet, "to both")
		b.awaitText("to both")
		later.awaitText("to both")
	}
}
