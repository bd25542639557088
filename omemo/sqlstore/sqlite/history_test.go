package sqlite_test

import (
	"context"
	"path/filepath"
	"testing"

	"example.org/omellium/omemo/sqlstore"
	"example.org/omellium/omemo/sqlstore/internal/history"
	"example.org/omellium/omemo/sqlstore/sqlite"
)

// TestHistory: what owners of an account are told who contend for it is
// linearizable, with those who wait and those who do not.
func TestHistory(t *testing.T) {
	for name, wait := range map[string][]sqlstore.Option{"wait": {sqlstore.WithWait()}, "try again": nil} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "store.db")
			open(t, path, "romeo@montague.example") // so that the file stays open
			db := raw(t, path)
			c := history.Contest{
				Open: func(ctx context.Context, _ int) (*sqlstore.Store, error) {
					return sqlite.Open(ctx, path, account, append(wait, sqlstore.WithAnchor(""))...)
				},
				Owners: 4, Rounds: 20,
				Fence: func() error {
					_, err := db.Exec(`UPDATE omemo_account SET fence = fence + 1 WHERE name = ?`, account)
					return err
				},
			}
			c.Run(t)
		})
	}
}
