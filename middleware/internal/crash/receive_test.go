package crash

import (
	"context"
	"database/sql"
	"encoding/xml"
	"testing"

	"mellium.im/xmpp/jid"
	xmppstanza "mellium.im/xmpp/stanza"

	"example.org/omellium/middleware"
	"example.org/omellium/omemo"
)

// receiveInto returns a Config.Receive: it writes each message into a table of its
// own and answers it, both in the transaction that commits the message. values are
// placeholders as the database wants them.
func receiveInto(values string) func(*program, *middleware.Config) {
	return func(_ *program, c *middleware.Config) {
		c.Receive = func(ctx context.Context, tx *sql.Tx, d middleware.Delivery) error {
			var m received
			if err := xml.Unmarshal(d.Stanza, &m); err != nil {
				return err
			}
			if m.Archived != nil {
				m = *m.Archived
			}
			if err := hear(ctx, tx, values, d.Info.Event, m.Body); err != nil {
				return err
			}
			answer := xmppstanza.Message{To: jid.MustParse(d.Info.Account), Type: xmppstanza.ChatMessage}
			return d.Send(answer, body(answerTo(m.Body)))
		}
	}
}

// hear writes a text into the table.
func hear(ctx context.Context, tx *sql.Tx, values, event, text string) error {
	if _, err := tx.ExecContext(ctx, `CREATE TABLE IF NOT EXISTS heard (event TEXT NOT NULL, text TEXT NOT NULL)`); err != nil {
		return err
	}
	_, err := tx.ExecContext(ctx, `INSERT INTO heard VALUES (`+values+`)`, event, text)
	return err
}

// stored returns how often a text stands in the table, and under how many event
// ids.
func (p *program) stored(t *testing.T, text string) (times, events int) {
	t.Helper()
	db, err := sql.Open("sqlite", p.file)
	ok(t, err)
	defer db.Close()
	ok(t, db.QueryRow(`SELECT count(*), count(DISTINCT event) FROM heard WHERE text = ?`, text).Scan(&times, &events))
	return times, events
}

// TestReceiveExactlyOnce has the subject die at each step while Config.Receive
// reads messages and answers: each is in the table once, each answer arrives
// once.
func TestReceiveExactlyOnce(t *testing.T) {
	stride := knob(t, "OMELLIUM_FAILPOINTS", 8, 40)
	for _, v := range omemo.Versions() {
		t.Run(v.String(), func(t *testing.T) {
			t.Parallel()
			s := &scenario{
				name: "receive", devices: 1, receive: true,
				before: func(w *world) { w.talk(texts("romeo", 0, 1), nil) },
				juliet: texts("juliet", 0, 3),
			}
			s.sweep(t, v, onSQLite, stride, 0)
			s = &scenario{
				name: "receive from an archive", devices: 1, receive: true, catches: true,
				before: missing(5),
				juliet: texts("juliet", 1, 7),
			}
			s.sweep(t, v, onSQLite, stride, 0)
		})
	}
}
