//go:build unix && live

package postgres_test

import (
	"flag"
	"fmt"
	"testing"

	"example.org/omellium/omemo"
	"example.org/omellium/omemo/sqlstore"
	"example.org/omellium/omemo/sqlstore/internal/golden"
)

var updateGolden = flag.Bool("update-golden", false, "write a golden dump of the present schema")

// goldenOpener opens the accounts of a golden database, each once.
func goldenOpener(t *testing.T, url string) golden.Opener {
	stores := make(map[string]*sqlstore.Store)
	return func(account string) omemo.Store {
		if stores[account] == nil {
			var opts []sqlstore.Option
			if golden.Sealed(account) {
				opts = append(opts, sqlstore.WithKey(sqlstore.KeyFunc(golden.Key)))
			}
			stores[account] = open(t, url, account, opts...)
		}
		return stores[account]
	}
}

// TestGolden restores the dump of every schema that was released, reads
// everything, and goes on with the conversations in it. The test plays the part
// of somebody who disregards that it counts as rolled back.
//
// With -update-golden it writes that of the present schema, which is done once
// for each release; no other is ever changed.
func TestGolden(t *testing.T) {
	if *updateGolden {
		url := server.Database(t)
		open := goldenOpener(t, url)
		golden.Write(t, open)
		listing := golden.Listing(t, open)
		var step int
		server.Query(t, url, `SELECT max(step) FROM omemo_schema`, &step)
		for _, account := range []string{golden.Juliet, golden.Romeo, golden.Nurse} {
			ok(t, open(account).Close())
		}
		golden.Save(t, fmt.Sprintf("golden-%d", step), ".sql", []byte(server.Dump(t, url)), listing)
	}
	golden.Check(t, ".sql", func(t *testing.T, content []byte) golden.Opener {
		open := goldenOpener(t, server.Restore(t, string(content)))
		state, err := open(golden.Juliet).Load(t.Context())
		if err != nil || !state.RolledBack {
			t.Errorf("a dump that was restored was not noticed: %v", err)
		}
		return open
	})
}
