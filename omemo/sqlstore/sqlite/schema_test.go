package sqlite_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"example.org/omellium/omemo"
)

func TestSchema(t *testing.T) {
	for _, test := range []struct {
		name, statement string
		want            error
	}{
		{"newer", `INSERT INTO omemo_schema SELECT max(step) + 1, 'of the future' FROM omemo_schema`, omemo.ErrNewer},
		{"another", `UPDATE omemo_schema SET checksum = 'of somebody else'`, omemo.ErrCorrupt},
		{"step missing", `DELETE FROM omemo_schema WHERE step = 1`, omemo.ErrCorrupt},
	} {
		t.Run(test.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "store.db")
			if err := open(t, path, account).Close(); err != nil {
				t.Fatal(err)
			}
			db := raw(t, path)
			execute(t, db, test.statement)
			before := dump(t, db)
			if _, err := try(t, path, account); !errors.Is(err, test.want) {
				t.Errorf("got %v, want %v", err, test.want)
			}
			if dump(t, db) != before {
				t.Error("the database was changed")
			}
		})
	}
}

// TestHalfDone: a step of the schema that fails in its middle leaves nothing.
func TestHalfDone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store.db")
	db := raw(t, path)
	execute(t, db, `CREATE TABLE omemo_outbox (not_ours TEXT)`)
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := try(t, path, account); err == nil {
		t.Fatal("a table of somebody else was taken for ours")
	}
	db = raw(t, path)
	if all := names(t, db); len(all) != 1 {
		t.Errorf("tables left: %v", all)
	}
	execute(t, db, `DROP TABLE omemo_outbox`)
	open(t, path, account)
}
