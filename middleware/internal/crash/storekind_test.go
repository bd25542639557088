package crash

import (
	"context"
	"database/sql"
	"path/filepath"
	"testing"
	"time"

	"example.org/omellium/omemo"
	"example.org/omellium/omemo/sqlstore"
	"example.org/omellium/omemo/sqlstore/postgres"
	"example.org/omellium/omemo/sqlstore/sqlite"
)

// storeKind is a kind of store that several processes can open.
type storeKind struct {
	open func(ctx context.Context, o order) (omemo.Store, error)
	// driver is that of database/sql, and values are placeholders for two.
	driver, values string
	// fresh returns where a new store is.
	fresh func(t *testing.T) string
	// sound checks the database from outside.
	sound func(t *testing.T, where string)
}

var storeKinds = map[string]*storeKind{
	"SQLite": {
		open: func(ctx context.Context, o order) (omemo.Store, error) {
			return sqlite.Open(ctx, o.Where, romeo, sqlstore.WithAnchor(o.Anchors), sqlstore.WithWait())
		},
		driver: "sqlite", values: "?, ?",
		fresh: func(t *testing.T) string { return filepath.Join(t.TempDir(), "store.db") },
		sound: func(t *testing.T, where string) {
			t.Helper()
			ok(t, integrity(where))
		},
	},
	"PostgreSQL": {
		open: func(ctx context.Context, o order) (omemo.Store, error) {
			return postgres.Open(ctx, o.Where, romeo, sqlstore.WithAnchor(o.Anchors),
				sqlstore.WithLease(time.Duration(o.Lease)*time.Millisecond), sqlstore.WithInstance(o.Instance))
		},
		driver: "pgx", values: "$1, $2",
		fresh: postgresDatabase,
		sound: func(t *testing.T, where string) {
			db, err := sql.Open("pgx", where)
			ok(t, err)
			defer db.Close()
			_, err = db.Exec(`CREATE EXTENSION amcheck`)
			ok(t, err)
			_, err = db.Exec(`SELECT bt_index_check(c.oid, true) FROM pg_class c JOIN pg_am m ON c.relam = m.oid
				WHERE m.amname = 'btree' AND c.relkind = 'i' AND c.relpersistence = 'p'`)
			ok(t, err)
		},
	},
}
