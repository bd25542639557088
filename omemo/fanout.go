package omemo

import (
	"cmp"
	"fmt"
	"runtime"
	"slices"
	"sync"
)

// parallelFrom is how many sessions are sealed in parallel at least: below that,
// starting goroutines costs more than they save.
const parallelFrom = 32

// seal encrypts the body once per version and its key once per session.
func (u *unit) seal(sealed *Sealed, p Plaintext, ready []*choice) error {
	byVersion := func(a, b *choice) int { return cmp.Compare(b.peer.Version, a.peer.Version) }
	if !slices.IsSortedFunc(ready, byVersion) {
		slices.SortStableFunc(ready, byVersion)
	}
	u.slots = slices.Grow(u.slots, len(ready))
	u.changes.Sessions = slices.Grow(u.changes.Sessions, len(ready))
	u.records = slab{values: len(ready)}
	for len(ready) > 0 {
		v := ready[0].peer.Version
		n := slices.IndexFunc(ready, func(c *choice) bool { return c.peer.Version != v })
		if n < 0 {
			n = len(ready)
		}
		message, material := u.body(v, p.of(v))
		next, err := u.sealKeys(message, material, ready[:n])
		if err != nil {
			return err
		}
		sealed.Messages = append(sealed.Messages, message)
		for i, s := range next {
			u.saveIn(ready[i].slot, s)
		}
		ready = ready[n:]
	}
	return nil
}

// sealKeys encrypts key material once per session, many in parallel, and returns
// their next states.
func (u *unit) sealKeys(message *Message, material []byte, ready []*choice) ([]*Session, error) {
	next := make([]*Session, len(ready))
	message.Keys = make([]Key, len(ready))
	// Randomness is drawn in the order of the sessions, whoever uses it.
	var seeds map[int][32]byte
	for i, c := range ready {
		if c.session.state.Begins() {
			if seeds == nil {
				seeds = make(map[int][32]byte)
			}
			seeds[i] = u.draw()
		}
	}
	defer clear(seeds)
	own := u.own()
	return next, inParallel(len(ready), parallelFrom, func(from, to int) (err error) {
		data := slab{values: to - from}
		for i := from; i < to; i++ {
			seed := func() [32]byte { return seeds[i] }
			if next[i], message.Keys[i], err = ready[i].session.seal(own, material, seed, &data); err != nil {
				return fmt.Errorf("omemo: sealing for %v: %w", ready[i].peer, err)
			}
		}
		return nil
	})
}

// inParallel has f do the work from 0 to n, in several parts if each has so much
// at least.
func inParallel(n, least int, f func(from, to int) error) error {
	parts := min(runtime.GOMAXPROCS(0), n/least)
	if parts < 2 {
		return f(0, n)
	}
	errs := make([]error, parts)
	var group sync.WaitGroup
	for part := range parts {
		group.Go(func() { errs[part] = f(part*n/parts, (part+1)*n/parts) })
	}
	group.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
