package pep

import (
	"errors"
	"testing"

	"example.org/omellium/stanza"
	"mellium.im/xmpp/jid"
)

// FuzzEvent reads notifications. Whatever they hold, they are about the account
// that they come from.
func FuzzEvent(f *testing.F) {
	for _, from := range []string{"", "romeo@example.net", "romeo@example.net/phone", "room@rooms.example.net/nick", "@"} {
		for _, inner := range []string{
			"<items node='n'><item id='current'><x/></item></items>", "<items node='n'><retract id='1'/></items>", "<purge node='n'/>",
			"<delete node='n'/>", "<items node='n'/><items node='m'/>", "<configuration node='n'/>", "<items/>",
		} {
			f.Add("<message xmlns='jabber:client' from='" + from + "'><event xmlns='" + NSEvent + "'>" + inner + "</event></message>")
		}
	}
	f.Fuzz(func(t *testing.T, s string) {
		message, err := stanza.ParseElement([]byte(s), stanza.DefaultLimits)
		if err != nil {
			return
		}
		e, err := ParseEvent(message)
		if err != nil {
			if !errors.Is(err, ErrEvent) || e != nil {
				t.Fatalf("%v, %v", e, err)
			}
			return
		}
		if e == nil {
			return
		}
		from, _ := message.Attribute("from")
		if from == "" {
			if e.Account != "" {
				t.Fatalf("about %q", e.Account)
			}
		} else if j, err := jid.Parse(from); err != nil || j.Resourcepart() != "" || j.String() != e.Account {
			t.Fatalf("%q is about %q", from, e.Account)
		}
		if e.Node == "" {
			t.Fatal("about no node")
		}
	})
}
