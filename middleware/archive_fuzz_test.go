package middleware

import (
	"strings"
	"testing"

	"example.org/omellium/omemo/memstore"
	"example.org/omellium/stanza"
	"mellium.im/xmpp/jid"
)

// FuzzArchivePage reads what comes while a question of our own is open: a run of
// stanzas. What is taken for a result comes from the archive that was asked, in
// the bounds of a page, and what is made of it is a message to us, from us, or of
// the room.
func FuzzArchivePage(f *testing.F) {
	const (
		own  = "juliet@example.net"
		room = "verona@rooms.example.net"
	)
	result := func(from, query, id, stamp, inner string) string {
		return "<message xmlns='jabber:client' from='" + from + "' to='" + own + "/x'><result xmlns='urn:xmpp:mam:2' queryid='" + query + "' id='" + id +
			"'><forwarded xmlns='urn:xmpp:forward:0'><delay xmlns='urn:xmpp:delay' stamp='" + stamp + "'/>" + inner + "</forwarded></result></message>"
	}
	message := func(from, to, typ, inner string) string {
		return "<message xmlns='jabber:client' from='" + from + "' to='" + to + "' type='" + typ + "'>" + inner + "</message>"
	}
	for _, from := range []string{own, "", room, "romeo@example.net", own + "/x"} {
		for _, m := range []string{
			message("romeo@example.net/x", own, "chat", "<body>x</body>"), message(own+"/y", "romeo@example.net", "chat", "<body>x</body>"),
			message(room+"/nick", own+"/x", "groupchat", "<body>x</body>"), message(room+"/nick", "", "groupchat", "<stanza-id xmlns='urn:xmpp:sid:0' by='"+room+"' id='1'/>"),
			message("romeo@example.net", "tybalt@example.net", "chat", "<body>x</body>"),
			message(own, own, "", "<sent xmlns='urn:xmpp:carbons:2'/>"), "",
		} {
			f.Add(result(from, "p-page-1", "1", "2026-01-01T00:00:00Z", m), false)
			f.Add(result(from, "p-page-1", "1", "then", m)+result(from, "p-page-1", "", "", m), true)
		}
	}
	many := strings.Repeat(result(own, "p-page-1", "1", "2026-01-01T00:00:00Z", message("romeo@example.net", own, "chat", "")), 60)
	f.Add(many, false)
	f.Add("<iq xmlns='jabber:client' type='result'><fin xmlns='urn:xmpp:mam:2' complete='true'><set xmlns='http://jabber.org/protocol/rsm'>"+
		"<first index='3'>1</first><last>2</last><count>7</count></set></fin></iq>", true)
	m, err := New(f.Context(), Config{Store: memstore.New(own)})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, s string, inRoom bool) {
		run, err := stanza.ParseElement([]byte("<run xmlns='jabber:client'>"+s+"</run>"), stanza.DefaultLimits)
		if err != nil {
			return
		}
		l := &link{m: m, full: jid.MustParse(own + "/x"), ctx: t.Context()}
		l.requests.prefix = "p-"
		l.rooms.init(l)
		archive := own
		if inRoom {
			archive = room
		}
		id, open := l.pages.begin(l, archive)
		for e := range run.Elements() {
			if set := e.Child(nsPaging, "set"); set != nil && left(set, 0) < 0 {
				t.Fatal("less than nothing is left")
			}
			before := len(open.results)
			if l.collect(e) && len(open.results) > before && !l.fromArchive(archive, attribute(e, "from")) {
				t.Fatalf("taken from %q", attribute(e, "from"))
			}
		}
		results, err := l.pages.results(id, open)
		if len(results) > archivePage {
			t.Fatalf("%d results", len(results))
		}
		if err != nil {
			return
		}
		for _, r := range results {
			if r.id == "" || len(r.id) > maxArchiveID {
				t.Fatalf("id of %d bytes", len(r.id))
			}
			if r.message == nil {
				continue
			}
			before := string(r.message.AppendXML(nil))
			a, err := l.unpack(archive, r)
			if string(r.message.AppendXML(nil)) != before {
				t.Fatal("what came has changed")
			}
			switch {
			case err != nil:
			case a.live:
				t.Fatal("it is of now")
			case inRoom && (a.room != room || attribute(a.message, "type") != "groupchat"):
				t.Fatalf("of the room %q", a.room)
			case !inRoom && a.sender != own && a.recipient != own && a.room == "" && !a.private:
				t.Fatalf("from %q to %q", a.sender, a.recipient)
			}
		}
	})
}
