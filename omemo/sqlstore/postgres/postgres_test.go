//go:build unix && live

package postgres_test

import (
	"fmt"
	"os"
	"testing"

	"example.org/omellium/omemo"
	"example.org/omellium/omemo/sqlstore"
	"example.org/omellium/omemo/sqlstore/postgres"
	"example.org/omellium/omemo/storetest"
	"example.org/omellium/omemo/storetest/pgtest"
)

const account = "juliet@capulet.example"

// server serves all tests, each with a database of its own.
var server *pgtest.Server

func TestMain(m *testing.M) {
	var err error
	if server, err = pgtest.Start("deadlock_timeout=50ms", "synchronous_commit=off"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	if err := server.Stop(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// open opens a store until the test ends.
func open(t testing.TB, url, account string, opts ...sqlstore.Option) *sqlstore.Store {
	t.Helper()
	opts = append([]sqlstore.Option{sqlstore.WithAnchor("")}, opts...)
	s, err := postgres.Open(t.Context(), url, account, opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// fresh returns openers for empty databases, with parameters of the URL.
func fresh(parameters string, opts ...sqlstore.Option) func(t *testing.T) storetest.Opener {
	return func(t *testing.T) storetest.Opener {
		url := server.Database(t) + parameters
		return func(t *testing.T, account string) omemo.Store { return open(t, url, account, opts...) }
	}
}

func TestStore(t *testing.T) {
	t.Parallel()
	storetest.Run(t, fresh(""))
}

// TestPooled runs the suite without prepared statements, as transaction poolers
// want it, and sealed.
func TestPooled(t *testing.T) {
	t.Parallel()
	storetest.Run(t, fresh("&default_query_exec_mode=exec", sqlstore.WithKey(testKey)))
}

// TestSerializable runs the suite where every transaction is serializable, as
// they are in distributed databases.
func TestSerializable(t *testing.T) {
	t.Parallel()
	storetest.Run(t, fresh("&default_transaction_isolation=serializable"))
}
