package middleware

import (
	"context"
	"errors"
	"testing"
	"time"

	"example.org/omellium/omemo"
	"example.org/omellium/omemo/memstore"
	"example.org/omellium/stanza"
)

// blind is a store that cannot say who has had the nicks of a room.
type blind struct{ omemo.Store }

func (blind) Occupants(context.Context, ...string) ([]omemo.OccupantRow, error) {
	return nil, errors.New("not now")
}

// A message of a room's archive is not passed over because the store could not be
// asked who has sent it.
func TestAPageWaitsForTheRoll(t *testing.T) {
	const room = "hall@rooms.example.net"
	l := unconnected(t, blind{memstore.New(flooded)})
	e, err := stanza.ParseElement([]byte(`<message xmlns="jabber:client" type="groupchat" from="`+room+`/Romeo"><encrypted xmlns="urn:xmpp:omemo:2"/></message>`), stanza.DefaultLimits)
	if err != nil {
		t.Fatal(err)
	}
	results := []*result{{id: "1", stamp: time.Now(), message: e}}
	if err := l.readPage(t.Context(), l.intakes.open(room), results); !errors.Is(err, errLost) {
		t.Errorf("read: %v", err)
	}
	if _, known, err := l.m.manager.Cursor(t.Context(), room); known || err != nil {
		t.Errorf("the position has passed it: %v", err)
	}
}
