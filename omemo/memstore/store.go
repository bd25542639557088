// Package memstore keeps the state of an account in memory. It is the store of
// tests and of programs that may forget everything when they end: a device
// whose state is lost must never come back under its old device id.
//
// It behaves as sqlstore does, times included: they are kept in UTC, to the
// microsecond. It has no transaction to run Changes.Within in.
package memstore

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"example.org/omellium/omemo"
)

// Store is an omemo.Store in memory. It is safe for concurrent use.
type Store struct {
	rows *rows
	lost chan struct{}
}

var _ omemo.Store = (*Store)(nil)

// New returns an empty store for an account, a bare JID.
func New(account string) *Store {
	r := &rows{
		name:     account,
		preKeys:  make(map[omemo.PreKeyID]omemo.PreKeyRow),
		sessions: make(map[uint64]*omemo.SessionRow),
		peers:    make(map[omemo.Peer][]uint64),
		skipped:  make(map[uint64]map[skippedID]skippedKey),
		ended:    make(map[omemo.ChainID]omemo.EndedChain),
		contacts: make(map[string]*contact),
		owed:     make(map[omemo.OwedID]omemo.OwedRow),
		cursors:  make(map[string]omemo.Cursor),

		occupants: make(map[omemo.OccupantID]omemo.OccupantRow),
		echoes:    make(map[[32]byte]omemo.EchoRow),
	}
	r.owner = &Store{rows: r, lost: make(chan struct{})}
	return r.owner
}

// Reopen returns a store with the same rows, as a program finds them that was
// started again. Whoever held them before is fenced off.
func (s *Store) Reopen() *Store {
	s.rows.mu.Lock()
	defer s.rows.mu.Unlock()
	if s.rows.owner != nil {
		close(s.rows.owner.lost)
	}
	s.rows.owner = &Store{rows: s.rows, lost: make(chan struct{})}
	return s.rows.owner
}

// Lost is closed when another store was made of the same rows (Reopen).
func (s *Store) Lost() <-chan struct{} { return s.lost }

// Account returns the account the store was made for.
func (s *Store) Account() string { return s.rows.name }

// Close gives the account up. What was committed stays for Reopen.
func (s *Store) Close() error {
	s.rows.mu.Lock()
	defer s.rows.mu.Unlock()
	if s.rows.owner == s {
		s.rows.owner = nil
	}
	return nil
}

// rows is what several stores, one after the other, work on.
type rows struct {
	name string

	mu    sync.RWMutex
	owner *Store // the one store that may use them; nil: closed

	account       []byte
	inboxSeq      uint64
	outboxSeq     uint64
	preKeys       map[omemo.PreKeyID]omemo.PreKeyRow
	sessions      map[uint64]*omemo.SessionRow
	peers         map[omemo.Peer][]uint64 // the sessions of each peer
	skipped       map[uint64]map[skippedID]skippedKey
	skippedWrites uint64 // counts the skipped message keys ever written
	ended         map[omemo.ChainID]omemo.EndedChain
	contacts      map[string]*contact
	inbox         queue[omemo.InboxRow]
	outbox        queue[omemo.OutboxRow]
	journal       queue[omemo.JournalRow]
	owed          map[omemo.OwedID]omemo.OwedRow
	cursors       map[string]omemo.Cursor
	occupants     map[omemo.OccupantID]omemo.OccupantRow
	echoes        map[[32]byte]omemo.EchoRow
}

// skippedID names a skipped message key within its session.
type skippedID struct {
	ratchet [32]byte
	n       uint32
}

// skippedKey is a skipped message key with its place in the order of writing.
type skippedKey struct {
	key   [32]byte
	write uint64
}

// contact is all that is known about one account.
type contact struct {
	row     *omemo.Contact // nil if there is none
	devices map[omemo.Peer]omemo.Device
	trust   map[omemo.Fingerprint]omemo.TrustRecord

	statements map[omemo.StatementID]omemo.StatementRow
}

// queue holds rows in the order of their sequence numbers.
type queue[R any] []entry[R]

type entry[R any] struct {
	seq uint64
	row R
}

func (q queue[R]) find(seq uint64) (int, bool) {
	return slices.BinarySearchFunc(q, seq, func(e entry[R], seq uint64) int { return cmp.Compare(e.seq, seq) })
}

func (q *queue[R]) put(seq uint64, row R) {
	i, found := q.find(seq)
	if found {
		(*q)[i].row = row
		return
	}
	*q = slices.Insert(*q, i, entry[R]{seq, row})
}

func (q *queue[R]) drop(seq uint64) {
	if i, found := q.find(seq); found {
		*q = slices.Delete(*q, i, i+1)
	}
}

// after returns up to limit rows that come after a sequence number.
func (q queue[R]) after(seq uint64, limit int) []entry[R] {
	i, found := q.find(seq)
	if found {
		i++
	}
	return q[i:min(len(q), i+max(limit, 0))]
}

// lock takes the rows for reading, unless the store may not use them.
func (s *Store) rlock(ctx context.Context) (func(), error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("memstore: %w", err)
	}
	s.rows.mu.RLock()
	if err := s.state(); err != nil {
		s.rows.mu.RUnlock()
		return nil, err
	}
	return s.rows.mu.RUnlock, nil
}

// state says why the store may not be used any more, with the rows locked.
func (s *Store) state() error {
	switch s.rows.owner {
	case s:
		return nil
	case nil:
		return fmt.Errorf("memstore: %w", omemo.ErrClosed)
	}
	return fmt.Errorf("memstore: %w", omemo.ErrFenced)
}

// stamp returns a time as it is kept: UTC, in microseconds.
func stamp(t time.Time) time.Time {
	if t.IsZero() {
		return time.Time{}
	}
	return time.UnixMicro(t.UnixMicro()).UTC()
}
