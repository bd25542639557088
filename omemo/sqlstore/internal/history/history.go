// Package history lets owners contend for an account and checks what each of
// them was told: the history must be linearizable, that is, it must be one that
// owners could have made who act one after the other, each at one moment between
// its call and the answer. It is for tests.
package history

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"example.org/omellium/omemo"
	"example.org/omellium/omemo/sqlstore"
)

// Contest is how owners contend.
type Contest struct {
	// Open opens the account for an owner: one of Owners, which has no other
	// store open. It may wait, or fail with omemo.ErrLocked.
	Open   func(ctx context.Context, owner int) (*sqlstore.Store, error)
	Owners int
	Rounds int // how often each of them opens the account
	// Pushes: opening takes the account from whoever has it.
	Pushes bool
	// Fence, if it is set, fences the owner off from outside.
	Fence func() error
	// Expire, if it is set, ends the owner's lease from outside: others may take
	// the account, and as long as none does, it may go on.
	Expire func() error
}

const (
	// callsOfRound is how often a store is called while it is open.
	callsOfRound = 8
	// patience is how long checking may take.
	patience = 2 * time.Minute
)

// Run has the owners contend and checks the history.
func (c *Contest) Run(t *testing.T) {
	t.Helper()
	r := &recorder{t: t}
	var all sync.WaitGroup
	for owner := range c.Owners {
		all.Go(func() {
			for range c.Rounds {
				c.round(t, r, owner)
			}
		})
	}
	all.Wait()
	if t.Failed() {
		return
	}
	told := make(map[string]int)
	for _, op := range r.history {
		told[op.Input.(call).does.String()+": "+op.Output.(answer).result.String()]++
	}
	t.Logf("%d calls: %v", len(r.history), told)
	if result := porcupine.CheckOperationsTimeout(model(c.Pushes), r.history, patience); result != porcupine.Ok {
		for _, op := range r.history {
			t.Logf("%d..%d: %+v %+v", op.Call, op.Return, op.Input, op.Output)
		}
		t.Errorf("the history is not linearizable: %s", result)
	}
}

// round is one time that an owner has the account.
func (c *Contest) round(t *testing.T, r *recorder, owner int) {
	term := int(r.terms.Add(1))
	var s *sqlstore.Store
	opened := r.do(owner, call{does: opens, term: term}, func() (value int, err error) {
		s, err = c.Open(t.Context(), owner)
		return 0, err
	})
	if opened != done {
		return
	}
	defer r.do(owner, call{does: closes, term: term}, func() (int, error) { return 0, s.Close() })
	for range callsOfRound {
		switch n := rand.IntN(12); {
		case n < 4:
			r.do(owner, call{does: reads, term: term}, func() (int, error) {
				state, err := s.Load(t.Context())
				if err != nil || state.Account == nil {
					return 0, err
				}
				return strconv.Atoi(string(state.Account))
			})
		case n == 4 && c.Fence != nil:
			r.do(owner, call{does: fences}, func() (int, error) { return 0, c.Fence() })
		case n == 5 && c.Expire != nil:
			r.do(owner, call{does: expires}, func() (int, error) { return 0, c.Expire() })
		default:
			ctx, cancel := t.Context(), func() {}
			if n == 6 { // in the middle of it, now and then
				ctx, cancel = context.WithTimeout(ctx, rand.N(3*time.Millisecond))
			}
			value := int(r.values.Add(1))
			r.do(owner, call{does: commits, term: term, value: value}, func() (int, error) {
				return 0, s.Commit(ctx, &omemo.Changes{Account: []byte(strconv.Itoa(value))})
			})
			cancel()
		}
	}
}

// recorder writes down what is called and answered.
type recorder struct {
	t       *testing.T
	clock   atomic.Int64
	terms   atomic.Int64
	values  atomic.Int64
	mu      sync.Mutex
	history []porcupine.Operation
}

// do makes a call.
func (r *recorder) do(owner int, c call, do func() (int, error)) result {
	begin := r.clock.Add(1)
	value, err := do()
	end := r.clock.Add(1)
	a := answer{value: value}
	switch {
	case err == nil:
	case errors.Is(err, omemo.ErrFenced):
		a.result = fenced
	case errors.Is(err, omemo.ErrLocked):
		a.result = locked
	case errors.Is(err, context.DeadlineExceeded):
		a.result = undone
	default:
		r.t.Errorf("owner %d: %v: %v", owner, c.does, err)
		a.result = undone
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.history = append(r.history, porcupine.Operation{ClientId: owner, Input: c, Call: begin, Output: a, Return: end})
	return a.result
}

// deed is what is called.
type deed int

const (
	opens deed = iota
	closes
	reads
	commits
	fences
	expires
)

func (d deed) String() string {
	return [...]string{"open", "close", "read", "commit", "fence", "expire"}[d]
}

// call is what is asked of a store.
type call struct {
	does  deed
	term  int // each time that an owner has the account is a term
	value int // to be committed
}

// result is what comes of a call.
type result int

const (
	done   result = iota
	fenced        // omemo.ErrFenced
	locked        // omemo.ErrLocked
	undone        // another error: it has had no effect
)

func (r result) String() string { return [...]string{"done", "fenced", "locked", "undone"}[r] }

// answer is what the caller is told.
type answer struct {
	result result
	value  int // that was read
}

// account is what the calls are about: what a store promises of it.
type account struct {
	term   int  // who has it; 0: nobody
	fenced bool // who has it may not commit any more
	loose  bool // others may take it
	value  int
}

// model says what may happen.
func model(pushes bool) porcupine.Model {
	return porcupine.Model{
		Init: func() any { return account{} },
		Step: func(state, input, output any) (bool, any) {
			next, may := state.(account).step(input.(call), output.(answer), pushes)
			return may, next
		},
		DescribeOperation: func(input, output any) string { return fmt.Sprintf("%+v: %+v", input, output) },
	}
}

// step returns the account after a call that was answered so, and whether it can
// have been.
func (a account) step(c call, told answer, pushes bool) (account, bool) {
	mine := a.term == c.term
	switch {
	case told.result == undone:
		return a, true
	case told.result == locked:
		return a, c.does == opens && a.term != 0 && !pushes
	case told.result == fenced:
		return a, (c.does == reads || c.does == commits) && (!mine || a.fenced || a.loose)
	}
	switch c.does {
	case opens:
		may := a.term == 0 || a.loose || pushes
		return account{term: c.term, value: a.value}, may
	case closes:
		if mine {
			a.term, a.fenced, a.loose = 0, false, false
		}
		return a, true
	case reads:
		return a, told.value == a.value
	case commits:
		may := mine && !a.fenced
		a.value = c.value
		return a, may
	case fences:
		a.fenced = true
		return a, true
	default: // expires
		a.loose = true
		return a, true
	}
}
