package middleware_test

import (
	"encoding/base64"
	"fmt"
	"testing"

	"example.org/omellium/middleware"
	"example.org/omellium/omemo"
)

// More strangers than are believed in a minute delay the first message of an
// honest one, and do not have it lost.
func TestStrangersDelayOnly(t *testing.T) {
	srv := network(t, romeo, juliet)
	a := connected(t, srv, romeo, chat(omemo.V2))
	b := connected(t, srv, juliet, chat(omemo.V2))
	ok(t, a.om.CatchUp(t.Context(), false))
	full := a.session.LocalAddr().String()
	const strangers = 70
	for i := range strangers {
		m := newManager(t, fmt.Sprintf("stranger%d@example.com", i))
		own, err := a.om.Manager().Bundle(t.Context(), omemo.Legacy) // without the pre keys that are used
		ok(t, err)
		var key, sender string
		_, err = m.Replace(t.Context(), own, func(s *omemo.Sealed) ([]omemo.Outgoing, error) {
			key, sender = base64.StdEncoding.EncodeToString(s.Messages[0].Keys[0].Data), fmt.Sprint(s.Messages[0].Sender.Device)
			return nil, nil
		})
		ok(t, err)
		ok(t, srv.Inject(full, fmt.Sprintf(`<message xmlns="jabber:client" from="stranger%d@example.com/x" to="%s" type="chat">`+
			`<encrypted xmlns="eu.siacs.conversations.axolotl"><header sid="%s"><key rid="%d" prekey="true">%s</key>`+
			`<iv>AAAAAAAAAAAAAAAA</iv></header></encrypted></message>`, i, full, sender, own.Owner.Device, key)))
		until(t, "it has come", func() bool { return a.count(middleware.NewDevice)+a.count(middleware.Undecryptable) > i })
	}
	refused := a.count(middleware.Undecryptable)
	if refused == 0 {
		t.Fatal("all were believed")
	}
	from, err := b.om.Manager().Device(t.Context())
	ok(t, err)
	b.say(romeo, "canary first")
	until(t, "it is kept", func() bool {
		rows, err := a.om.Manager().Kept(t.Context(), from)
		ok(t, err)
		return len(rows) == 1
	})
	ok(t, a.om.CatchUp(t.Context(), true)) // any number may, instead of a minute later
	a.awaitText("canary first")
}
