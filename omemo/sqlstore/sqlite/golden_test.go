package sqlite_test

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"example.org/omellium/omemo"
	"example.org/omellium/omemo/sqlstore"
	"example.org/omellium/omemo/sqlstore/internal/golden"
)

var updateGolden = flag.Bool("update-golden", false, "write a golden database of the present schema")

// goldenOpener opens the accounts of a golden database, each once.
func goldenOpener(t *testing.T, path string) golden.Opener {
	stores := make(map[string]*sqlstore.Store)
	return func(account string) omemo.Store {
		if stores[account] == nil {
			var opts []sqlstore.Option
			if golden.Sealed(account) {
				opts = append(opts, sqlstore.WithKey(sqlstore.KeyFunc(golden.Key)))
			}
			stores[account] = open(t, path, account, opts...)
		}
		return stores[account]
	}
}

// TestGolden opens a copy of the database of every schema that was released,
// reads everything, and goes on with the conversations in it.
//
// With -update-golden it writes that of the present schema, which is done once
// for each release; no other is ever changed.
func TestGolden(t *testing.T) {
	if *updateGolden {
		writeGolden(t)
	}
	golden.Check(t, ".db", func(t *testing.T, content []byte) golden.Opener {
		path := filepath.Join(t.TempDir(), "store.db")
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		return goldenOpener(t, path)
	})
}

func writeGolden(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store.db")
	open := goldenOpener(t, path)
	golden.Write(t, open)
	listing := golden.Listing(t, open)
	var step int
	if err := raw(t, path).QueryRow(`SELECT max(step) FROM omemo_schema`).Scan(&step); err != nil {
		t.Fatal(err)
	}
	for _, account := range []string{golden.Juliet, golden.Romeo, golden.Nurse} {
		if err := open(account).Close(); err != nil {
			t.Fatal(err)
		}
	}
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	golden.Save(t, fmt.Sprintf("golden-%d", step), ".db", content, listing)
}
