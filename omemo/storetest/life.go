package storetest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"

	"example.org/omellium/omemo"
)

// testWithin: a function that runs within the transaction adds to the changes,
// and its error undoes everything. Stores without transactions refuse it.
func testWithin(t *testing.T, open Opener) {
	s := open.open(t)
	commit(t, s, &omemo.Changes{Outbox: []omemo.OutboxRow{{Seq: 1}}})
	ran := 0
	c := &omemo.Changes{
		Inbox: append(make([]omemo.InboxRow, 0, 8), omemo.InboxRow{Seq: 1}),
		Within: func(_ context.Context, tx any, c *omemo.Changes) error {
			ran++
			if tx == nil {
				return errors.New("no transaction")
			}
			c.Inbox = append(c.Inbox, omemo.InboxRow{Seq: 2})
			c.DropOutbox = append(c.DropOutbox, 1)
			return nil
		},
	}
	err := s.Commit(t.Context(), c)
	if errors.Is(err, omemo.ErrNoTransaction) {
		got := read(t, s, keys{})
		if ran != 0 || len(got.Inbox) != 0 || len(got.Outbox) != 1 {
			t.Errorf("a function that was refused had an effect: %+v", got)
		}
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	if got := read(t, s, keys{}); len(got.Inbox) != 2 || len(got.Outbox) != 0 || len(c.Inbox) != 2 {
		t.Errorf("what was added was not done: %+v", got)
	}
	failed := errors.New("handler failed")
	before := read(t, s, keys{})
	c = &omemo.Changes{
		Account: []byte("not to be seen"),
		Inbox:   append(make([]omemo.InboxRow, 0, 8), omemo.InboxRow{Seq: 3}),
		Within: func(_ context.Context, _ any, c *omemo.Changes) error {
			c.Inbox = append(c.Inbox, omemo.InboxRow{Seq: 4})
			return failed
		},
	}
	if err := s.Commit(t.Context(), c); !errors.Is(err, failed) {
		t.Errorf("got %v, want the function's error", err)
	}
	if len(c.Inbox) != 1 {
		t.Error("changes that were not committed hold what the function added")
	}
	same(t, read(t, s, keys{}), before)
	commit(t, s, &omemo.Changes{Inbox: []omemo.InboxRow{{Seq: 5}}})
}

func testCancelled(t *testing.T, open Opener) {
	s := open.open(t)
	commit(t, s, sample())
	k := keysOf(sample())
	before := read(t, s, k)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for name, err := range everyCall(ctx, s) {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%s: got %v, want context.Canceled", name, err)
		}
	}
	same(t, read(t, s, k), before)
	commit(t, s, &omemo.Changes{Account: []byte("still in use")})
}

func testClosed(t *testing.T, open Opener) {
	s := open.open(t)
	commit(t, s, sample())
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	for name, err := range everyCall(t.Context(), s) {
		if !errors.Is(err, omemo.ErrClosed) {
			t.Errorf("%s: got %v, want omemo.ErrClosed", name, err)
		}
	}
	if err := s.Close(); err != nil {
		t.Errorf("closing again: %v", err)
	}
}

// everyCall calls every method and returns the errors.
func everyCall(ctx context.Context, s omemo.Store) map[string]error {
	errs := make(map[string]error)
	_, errs["Load"] = s.Load(ctx)
	_, errs["PreKeys"] = s.PreKeys(ctx, omemo.V2)
	_, errs["PreKeys by id"] = s.PreKeys(ctx, omemo.V2, 1)
	_, errs["Sessions"] = s.Sessions(ctx, []omemo.Peer{{}})
	_, errs["Skipped"] = s.Skipped(ctx, []omemo.SkippedID{{}})
	_, errs["Ended"] = s.Ended(ctx, []omemo.ChainID{{}})
	_, errs["Accounts"] = s.Accounts(ctx)
	_, errs["Inbox"] = s.Inbox(ctx, 0, 1)
	_, errs["Outbox"] = s.Outbox(ctx, 0, 1)
	_, errs["Journal"] = s.Journal(ctx, omemo.Address{})
	_, errs["Owed"] = s.Owed(ctx)
	_, errs["Cursors"] = s.Cursors(ctx)
	_, errs["Occupants"] = s.Occupants(ctx)
	_, errs["Echoes"] = s.Echoes(ctx)
	_, errs["Statements"] = s.Statements(ctx)
	errs["Commit"] = s.Commit(ctx, &omemo.Changes{Account: []byte("not to be seen")})
	return errs
}

func testReopen(t *testing.T, open Opener) {
	s := open(t, account)
	c := sample()
	commit(t, s, c)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		s = open(t, account)
		same(t, read(t, s, keysOf(c)), expected(sample()))
		commit(t, s, &omemo.Changes{Sessions: c.Sessions[1:2]})
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// testAccounts: two accounts of one database do not see each other's rows,
// although these have the same keys.
func testAccounts(t *testing.T, open Opener) {
	mine, other := open.open(t), open(t, "tybalt@capulet.example")
	defer other.Close()
	c := sample()
	k := keysOf(c)
	commit(t, mine, c)
	same(t, read(t, other, k), content{})
	for _, s := range []omemo.Store{mine, other} {
		state, err := s.Load(t.Context())
		if want := map[omemo.Store]string{mine: account, other: "tybalt@capulet.example"}[s]; err != nil || state.JID != want {
			t.Errorf("JID is %q, %v, want %q", state.JID, err, want)
		}
	}
	r := removals(c)
	r.PruneEnded = at(59)
	r.TrimSkipped = []omemo.Trim{{Session: 2}}
	commit(t, other, r)
	same(t, read(t, mine, k), expected(sample()))

	theirs := sample()
	theirs.Account = []byte("the other account")
	for i := range theirs.Sessions {
		theirs.Sessions[i].Record = []byte("the other's record")
	}
	commit(t, other, theirs)
	same(t, read(t, mine, k), expected(sample()))
	same(t, read(t, other, k), expected(theirs))
	commit(t, mine, removals(c))
	same(t, read(t, other, k), expected(theirs))
}

// testConcurrent reads and commits from many goroutines.
func testConcurrent(t *testing.T, open Opener) {
	s := open.open(t)
	const workers, rounds = 8, 10
	var all sync.WaitGroup
	for w := range workers {
		all.Go(func() {
			p := peer(omemo.V2, "romeo@montague.example", omemo.DeviceID(w+1))
			for i := range rounds {
				record := fmt.Sprintf("%d of %d", i, w)
				err := s.Commit(t.Context(), &omemo.Changes{
					Sessions: []omemo.SessionRow{{ID: uint64(w + 1), Peer: p, Record: []byte(record)}},
					Outbox:   []omemo.OutboxRow{{Seq: uint64(w*rounds + i + 1)}},
				})
				if err != nil {
					t.Errorf("Commit: %v", err)
					return
				}
				rows, err := s.Sessions(t.Context(), []omemo.Peer{p})
				if err != nil || len(rows) != 1 || string(rows[0].Record) != record {
					t.Errorf("Sessions: %+v, %v, want %q", rows, err, record)
					return
				}
			}
		})
	}
	all.Wait()
	if rows, err := s.Outbox(t.Context(), 0, 1000); err != nil || len(rows) != workers*rounds {
		t.Errorf("got %d rows, %v, want %d", len(rows), err, workers*rounds)
	}
}
