//go:build unix && live

package postgres_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"example.org/omellium/omemo"
	"example.org/omellium/omemo/sqlstore"
)

// Accounts of one process that commit at once, more than there are connections,
// can all read in their transactions, as an answer to somebody new does.
func TestCommitsLeaveConnections(t *testing.T) {
	t.Parallel()
	const accounts, together = 32, 8
	url := server.Database(t)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	var stores []*sqlstore.Store
	for i := range accounts {
		stores = append(stores, open(t, url, fmt.Sprintf("juliet%d@capulet.example", i)))
	}
	var begun, all sync.WaitGroup
	begun.Add(together)
	var mu sync.Mutex
	left := together
	for _, s := range stores {
		all.Go(func() {
			err := s.Commit(ctx, &omemo.Changes{Within: func(ctx context.Context, _ any, _ *omemo.Changes) error {
				mu.Lock()
				if left > 0 {
					left--
					begun.Done()
				}
				mu.Unlock()
				begun.Wait() // many transactions are open now, and others wait for theirs
				_, err := s.Accounts(ctx, "romeo@montague.example")
				return err
			}})
			if err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
}
