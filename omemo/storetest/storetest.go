// Package storetest is the suite that every omemo.Store must pass, and a
// wrapper that makes a store fail.
package storetest

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"testing"
	"time"

	"example.org/omellium/omemo"
)

// Opener opens the store of an account in one database. When the account is
// opened again after Close, it is as it was. Several accounts may be open at
// the same time.
type Opener func(t *testing.T, account string) omemo.Store

// Run runs the suite. Fresh returns an opener for an empty database.
func Run(t *testing.T, fresh func(t *testing.T) Opener) {
	for _, test := range []struct {
		name string
		run  func(t *testing.T, open Opener)
	}{
		{"Empty", testEmpty},
		{"RoundTrip", testRoundTrip},
		{"Overwrite", testOverwrite},
		{"Remove", testRemove},
		{"RemoveBeforeInsert", testRemoveBeforeInsert},
		{"Batches", testBatches},
		{"ReadSome", testReadSome},
		{"Copies", testCopies},
		{"CurrentSession", testCurrentSession},
		{"DropSession", testDropSession},
		{"DropContacts", testDropContacts},
		{"Trim", testTrim},
		{"PruneEnded", testPruneEnded},
		{"Sequences", testSequences},
		{"Queues", testQueues},
		{"Owed", testOwed},
		{"Texts", testTexts},
		{"Numbers", testNumbers},
		{"Times", testTimes},
		{"Within", testWithin},
		{"Cancelled", testCancelled},
		{"Closed", testClosed},
		{"Reopen", testReopen},
		{"Accounts", testAccounts},
		{"Concurrent", testConcurrent},
	} {
		t.Run(test.name, func(t *testing.T) { test.run(t, fresh(t)) })
	}
}

const account = "juliet@capulet.example"

// open opens the store of the account, until the test ends.
func (o Opener) open(t *testing.T) omemo.Store {
	t.Helper()
	s := o(t, account)
	t.Cleanup(func() { s.Close() })
	return s
}

func commit(t *testing.T, s omemo.Store, c *omemo.Changes) {
	t.Helper()
	if err := s.Commit(t.Context(), c); err != nil {
		t.Fatalf("Commit: %v", err)
	}
}

// content is all that stands in a store.
type content struct {
	State    omemo.State
	PreKeys  []omemo.PreKeyRow
	Sessions []omemo.SessionRow
	Skipped  []omemo.SkippedRow
	Ended    []omemo.EndedChain
	Contacts []omemo.Contact
	Devices  []omemo.Device
	Trust    []omemo.TrustRecord
	Inbox    []omemo.InboxRow
	Outbox   []omemo.OutboxRow
	Journal  []omemo.JournalRow
	Owed     []omemo.OwedRow
	Cursors  []omemo.Cursor

	Occupants []omemo.OccupantRow
	Echoes    []omemo.EchoRow

	Statements []omemo.StatementRow
}

// keys say which rows content is asked for, where a store cannot list them.
type keys struct {
	peers   []omemo.Peer
	skipped []omemo.SkippedID
	chains  []omemo.ChainID
}

func keysOf(c *omemo.Changes) (k keys) {
	for _, r := range c.Sessions {
		k.peers = append(k.peers, r.Peer)
	}
	for _, r := range c.Skipped {
		k.skipped = append(k.skipped, r.SkippedID)
	}
	for _, r := range c.Ended {
		k.chains = append(k.chains, r.ChainID)
	}
	return k
}

// read reads a whole store, in an order that does not depend on the store.
func read(t *testing.T, s omemo.Store, k keys) content {
	t.Helper()
	ctx := t.Context()
	var c content
	var errs [15]error
	c.State, errs[0] = s.Load(ctx)
	for i, v := range omemo.Versions() {
		var rows []omemo.PreKeyRow
		rows, errs[1+i] = s.PreKeys(ctx, v)
		c.PreKeys = append(c.PreKeys, rows...)
	}
	c.Sessions, errs[3] = s.Sessions(ctx, k.peers)
	c.Skipped, errs[4] = s.Skipped(ctx, k.skipped)
	c.Ended, errs[5] = s.Ended(ctx, k.chains)
	accounts, err := s.Accounts(ctx)
	errs[6] = err
	c.Contacts, c.Devices, c.Trust = accounts.Contacts, accounts.Devices, accounts.Trust
	c.Inbox, errs[7] = s.Inbox(ctx, 0, 1<<20)
	c.Outbox, errs[8] = s.Outbox(ctx, 0, 1<<20)
	c.Journal, errs[9] = s.Journal(ctx, omemo.Address{})
	c.Owed, errs[10] = s.Owed(ctx)
	c.Cursors, errs[11] = s.Cursors(ctx)
	c.Occupants, errs[12] = s.Occupants(ctx)
	c.Echoes, errs[13] = s.Echoes(ctx)
	c.Statements, errs[14] = s.Statements(ctx)
	if err := errors.Join(errs[:]...); err != nil {
		t.Fatalf("reading the store: %v", err)
	}
	c.normalize()
	return c
}

// expected returns what a store holds after changes to an empty one.
func expected(c *omemo.Changes) content {
	e := content{
		State:    omemo.State{Account: c.Account},
		PreKeys:  slices.Clone(c.PreKeys),
		Sessions: slices.Clone(c.Sessions),
		Skipped:  slices.Clone(c.Skipped),
		Ended:    slices.Clone(c.Ended),
		Contacts: slices.Clone(c.Contacts),
		Devices:  slices.Clone(c.Devices),
		Trust:    slices.Clone(c.Trust),
		Inbox:    slices.Clone(c.Inbox),
		Outbox:   slices.Clone(c.Outbox),
		Journal:  slices.Clone(c.Journal),
		Owed:     slices.Clone(c.Owed),
		Cursors:  slices.Clone(c.Cursors),

		Occupants: slices.Clone(c.Occupants),
		Echoes:    slices.Clone(c.Echoes),

		Statements: slices.Clone(c.Statements),
	}
	for _, r := range c.Inbox {
		e.State.Inbox = max(e.State.Inbox, r.Seq)
	}
	for _, r := range c.Outbox {
		e.State.Outbox = max(e.State.Outbox, r.Seq)
	}
	e.normalize()
	return e
}

func (c *content) normalize() {
	order(c.PreKeys, func(r omemo.PreKeyRow) string { return fmt.Sprint(r.Version, r.ID) })
	order(c.Sessions, func(r omemo.SessionRow) string { return fmt.Sprint(r.ID) })
	order(c.Skipped, func(r omemo.SkippedRow) string { return fmt.Sprint(r.SkippedID) })
	order(c.Ended, func(r omemo.EndedChain) string { return fmt.Sprint(r.ChainID) })
	order(c.Contacts, func(r omemo.Contact) string { return r.JID })
	order(c.Devices, func(r omemo.Device) string { return r.Peer.String() })
	order(c.Trust, func(r omemo.TrustRecord) string { return r.JID + r.Fingerprint.String() })
	order(c.Occupants, func(r omemo.OccupantRow) string { return fmt.Sprint(r.OccupantID) })
	order(c.Statements, func(r omemo.StatementRow) string { return fmt.Sprint(r.StatementID) })
	order(c.Echoes, func(r omemo.EchoRow) string { return string(r.Hash[:]) })
	order(c.Cursors, func(r omemo.Cursor) string { return r.Archive })
	for i := range c.Contacts {
		if len(c.Contacts[i].Lists) == 0 {
			c.Contacts[i].Lists = nil
		}
	}
}

// order sorts rows that a store may return in any order.
func order[R any](rows []R, key func(R) string) {
	type keyed struct {
		key string
		row R
	}
	all := make([]keyed, len(rows))
	for i, r := range rows {
		all[i] = keyed{key(r), r}
	}
	slices.SortFunc(all, func(a, b keyed) int { return cmp.Compare(a.key, b.key) })
	for i := range all {
		rows[i] = all[i].row
	}
}

// same compares what is in a store with what should be.
func same(t *testing.T, got, want content) {
	t.Helper()
	got.State.JID, want.State.JID = "", ""
	differ(t, "", reflect.ValueOf(got), reflect.ValueOf(want))
}

// differ reports every field that is not as it should be. The rows themselves
// print as "redacted".
func differ(t *testing.T, path string, got, want reflect.Value) {
	t.Helper()
	switch {
	case got.Type() == reflect.TypeFor[time.Time]() || got.Kind() != reflect.Struct && got.Kind() != reflect.Slice,
		got.Type() == reflect.TypeFor[[]byte]():
		if !reflect.DeepEqual(got.Interface(), want.Interface()) {
			t.Errorf("%s: got %v, want %v", path, got, want)
		}
	case got.Kind() == reflect.Struct:
		for i := range got.NumField() {
			differ(t, path+"."+got.Type().Field(i).Name, got.Field(i), want.Field(i))
		}
	default:
		if got.Len() != want.Len() {
			t.Errorf("%s: got %d rows, want %d", path, got.Len(), want.Len())
			return
		}
		for i := range got.Len() {
			differ(t, fmt.Sprintf("%s[%d]", path, i), got.Index(i), want.Index(i))
		}
	}
}

// at returns a time as stores keep it.
func at(minute int) time.Time {
	return time.Date(2026, 2, 3, 4, minute, 5, 678901000, time.UTC)
}

// fill returns 32 bytes.
func fill(b byte) (key [32]byte) {
	copy(key[:], bytes.Repeat([]byte{b}, 32))
	return key
}

func peer(v omemo.Version, jid string, device omemo.DeviceID) omemo.Peer {
	return omemo.Peer{Version: v, Address: omemo.Address{JID: jid, Device: device}}
}

// sample returns changes with rows of every kind, and with fields at their
// zero, usual and greatest values.
func sample() *omemo.Changes {
	romeo := peer(omemo.V2, "romeo@montague.example", 1)
	nurse := peer(omemo.Legacy, "nurse@capulet.example", 1<<32-1)
	return &omemo.Changes{
		Account: []byte("the account"),
		PreKeys: []omemo.PreKeyRow{
			{Version: omemo.Legacy, ID: 1, Private: fill(1)},
			{Version: omemo.V2, ID: 1, Private: fill(2), Used: at(1)},
			{Version: omemo.V2, ID: 1<<32 - 1, Private: fill(3)},
		},
		Sessions: []omemo.SessionRow{
			{ID: 1<<63 - 1, Peer: romeo, Archived: 3, Record: []byte("old")},
			{ID: 2, Peer: romeo, Record: []byte("current")},
			{ID: 3, Peer: nurse, Archived: 1<<63 - 1, Record: []byte("older")},
		},
		Skipped: []omemo.SkippedRow{
			{SkippedID: omemo.SkippedID{Session: 2, Ratchet: fill(4), N: 0}, Key: fill(5)},
			{SkippedID: omemo.SkippedID{Session: 2, Ratchet: fill(4), N: 1<<32 - 1}, Key: fill(6)},
			{SkippedID: omemo.SkippedID{Session: 1<<63 - 1, Ratchet: fill(4), N: 0}, Key: fill(7)},
		},
		Ended: []omemo.EndedChain{
			{ChainID: omemo.ChainID{Peer: romeo, Ratchet: fill(8)}, Next: 1<<32 - 1, When: at(2)},
			{ChainID: omemo.ChainID{Peer: nurse, Ratchet: fill(8)}},
		},
		Contacts: []omemo.Contact{
			{JID: "romeo@montague.example", Seen: true, Lists: map[omemo.Version]time.Time{omemo.V2: at(3), omemo.Legacy: {}}},
			{JID: "nurse@capulet.example", Written: true, OptOut: omemo.OptOutAsked},
		},
		Devices: []omemo.Device{
			{
				Peer: romeo, Identity: fill(9), Fingerprint: omemo.Fingerprint(fill(10)), Active: true, Received: true, Sent: true, Invited: true,
				Label: "balcony", LabelSignature: [64]byte{63: 1}, Stale: true, FirstSeen: at(4), LastSeen: at(5), BundleFailures: 7, BundleTried: at(6), Conflict: omemo.Fingerprint(fill(11)),
			},
			{Peer: nurse},
			{Peer: peer(omemo.V2, nurse.JID, nurse.Device), Received: true},
		},
		Trust: []omemo.TrustRecord{
			{JID: "romeo@montague.example", Fingerprint: omemo.Fingerprint(fill(10)), Trust: omemo.Verified, Since: at(7), By: omemo.Fingerprint(fill(14))},
			{JID: "nurse@capulet.example", Fingerprint: omemo.Fingerprint(fill(10)), Trust: omemo.Undecided},
		},
		Inbox: []omemo.InboxRow{
			{Seq: 1, Event: "event", Stanza: []byte("<message/>"), Received: at(8), Attempts: 4, Dead: true},
			{Seq: 1<<63 - 1, Stanza: []byte("<message/>")},
		},
		Outbox: []omemo.OutboxRow{
			{Seq: 1, ID: "id", Chat: "romeo@montague.example", Stanza: []byte("<message/>"), Devices: []omemo.Peer{romeo, nurse}, Created: at(9)},
			{Seq: 2, Stanza: []byte("<message/>")},
		},
		Journal: []omemo.JournalRow{
			{ID: 1, From: romeo.Address, Reason: "no session", Stanza: []byte("<message/>"), Received: at(10)},
			{ID: 2, From: nurse.Address, Stanza: []byte("<message/>")},
		},
		Owed: []omemo.OwedRow{
			{OwedID: omemo.OwedID{Kind: omemo.OwedDevices, Peer: nurse}},
			{OwedID: omemo.OwedID{Kind: omemo.OwedHeartbeat, Peer: romeo, Session: 1<<63 - 1}, Since: at(11)},
		},
		Cursors: []omemo.Cursor{
			{Archive: account, Position: "28482-98726-73623", When: at(12)},
			{Archive: "room@chat.example"},
		},
		Occupants: []omemo.OccupantRow{
			{OccupantID: omemo.OccupantID{Room: "room@chat.example", Nick: "nurse"}, Account: "nurse@capulet.example", Since: at(13), Seen: at(14)},
			{OccupantID: omemo.OccupantID{Room: "room@chat.example", Nick: "nurse", N: 1<<32 - 1}, Account: "romeo@montague.example", Since: at(15)},
			{OccupantID: omemo.OccupantID{Room: "hall@chat.example", Nick: " "}},
		},
		Echoes: []omemo.EchoRow{
			{Hash: fill(12), Outbox: 1<<63 - 1, Created: at(16), Content: []byte("<body/>")},
			{Hash: fill(13), Content: []byte("<body/>")},
		},
		Statements: []omemo.StatementRow{
			{StatementID: omemo.StatementID{JID: "romeo@montague.example", Fingerprint: omemo.Fingerprint(fill(10)), Owner: account, Key: omemo.Fingerprint(fill(15))}, Trusted: true, Stated: at(17)},
			{StatementID: omemo.StatementID{JID: "romeo@montague.example", Fingerprint: omemo.Fingerprint(fill(10)), Owner: account, Key: omemo.Fingerprint(fill(16))}},
			{StatementID: omemo.StatementID{JID: "nurse@capulet.example", Fingerprint: omemo.Fingerprint(fill(10)), Owner: account, Key: omemo.Fingerprint(fill(15))}},
		},
	}
}
