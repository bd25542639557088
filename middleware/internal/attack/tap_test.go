package attack

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"

	"example.org/omellium/omemo"
	"example.org/omellium/omemo/memstore"
)

// tap stands between a manager and its store and remembers every id that was
// ever written, so that all rows can be dumped and waited for.
type tap struct {
	*memstore.Store

	mu      sync.Mutex
	changed *sync.Cond
	commits int
	peers   map[omemo.Peer]bool
	skipped map[omemo.SkippedID]bool
	chains  map[omemo.ChainID]bool
}

func newTap(account string) *tap {
	s := &tap{
		Store: memstore.New(account), peers: make(map[omemo.Peer]bool),
		skipped: make(map[omemo.SkippedID]bool), chains: make(map[omemo.ChainID]bool),
	}
	s.changed = sync.NewCond(&s.mu)
	return s
}

func (s *tap) Commit(ctx context.Context, c *omemo.Changes) error {
	if err := s.Store.Commit(ctx, c); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.commits++
	for _, r := range c.Sessions {
		s.peers[r.Peer] = true
	}
	for _, r := range c.Skipped {
		s.skipped[r.SkippedID] = true
	}
	for _, r := range c.Ended {
		s.chains[r.ChainID] = true
	}
	s.changed.Broadcast()
	return nil
}

// count returns how often something was written.
func (s *tap) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.commits
}

// idle reports whether no work is owed but that of some kinds, and nothing waits for
// a sign that the server has it.
func (s *tap) idle(but ...omemo.OwedKind) bool {
	owed, err := s.Store.Owed(context.Background())
	if err != nil || slices.ContainsFunc(owed, func(r omemo.OwedRow) bool { return !slices.Contains(but, r.Kind) }) {
		return err != nil
	}
	outbox, err := s.Store.Outbox(context.Background(), 0, 1)
	return err != nil || len(outbox) == 0
}

// dump returns every row of the store, one a line, but for those on their way in
// and out: they are removed in the background, and what reaches the program or
// the wire is watched there.
func (s *tap) dump() string {
	ctx := context.Background()
	s.mu.Lock()
	peers, skippedIDs, chains := keysOf(s.peers), keysOf(s.skipped), keysOf(s.chains)
	s.mu.Unlock()
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
	line("account", fmt.Sprintf("%x", state.Account))
	for _, v := range omemo.Versions() {
		rows, err := s.Store.PreKeys(ctx, v)
		check(err)
		for _, r := range rows {
			line("pre key", int(v), r.ID, fmt.Sprintf("%x", r.Private[:]), r.Used)
		}
	}
	sessions, err := s.Store.Sessions(ctx, peers)
	check(err)
	for _, r := range sessions {
		line("session", r.ID, r.Peer, r.Archived, fmt.Sprintf("%x", r.Record))
	}
	skipped, err := s.Store.Skipped(ctx, skippedIDs)
	check(err)
	for _, r := range skipped {
		line("skipped", r.Session, fmt.Sprintf("%x", r.Ratchet), r.N, fmt.Sprintf("%x", r.Key[:]))
	}
	ended, err := s.Store.Ended(ctx, chains)
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
	journal, err := s.Store.Journal(ctx, omemo.Address{})
	check(err)
	for _, r := range journal {
		line("journal", r.ID, r.From, r.Reason)
	}
	owed, err := s.Store.Owed(ctx)
	check(err)
	for _, r := range owed {
		line("owed", fmt.Sprintf("%+v", r))
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// difference returns the lines that only one of two dumps has.
func difference(before, after string) string {
	a, b := strings.Split(before, "\n"), strings.Split(after, "\n")
	var out []string
	for _, l := range a {
		if !slices.Contains(b, l) {
			out = append(out, "- "+l)
		}
	}
	for _, l := range b {
		if !slices.Contains(a, l) {
			out = append(out, "+ "+l)
		}
	}
	return strings.Join(out, "\n")
}

func keysOf[K comparable](set map[K]bool) []K {
	keys := make([]K, 0, len(set))
	for k := range set {
		keys = append(keys, k)
	}
	return keys
}
