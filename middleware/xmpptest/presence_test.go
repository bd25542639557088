package xmpptest

import (
	"errors"
	"strings"
	"testing"
)

func TestPresence(t *testing.T) {
	srv := newServer(t)
	if err := srv.Befriend("romeo@example.net", "juliet@example.net"); err != nil {
		t.Fatal(err)
	}
	stranger := available(t, srv, "tybalt@example.net/a")
	juliet := available(t, srv, "juliet@example.net/a")
	one := login(t, srv, "romeo@example.net/1")
	one.send("<presence><status>here</status></presence>")
	expect(t, "first resource", one.sync(), "presence juliet@example.net/a")
	expect(t, "contact", juliet.sync(), "presence romeo@example.net/1 here")
	two := login(t, srv, "romeo@example.net/2")
	two.send("<presence/>")
	expect(t, "second resource", two.sync(), "presence romeo@example.net/1 here", "presence juliet@example.net/a")
	expect(t, "first resource", one.sync(), "presence romeo@example.net/2")
	two.send("<presence to='tybalt@example.net'/><presence to='nobody@example.net'/><presence to='tybalt@example.net/x'/><presence to='@'/>")
	two.sync()
	expect(t, "stranger", stranger.sync(), "presence romeo@example.net/2")
	_ = two.conn.Close()
	if _, err := srv.Await(waiting(t), func(st Stanza) bool {
		return st.Session == stranger.full && strings.Contains(string(st.XML), "unavailable")
	}); err != nil {
		t.Fatal(err)
	}
	expect(t, "stranger", stranger.sync(), "presence unavailable romeo@example.net/2")
	expect(t, "contact", juliet.sync(), "presence romeo@example.net/2", "presence unavailable romeo@example.net/2")
	one.send("<presence type='unavailable'><status>gone</status></presence><presence type='unavailable'/>")
	one.sync()
	expect(t, "contact", juliet.sync(), "presence unavailable romeo@example.net/1 gone")
}

func TestBefriendOnline(t *testing.T) {
	srv := newServer(t)
	romeo, juliet := available(t, srv, "romeo@example.net/a"), available(t, srv, "juliet@example.net/a")
	if e := romeo.iq("get", "", "<query xmlns='jabber:iq:roster'/>"); len(e.elements()[0].elements()) != 0 {
		t.Errorf("roster: %s", e.xml())
	}
	if err := srv.Befriend("romeo@example.net", "juliet@example.net"); err != nil {
		t.Fatal(err)
	}
	got := romeo.sync()
	expect(t, "romeo", got, "iq set", "presence juliet@example.net/a")
	if item := got[0].child(nsRoster, "query").child(nsRoster, "item"); item.get("jid") != juliet.bare || item.get("subscription") != "both" {
		t.Errorf("roster push: %s", got[0].xml())
	}
	expect(t, "juliet", juliet.sync(), "presence romeo@example.net/a")
	if err := srv.Befriend("romeo@example.net", "nobody@example.net"); !errors.Is(err, ErrNoAccount) {
		t.Errorf("got %v", err)
	}
	if err := srv.Befriend("romeo@example.net", "romeo@example.net"); err == nil {
		t.Error("an account became its own contact")
	}
}

// TestSubscription follows RFC 6121 §3.
func TestSubscription(t *testing.T) {
	srv := newServer(t)
	romeo := available(t, srv, "romeo@example.net/a")
	subscription := func(p *peer, of string) string {
		t.Helper()
		for _, item := range p.iq("get", "", "<query xmlns='jabber:iq:roster'/>").elements()[0].elements() {
			if item.get("jid") == of {
				return strings.TrimSpace(item.get("subscription") + " " + item.get("ask"))
			}
		}
		return ""
	}
	romeo.send("<presence to='juliet@example.net/x' type='subscribe'/>")
	if got := subscription(romeo, "juliet@example.net"); got != "none subscribe" {
		t.Errorf("after subscribe: %q", got)
	}
	juliet := login(t, srv, "juliet@example.net/a")
	if got := subscription(juliet, "romeo@example.net"); got != "" {
		t.Errorf("a request is on the roster: %q", got)
	}
	juliet.send("<presence/>")
	expect(t, "request", juliet.sync(), "presence subscribe romeo@example.net")
	juliet.send("<presence to='romeo@example.net' type='subscribed'/>")
	juliet.sync()
	expect(t, "approved", romeo.sync(), "presence subscribed juliet@example.net", "iq set", "presence juliet@example.net/a")
	juliet.send("<presence to='tybalt@example.net' type='subscribed'/>")
	if a, b := subscription(romeo, juliet.bare), subscription(juliet, romeo.bare); a != "to" || b != "from" {
		t.Errorf("after subscribed: %q and %q", a, b)
	}
	romeo.send("<presence to='juliet@example.net' type='subscribe'/>")
	expect(t, "again", romeo.sync(), "presence subscribed juliet@example.net")

	juliet.send("<presence to='romeo@example.net' type='subscribe'/>")
	juliet.sync()
	romeo.send("<presence to='juliet@example.net' type='subscribed'/>")
	if a, b := subscription(romeo, juliet.bare), subscription(juliet, romeo.bare); a != "both" || b != "both" {
		t.Errorf("mutual: %q and %q", a, b)
	}
	romeo.sync()
	juliet.send("<presence to='romeo@example.net' type='unsubscribed'/>")
	juliet.sync()
	expect(t, "cancelled", romeo.sync(), "presence unavailable juliet@example.net/a", "presence unsubscribed juliet@example.net", "iq set")
	if got := subscription(romeo, juliet.bare); got != "from" {
		t.Errorf("after unsubscribed: %q", got)
	}
	romeo.iq("set", "", "<query xmlns='jabber:iq:roster'><item jid='juliet@example.net' name='J'><group>g</group></item></query>")
	if got := subscription(romeo, juliet.bare); got != "from" {
		t.Errorf("after renaming: %q", got)
	}
	romeo.iq("set", "", "<query xmlns='jabber:iq:roster'><item jid='juliet@example.net' subscription='remove'/></query>")
	if a, b := subscription(romeo, juliet.bare), subscription(juliet, romeo.bare); a != "" || b != "none" {
		t.Errorf("after removing: %q and %q", a, b)
	}
	for _, item := range []string{"", "<item jid='@'/>", "<item jid='romeo@example.net'/>"} {
		if got := condition(romeo.iq("set", "", "<query xmlns='jabber:iq:roster'>"+item+"</query>")); got != "modify bad-request" {
			t.Errorf("roster item %q: %q", item, got)
		}
	}
	romeo.sync()
	romeo.send("<presence to='nobody@example.net' type='subscribe'/><presence to='romeo@example.net' type='subscribe'/>" +
		"<presence to='@' type='subscribe'/><presence to='tybalt@example.net' type='unsubscribe'/><presence to='tybalt@example.net' type='unsubscribed'/>")
	expect(t, "to nobody", romeo.sync(), "iq set")
}

// TestCapsHash uses the examples of XEP-0115 §5.2 and §5.3.
func TestCapsHash(t *testing.T) {
	const simple = `<query xmlns='http://jabber.org/protocol/disco#info'><identity category='client' name='Exodus 0.9.1' type='pc'/>
		<feature var='http://jabber.org/protocol/caps'/><feature var='http://jabber.org/protocol/disco#info'/>
		<feature var='http://jabber.org/protocol/disco#items'/><feature var='http://jabber.org/protocol/muc'/></query>`
	const complex = `<query xmlns='http://jabber.org/protocol/disco#info'>
		<identity xml:lang='en' category='client' name='Psi 0.11' type='pc'/><identity xml:lang='el' category='client' name='Ψ 0.11' type='pc'/>
		<feature var='http://jabber.org/protocol/caps'/><feature var='http://jabber.org/protocol/disco#info'/>
		<feature var='http://jabber.org/protocol/disco#items'/><feature var='http://jabber.org/protocol/muc'/>
		<x xmlns='jabber:x:data' type='result'><field var='FORM_TYPE' type='hidden'><value>urn:xmpp:dataforms:softwareinfo</value></field>
		<field var='ip_version' type='text-multi'><value>ipv4</value><value>ipv6</value></field><field var='os'><value>Mac</value></field>
		<field var='os_version'><value>10.5.1</value></field><field var='software'><value>Psi</value></field>
		<field var='software_version'><value>0.11</value></field></x></query>`
	for _, test := range []struct {
		name, query, function, ver string
		want                       bool
	}{
		{"simple", simple, "sha-1", "QgayPKawpkPSDYmwT/WM94uAlu0=", true},
		{"complex", complex, "sha-1", "q07IKJEyjvHSyhy//CH0CxmKi8w=", true},
		{"wrong", simple, "sha-1", "q07IKJEyjvHSyhy//CH0CxmKi8w=", false},
		{"sha-256", simple, "sha-256", "", false},
		{"sha-512", simple, "sha-512", "", false},
		{"old form", simple, "", "0.9", true},
	} {
		e, err := parseElement([]byte(test.query))
		if err != nil {
			t.Fatal(err)
		}
		if got := capsMatch(e, test.function, test.ver); got != test.want {
			t.Errorf("%s: %v", test.name, got)
		}
	}
}
