package middleware

import (
	"testing"

	"example.org/omellium/omemo/memstore"
	"example.org/omellium/stanza"
	"mellium.im/xmpp/jid"
)

// TestWhatWasKeptFromThePastStaysThere: who had a nick when a message was sent is a
// guess, and a message that was kept because its key is unknown is read only once
// the key is known, however often the program is started. One that came live, from
// whoever had the nick then, is no guess.
func TestWhatWasKeptFromThePastStaysThere(t *testing.T) {
	const hall, mark = "hall@rooms.example.net", `<x xmlns="http://jabber.org/protocol/muc#user"/>`
	own := jid.MustParse("juliet@example.net")
	m, err := New(t.Context(), Config{Store: memstore.New(own.String())})
	if err != nil {
		t.Fatal(err)
	}
	l := &link{m: m, full: own, ctx: t.Context()}
	l.rooms.init(l)
	for name, row := range map[string]struct {
		typ, inner string
		past       bool
	}{
		"privately":               {"chat", mark, false},
		"privately, from archive": {"chat", mark + `<delay xmlns="urn:xmpp:delay" stamp="2026-01-02T03:04:05Z"/>`, true},
		"without mark":            {"chat", `<delay xmlns="urn:xmpp:delay" stamp="2026-01-02T03:04:05Z"/>`, true},
		"to all":                  {"groupchat", "", false},
		"to all, from archive":    {"groupchat", `<delay xmlns="urn:xmpp:delay" stamp="2026-01-02T03:04:05Z"/>`, true},
	} {
		t.Run(name, func(t *testing.T) {
			e, err := stanza.ParseElement([]byte(`<message xmlns="jabber:client" type="`+row.typ+`" from="`+hall+`/Romeo" to="juliet@example.net">`+row.inner+`</message>`), stanza.DefaultLimits)
			if err != nil {
				t.Fatal(err)
			}
			a, err := l.arrive(e, "romeo@example.net")
			if err != nil || a.sender != "romeo@example.net" || a.past != row.past {
				t.Errorf("of %q, of the past: %t, %v", a.sender, a.past, err)
			}
		})
	}
}
