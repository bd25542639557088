package omemo_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"example.org/omellium/omemo"
	"example.org/omellium/omemo/memstore"
)

// errStore is what a failing store answers in tests.
var errStore = errors.New("store fails")

// tap stands between a manager and its store. It counts calls, makes them fail,
// and remembers every id that was ever written, so that all rows can be dumped.
type tap struct {
	*memstore.Store
	fail func(call string) error // nil: nothing fails
	// refuse makes single commits fail; nil: none.
	refuse func(c *omemo.Changes) error

	mu       sync.Mutex
	calls    []string
	commits  int
	peers    map[omemo.Peer]bool
	skipped  map[omemo.SkippedID]bool
	chains   map[omemo.ChainID]bool
	observed *omemo.Changes // the last commit
}

func newTap(s *memstore.Store) *tap {
	return &tap{
		Store: s, peers: make(map[omemo.Peer]bool), skipped: make(map[omemo.SkippedID]bool), chains: make(map[omemo.ChainID]bool),
	}
}

// reopen returns the store as a program finds it that was started again.
func (s *tap) reopen() *tap {
	next := newTap(s.Store.Reopen())
	next.peers, next.skipped, next.chains, next.commits = s.peers, s.skipped, s.chains, s.commits
	return next
}

func (s *tap) call(name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls = append(s.calls, name)
	if s.fail != nil {
		return s.fail(name)
	}
	return nil
}

func (s *tap) Load(ctx context.Context) (omemo.State, error) {
	if err := s.call("Load"); err != nil {
		return omemo.State{}, err
	}
	return s.Store.Load(ctx)
}

func (s *tap) PreKeys(ctx context.Context, v omemo.Version, ids ...uint32) ([]omemo.PreKeyRow, error) {
	if err := s.call("PreKeys"); err != nil {
		return nil, err
	}
	return s.Store.PreKeys(ctx, v, ids...)
}

func (s *tap) Sessions(ctx context.Context, peers []omemo.Peer) ([]omemo.SessionRow, error) {
	if err := s.call("Sessions"); err != nil {
		return nil, err
	}
	return s.Store.Sessions(ctx, peers)
}

func (s *tap) Skipped(ctx context.Context, ids []omemo.SkippedID) ([]omemo.SkippedRow, error) {
	if err := s.call("Skipped"); err != nil {
		return nil, err
	}
	return s.Store.Skipped(ctx, ids)
}

func (s *tap) Ended(ctx context.Context, ids []omemo.ChainID) ([]omemo.EndedChain, error) {
	if err := s.call("Ended"); err != nil {
		return nil, err
	}
	return s.Store.Ended(ctx, ids)
}

func (s *tap) Accounts(ctx context.Context, jids ...string) (omemo.Accounts, error) {
	if err := s.call("Accounts"); err != nil {
		return omemo.Accounts{}, err
	}
	return s.Store.Accounts(ctx, jids...)
}

func (s *tap) Inbox(ctx context.Context, after uint64, limit int) ([]omemo.InboxRow, error) {
	if err := s.call("Inbox"); err != nil {
		return nil, err
	}
	return s.Store.Inbox(ctx, after, limit)
}

func (s *tap) Outbox(ctx context.Context, after uint64, limit int) ([]omemo.OutboxRow, error) {
	if err := s.call("Outbox"); err != nil {
		return nil, err
	}
	return s.Store.Outbox(ctx, after, limit)
}

func (s *tap) Owed(ctx context.Context) ([]omemo.OwedRow, error) {
	if err := s.call("Owed"); err != nil {
		return nil, err
	}
	return s.Store.Owed(ctx)
}

func (s *tap) Commit(ctx context.Context, c *omemo.Changes) error {
	if err := s.call("Commit"); err != nil {
		return err
	}
	if s.refuse != nil {
		if err := s.refuse(c); err != nil {
			return err
		}
	}
	if err := s.Store.Commit(ctx, c); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.commits++
	s.observed = c
	for _, r := range c.Sessions {
		s.peers[r.Peer] = true
	}
	for _, r := range c.Skipped {
		s.skipped[r.SkippedID] = true
	}
	for _, r := range c.Ended {
		s.chains[r.ChainID] = true
	}
	return nil
}

// dump returns everything that the store holds, one row a line, and the number
// of commits there ever were.
func (s *tap) dump() string {
	ctx := context.Background()
	var lines []string
	line := func(kind string, values ...any) {
		lines = append(lines, strings.TrimSpace(kind+" "+fmt.Sprintln(values...)))
	}
	check := func(err error) {
		if err != nil {
			line("error", err)
		}
	}
	state, err := s.Store.Load(ctx)
	check(err)
	line("account", fmt.Sprintf("%x", state.Account), state.Inbox, state.Outbox)
	for _, v := range omemo.Versions() {
		rows, err := s.Store.PreKeys(ctx, v)
		check(err)
		for _, r := range rows {
			line("pre key", r.Version, r.ID, fmt.Sprintf("%x", r.Private), r.Used)
		}
	}
	sessions, err := s.Store.Sessions(ctx, keysOf(s.peers))
	check(err)
	for _, r := range sessions {
		line("session", r.ID, r.Peer, r.Archived, fmt.Sprintf("%x", r.Record))
	}
	skipped, err := s.Store.Skipped(ctx, keysOf(s.skipped))
	check(err)
	for _, r := range skipped {
		line("skipped", r.Session, fmt.Sprintf("%x", r.Ratchet), r.N, fmt.Sprintf("%x", r.Key))
	}
	ended, err := s.Store.Ended(ctx, keysOf(s.chains))
	check(err)
	for _, r := range ended {
		line("ended", r.Peer, fmt.Sprintf("%x", r.Ratchet), r.Next, r.When)
	}
	accounts, err := s.Store.Accounts(ctx)
	check(err)
	for _, r := range accounts.Contacts {
		line("contact", r)
	}
	for _, r := range accounts.Devices {
		line("device", fmt.Sprintf("%+v", r))
	}
	for _, r := range accounts.Trust {
		line("trust", fmt.Sprintf("%+v", r))
	}
	inbox, err := s.Store.Inbox(ctx, 0, 1<<20)
	check(err)
	for _, r := range inbox {
		line("inbox", r.Seq, r.Event, string(r.Stanza), r.Received, r.Attempts, r.Dead)
	}
	outbox, err := s.Store.Outbox(ctx, 0, 1<<20)
	check(err)
	for _, r := range outbox {
		line("outbox", fmt.Sprintf("%+v", r))
	}
	owed, err := s.Store.Owed(ctx)
	check(err)
	for _, r := range owed {
		line("owed", fmt.Sprintf("%+v", r))
	}
	slices.Sort(lines)
	return fmt.Sprintf("commits %d\n%s", s.commits, strings.Join(lines, "\n"))
}

// rows is dump without the number of commits: a commit may write nothing.
func (s *tap) rows() string {
	_, rows, _ := strings.Cut(s.dump(), "\n")
	return rows
}

func keysOf[K comparable](set map[K]bool) []K {
	keys := make([]K, 0, len(set))
	for k := range set {
		keys = append(keys, k)
	}
	return keys
}
