package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"example.org/omellium/omemo"
	"example.org/omellium/omemo/sqlstore"
	"example.org/omellium/omemo/sqlstore/postgres"
	"example.org/omellium/omemo/sqlstore/sqlite"
)

// passphraseVariable names the environment variable that holds the passphrase of a
// sealed account.
const passphraseVariable = "OMEMO_PASSPHRASE"

// lockTimeout is how long a PostgreSQL store is waited for: a program that died has
// it until its lease ends, one that runs renews it.
const lockTimeout = sqlstore.DefaultLease + 15*time.Second

// isPostgres reports whether the name of a database is the URL of a PostgreSQL
// server. Everything else is a file.
func isPostgres(db string) bool {
	return strings.HasPrefix(db, "postgres://") || strings.HasPrefix(db, "postgresql://")
}

// openStore opens the store of the account. A file that is not there is only made if
// it is to be.
func (c *control) openStore(ctx context.Context, db string, create bool) (*sqlstore.Store, error) {
	account := c.account.Bare().String()
	var opts []sqlstore.Option
	switch phrase := os.Getenv(passphraseVariable); {
	case c.key != "" && phrase != "":
		return nil, fmt.Errorf("the account is sealed with a key or with a passphrase: -key and %s are both given", passphraseVariable)
	case c.key != "":
		opts = append(opts, sqlstore.WithKey(sqlstore.KeyFile(c.key)))
	case phrase != "":
		opts = append(opts, sqlstore.WithKey(sqlstore.Passphrase(phrase)))
	}
	if isPostgres(db) {
		waiting, cancel := context.WithTimeout(ctx, lockTimeout)
		defer cancel()
		store, err := postgres.Open(waiting, db, account, opts...)
		return store, running(err)
	}
	if !create {
		if _, err := os.Stat(db); err != nil {
			return nil, err // a store that is not there must not be made by looking for it
		}
	}
	store, err := sqlite.Open(ctx, db, account, opts...)
	return store, running(err)
}

// running says what to do about a store that is in use.
func running(err error) error {
	if errors.Is(err, omemo.ErrLocked) {
		return fmt.Errorf("%w: stop the program first", err)
	}
	return err
}
