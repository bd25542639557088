// Package postgres keeps the state of accounts in a PostgreSQL database (see
// sqlstore). It is the store for programs that run on several machines, and for
// many accounts.
//
// An account has one owner at a time, by a lease that stands in the database
// and is measured by the database's clock. Open waits for it; so open the store
// before dialling: a standby that is connected already would swallow messages.
// The owner renews the lease long before it ends (sqlstore.DefaultLease, see
// sqlstore.WithLease), and gives it up when it cannot, which Store.Lost tells.
// Whoever comes next moves a fencing token on, after which nothing that the
// former owner tries to write is accepted.
//
// Commits are durable when they return: synchronous_commit is switched on in
// each transaction, whatever the server's default is. What the server does to
// its replicas is its administrator's choice: a standby that is promoted may
// miss the last commits. A transaction that stands still for a minute is ended
// by the server.
//
// Where the database stands is noted in it: the cluster's system identifier and
// timeline, the database and the table. A dump or a backup that was restored,
// and a standby that was promoted, are noticed by that when an account is opened
// (omemo.State.RolledBack), so that no key is used twice. A copy of the server's
// whole directory has the same name and is not noticed: see sqlstore.WithAnchor.
//
// What is deleted stays in the server's files for a while, in its log and its
// backups for longer: only a key (sqlstore.WithKey) keeps used keys and delivered
// texts from those who can read them.
//
// The statements are plain SQL and need no session state, so that transaction
// poolers work (with default_query_exec_mode=exec in the URL) and distributed
// databases that speak PostgreSQL's protocol can serve.
package postgres

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"

	"example.org/omellium/omemo/sqlstore"
	"example.org/omellium/omemo/sqlstore/internal/share"
)

const (
	// connectTimeout applies where the URL says nothing.
	connectTimeout = 10 * time.Second
	// connections bounds the pool, which all accounts of a URL share. Commits have
	// three quarters of it at most.
	connections = 16
)

// Error codes of PostgreSQL (appendix A of its manual).
const (
	serializationFailure = "40001"
	deadlockDetected     = "40P01"
	uniqueViolation      = "23505"
	duplicateTable       = "42P07"
	duplicateObject      = "42710"
)

var dialect = sqlstore.Dialect{
	Numbered: true,
	Arrays:   true,
	Bytes:    "BYTEA",
	// A new state then stands on the page of the old one (a heap-only tuple),
	// and no index changes.
	Sparse:   `ALTER TABLE omemo_session SET (fillfactor = 45)`,
	HasTable: `SELECT count(*) FROM information_schema.tables WHERE table_schema = current_schema() AND table_name = ?`,
	Begin: `SELECT set_config('synchronous_commit', 'on', true),
		set_config('idle_in_transaction_session_timeout', '60000', true)`,
	Now:       `CAST(extract(epoch FROM clock_timestamp()) * 1000 AS BIGINT)`,
	Place:     place,
	Transient: func(err error) bool { return hasCode(err, serializationFailure, deadlockDetected) },
	Raced:     func(err error) bool { return hasCode(err, uniqueViolation, duplicateTable, duplicateObject) },
}

func hasCode(err error, codes ...string) bool {
	pg, ok := errors.AsType[*pgconn.PgError](err)
	return ok && slices.Contains(codes, pg.Code)
}

// source is what a handle is shared by.
type source struct {
	url, instance string
	lease         time.Duration
}

var databases share.Map[source, *sqlstore.Database]

// Open opens the store of an account, a bare JID, in the database of a URL
// (postgres://…) or of a connection string. It waits until nobody else has the
// account, or fails with omemo.ErrLocked when its context ends. The account and
// the tables are created if they do not exist.
func Open(ctx context.Context, url, account string, opts ...sqlstore.Option) (*sqlstore.Store, error) {
	s := sqlstore.Collect(opts)
	if s.Lease < time.Millisecond {
		return nil, fmt.Errorf("postgres: a lease of %v is too short", s.Lease)
	}
	db, release, err := databases.Acquire(source{url, s.Instance, s.Lease}, func() (*sqlstore.Database, func() error, error) {
		config, err := parse(url)
		if err != nil {
			return nil, nil, err
		}
		db := sqlstore.NewDatabase(pool(config, connections), dialect, pool(config, 2), s)
		return db, db.Close, nil
	})
	if err != nil {
		return nil, err
	}
	return db.Open(ctx, account, s, release, nil)
}

// parse reads a URL or a connection string. No error shows the password: a part
// of one that was taken for the host would be shown by every later error.
func parse(url string) (*pgx.ConnConfig, error) {
	config, err := pgx.ParseConfig(url)
	if err != nil {
		return nil, fmt.Errorf("postgres: %w", err)
	}
	hosts := []string{config.Host}
	for _, f := range config.Fallbacks {
		hosts = append(hosts, f.Host)
	}
	for _, host := range hosts {
		if strings.Contains(host, "@") && !strings.HasPrefix(host, "/") {
			return nil, errors.New("postgres: an @ in the host's name: one in a password is written %40")
		}
	}
	if config.ConnectTimeout == 0 {
		config.ConnectTimeout = connectTimeout
	}
	return config, nil
}

func pool(config *pgx.ConnConfig, size int) *sql.DB {
	db := stdlib.OpenDB(*config, stdlib.OptionAfterConnect(durable))
	db.SetMaxOpenConns(size)
	db.SetMaxIdleConns(size)
	db.SetConnMaxIdleTime(5 * time.Minute)
	return db
}

// durable refuses a server that cannot be told to make commits durable.
func durable(ctx context.Context, conn *pgx.Conn) error {
	var set string
	if err := conn.QueryRow(ctx, `SELECT set_config('synchronous_commit', 'on', false)`).Scan(&set); err != nil {
		return fmt.Errorf("postgres: synchronous_commit: %w", err)
	}
	if set != "on" {
		return fmt.Errorf("postgres: the server keeps synchronous_commit at %q", set)
	}
	return nil
}
