package main

import (
	"context"
	"errors"
	"log/slog"
	"strings"

	"example.org/omellium/omemo/sqlstore"
	"example.org/omellium/omemo/sqlstore/postgres"
	"example.org/omellium/omemo/sqlstore/sqlite"
)

// errLost: the account went to another replica, or the database could not be
// reached for as long as a lease lasts. What this process still knows is of no
// use then; one that is started anew waits for its turn.
var errLost = errors.New("the account was lost to another replica, or its database was out of reach: this process must not go on")

// isPostgres reports whether the name of a database is the URL of a PostgreSQL
// server. Everything else is a file.
func isPostgres(db string) bool {
	return strings.HasPrefix(db, "postgres://") || strings.HasPrefix(db, "postgresql://")
}

// openStore opens the state of an account. Of several replicas on one PostgreSQL
// server, all but one wait here, until the one that serves ends or dies.
func openStore(ctx context.Context, log *slog.Logger, db, account string) (*sqlstore.Store, error) {
	if !isPostgres(db) {
		return sqlite.Open(ctx, db, account)
	}
	log.Info("waiting for the account", "account", account)
	store, err := postgres.Open(ctx, db, account)
	if err == nil {
		log.Info("account taken", "account", account)
	}
	return store, err
}

// untilLost returns a context that ends with errLost as its cause when the store
// is lost.
func untilLost(ctx context.Context, lost <-chan struct{}) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	go func() {
		select {
		case <-lost:
			cancel(errLost)
		case <-ctx.Done():
		}
	}()
	return ctx, func() { cancel(context.Canceled) }
}
