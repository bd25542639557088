package xmpptest

import (
	"fmt"
	"strings"
	"testing"
)

// query asks an archive and returns the bodies and ids of the results, and what
// the answer says.
func (p *peer) query(to, inner string) (bodies, ids []string, answer *element) {
	p.t.Helper()
	if to != "" {
		to = "to='" + to + "'"
	}
	p.send("<iq type='set' id='query' %s><query xmlns='urn:xmpp:mam:2' queryid='q'>%s</query></iq>", to, inner)
	for _, e := range p.sync() {
		if e.get("id") == "query" {
			answer = e
		}
		r := e.child(nsMAM, "result")
		if r == nil {
			continue
		}
		m := r.child(nsForward, "forwarded").child(nsClient, "message")
		body := ""
		if b := m.child(nsClient, "body"); b != nil {
			body = b.content()
		}
		bodies, ids = append(bodies, body), append(ids, r.get("id"))
	}
	return bodies, ids, answer
}

func set(inner string) string {
	return "<set xmlns='http://jabber.org/protocol/rsm'>" + inner + "</set>"
}

func TestArchive(t *testing.T) {
	srv := newServer(t, Archives())
	romeo, juliet := available(t, srv, "romeo@example.net/a"), login(t, srv, "juliet@example.net/a")
	for i := range 5 {
		romeo.send("<message type='chat' to='juliet@example.net'><body>%d</body><stanza-id xmlns='urn:xmpp:sid:0' by='juliet@example.net' id='forged'/></message>", i)
	}
	romeo.send("<message type='chat' to='juliet@example.net'><body>secret</body><no-store xmlns='urn:xmpp:hints'/></message>")
	romeo.send("<message type='chat' to='juliet@example.net'><composing xmlns='http://jabber.org/protocol/chatstates'/></message>")
	romeo.sync()
	for _, c := range []struct {
		name, inner, bodies string
		complete            bool
	}{
		{"all", "", "0 1 2 3 4", true},
		{"first", set("<max>2</max>"), "0 1", false},
		{"last", set("<max>2</max><before/>"), "3 4", false},
		{"before", set("<max>2</max><before>ID3</before>"), "1 2", false},
		{"after", set("<max>2</max><after>ID2</after>"), "3 4", true},
		{"after the last", set("<after>ID4</after>"), "", true},
		{"none", set("<max>0</max>"), "", false},
		{"with", "<x xmlns='jabber:x:data' type='submit'><field var='with'><value>romeo@example.net</value></field></x>", "0 1 2 3 4", true},
		{"with nobody", "<x xmlns='jabber:x:data' type='submit'><field var='with'><value>tybalt@example.net</value></field></x>", "", true},
		{"in future", "<x xmlns='jabber:x:data' type='submit'><field var='start'><value>2200-01-01T00:00:00Z</value></field></x>", "", true},
		{"in past", "<x xmlns='jabber:x:data' type='submit'><field var='end'><value>2000-01-01T00:00:00Z</value></field></x>", "", true},
	} {
		all, err := srv.Archived("juliet@example.net")
		if err != nil || len(all) != 5 {
			t.Fatalf("%d messages: %v", len(all), err)
		}
		inner := c.inner
		for i, id := range all {
			inner = strings.ReplaceAll(inner, fmt.Sprintf("ID%d", i), id)
		}
		bodies, ids, answer := juliet.query("", inner)
		fin := answer.child(nsMAM, "fin")
		if fin == nil || strings.Join(bodies, " ") != c.bodies || (fin.get("complete") == "true") != c.complete {
			t.Errorf("%s: %q, %s", c.name, bodies, answer.xml())
			continue
		}
		if last := fin.child(nsRSM, "set").child(nsRSM, "last"); len(ids) > 0 && last.content() != ids[len(ids)-1] {
			t.Errorf("%s: last %s", c.name, answer.xml())
		}
	}
	for name, inner := range map[string]string{"unknown id": set("<after>nobody</after>"), "bad number": set("<max>x</max>"),
		"bad time": "<x xmlns='jabber:x:data' type='submit'><field var='end'><value>x</value></field></x>"} {
		if _, _, answer := juliet.query("", inner); answer.get("type") != "error" {
			t.Errorf("%s: %s", name, answer.xml())
		}
	}
	if _, _, answer := romeo.query("juliet@example.net", ""); answer.get("type") != "error" {
		t.Errorf("somebody else's archive: %s", answer.xml())
	}
	if bodies, _, _ := romeo.query("", ""); len(bodies) != 5 {
		t.Errorf("the sender's archive: %q", bodies)
	}
	if err := srv.TrimArchive("juliet@example.net", 2); err != nil {
		t.Fatal(err)
	}
	if bodies, _, _ := juliet.query("", ""); strings.Join(bodies, " ") != "3 4" {
		t.Errorf("trimmed: %q", bodies)
	}
}

// What is delivered carries the id that it has in the archive, and no other.
func TestStanzaID(t *testing.T) {
	srv := newServer(t, Archives())
	romeo, juliet := available(t, srv, "romeo@example.net/a"), available(t, srv, "juliet@example.net/a")
	romeo.send("<message type='chat' to='juliet@example.net'><body>0</body><stanza-id xmlns='urn:xmpp:sid:0' by='juliet@example.net' id='forged'/></message>")
	romeo.sync()
	ids, err := srv.Archived("juliet@example.net")
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, e := range juliet.sync() {
		for _, c := range e.elements() {
			if c.is(nsSID, "stanza-id") && c.get("by") == "juliet@example.net" {
				found = append(found, c.get("id"))
			}
		}
	}
	if len(found) != 1 || found[0] != ids[0] {
		t.Errorf("ids %q, archived %q", found, ids)
	}
}

func TestRoomArchive(t *testing.T) {
	srv := newServer(t, Archives())
	if err := srv.AddRooms("rooms.example.net", RoomConfig{MembersOnly: true, NonAnonymous: true}); err != nil {
		t.Fatal(err)
	}
	if err := srv.AddRoom("verona@rooms.example.net", RoomConfig{MembersOnly: true}, map[string]string{"romeo@example.net": "member"}); err != nil {
		t.Fatal(err)
	}
	romeo, tybalt := available(t, srv, "romeo@example.net/a"), available(t, srv, "tybalt@example.net/a")
	romeo.send("<presence to='verona@rooms.example.net/r'><x xmlns='http://jabber.org/protocol/muc'/></presence>")
	romeo.send("<message type='groupchat' to='verona@rooms.example.net'><body>hear me</body></message>")
	romeo.sync()
	if bodies, _, _ := romeo.query("verona@rooms.example.net", ""); strings.Join(bodies, " ") != "hear me" {
		t.Errorf("member: %q", bodies)
	}
	if _, _, answer := tybalt.query("verona@rooms.example.net", ""); answer.get("type") != "error" {
		t.Errorf("stranger: %s", answer.xml())
	}
}
