package middleware

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"example.org/omellium/omemo/memstore"
	"example.org/omellium/stanza"
	"mellium.im/xmpp/jid"
)

// TestThePositionDoesNotPassWhatCouldNotBeHeld: of what comes in a flood while what
// was held is dealt with, the archive is asked once more; until then the position
// stays. The same holds for what was said while we were out of a room.
func TestThePositionDoesNotPassWhatCouldNotBeHeld(t *testing.T) {
	own := jid.MustParse("juliet@example.net")
	for name, row := range map[string]struct {
		held    int
		more    func(*intake)
		err     error
		final   bool
		missed  bool
		reached bool
	}{
		"all are held":        {held: 3, final: true, reached: true},
		"more than can wait":  {held: maxHeld + 1, missed: true},
		"joined once more":    {held: 3, more: func(in *intake) { in.enter() }, missed: true},
		"no archive":          {held: maxHeld + 1, err: errNoArchive, final: true, missed: true},
		"not to be had now":   {held: 3, err: errServer},
		"a flood, and no end": {held: maxHeld + 1, err: errServer, missed: true},
	} {
		t.Run(name, func(t *testing.T) {
			m, err := New(t.Context(), Config{Store: memstore.New(own.String())})
			if err != nil {
				t.Fatal(err)
			}
			l := &link{m: m, full: own, life: t.Context(), marked: make(chan struct{}, 1)}
			l.ctx, l.cancel = context.WithCancel(t.Context())
			l.rooms.init(l)
			in := l.intakes.open(own.String())
			if !in.enter() || l.intakes.open(own.String()) != in {
				t.Fatal("it is caught up with already")
			}
			for i := range row.held {
				e, err := stanza.ParseElement(fmt.Appendf(nil, `<message xmlns="jabber:client" type="chat" from="romeo@example.net/1" to="juliet@example.net"><body>text</body><stanza-id xmlns="urn:xmpp:sid:0" by="juliet@example.net" id="%d"/></message>`, i), stanza.DefaultLimits)
				if err != nil {
					t.Fatal(err)
				}
				a, err := l.arrive(e, "")
				if err != nil || !in.hold(a) {
					t.Fatalf("not held: %v", err)
				}
			}
			if row.more != nil {
				row.more(in)
			}
			final, missed := in.release(t.Context(), l, nil, row.err == nil, row.err)
			if final != row.final || missed != row.missed || in.running == final || in.holding || in.following != row.reached {
				t.Errorf("final %t, missed %t, %+v", final, missed, in)
			}
			if err := m.manager.Flush(t.Context()); err != nil && !errors.Is(err, context.Canceled) {
				t.Fatal(err)
			}
			c, known, err := m.manager.Cursor(t.Context(), own.String())
			if err != nil || known != row.reached || known && c.Position != "2" {
				t.Errorf("position %+v, %v", c, err)
			}
		})
	}
}
