package storetest

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"example.org/omellium/omemo"
)

// unchanged commits what must fail, beside rows of every kind, and looks whether
// anything of it was done.
func unchanged(t *testing.T, s omemo.Store, k keys, c *omemo.Changes) {
	t.Helper()
	before := read(t, s, k)
	c.Account = []byte("not to be seen")
	c.PreKeys = append(c.PreKeys, omemo.PreKeyRow{Version: omemo.V2, ID: 77, Private: fill(7)})
	c.DropOutbox = append(c.DropOutbox, 1)
	c.Inbox = append(c.Inbox, omemo.InboxRow{Seq: 500})
	c.Contacts = append(c.Contacts, omemo.Contact{JID: "tybalt@capulet.example"})
	if err := s.Commit(t.Context(), c); err == nil {
		t.Error("the commit did not fail")
	}
	same(t, read(t, s, k), before)
}

func testCurrentSession(t *testing.T, open Opener) {
	romeo, nurse := peer(omemo.V2, "romeo@montague.example", 1), peer(omemo.V2, "nurse@capulet.example", 1)
	session := func(id uint64, p omemo.Peer, archived uint64) omemo.SessionRow {
		return omemo.SessionRow{ID: id, Peer: p, Archived: archived, Record: fmt.Appendf(nil, "%d after %d", id, archived)}
	}
	for _, test := range []struct {
		name    string
		changes omemo.Changes
		fails   bool
		current uint64 // id of the current session with romeo afterwards
		all     int
	}{
		{name: "advance", changes: omemo.Changes{Sessions: []omemo.SessionRow{session(1, romeo, 0)}}, current: 1, all: 2},
		{name: "replace", changes: omemo.Changes{Sessions: []omemo.SessionRow{session(1, romeo, 9), session(5, romeo, 0)}}, current: 5, all: 3},
		{name: "swap", changes: omemo.Changes{Sessions: []omemo.SessionRow{session(1, romeo, 9), session(2, romeo, 0)}}, current: 2, all: 2},
		{name: "drop and replace", changes: omemo.Changes{DropSessions: []uint64{1}, Sessions: []omemo.SessionRow{session(5, romeo, 0)}}, current: 5, all: 2},
		{name: "archive", changes: omemo.Changes{Sessions: []omemo.SessionRow{session(1, romeo, 9)}}, all: 2},
		{name: "other version", changes: omemo.Changes{Sessions: []omemo.SessionRow{session(5, peer(omemo.Legacy, romeo.JID, 1), 0)}}, current: 1, all: 2},
		{name: "other device", changes: omemo.Changes{Sessions: []omemo.SessionRow{session(5, peer(omemo.V2, romeo.JID, 2), 0)}}, current: 1, all: 2},
		{name: "two at once", changes: omemo.Changes{Sessions: []omemo.SessionRow{session(5, nurse, 0), session(6, nurse, 0)}}, fails: true},
		{name: "beside the current one", changes: omemo.Changes{Sessions: []omemo.SessionRow{session(5, romeo, 0)}}, fails: true},
		{name: "second from the archive", changes: omemo.Changes{Sessions: []omemo.SessionRow{session(2, romeo, 0)}}, fails: true},
		{name: "other one dropped", changes: omemo.Changes{DropSessions: []uint64{2}, Sessions: []omemo.SessionRow{session(5, romeo, 0)}}, fails: true},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := open(t, test.name+"@capulet.example")
			defer s.Close()
			commit(t, s, &omemo.Changes{
				Sessions: []omemo.SessionRow{session(1, romeo, 0), session(2, romeo, 3)},
				Outbox:   []omemo.OutboxRow{{Seq: 1}},
			})
			if test.fails {
				unchanged(t, s, keys{peers: []omemo.Peer{romeo, nurse}}, &test.changes)
				return
			}
			commit(t, s, &test.changes)
			rows, err := s.Sessions(t.Context(), []omemo.Peer{romeo})
			if err != nil {
				t.Fatal(err)
			}
			var current uint64
			for _, r := range rows {
				if r.Archived == 0 {
					current = r.ID
				}
			}
			if current != test.current || len(rows) != test.all {
				t.Errorf("current is %d of %d, want %d of %d", current, len(rows), test.current, test.all)
			}
			for _, want := range test.changes.Sessions {
				if want.Peer == romeo && !slices.ContainsFunc(rows, func(r omemo.SessionRow) bool {
					return r.ID == want.ID && r.Archived == want.Archived && string(r.Record) == string(want.Record)
				}) {
					t.Errorf("session %d is not as it was written: %+v", want.ID, rows)
				}
			}
		})
	}
}

func testDropSession(t *testing.T, open Opener) {
	s := open.open(t)
	c := sample()
	commit(t, s, c)
	commit(t, s, &omemo.Changes{DropSessions: []uint64{2}})
	got := read(t, s, keysOf(c))
	if len(got.Skipped) != 1 || got.Skipped[0].Session != 1<<63-1 {
		t.Errorf("skipped message keys of the other session are left alone: %+v", got.Skipped)
	}
	if len(got.Sessions) != 2 {
		t.Errorf("got %d sessions, want 2", len(got.Sessions))
	}
}

// testTrim writes keys in an order that is not that of their numbers.
func testTrim(t *testing.T, open Opener) {
	s := open.open(t)
	id := func(session uint64, n uint32) omemo.SkippedID {
		return omemo.SkippedID{Session: session, Ratchet: fill(byte(n % 3)), N: n}
	}
	var all []omemo.SkippedID
	write := func(trim []omemo.Trim, numbers ...uint32) {
		c := &omemo.Changes{TrimSkipped: trim}
		for _, n := range numbers {
			for session := range uint64(2) {
				all = append(all, id(session, n))
				c.Skipped = append(c.Skipped, omemo.SkippedRow{SkippedID: id(session, n), Key: fill(byte(n))})
			}
		}
		commit(t, s, c)
	}
	left := func(session uint64) (numbers []uint32) {
		rows, err := s.Skipped(t.Context(), all)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range rows {
			if r.Session == session {
				numbers = append(numbers, r.N)
			}
		}
		slices.Sort(numbers)
		return numbers
	}
	write(nil, 9, 8, 7)
	write([]omemo.Trim{{Session: 1, Keep: 10}}, 3, 2, 1)
	write([]omemo.Trim{{Session: 1, Keep: 5}}, 5)
	if got := left(1); !slices.Equal(got, []uint32{1, 2, 3, 5, 7}) {
		t.Errorf("the newest 5: %v", got)
	}
	if got := left(0); len(got) != 7 {
		t.Errorf("the other session: %v", got)
	}
	write([]omemo.Trim{{Session: 1, Keep: 2}}, 7) // written again: the newest now
	if got := left(1); !slices.Equal(got, []uint32{5, 7}) {
		t.Errorf("the newest 2: %v", got)
	}
	commit(t, s, &omemo.Changes{TrimSkipped: []omemo.Trim{{Session: 1}, {Session: 0, Keep: 1}, {Session: 99, Keep: 1}}})
	if got := left(1); len(got) != 0 {
		t.Errorf("none is to be left: %v", got)
	}
	if got := left(0); !slices.Equal(got, []uint32{7}) {
		t.Errorf("one is to be left: %v", got)
	}
}

func testPruneEnded(t *testing.T, open Opener) {
	s := open.open(t)
	var c omemo.Changes
	var chains []omemo.ChainID
	for i := range 5 {
		id := omemo.ChainID{Peer: peer(omemo.V2, "romeo@montague.example", 1), Ratchet: fill(byte(i))}
		chains = append(chains, id)
		c.Ended = append(c.Ended, omemo.EndedChain{ChainID: id, When: at(i)})
	}
	commit(t, s, &c)
	commit(t, s, &omemo.Changes{PruneEnded: at(2)})
	if rows, err := s.Ended(t.Context(), chains); err != nil || len(rows) != 3 {
		t.Errorf("got %d marks, %v, want 3", len(rows), err)
	}
}

func testSequences(t *testing.T, open Opener) {
	s := open(t, account)
	check := func(inbox, outbox uint64) {
		t.Helper()
		state, err := s.Load(t.Context())
		if err != nil || state.Inbox != inbox || state.Outbox != outbox {
			t.Errorf("got %d, %d, %v, want %d, %d", state.Inbox, state.Outbox, err, inbox, outbox)
		}
	}
	check(0, 0)
	commit(t, s, &omemo.Changes{Inbox: []omemo.InboxRow{{Seq: 7}, {Seq: 3}}, Outbox: []omemo.OutboxRow{{Seq: 2}}})
	check(7, 2)
	commit(t, s, &omemo.Changes{DropInbox: []uint64{3, 7}, DropOutbox: []uint64{2}})
	check(7, 2)
	commit(t, s, &omemo.Changes{Inbox: []omemo.InboxRow{{Seq: 5}}})
	check(7, 2)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, account)
	defer s.Close()
	check(7, 2)
	commit(t, s, &omemo.Changes{Inbox: []omemo.InboxRow{{Seq: 8}}})
	check(8, 2)
}

func testQueues(t *testing.T, open Opener) {
	s := open.open(t)
	var c omemo.Changes
	for _, seq := range []uint64{40, 10, 30, 20} {
		c.Inbox = append(c.Inbox, omemo.InboxRow{Seq: seq})
		c.Outbox = append(c.Outbox, omemo.OutboxRow{Seq: seq})
		c.Journal = append(c.Journal, omemo.JournalRow{ID: seq, From: omemo.Address{JID: "romeo@montague.example", Device: omemo.DeviceID(seq % 20)}})
	}
	commit(t, s, &c)
	for _, test := range []struct {
		after uint64
		limit int
		want  []uint64
	}{
		{0, 10, []uint64{10, 20, 30, 40}},
		{0, 2, []uint64{10, 20}},
		{10, 2, []uint64{20, 30}},
		{11, 2, []uint64{20, 30}},
		{40, 2, nil},
		{1<<64 - 1, 2, nil},
		{0, 0, nil},
		{0, -1, nil},
	} {
		in, err := s.Inbox(t.Context(), test.after, test.limit)
		if err != nil {
			t.Fatal(err)
		}
		out, err := s.Outbox(t.Context(), test.after, test.limit)
		if err != nil {
			t.Fatal(err)
		}
		var gotIn, gotOut []uint64
		for _, r := range in {
			gotIn = append(gotIn, r.Seq)
		}
		for _, r := range out {
			gotOut = append(gotOut, r.Seq)
		}
		if !slices.Equal(gotIn, test.want) || !slices.Equal(gotOut, test.want) {
			t.Errorf("%d after %d: inbox %v, outbox %v, want %v", test.limit, test.after, gotIn, gotOut, test.want)
		}
	}
	for _, test := range []struct {
		from omemo.Address
		want []uint64
	}{
		{omemo.Address{}, []uint64{10, 20, 30, 40}},
		{omemo.Address{JID: "romeo@montague.example", Device: 10}, []uint64{10, 30}},
		{omemo.Address{JID: "romeo@montague.example"}, []uint64{20, 40}},
		{omemo.Address{JID: "nurse@capulet.example", Device: 10}, nil},
	} {
		rows, err := s.Journal(t.Context(), test.from)
		if err != nil {
			t.Fatal(err)
		}
		var got []uint64
		for _, r := range rows {
			got = append(got, r.ID)
		}
		if !slices.Equal(got, test.want) {
			t.Errorf("journal of %v: %v, want %v", test.from, got, test.want)
		}
	}
}

func testOwed(t *testing.T, open Opener) {
	s := open.open(t)
	var c omemo.Changes
	for _, minute := range []int{5, 1, 9, 3} {
		c.Owed = append(c.Owed, omemo.OwedRow{OwedID: omemo.OwedID{Kind: omemo.OwedHeartbeat, Session: uint64(minute)}, Since: at(minute)})
	}
	commit(t, s, &c)
	rows, err := s.Owed(t.Context())
	if err != nil || len(rows) != 4 || !slices.IsSortedFunc(rows, func(a, b omemo.OwedRow) int { return a.Since.Compare(b.Since) }) {
		t.Errorf("not the oldest first: %+v, %v", rows, err)
	}
}

// testTexts uses names that an attacker may choose.
func testTexts(t *testing.T, open Opener) {
	s := open.open(t)
	for i, text := range []string{
		`o'hara@example.org`, `"; DROP TABLE omemo_session; --`, "%", "_", `\`, "?", "$1", "{now}", "", " ", "a\nb\tc",
		"ROMEO@montague.example", "romeo@montague.example", "romeo@montague.example ", "straße@example.org", "strasse@example.org",
		"\u00e9@example.org", "e\u0301@example.org", "🌹@example.org", strings.Repeat("x", 3071),
	} {
		p := peer(omemo.V2, text, 1)
		c := &omemo.Changes{
			Sessions: []omemo.SessionRow{{ID: uint64(i + 1), Peer: p, Record: []byte(text)}},
			Contacts: []omemo.Contact{{JID: text, Seen: true}},
			Devices:  []omemo.Device{{Peer: p, Label: text}},
			Outbox:   []omemo.OutboxRow{{Seq: uint64(i + 1), ID: text, Chat: text, Devices: []omemo.Peer{p}}},
		}
		commit(t, s, c)
		rows, err := s.Sessions(t.Context(), []omemo.Peer{p})
		if err != nil || len(rows) != 1 || rows[0].Peer != p || rows[0].ID != uint64(i+1) {
			t.Errorf("session with %q: %+v, %v", text, rows, err)
		}
		a, err := s.Accounts(t.Context(), text)
		if err != nil || len(a.Contacts) != 1 || a.Contacts[0].JID != text || len(a.Devices) != 1 || a.Devices[0].Label != text {
			t.Errorf("account %q: %+v, %v", text, a, err)
		}
		out, err := s.Outbox(t.Context(), uint64(i), 1)
		if err != nil || len(out) != 1 || out[0].ID != text || out[0].Chat != text || out[0].Devices[0] != p {
			t.Errorf("outbox of %q: %+v, %v", text, out, err)
		}
	}
}

// testNumbers uses numbers that have more bits than stores keep.
func testNumbers(t *testing.T, open Opener) {
	s := open.open(t)
	commit(t, s, &omemo.Changes{Outbox: []omemo.OutboxRow{{Seq: 1}}})
	const large = 1 << 63
	for _, c := range []*omemo.Changes{
		{Sessions: []omemo.SessionRow{{ID: large}}},
		{Sessions: []omemo.SessionRow{{ID: 1, Archived: large}}},
		{Skipped: []omemo.SkippedRow{{SkippedID: omemo.SkippedID{Session: large}}}},
		{Inbox: []omemo.InboxRow{{Seq: large}}},
		{Outbox: []omemo.OutboxRow{{Seq: large}}},
		{Journal: []omemo.JournalRow{{ID: large}}},
		{Owed: []omemo.OwedRow{{OwedID: omemo.OwedID{Session: large}}}},
	} {
		unchanged(t, s, keys{}, c)
	}
}

// testTimes: UTC, to the microsecond, over all years that XMPP can write.
func testTimes(t *testing.T, open Opener) {
	s := open.open(t)
	for _, when := range []time.Time{
		{},
		time.Unix(0, 0),
		time.Date(1, 1, 1, 0, 0, 0, 1000, time.UTC),
		time.Date(1969, 12, 31, 23, 59, 59, 999999999, time.UTC),
		time.Date(2026, 2, 3, 4, 5, 6, 789012345, time.FixedZone("", 3600)),
		time.Date(9999, 12, 31, 23, 59, 59, 999999999, time.UTC),
		time.Now(),
	} {
		commit(t, s, &omemo.Changes{Cursors: []omemo.Cursor{{Archive: "a", When: when}}})
		rows, err := s.Cursors(t.Context())
		if err != nil || len(rows) != 1 {
			t.Fatal(rows, err)
		}
		want := time.UnixMicro(when.UnixMicro()).UTC()
		if when.IsZero() {
			want = time.Time{}
		}
		if got := rows[0].When; got != want {
			t.Errorf("%v became %v", when, got)
		}
	}
}

// testDropContacts: a contact goes with the decisions about its keys and with what
// its devices have stated, its devices
// stay unless they are named, and other accounts are left alone.
func testDropContacts(t *testing.T, open Opener) {
	s := open.open(t)
	c := sample()
	commit(t, s, c)
	commit(t, s, &omemo.Changes{DropContacts: []string{"romeo@montague.example", "nobody@example.org"}})
	a, err := s.Accounts(t.Context())
	if err != nil || len(a.Contacts) != 1 || len(a.Trust) != 1 || len(a.Devices) != len(c.Devices) {
		t.Fatalf("left: %+v, %v", a, err)
	}
	if a.Contacts[0].JID != "nurse@capulet.example" || a.Trust[0].JID != "nurse@capulet.example" {
		t.Errorf("left: %+v", a)
	}
	if rows, err := s.Statements(t.Context()); err != nil || len(rows) != 1 || rows[0].JID != "nurse@capulet.example" {
		t.Errorf("statements left: %+v, %v", rows, err)
	}
	// Removed, and there again in the same commit.
	commit(t, s, &omemo.Changes{DropContacts: []string{"nurse@capulet.example"}, Contacts: c.Contacts[1:]})
	a, err = s.Accounts(t.Context(), "nurse@capulet.example")
	if err != nil || len(a.Contacts) != 1 || len(a.Trust) != 0 {
		t.Errorf("left: %+v, %v", a, err)
	}
}
