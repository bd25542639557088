package sqlstore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"example.org/omellium/omemo"
)

// Database is an open database, shared by the accounts of this process that
// stand in it.
type Database struct {
	sql        *sql.DB
	dialect    Dialect
	leases     *leases       // nil if the dialect has none
	gate       chan struct{} // an embedded database has one writer at a time
	commits    chan struct{} // commits under way, where the connections are bounded
	statements sync.Map      // statementKey to *statement

	prepare  sync.Mutex
	prepared bool

	mu     sync.Mutex
	stores map[string]*claim // accounts that are open, by name
}

// claim is held by the one store of an account in this process.
type claim struct {
	released chan struct{}
}

// NewDatabase takes a handle over. A database with leases renews them through a
// handle of their own, so that no transaction keeps them waiting; the settings
// say under which name and for how long.
func NewDatabase(db *sql.DB, dialect Dialect, renew *sql.DB, settings Settings) *Database {
	d := &Database{sql: db, dialect: dialect, stores: make(map[string]*claim)}
	if dialect.Embedded {
		d.gate = make(chan struct{}, 1)
	} else if most := db.Stats().MaxOpenConnections; most > 1 {
		// A commit has a connection, and Changes.Within may read through another
		// one: commits never have them all.
		d.commits = make(chan struct{}, most-(most+3)/4)
	}
	if dialect.Now != "" {
		d.leases = newLeases(renew, &d.dialect, settings)
	}
	return d
}

// Close closes the handles. Stores that are still open fail from now on.
func (d *Database) Close() error {
	var err error
	if d.leases != nil {
		err = d.leases.close()
	}
	d.statements.Range(func(_, st any) bool {
		st.(*statement).close()
		return true
	})
	return errors.Join(err, d.sql.Close())
}

// Quiet runs fn while nobody writes to an embedded database.
func (d *Database) Quiet(ctx context.Context, fn func(*sql.DB) error) error {
	if err := acquire(ctx, d.gate); err != nil {
		return err
	}
	defer func() { <-d.gate }()
	return fn(d.sql)
}

// ready brings the schema up to date, once.
func (d *Database) ready(ctx context.Context) error {
	d.prepare.Lock()
	defer d.prepare.Unlock()
	if d.prepared {
		return nil
	}
	if err := d.migrate(ctx); err != nil {
		return err
	}
	d.prepared = true
	return nil
}

// claim makes sure that an account has one store in this process.
func (d *Database) claim(ctx context.Context, account string, wait bool) (release func(), err error) {
	for {
		d.mu.Lock()
		held, ok := d.stores[account]
		if !ok {
			mine := &claim{make(chan struct{})}
			d.stores[account] = mine
			d.mu.Unlock()
			return func() {
				d.mu.Lock()
				delete(d.stores, account)
				d.mu.Unlock()
				close(mine.released)
			}, nil
		}
		d.mu.Unlock()
		if !wait {
			return nil, fmt.Errorf("sqlstore: account is open in this process already: %w", omemo.ErrLocked)
		}
		select {
		case <-held.released:
		case <-ctx.Done():
			return nil, locked(ctx)
		}
	}
}

// locked is the error of an Open that waited in vain.
func locked(ctx context.Context) error {
	return fmt.Errorf("sqlstore: %w: %w", omemo.ErrLocked, context.Cause(ctx))
}

// calm returns a context for statements: of an embedded database, they are not
// interrupted, but not begun either once the context has ended.
func (d *Database) calm(ctx context.Context) (context.Context, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("sqlstore: %w", err)
	}
	if d.dialect.Embedded {
		return context.WithoutCancel(ctx), nil
	}
	return ctx, nil
}

// retry runs a single statement, again if the database has undone it because of
// others: some of those that speak PostgreSQL's protocol do so with any.
func (d *Database) retry(ctx context.Context, statement func() error) error {
	for try := 1; ; try++ {
		err := statement()
		if err == nil || try == commitTries || !d.dialect.Transient(err) || pause(ctx, try) != nil {
			return err
		}
	}
}

// acquire takes a place in a channel that serves as a lock.
func acquire(ctx context.Context, gate chan struct{}) error {
	select {
	case gate <- struct{}{}:
		return nil
	default:
	}
	select {
	case gate <- struct{}{}:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("sqlstore: %w", ctx.Err())
	}
}

// pause waits before another try: longer with every one, and never as long as
// others do.
func pause(ctx context.Context, try int) error {
	return sleep(ctx, time.Duration(1+rand.IntN(10*try))*time.Millisecond)
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("sqlstore: %w", ctx.Err())
	}
}
