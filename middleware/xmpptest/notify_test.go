package xmpptest

import (
	"fmt"
	"testing"
)

// event describes the pubsub events among stanzas: sender, and what happened.
func events(list []*element) []string {
	found := []string{}
	for _, e := range list {
		ev := e.child(nsPubsubEvent, "event")
		if ev == nil {
			continue
		}
		what := ev.elements()[0]
		line := fmt.Sprintf("%s %s %s", e.get("from"), what.name.Local, what.get("node"))
		for _, it := range what.elements() {
			line += fmt.Sprintf(" %s %s=%s", it.name.Local, it.get("id"), allText(it))
		}
		if e.get("type") != "headline" {
			line += " of type " + e.get("type")
		}
		found = append(found, line)
	}
	return found
}

func expectEvents(t *testing.T, p *peer, want ...string) {
	t.Helper()
	if got := events(p.sync()); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%s: events %q, want %q", p.full, got, want)
	}
}

func TestNotifications(t *testing.T) {
	srv := newServer(t)
	for _, other := range []string{"juliet@example.net", "tybalt@example.net"} {
		if err := srv.Befriend("romeo@example.net", other); err != nil {
			t.Fatal(err)
		}
	}
	owner1 := available(t, srv, "romeo@example.net/1", "n+notify")
	owner2 := available(t, srv, "romeo@example.net/2", "other+notify")
	contact := available(t, srv, "juliet@example.net/a", "n+notify", "closed+notify")
	uninterested := available(t, srv, "tybalt@example.net/a")
	offline := login(t, srv, "juliet@example.net/b")
	all := []*peer{owner1, owner2, contact, uninterested, offline}
	for _, p := range all {
		p.sync()
	}
	none := func(list ...*peer) {
		t.Helper()
		for _, p := range list {
			expectEvents(t, p)
		}
	}

	owner1.send("<iq type='set' id='p'>%s</iq>", publish("n", "1", "one"))
	expectEvents(t, owner1, "romeo@example.net items n item 1=one")
	expectEvents(t, contact, "romeo@example.net items n item 1=one")
	none(owner2, uninterested, offline)

	owner2.iq("set", "", publish("closed", "1", "x", "access_model", "whitelist"))
	none(all...)

	owner2.iq("set", "", pubsub("<retract node='n' notify='1'><item id='1'/></retract>"))
	expectEvents(t, owner1, "romeo@example.net items n retract 1=")
	expectEvents(t, contact, "romeo@example.net items n retract 1=")

	owner2.iq("set", "", publish("n", "2", "two"))
	owner2.iq("set", "", owner("<purge node='n'/>"))
	owner2.iq("set", "", owner("<delete node='n'/>"))
	expectEvents(t, contact, "romeo@example.net items n item 2=two", "romeo@example.net purge n", "romeo@example.net delete n")
	owner1.sync()

	owner2.iq("set", "", publish("n", "3", "quiet", "notify_retract", "0", "notify_delete", "false"))
	contact.sync()
	owner2.iq("set", "", pubsub("<retract node='n'><item id='3'/></retract>"))
	owner2.iq("set", "", owner("<delete node='n'/>"))
	expectEvents(t, contact)

	contact.send("<presence type='unavailable'/>")
	contact.sync()
	owner2.iq("set", "", publish("n", "4", "missed"))
	expectEvents(t, contact)

	if err := srv.Publish("romeo@example.net", "n", "5", "<t xmlns='urn:t'>planted</t>"); err != nil {
		t.Fatal(err)
	}
	owner1.sync()
	contact.announce("n+notify")
	expectEvents(t, contact, "romeo@example.net items n item 5=planted")
}

func TestLastItems(t *testing.T) {
	srv := newServer(t)
	if err := srv.Befriend("romeo@example.net", "juliet@example.net"); err != nil {
		t.Fatal(err)
	}
	romeo := login(t, srv, "romeo@example.net/1")
	romeo.iq("set", "", publish("n", "1", "one", "max_items", "max"))
	romeo.iq("set", "", publish("n", "2", "two"))
	romeo.iq("set", "", publish("m", "1", "em", "access_model", "open"))
	romeo.iq("set", "", publish("closed", "1", "x", "access_model", "whitelist"))
	romeo.iq("set", "", publish("silent", "1", "x", "send_last_published_item", "never"))
	juliet := available(t, srv, "juliet@example.net/a", "n+notify", "closed+notify", "silent+notify")
	expectEvents(t, juliet, "romeo@example.net items n item 2=two")
	juliet.announce("m+notify", "n+notify")
	expectEvents(t, juliet, "romeo@example.net items m item 1=em")
	juliet.send("<presence/>")
	juliet.sync()
	juliet.announce("n+notify")
	expectEvents(t, juliet, "romeo@example.net items n item 2=two")

	romeo.announce("closed+notify")
	expectEvents(t, romeo, "romeo@example.net items closed item 1=x")

	stranger := available(t, srv, "tybalt@example.net/a", "m+notify", "n+notify")
	expectEvents(t, stranger)
	if err := srv.Befriend("romeo@example.net", "tybalt@example.net"); err != nil {
		t.Fatal(err)
	}
	expectEvents(t, stranger, "romeo@example.net items m item 1=em", "romeo@example.net items n item 2=two")
}

// TestCapsAreVerified announces one set of features and answers with another.
func TestCapsAreVerified(t *testing.T) {
	srv := newServer(t)
	p := login(t, srv, "romeo@example.net/a")
	p.iq("set", "", publish("n", "1", "one"))
	for _, answer := range []string{
		"<iq type='result' id='%s'><query xmlns='" + nsInfo + "'><feature var='n+notify'/></query></iq>",
		"<iq type='result' id='%s'/>",
		"<iq type='error' id='%s'/>",
	} {
		p.send("<presence/><presence><c xmlns='%s' hash='sha-1' node='urn:test' ver='AAAA'/></presence>", nsCaps)
		e := p.recv()
		p.send(answer, e.get("id"))
		expectEvents(t, p)
	}
	p.send("<presence/><presence><c xmlns='%s' node='urn:test' ver='1.0'/></presence>", nsCaps)
	p.send("<iq type='result' id='%s'><query xmlns='"+nsInfo+"'><feature var='n+notify'/></query></iq>", p.recv().get("id"))
	expectEvents(t, p, "romeo@example.net items n item 1=one")
}
