package middleware_test

import (
	"context"
	"database/sql"
	"encoding/xml"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"example.org/omellium/middleware"
	"example.org/omellium/omemo"
	"example.org/omellium/omemo/sqlstore/sqlite"
	"mellium.im/xmpp/stanza"
)

// What handles messages within their commit hears rooms, its own messages as
// such, and answers there.
func TestRoomReceive(t *testing.T) {
	for _, v := range omemo.Versions() {
		t.Run(v.String(), func(t *testing.T) {
			srv := building(t, fit)
			b := connected(t, srv, juliet, chat(v)).join(hall, "Juliet")
			n := connected(t, srv, nurse, chat(v)).join(hall, "Nurse")
			store, err := sqlite.Open(t.Context(), filepath.Join(t.TempDir(), "store.db"), romeo)
			ok(t, err)
			t.Cleanup(func() { store.Close() })
			var mu sync.Mutex
			var heard []string
			c := chat(v)
			c.Store = store
			c.Receive = func(_ context.Context, _ *sql.Tx, d middleware.Delivery) error {
				var m message
				if err := xml.Unmarshal(d.Stanza, &m); err != nil {
					return err
				}
				who := d.Info.Account
				if d.Info.Own {
					who = "own"
				}
				if !strings.HasSuffix(m.Body, "again") {
					mu.Lock()
					heard = append(heard, who+": "+m.Body)
					mu.Unlock()
				}
				if d.Info.Own {
					return nil
				}
				answer := stanza.Message{To: m.From.Bare(), Type: m.Type}
				if m.Type != stanza.GroupChatMessage {
					answer.To = m.From
				}
				return d.Send(answer, text("answer to "+m.Body))
			}
			a := connected(t, srv, romeo, c)
			a.join(hall, "Romeo")
			// The bundles of members are fetched ahead, at their own pace: from then on
			// answers reach them.
			until(t, "the nurse is reached", func() bool {
				b.speak(hall, "again")
				return slices.Contains(n.bodies(), "answer to again")
			})
			b.speak(hall, "canary one")
			for _, p := range []*program{b, n} {
				p.hears("answer to canary one", hall+"/Romeo", romeo, false)
			}
			_, err = b.om.Send(t.Context(), to(hall+"/Romeo"), text("canary aside"))
			ok(t, err)
			if got := b.awaitText("answer to canary aside"); got.Type != stanza.ChatMessage || got.Info.Account != romeo {
				t.Errorf("got %+v", got)
			}
			want := []string{juliet + ": canary one", "own: answer to canary one", juliet + ": canary aside"}
			until(t, "all is heard", func() bool {
				mu.Lock()
				defer mu.Unlock()
				return len(heard) >= len(want)
			})
			mu.Lock()
			defer mu.Unlock()
			slices.Sort(heard)
			slices.Sort(want)
			if !slices.Equal(heard, want) {
				t.Errorf("heard %q, want %q", heard, want)
			}
			noLeak(t, srv, "canary")
		})
	}
}
