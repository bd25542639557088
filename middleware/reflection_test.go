package middleware

import (
	"context"
	"testing"

	"example.org/omellium/omemo/memstore"
	"example.org/omellium/stanza"
	"mellium.im/xmpp/jid"
)

// TestAReflectionThatIsNotCommittedIsLost: the wire ends while a room shows us our
// own message. The position in the archive must not pass it.
func TestAReflectionThatIsNotCommittedIsLost(t *testing.T) {
	own := jid.MustParse("juliet@example.net")
	m, err := New(t.Context(), Config{Store: memstore.New(own.String())})
	if err != nil {
		t.Fatal(err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	for name, row := range map[string]struct {
		wire, life context.Context
		lost       bool
	}{
		"nothing is waited for": {t.Context(), t.Context(), false},
		"the wire has ended":    {ended, t.Context(), true},
		"all has ended":         {ended, ended, true},
	} {
		t.Run(name, func(t *testing.T) {
			l := &link{m: m, full: own, ctx: row.wire, life: row.life}
			element, err := stanza.ParseElement([]byte(`<encrypted xmlns="eu.siacs.conversations.axolotl"><header sid="1"><iv>AAAAAAAAAAAAAAAA</iv></header><payload>AAAA</payload></encrypted>`), stanza.DefaultLimits)
			if err != nil {
				t.Fatal(err)
			}
			e := &stanza.Encrypted{Namespace: stanza.NSLegacy, Sender: uint32(m.own.Device())}
			for _, live := range []bool{true, false} {
				a := &arrival{sender: own.String(), room: "hall@rooms.example.net", outer: element, message: element, live: live}
				if !l.reflected(a, e, element) || a.lost != row.lost {
					t.Errorf("live: %t, lost: %t", live, a.lost)
				}
			}
		})
	}
}
