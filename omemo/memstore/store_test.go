package memstore_test

import (
	"context"
	"errors"
	"testing"

	"example.org/omellium/omemo"
	"example.org/omellium/omemo/memstore"
	"example.org/omellium/omemo/storetest"
)

// fresh returns an opener for accounts in memory.
func fresh(*testing.T) storetest.Opener {
	stores := make(map[string]*memstore.Store)
	return func(_ *testing.T, account string) omemo.Store {
		if s, ok := stores[account]; ok {
			stores[account] = s.Reopen()
		} else {
			stores[account] = memstore.New(account)
		}
		return stores[account]
	}
}

func TestStore(t *testing.T) { storetest.Run(t, fresh) }

// TestFaultStore runs the suite through the wrapper of storetest.
func TestFaultStore(t *testing.T) {
	storetest.Run(t, func(t *testing.T) storetest.Opener {
		open := fresh(t)
		return func(t *testing.T, account string) omemo.Store { return storetest.Faults(open(t, account)) }
	})
}

func TestFenced(t *testing.T) {
	old := memstore.New("juliet@capulet.example")
	if old.Account() != "juliet@capulet.example" {
		t.Errorf("account is %q", old.Account())
	}
	s := old.Reopen()
	if err := old.Commit(t.Context(), &omemo.Changes{Account: []byte("old")}); !errors.Is(err, omemo.ErrFenced) {
		t.Errorf("got %v, want omemo.ErrFenced", err)
	}
	if _, err := old.Load(t.Context()); !errors.Is(err, omemo.ErrFenced) {
		t.Errorf("got %v, want omemo.ErrFenced", err)
	}
	if err := old.Close(); err != nil {
		t.Error(err)
	}
	if err := s.Commit(t.Context(), &omemo.Changes{Account: []byte("new")}); err != nil {
		t.Errorf("closing the store that was fenced off closed the new one: %v", err)
	}
}

func TestFaults(t *testing.T) {
	ctx := context.Background()
	for _, test := range []struct {
		name    string
		order   func(f *storetest.FaultStore)
		errs    [3]bool // which of three commits fail
		inbox   uint64  // what is found afterwards
		crashed bool
	}{
		{"none", func(*storetest.FaultStore) {}, [3]bool{}, 3, false},
		{"fail", func(f *storetest.FaultStore) { f.FailCall(2) }, [3]bool{false, true, false}, 3, false},
		{"crash before", func(f *storetest.FaultStore) { f.CrashBefore(2) }, [3]bool{false, true, true}, 1, true},
		{"crash after", func(f *storetest.FaultStore) { f.CrashAfter(2) }, [3]bool{false, true, true}, 2, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			below := memstore.New("juliet@capulet.example")
			f := storetest.Faults(below)
			test.order(f)
			for i, fails := range test.errs {
				err := f.Commit(ctx, &omemo.Changes{Inbox: []omemo.InboxRow{{Seq: uint64(i + 1)}}})
				if fails != errors.Is(err, storetest.ErrInjected) || !fails && err != nil {
					t.Errorf("commit %d: %v, want a fault: %v", i+1, err, fails)
				}
				if fails && test.crashed != errors.Is(err, omemo.ErrClosed) {
					t.Errorf("commit %d: %v; only a crash closes the store", i+1, err)
				}
			}
			if f.Calls() != 3 || f.Crashed() != test.crashed {
				t.Errorf("calls %d, crashed %v", f.Calls(), f.Crashed())
			}
			if err := f.Close(); err != nil {
				t.Fatal(err)
			}
			if state, err := below.Reopen().Load(ctx); err != nil || state.Inbox != test.inbox {
				t.Errorf("inbox %d, %v, want %d", state.Inbox, err, test.inbox)
			}
		})
	}
}
