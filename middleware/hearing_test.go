package middleware_test

import (
	"slices"
	"testing"

	"mellium.im/xmpp/stanza"

	"example.org/omellium/middleware"
	"example.org/omellium/omemo"
)

// What comes while the server sends this resource nothing stands in the archive
// alone: it is fetched when that has changed, and the position does not pass it
// before.
func TestWhatCameBeforeThePresenceIsFetched(t *testing.T) {
	for _, v := range omemo.Versions() {
		for name, deaf := range map[string]string{
			"unavailable":       `<presence xmlns="jabber:client" type="unavailable"/>`,
			"negative priority": `<presence xmlns="jabber:client"><priority> -1</priority></presence>`,
		} {
			t.Run(v.String()+"/"+name, func(t *testing.T) {
				srv := archiving(t)
				b := load(t, juliet, catching(v))
				b.attach(login(t, srv, juliet+"/x"), nil)
				a := connected(t, srv, romeo, chat(v))
				a.say(juliet, "before")
				b.awaitText("before")
				b.awaitEvent(middleware.CaughtUp)

				if err := b.session.Send(t.Context(), raw(deaf)); err != nil {
					t.Fatal(err)
				}
				b.flush()
				texts := numbered(3)
				for _, text := range texts[:2] {
					a.tell(juliet, text)
				}
				// Meanwhile one comes to this resource itself.
				if _, err := a.om.Send(t.Context(), to(juliet+"/x"), text("direct")); err != nil {
					t.Fatal(err)
				}
				a.flush()
				b.awaitText("direct")
				b.flush()
				if err := b.session.Send(t.Context(), stanza.Presence{}.Wrap(nil)); err != nil {
					t.Fatal(err)
				}
				b.flush()
				a.tell(juliet, texts[2])
				b.awaitText(texts[2])
				b.awaitText(texts[1])
				if got, want := b.bodies(), append([]string{"before", "direct"}, texts...); !slices.Equal(got, want) {
					t.Errorf("received %q, want %q", got, want)
				}
			})
		}
	}
}
