//go:build unix && live

package postgres_test

import (
	"context"
	"testing"
	"time"

	"example.org/omellium/omemo/sqlstore"
	"example.org/omellium/omemo/sqlstore/internal/history"
	"example.org/omellium/omemo/sqlstore/postgres"
)

// TestHistory: what owners of an account are told who contend for it, each with
// a handle of its own as processes have them, is linearizable: those who wait
// for the lease, which is now and then at an end early, and those who push each
// other out.
func TestHistory(t *testing.T) {
	for name, opts := range map[string][]sqlstore.Option{"wait": nil, "push": {sqlstore.WithInstance("pod-0")}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			url := server.Database(t)
			if err := open(t, url, account).Close(); err != nil {
				t.Fatal(err)
			}
			db := stdlibOpen(t, url)
			outside := func(statement string) func() error {
				return func() error {
					_, err := db.Exec(statement)
					return err
				}
			}
			c := history.Contest{
				Open: func(ctx context.Context, owner int) (*sqlstore.Store, error) {
					lease := sqlstore.WithLease(time.Minute + time.Duration(owner))
					return postgres.Open(ctx, url, account, append(opts[:len(opts):len(opts)], lease, sqlstore.WithAnchor(""))...)
				},
				Owners: 4, Rounds: 12,
				Pushes: opts != nil,
				Fence:  outside(`UPDATE omemo_account SET fence = fence + 1`),
				Expire: outside(`UPDATE omemo_lease SET expires = 0`),
			}
			c.Run(t)
		})
	}
}
