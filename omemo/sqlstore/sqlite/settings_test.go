package sqlite_test

import (
	"context"
	"database/sql"
	"fmt"
	"path/filepath"
	"testing"

	"example.org/omellium/omemo"
)

// TestSettings: what the documentation promises of SQLite holds on the
// connection that commits.
func TestSettings(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "store.db"), account)
	err := s.Commit(t.Context(), &omemo.Changes{Within: func(ctx context.Context, tx any, _ *omemo.Changes) error {
		for pragma, want := range map[string]string{
			"synchronous": "2", "journal_mode": "wal", "secure_delete": "1", "foreign_keys": "1", "fullfsync": "1",
			"checkpoint_fullfsync": "1", "temp_store": "2", "trusted_schema": "0", "busy_timeout": "10000",
		} {
			var got string
			if err := tx.(*sql.Tx).QueryRowContext(ctx, "PRAGMA "+pragma).Scan(&got); err != nil {
				return fmt.Errorf("%s: %w", pragma, err)
			}
			if got != want {
				t.Errorf("%s is %s, want %s", pragma, got, want)
			}
		}
		return nil
	}})
	if err != nil {
		t.Fatal(err)
	}
}
