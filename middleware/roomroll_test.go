package middleware

import (
	"context"
	"errors"
	"fmt"
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

// Members who change their nicks without end cannot have it forgotten whose the
// nicks of others were, nor keep newcomers from being remembered. What is forgotten
// of them is taken for nobody else's.
func TestRollFull(t *testing.T) {
	const room = "hall@rooms.example.net"
	const many = maxOccupants + 50
	account := func(name string) string { return name + "@example.net" }
	two := []string{account("tybalt"), account("mercutio")}
	for _, tc := range []struct {
		name string
		had  func(i int) (nick, account string)
	}{
		{"one account", func(i int) (string, string) { return fmt.Sprint("n", i), two[0] }},
		{"two accounts with the same nicks", func(i int) (string, string) { return fmt.Sprint("n", i/2), two[i%2] }},
		{"two accounts with one nick", func(i int) (string, string) { return "n", two[i%2] }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			store := memstore.New(flooded)
			l := unconnected(t, store)
			l.rooms.open(room)
			began := time.Now().Add(-time.Hour)
			at := func(i int) time.Time { return began.Add(time.Duration(i) * time.Millisecond) }
			note := func(i int, nick, account string) {
				l.rooms.mu.Lock()
				defer l.rooms.mu.Unlock()
				l.rooms.note(room, nick, account, at(i))
			}
			note(0, "Juliet", account("juliet"))
			note(0, "Nurse", account("nurse"))
			note(1, "Nurse", two[0])
			for i := 2; i < many; i++ {
				nick, account := tc.had(i)
				note(i, nick, account)
				if i == maxOccupants/2 {
					if err := l.m.manager.Flush(t.Context()); err != nil {
						t.Fatal(err)
					}
				}
			}
			note(many, "Paris", account("paris"))
			if err := l.m.manager.Flush(t.Context()); err != nil {
				t.Fatal(err)
			}
			size := l.rooms.rolls[room].size
			if rows, err := store.Occupants(t.Context(), room); err != nil || len(rows) != size || size > maxOccupants {
				t.Errorf("%d are kept, %d known, %v", len(rows), size, err)
			}
			l.rooms.rolls = make(map[string]*roll) // read anew
			was := func(i int, nick string) string {
				account, read := l.rooms.past(room, nick, at(i))
				if !read {
					t.Fatal("not read")
				}
				return account
			}
			for _, who := range []struct {
				at            int
				nick, account string
			}{
				{0, "Juliet", account("juliet")}, {many, "Juliet", account("juliet")}, {0, "Nurse", account("nurse")}, {many, "Nurse", two[0]},
				{many, "Paris", account("paris")}, {0, "Paris", account("paris")}, // the latter is a guess
			} {
				if got := was(who.at, who.nick); got != who.account {
					t.Errorf("%s was %q, want %q", who.nick, got, who.account)
				}
			}
			forgotten := 0
			for i := 2; i < many; i++ {
				switch nick, account := tc.had(i); was(i, nick) {
				case "":
					forgotten++
				case account:
				default:
					t.Fatalf("%d was %q", i, was(i, nick))
				}
			}
			if forgotten == 0 {
				t.Error("nothing is forgotten")
			}
			if nick, account := tc.had(many - 1); was(many, nick) != account {
				t.Error("the last is forgotten")
			}
		})
	}
}
