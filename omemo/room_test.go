package omemo_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"example.org/omellium/omemo"
	"example.org/omellium/omemo/memstore"
)

// What is kept of an own message to a room is handed over once, together with
// the end of its stay in the outbox.
func TestEcho(t *testing.T) {
	store := memstore.New("romeo@montague.example")
	m, err := omemo.NewManager(t.Context(), store, omemo.Options{})
	if err != nil {
		t.Fatal(err)
	}
	hash := [32]byte{7}
	if err := store.Commit(t.Context(), &omemo.Changes{
		Outbox: []omemo.OutboxRow{{Seq: 1, Stanza: []byte("<message/>")}, {Seq: 2, Stanza: []byte("<message/>")}},
		Echoes: []omemo.EchoRow{{Hash: hash, Outbox: 1, Created: time.Now(), Content: []byte("<body>text</body>")}},
	}); err != nil {
		t.Fatal(err)
	}
	never := func([]byte) (omemo.Delivery, error) {
		t.Error("asked what is to become of a message that is not waited for")
		return omemo.Delivery{}, nil
	}
	if _, found, err := m.Echo(t.Context(), [32]byte{8}, 0, never); found || err != nil {
		t.Errorf("a hash of nothing: %t, %v", found, err)
	}
	broken := errors.New("broken")
	if _, found, err := m.Echo(t.Context(), hash, 0, func([]byte) (omemo.Delivery, error) { return omemo.Delivery{}, broken }); found || !errors.Is(err, broken) {
		t.Errorf("a hook that fails: %t, %v", found, err)
	}
	d, found, err := m.Echo(t.Context(), hash, 0, func(content []byte) (omemo.Delivery, error) {
		return omemo.Delivery{Stanza: content}, nil
	})
	if !found || err != nil || d.Seq == 0 {
		t.Fatalf("found %t, %+v, %v", found, d, err)
	}
	if rows, err := m.Inbox(t.Context(), 0, 10); err != nil || len(rows) != 1 || string(rows[0].Stanza) != "<body>text</body>" || rows[0].Event == "" {
		t.Errorf("inbox: %d rows, %v", len(rows), err)
	}
	if rows, err := m.Outbox(t.Context(), 0, 10); err != nil || len(rows) != 1 || rows[0].Seq != 2 {
		t.Errorf("outbox: %+v, %v", rows, err)
	}
	if _, found, err := m.Echo(t.Context(), hash, 0, never); found || err != nil {
		t.Errorf("a second time: %t, %v", found, err)
	}
}

// Nicks ride with other commits, survive one that fails, and are forgotten after
// a year; texts that never came back after eight days.
func TestRoomRowsAge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := memstore.New("romeo@montague.example")
		m, err := omemo.NewManager(t.Context(), store, omemo.Options{})
		if err != nil {
			t.Fatal(err)
		}
		row := func(nick string, account string) omemo.OccupantRow {
			return omemo.OccupantRow{
				OccupantID: omemo.OccupantID{Room: "room@chat.example", Nick: nick}, Account: account, Since: time.Now(), Seen: time.Now(),
			}
		}
		count := func() (occupants, echoes int) {
			rows, err := store.Occupants(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			texts, err := store.Echoes(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			return len(rows), len(texts)
		}
		m.NoteOccupants(row("nurse", "nurse@capulet.example"))
		if n, _ := count(); n != 0 {
			t.Fatalf("%d rows before the commit", n)
		}
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		if err := m.Flush(ended); err == nil {
			t.Fatal("flushed in no time")
		}
		m.NoteOccupants(row("nurse", "tybalt@capulet.example"))
		if err := m.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		rows, err := m.Occupants(t.Context(), "room@chat.example")
		if err != nil || len(rows) != 1 || rows[0].Account != "tybalt@capulet.example" {
			t.Fatalf("rows: %+v, %v", rows, err)
		}
		if err := store.Commit(t.Context(), &omemo.Changes{Echoes: []omemo.EchoRow{{Hash: [32]byte{1}, Created: time.Now()}}}); err != nil {
			t.Fatal(err)
		}
		for _, step := range []struct {
			pause             time.Duration
			occupants, echoes int
		}{{0, 1, 1}, {7 * 24 * time.Hour, 1, 1}, {2 * 24 * time.Hour, 1, 0}, {350 * 24 * time.Hour, 1, 0}, {10 * 24 * time.Hour, 0, 0}} {
			time.Sleep(step.pause)
			if _, err := m.Upkeep(t.Context()); err != nil {
				t.Fatal(err)
			}
			if occupants, echoes := count(); occupants != step.occupants || echoes != step.echoes {
				t.Errorf("after %v: %d nicks, %d texts, want %+v", step.pause, occupants, echoes, step)
			}
		}
	})
}

// Of what was noted and forgotten of a nick, the last counts: in one commit, in
// several, and after one that has failed.
func TestForgetOccupants(t *testing.T) {
	_, b := pair(t, omemo.V2)
	id := omemo.OccupantID{Room: "room@chat.example", Nick: "nurse"}
	note := func(account string) {
		b.m.NoteOccupants(omemo.OccupantRow{OccupantID: id, Account: account, Since: time.Now(), Seen: time.Now()})
	}
	forget := func() { b.m.ForgetOccupants(id) }
	for _, tc := range []struct {
		name   string
		change func(next func())
		want   string
	}{
		{"noted", func(func()) { note("nurse@capulet.example") }, "nurse@capulet.example"},
		{"forgotten", func(next func()) { note("nurse@capulet.example"); next(); forget() }, ""},
		{"forgotten alone", func(func()) { forget() }, ""},
		{"noted once more", func(next func()) {
			note("nurse@capulet.example")
			next()
			forget()
			next()
			note("tybalt@capulet.example")
		}, "tybalt@capulet.example"},
	} {
		for name, between := range map[string]func(){
			"in one": func() {},
			"each":   func() { b.ok(b.m.Flush(t.Context())) },
			"failing": func() {
				b.store.fail = func(string) error { return errStore }
				if err := b.m.Flush(t.Context()); !errors.Is(err, errStore) {
					t.Error(err)
				}
				b.store.fail = nil
			},
		} {
			t.Run(tc.name+", "+name, func(t *testing.T) {
				tc.change(between)
				b.ok(b.m.Flush(t.Context()))
				rows, err := b.m.Occupants(t.Context(), id.Room)
				b.ok(err)
				switch {
				case tc.want == "" && len(rows) != 0, tc.want != "" && (len(rows) != 1 || rows[0].Account != tc.want):
					t.Errorf("%+v, want %q", rows, tc.want)
				}
			})
		}
	}
}
