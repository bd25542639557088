package storetest

import (
	"fmt"
	"testing"
	"time"

	"example.org/omellium/omemo"
)

func testEmpty(t *testing.T, open Opener) {
	s := open.open(t)
	same(t, read(t, s, keysOf(sample())), content{})
	commit(t, s, &omemo.Changes{})
	same(t, read(t, s, keysOf(sample())), content{})
}

func testRoundTrip(t *testing.T, open Opener) {
	s := open.open(t)
	c := sample()
	commit(t, s, c)
	same(t, read(t, s, keysOf(c)), expected(sample()))
}

// testOverwrite writes every row again with other fields, twice in one commit:
// the last one counts.
func testOverwrite(t *testing.T, open Opener) {
	s := open.open(t)
	commit(t, s, sample())
	c, want := sample(), sample()
	for _, c := range []*omemo.Changes{c, want} {
		c.Account = []byte("another record")
		for i := range c.PreKeys {
			c.PreKeys[i].Private, c.PreKeys[i].Used = fill(99), at(20)
		}
		for i := range c.Sessions {
			c.Sessions[i].Record = []byte("advanced")
		}
		for i := range c.Skipped {
			c.Skipped[i].Key = fill(98)
		}
		for i := range c.Ended {
			c.Ended[i].Next, c.Ended[i].When = 5, at(21)
		}
		for i := range c.Contacts {
			r := &c.Contacts[i]
			r.Lists, r.Seen, r.Written = map[omemo.Version]time.Time{omemo.Legacy: at(22)}, !r.Seen, !r.Written
			r.OptOut = omemo.OptOutAccepted
		}
		for i := range c.Devices {
			r := &c.Devices[i]
			r.Stale, r.LabelSignature = !r.Stale, [64]byte{}
			r.Identity, r.Fingerprint, r.Active, r.Label, r.LastSeen = fill(97), omemo.Fingerprint{}, !r.Active, "window", at(23)
		}
		for i := range c.Trust {
			c.Trust[i].Trust, c.Trust[i].Since, c.Trust[i].By = omemo.Distrusted, at(24), omemo.Fingerprint(fill(96))
		}
		for i := range c.Inbox {
			c.Inbox[i].Attempts, c.Inbox[i].Stanza = 5, []byte("<other/>")
		}
		for i := range c.Outbox {
			c.Outbox[i].Stanza, c.Outbox[i].Devices = []byte("<other/>"), c.Outbox[0].Devices[:1]
		}
		for i := range c.Journal {
			c.Journal[i].Reason = "late"
		}
		for i := range c.Owed {
			c.Owed[i].Since = at(25 + i)
		}
		for i := range c.Cursors {
			c.Cursors[i].Position = "later"
		}
		for i := range c.Occupants {
			c.Occupants[i].Account, c.Occupants[i].Seen = "tybalt@capulet.example", at(26)
		}
		for i := range c.Statements {
			c.Statements[i].Trusted, c.Statements[i].Stated = !c.Statements[i].Trusted, at(27)
		}
		for i := range c.Echoes {
			c.Echoes[i].Content, c.Echoes[i].Outbox = []byte("<other/>"), 3
		}
	}
	// Before the rows that count, some with the same keys that do not.
	before := sample()
	c.PreKeys = append(before.PreKeys, c.PreKeys...)
	c.Sessions = append(before.Sessions, c.Sessions...)
	c.Skipped = append(before.Skipped, c.Skipped...)
	c.Ended = append(before.Ended, c.Ended...)
	c.Contacts = append(before.Contacts, c.Contacts...)
	c.Devices = append(before.Devices, c.Devices...)
	c.Trust = append(before.Trust, c.Trust...)
	c.Inbox = append(before.Inbox, c.Inbox...)
	c.Outbox = append(before.Outbox, c.Outbox...)
	c.Journal = append(before.Journal, c.Journal...)
	c.Owed = append(before.Owed, c.Owed...)
	c.Cursors = append(before.Cursors, c.Cursors...)
	c.Occupants = append(before.Occupants, c.Occupants...)
	c.Echoes = append(before.Echoes, c.Echoes...)
	c.Statements = append(before.Statements, c.Statements...)
	commit(t, s, c)
	same(t, read(t, s, keysOf(want)), expected(want))
}

// removals returns changes that remove every row of others that can be removed.
func removals(c *omemo.Changes) *omemo.Changes {
	var r omemo.Changes
	for _, row := range c.PreKeys {
		r.DropPreKeys = append(r.DropPreKeys, omemo.PreKeyID{Version: row.Version, ID: row.ID})
	}
	for _, row := range c.Sessions {
		r.DropSessions = append(r.DropSessions, row.ID)
	}
	for _, row := range c.Skipped {
		r.DropSkipped = append(r.DropSkipped, row.SkippedID)
	}
	for _, row := range c.Devices {
		r.DropDevices = append(r.DropDevices, row.Peer)
	}
	for _, row := range c.Inbox {
		r.DropInbox = append(r.DropInbox, row.Seq)
	}
	for _, row := range c.Outbox {
		r.DropOutbox = append(r.DropOutbox, row.Seq)
	}
	for _, row := range c.Journal {
		r.DropJournal = append(r.DropJournal, row.ID)
	}
	for _, row := range c.Owed {
		r.DropOwed = append(r.DropOwed, row.OwedID)
	}
	for _, row := range c.Cursors {
		r.DropCursors = append(r.DropCursors, row.Archive)
	}
	for _, row := range c.Occupants {
		r.DropOccupants = append(r.DropOccupants, row.OccupantID)
	}
	for _, row := range c.Echoes {
		r.DropEchoes = append(r.DropEchoes, row.Hash)
	}
	for _, row := range c.Statements {
		r.DropStatements = append(r.DropStatements, row.StatementID)
	}
	return &r
}

func testRemove(t *testing.T, open Opener) {
	s := open.open(t)
	commit(t, s, sample())
	r := removals(sample())
	r.PruneEnded = at(59)
	commit(t, s, r)
	c := sample()
	want := expected(&omemo.Changes{Account: c.Account, Contacts: c.Contacts, Trust: c.Trust})
	want.State.Inbox, want.State.Outbox = 1<<63-1, 2
	same(t, read(t, s, keysOf(c)), want)
	commit(t, s, r) // what is not there need not be removed
	same(t, read(t, s, keysOf(c)), want)
}

func testRemoveBeforeInsert(t *testing.T, open Opener) {
	s := open.open(t)
	commit(t, s, sample())
	c := sample()
	r := removals(c)
	r.PreKeys, r.Sessions, r.Skipped, r.Devices = c.PreKeys, c.Sessions, c.Skipped, c.Devices
	r.Inbox, r.Outbox, r.Journal, r.Owed = c.Inbox, c.Outbox, c.Journal, c.Owed
	r.Occupants, r.Echoes, r.Statements = c.Occupants, c.Echoes, c.Statements
	r.Cursors = c.Cursors
	commit(t, s, r)
	same(t, read(t, s, keysOf(c)), expected(sample()))
}

// many returns changes with n rows of every kind.
func many(n int) *omemo.Changes {
	c := &omemo.Changes{Account: []byte("the account")}
	for i := range n {
		p := peer(omemo.Version(1+i%2), fmt.Sprintf("user%d@example.org", i/3), omemo.DeviceID(i+1))
		seq := uint64(i + 1)
		c.PreKeys = append(c.PreKeys, omemo.PreKeyRow{Version: omemo.V2, ID: uint32(i + 1), Private: fill(byte(i))})
		c.Sessions = append(c.Sessions, omemo.SessionRow{ID: seq, Peer: p, Record: fmt.Appendf(nil, "record %d", i)})
		c.Skipped = append(c.Skipped, omemo.SkippedRow{SkippedID: omemo.SkippedID{Session: 1, Ratchet: fill(1), N: uint32(i)}, Key: fill(byte(i))})
		c.Ended = append(c.Ended, omemo.EndedChain{ChainID: omemo.ChainID{Peer: p, Ratchet: fill(2)}, Next: uint32(i), When: at(1)})
		c.Contacts = append(c.Contacts, omemo.Contact{JID: fmt.Sprintf("user%d@example.org", i), Seen: true})
		c.Devices = append(c.Devices, omemo.Device{Peer: p, Identity: fill(byte(i)), Active: true, FirstSeen: at(2)})
		c.Trust = append(c.Trust, omemo.TrustRecord{JID: fmt.Sprintf("user%d@example.org", i), Trust: omemo.Verified, Since: at(3)})
		c.Inbox = append(c.Inbox, omemo.InboxRow{Seq: seq, Stanza: fmt.Appendf(nil, "<message id='%d'/>", i)})
		c.Outbox = append(c.Outbox, omemo.OutboxRow{Seq: seq, Stanza: fmt.Appendf(nil, "<message id='%d'/>", i), Devices: []omemo.Peer{p}})
		c.Journal = append(c.Journal, omemo.JournalRow{ID: seq, From: p.Address, Stanza: []byte("<message/>")})
		c.Owed = append(c.Owed, omemo.OwedRow{OwedID: omemo.OwedID{Kind: omemo.OwedCompletion, Peer: p, Session: seq}, Since: at(4).Add(time.Duration(i) * time.Second)})
		c.Cursors = append(c.Cursors, omemo.Cursor{Archive: fmt.Sprintf("room%d@example.org", i), Position: "p"})
		c.Occupants = append(c.Occupants, omemo.OccupantRow{
			OccupantID: omemo.OccupantID{Room: fmt.Sprintf("room%d@example.org", i%7), Nick: fmt.Sprint(i)}, Account: "a@example.org",
		})
		c.Statements = append(c.Statements, omemo.StatementRow{
			StatementID: omemo.StatementID{JID: fmt.Sprintf("user%d@example.org", i%7), Owner: "a@example.org", Key: omemo.Fingerprint{byte(i), byte(i >> 8)}}, Stated: at(5),
		})
		c.Echoes = append(c.Echoes, omemo.EchoRow{Hash: [32]byte{byte(i), byte(i >> 8)}, Outbox: seq, Content: []byte("<body/>")})
	}
	return c
}

// testBatches writes, reads, overwrites and removes lists of lengths around the
// pieces that a store may cut them into.
func testBatches(t *testing.T, open Opener) {
	s := open.open(t)
	for _, n := range []int{1, 2, 9, 11, 99, 101, 1000} {
		c := many(n)
		want := expected(c)
		k := keysOf(c)
		commit(t, s, c)
		got := read(t, s, k)
		want.State = got.State
		same(t, got, want)

		ids := make([]uint32, n)
		jids := make([]string, n)
		for i := range n {
			ids[i], jids[i] = c.PreKeys[i].ID, c.Contacts[i].JID
		}
		if rows, err := s.PreKeys(t.Context(), omemo.V2, ids...); err != nil || len(rows) != n {
			t.Errorf("%d pre keys: got %d, %v", n, len(rows), err)
		}
		if a, err := s.Accounts(t.Context(), jids...); err != nil || len(a.Contacts) != n || len(a.Devices) != n || len(a.Trust) != n {
			t.Errorf("%d accounts: got %d, %d, %d, %v", n, len(a.Contacts), len(a.Devices), len(a.Trust), err)
		}

		for i := range c.Sessions {
			c.Sessions[i].Record = fmt.Appendf(nil, "advanced %d", i)
		}
		commit(t, s, &omemo.Changes{Sessions: c.Sessions})
		want.Sessions = expected(c).Sessions
		same(t, read(t, s, k), want)

		r := removals(c)
		r.PruneEnded = at(59)
		commit(t, s, r)
		left := read(t, s, k)
		if len(left.PreKeys)+len(left.Sessions)+len(left.Skipped)+len(left.Ended)+len(left.Devices)+
			len(left.Inbox)+len(left.Outbox)+len(left.Journal)+len(left.Owed)+len(left.Occupants)+len(left.Echoes)+len(left.Statements) != 0 {
			t.Errorf("%d rows: not all were removed: %+v", n, left)
		}
	}
}

// testReadSome asks for rows that exist, rows that do not, and the same twice.
func testReadSome(t *testing.T, open Opener) {
	s := open.open(t)
	commit(t, s, many(30))
	c := many(40)
	twice := func(i int) bool { return i%3 == 0 }
	var peers []omemo.Peer
	var skipped []omemo.SkippedID
	var chains []omemo.ChainID
	var ids []uint32
	var jids []string
	for i := 20; i < 40; i++ {
		for range map[bool]int{false: 1, true: 2}[twice(i)] {
			peers = append(peers, c.Sessions[i].Peer)
			skipped = append(skipped, c.Skipped[i].SkippedID)
			chains = append(chains, c.Ended[i].ChainID)
			ids = append(ids, c.PreKeys[i].ID)
			jids = append(jids, c.Contacts[i].JID)
		}
	}
	ctx := t.Context()
	if rows, err := s.Sessions(ctx, peers); err != nil || len(rows) != 10 {
		t.Errorf("Sessions: got %d, %v, want 10", len(rows), err)
	}
	if rows, err := s.Skipped(ctx, skipped); err != nil || len(rows) != 10 {
		t.Errorf("Skipped: got %d, %v, want 10", len(rows), err)
	}
	if rows, err := s.Ended(ctx, chains); err != nil || len(rows) != 10 {
		t.Errorf("Ended: got %d, %v, want 10", len(rows), err)
	}
	if rows, err := s.PreKeys(ctx, omemo.V2, ids...); err != nil || len(rows) != 10 {
		t.Errorf("PreKeys: got %d, %v, want 10", len(rows), err)
	}
	if rows, err := s.PreKeys(ctx, omemo.Legacy, ids...); err != nil || len(rows) != 0 {
		t.Errorf("PreKeys of the other version: got %d, %v, want none", len(rows), err)
	}
	if a, err := s.Accounts(ctx, jids...); err != nil || len(a.Contacts) != 10 || len(a.Trust) != 10 || len(a.Devices) != 0 {
		t.Errorf("Accounts: got %d, %d, %d, %v, want 10, 10, 0", len(a.Contacts), len(a.Trust), len(a.Devices), err)
	}
	if a, err := s.Accounts(ctx, "user0@example.org"); err != nil || len(a.Devices) != 3 {
		t.Errorf("devices of one account: got %d, %v, want 3", len(a.Devices), err)
	}
	if rows, err := s.Occupants(ctx, "room1@example.org", "room1@example.org", "room99@example.org"); err != nil || len(rows) != 5 {
		t.Errorf("Occupants: got %d, %v, want 5", len(rows), err)
	}
	if rows, err := s.Statements(ctx, "user1@example.org", "user1@example.org", "user99@example.org"); err != nil || len(rows) != 5 {
		t.Errorf("Statements: got %d, %v, want 5", len(rows), err)
	}
	if rows, err := s.Echoes(ctx, c.Echoes[29].Hash, c.Echoes[30].Hash, c.Echoes[29].Hash); err != nil || len(rows) != 1 {
		t.Errorf("Echoes: got %d, %v, want 1", len(rows), err)
	}
	for name, read := range map[string]func() (int, error){
		"Sessions": func() (int, error) { r, err := s.Sessions(ctx, nil); return len(r), err },
		"Skipped":  func() (int, error) { r, err := s.Skipped(ctx, nil); return len(r), err },
		"Ended":    func() (int, error) { r, err := s.Ended(ctx, nil); return len(r), err },
	} {
		if n, err := read(); n != 0 || err != nil {
			t.Errorf("%s of nothing: got %d, %v", name, n, err)
		}
	}
}

// testCopies changes what was given to a store, and what was got from it.
func testCopies(t *testing.T, open Opener) {
	s := open.open(t)
	c := sample()
	k := keysOf(c)
	commit(t, s, c)
	spoil := func(all ...[]byte) {
		for _, b := range all {
			clear(b)
		}
	}
	spoil(c.Account, c.Sessions[1].Record, c.Inbox[0].Stanza, c.Outbox[0].Stanza, c.Journal[0].Stanza, c.Echoes[0].Content)
	c.Outbox[0].Devices[0] = omemo.Peer{}
	c.Contacts[0].Lists[omemo.V2] = at(50)
	got := read(t, s, k)
	same(t, got, expected(sample()))
	spoil(got.State.Account, got.Inbox[0].Stanza, got.Outbox[0].Stanza, got.Journal[0].Stanza, got.Echoes[0].Content)
	for i := range got.Sessions {
		spoil(got.Sessions[i].Record)
	}
	got.Outbox[0].Devices[0] = omemo.Peer{}
	for i := range got.Contacts {
		clear(got.Contacts[i].Lists)
	}
	same(t, read(t, s, k), expected(sample()))
}
