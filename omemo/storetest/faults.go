package storetest

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"example.org/omellium/omemo"
)

// ErrInjected is the error of a call that was made to fail.
var ErrInjected = errors.New("storetest: injected fault")

// FaultStore is a store whose calls are numbered from 1, and can be made to
// fail. Close is not numbered, and always reaches the store below.
type FaultStore struct {
	below omemo.Store

	mu      sync.Mutex
	calls   int
	fail    int // this call fails, without effect
	before  int // this call and all later ones fail, without effect
	after   int // this call has its effect, but it and all later ones fail
	crashed bool
}

var _ omemo.Store = (*FaultStore)(nil)

// Faults wraps a store. No call fails until told.
func Faults(s omemo.Store) *FaultStore { return &FaultStore{below: s} }

// Calls returns how many calls there were.
func (f *FaultStore) Calls() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.calls
}

// Crashed reports whether the crash that was ordered has happened.
func (f *FaultStore) Crashed() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.crashed
}

// FailCall makes one call fail without effect. The number counts all calls, the
// past ones too.
func (f *FaultStore) FailCall(number int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fail = number
}

// CrashBefore makes a call and all later ones fail without effect, as if the
// program had died before it.
func (f *FaultStore) CrashBefore(number int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.before = number
}

// CrashAfter makes a call fail that has its effect, and all later ones without,
// as if the program had died before it heard of it.
func (f *FaultStore) CrashAfter(number int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.after = number
}

// call makes one call.
func (f *FaultStore) call(name string, below func() error) error {
	f.mu.Lock()
	f.calls++
	number := f.calls
	if f.before > 0 && number >= f.before {
		f.crashed = true
	}
	dead := f.crashed
	last := f.after > 0 && number >= f.after
	f.crashed = dead || last
	fails := dead || number == f.fail
	f.mu.Unlock()

	fault := fmt.Errorf("call %d, %s: %w", number, name, ErrInjected)
	if dead || last {
		// Nothing more comes of a store that belongs to a dead program.
		fault = fmt.Errorf("%w: %w", fault, omemo.ErrClosed)
	}
	if fails {
		return fault
	}
	err := below()
	if last {
		return fault
	}
	return err
}

// result makes one call that returns something.
func result[T any](f *FaultStore, name string, below func() (T, error)) (T, error) {
	var got, none T
	err := f.call(name, func() (err error) {
		got, err = below()
		return err
	})
	if err != nil {
		return none, err
	}
	return got, nil
}

// Load implements omemo.Store.
func (f *FaultStore) Load(ctx context.Context) (omemo.State, error) {
	return result(f, "Load", func() (omemo.State, error) { return f.below.Load(ctx) })
}

// PreKeys implements omemo.Store.
func (f *FaultStore) PreKeys(ctx context.Context, v omemo.Version, ids ...uint32) ([]omemo.PreKeyRow, error) {
	return result(f, "PreKeys", func() ([]omemo.PreKeyRow, error) { return f.below.PreKeys(ctx, v, ids...) })
}

// Sessions implements omemo.Store.
func (f *FaultStore) Sessions(ctx context.Context, peers []omemo.Peer) ([]omemo.SessionRow, error) {
	return result(f, "Sessions", func() ([]omemo.SessionRow, error) { return f.below.Sessions(ctx, peers) })
}

// Skipped implements omemo.Store.
func (f *FaultStore) Skipped(ctx context.Context, ids []omemo.SkippedID) ([]omemo.SkippedRow, error) {
	return result(f, "Skipped", func() ([]omemo.SkippedRow, error) { return f.below.Skipped(ctx, ids) })
}

// Ended implements omemo.Store.
func (f *FaultStore) Ended(ctx context.Context, ids []omemo.ChainID) ([]omemo.EndedChain, error) {
	return result(f, "Ended", func() ([]omemo.EndedChain, error) { return f.below.Ended(ctx, ids) })
}

// Accounts implements omemo.Store.
func (f *FaultStore) Accounts(ctx context.Context, jids ...string) (omemo.Accounts, error) {
	return result(f, "Accounts", func() (omemo.Accounts, error) { return f.below.Accounts(ctx, jids...) })
}

// Inbox implements omemo.Store.
func (f *FaultStore) Inbox(ctx context.Context, after uint64, limit int) ([]omemo.InboxRow, error) {
	return result(f, "Inbox", func() ([]omemo.InboxRow, error) { return f.below.Inbox(ctx, after, limit) })
}

// Outbox implements omemo.Store.
func (f *FaultStore) Outbox(ctx context.Context, after uint64, limit int) ([]omemo.OutboxRow, error) {
	return result(f, "Outbox", func() ([]omemo.OutboxRow, error) { return f.below.Outbox(ctx, after, limit) })
}

// Journal implements omemo.Store.
func (f *FaultStore) Journal(ctx context.Context, from omemo.Address) ([]omemo.JournalRow, error) {
	return result(f, "Journal", func() ([]omemo.JournalRow, error) { return f.below.Journal(ctx, from) })
}

// Owed implements omemo.Store.
func (f *FaultStore) Owed(ctx context.Context) ([]omemo.OwedRow, error) {
	return result(f, "Owed", func() ([]omemo.OwedRow, error) { return f.below.Owed(ctx) })
}

// Cursors implements omemo.Store.
func (f *FaultStore) Cursors(ctx context.Context) ([]omemo.Cursor, error) {
	return result(f, "Cursors", func() ([]omemo.Cursor, error) { return f.below.Cursors(ctx) })
}

// Occupants implements omemo.Store.
func (f *FaultStore) Occupants(ctx context.Context, rooms ...string) ([]omemo.OccupantRow, error) {
	return result(f, "Occupants", func() ([]omemo.OccupantRow, error) { return f.below.Occupants(ctx, rooms...) })
}

// Echoes implements omemo.Store.
func (f *FaultStore) Echoes(ctx context.Context, hashes ...[32]byte) ([]omemo.EchoRow, error) {
	return result(f, "Echoes", func() ([]omemo.EchoRow, error) { return f.below.Echoes(ctx, hashes...) })
}

// Statements implements omemo.Store.
func (f *FaultStore) Statements(ctx context.Context, jids ...string) ([]omemo.StatementRow, error) {
	return result(f, "Statements", func() ([]omemo.StatementRow, error) { return f.below.Statements(ctx, jids...) })
}

// Commit implements omemo.Store.
func (f *FaultStore) Commit(ctx context.Context, c *omemo.Changes) error {
	return f.call("Commit", func() error { return f.below.Commit(ctx, c) })
}

// Close implements omemo.Store.
func (f *FaultStore) Close() error { return f.below.Close() }
