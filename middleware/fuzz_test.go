package middleware

import (
	"errors"
	"strings"
	"testing"

	"example.org/omellium/omemo"
	"example.org/omellium/omemo/memstore"
	"example.org/omellium/stanza"
	"mellium.im/xmpp/jid"
)

// FuzzAccount: two addresses are of one account exactly if they have the same
// key, and the key of a key is itself.
func FuzzAccount(f *testing.F) {
	f.Add("romeo@example.net", "ROMEO@Example.Net/orchard")
	f.Add("romeo@example.net/a/b@c", "romeo@example.net")
	f.Add("ﬁ@example.net", "fi@example.net")
	f.Add("a\u00adb@example.net", "ab@example.net")
	f.Add("romeo@example.net.", "romeo@example.net")
	f.Add("@", "/")
	f.Add("example.net/romeo@example.net", "romeo@example.net")
	f.Add("rom\\40eo@example.net", "rom@eo@example.net")
	f.Fuzz(func(t *testing.T, a, b string) {
		ka, kb := bareOf(a), bareOf(b)
		ja, errA := jid.Parse(a)
		jb, errB := jid.Parse(b)
		if errA == nil && strings.HasSuffix(ja.Domainpart(), ".") {
			errA = errors.New("one dot of several is left")
		}
		if errB == nil && strings.HasSuffix(jb.Domainpart(), ".") {
			errB = errors.New("one dot of several is left")
		}
		if (ka == "") != (errA != nil) || (kb == "") != (errB != nil) {
			t.Fatalf("%q has key %q, %v; %q has key %q, %v", a, ka, errA, b, kb, errB)
		}
		if errA != nil || errB != nil {
			return
		}
		if ja.Bare().Equal(jb.Bare()) != (ka == kb) {
			t.Fatalf("%q has key %q, %q has key %q", a, ka, b, kb)
		}
		if again := bareOf(ka); again != ka {
			t.Fatalf("the key of %q is %q, and of that %q", a, ka, again)
		}
	})
}

// FuzzArchive reads results of an archive, carbons and what looks like them, with
// one query open. What is taken out of a wrapper came from the account that may
// send it.
func FuzzArchive(f *testing.F) {
	const inner = "<message xmlns='jabber:client' from='romeo@example.net/x' to='juliet@example.net'><body>x</body></message>"
	for _, from := range []string{"", "juliet@example.net", "JULIET@example.net", "romeo@example.net", "juliet@example.net/x", "example.net"} {
		for _, id := range []string{"q", "p", ""} {
			f.Add("<message xmlns='jabber:client' from='" + from + "'><result xmlns='urn:xmpp:mam:2' queryid='" + id + "' id='1'>" +
				"<forwarded xmlns='urn:xmpp:forward:0'><delay xmlns='urn:xmpp:delay' stamp='2026-01-01T00:00:00Z'/>" + inner + "</forwarded></result></message>")
		}
		for _, side := range []string{"sent", "received"} {
			f.Add("<message xmlns='jabber:client' from='" + from + "'><" + side + " xmlns='urn:xmpp:carbons:2'><forwarded xmlns='urn:xmpp:forward:0'>" +
				inner + "</forwarded></" + side + "></message>")
		}
	}
	f.Add(inner)
	own := jid.MustParse("juliet@example.net")
	manager, err := omemo.NewManager(f.Context(), memstore.New(own.String()), omemo.Options{})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, s string) {
		e, err := stanza.ParseElement([]byte(s), stanza.DefaultLimits)
		if err != nil {
			return
		}
		m := &Middleware{own: identity{JID: own.String()}, account: own, manager: manager}
		l := &link{m: m, full: own, ctx: t.Context()}
		l.rooms.init(l)
		query := stanza.NewElement(stanza.NSClient, "iq", stanza.NewElement(nsArchive, "query").SetAttribute("queryid", "q")).
			SetAttribute("type", "set").SetAttribute("id", "1")
		l.archives.query(own.String(), query)
		a, err := l.arrive(e, "")
		if err != nil {
			if !errors.Is(err, errOrigin) {
				t.Fatal(err)
			}
			return
		}
		if a.message == a.outer {
			return
		}
		from, _ := e.Attribute("from")
		if from != "" && !strings.EqualFold(from, own.String()) {
			if j, err := jid.Parse(from); err != nil || !j.Equal(own) {
				t.Fatalf("taken out of a wrapper from %q", from)
			}
		}
		if result := e.Child(nsArchive, "result"); result != nil && (attribute(result, "queryid") != "q" || a.live) {
			t.Fatal("a result that nobody has asked for")
		}
		if a.sender != own.String() && a.recipient != own.String() && e.Child(nsCarbons, "received") != nil {
			t.Fatal("a carbon of somebody else's message")
		}
		for c := range a.message.Elements() {
			if c.Name.Space == nsForward || c.Name.Space == nsArchive {
				t.Fatal("a wrapper in a wrapper")
			}
		}
	})
}
