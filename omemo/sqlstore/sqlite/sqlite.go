// Package sqlite keeps the state of accounts in an SQLite file (see sqlstore),
// without cgo. It is the store for programs that run on one machine.
//
// A file belongs to one process at a time, by a lock of the operating system on
// a file beside it (name + "-lock"); within the process it holds any number of
// accounts. A second process gets omemo.ErrLocked at once, or waits with
// sqlstore.WithWait.
//
// Every commit is durable when it returns (WAL, synchronous=FULL): a commit
// that a power failure could take back would make keys be used twice. What is
// deleted is overwritten (secure_delete), and the write-ahead log is emptied
// every minute and whenever an account is closed, so that neither used keys nor
// delivered texts stay on the disk. Flash memory may keep old blocks
// nevertheless: see sqlstore.WithKey.
//
// The files are created with mode 0600. One that others may read or write, a
// symbolic link, a file with several names, and a network file system (where it
// is known for one) are refused. Keep the file in a directory that belongs to
// the program.
package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"net/url"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	_ "modernc.org/sqlite" // the driver

	"example.org/omellium/omemo"
	"example.org/omellium/omemo/sqlstore"
	"example.org/omellium/omemo/sqlstore/internal/share"
)

const (
	// lockPoll is how often a file is tried that is waited for.
	lockPoll = 50 * time.Millisecond
	// checkpointInterval is how long what was deleted may stay in the
	// write-ahead log.
	checkpointInterval = time.Minute
)

var dialect = sqlstore.Dialect{
	Embedded:  true,
	Bytes:     "BLOB",
	Clustered: "WITHOUT ROWID",
	HasTable:  `SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name = ?`,
	Transient: func(error) bool { return false },
	Raced:     func(error) bool { return false },
}

// settings of every connection, as the driver wants them.
var settings = url.Values{
	"_txlock": {"immediate"},
	"_pragma": {
		"busy_timeout(10000)",
		"journal_mode(WAL)",
		"synchronous(FULL)",
		"fullfsync(ON)",            // where fsync alone does not reach the disk
		"checkpoint_fullfsync(ON)", // likewise
		"secure_delete(ON)",
		"foreign_keys(ON)",
		"temp_store(MEMORY)", // no secrets in temporary files
		"trusted_schema(OFF)",
	},
}

// files holds the files that this process has open, by their absolute paths.
var files share.Map[string, *file]

// file is an open file.
type file struct {
	db     *sqlstore.Database
	lock   *lock
	dirty  atomic.Bool // something was written since the log was emptied
	cancel context.CancelFunc
	done   chan struct{} // closed when the checkpoints have ended
}

// Open opens the store of an account, a bare JID, in a file. Both are created
// if they do not exist. An account that this process has open already is
// omemo.ErrLocked, unless sqlstore.WithWait is given.
func Open(ctx context.Context, path, account string, opts ...sqlstore.Option) (*sqlstore.Store, error) {
	s := sqlstore.Collect(opts)
	name, err := resolve(path)
	if err != nil {
		return nil, err
	}
	f, release, err := acquire(ctx, name, s)
	if err != nil {
		return nil, err
	}
	closing := func() error {
		f.checkpoint(context.Background())
		return release()
	}
	return f.db.Open(ctx, account, s, closing, func() { f.dirty.Store(true) })
}

// acquire opens a file, or shares it, and waits for it if so told.
func acquire(ctx context.Context, name string, s sqlstore.Settings) (*file, func() error, error) {
	for {
		f, release, err := files.Acquire(name, func() (*file, func() error, error) {
			f, err := open(name, s)
			if err != nil {
				return nil, nil, err
			}
			return f, f.close, nil
		})
		if !s.Wait || !errors.Is(err, omemo.ErrLocked) {
			return f, release, err
		}
		select {
		case <-time.After(lockPoll):
		case <-ctx.Done():
			return nil, nil, errors.Join(err, ctx.Err())
		}
	}
}

func open(name string, s sqlstore.Settings) (*file, error) {
	l, err := takeLock(name + "-lock")
	if err != nil {
		return nil, err
	}
	if err := prepare(name); err != nil {
		return nil, errors.Join(err, l.release())
	}
	db, err := sql.Open("sqlite", source(name))
	if err != nil {
		return nil, errors.Join(err, l.release())
	}
	db.SetMaxOpenConns(8)
	db.SetMaxIdleConns(8)
	f := &file{db: sqlstore.NewDatabase(db, dialect, nil, s), lock: l, done: make(chan struct{})}
	ctx, cancel := context.WithCancel(context.Background())
	f.cancel = cancel
	f.dirty.Store(true) // of whoever was here before
	go f.keep(ctx)
	return f, nil
}

// source returns the name of a file for the driver.
func source(name string) string {
	path := filepath.ToSlash(name)
	if !strings.HasPrefix(path, "/") {
		path = "/" + path // a drive letter
	}
	return (&url.URL{Scheme: "file", OmitHost: true, Path: path, RawQuery: settings.Encode()}).String()
}

// close closes a file after its last account.
func (f *file) close() error {
	f.cancel()
	<-f.done
	return errors.Join(f.db.Close(), f.lock.release())
}

// keep empties the log from time to time.
func (f *file) keep(ctx context.Context) {
	defer close(f.done)
	tick := time.NewTicker(checkpointInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			f.checkpoint(ctx)
		}
	}
}

// checkpoint moves what was written into the database and empties the log. A
// reader that is in the way, or a full disk, puts it off to the next time.
func (f *file) checkpoint(ctx context.Context) {
	if !f.dirty.Swap(false) {
		return
	}
	var busy, frames, moved int
	err := f.db.Quiet(ctx, func(db *sql.DB) error {
		return db.QueryRowContext(ctx, `PRAGMA wal_checkpoint(TRUNCATE)`).Scan(&busy, &frames, &moved)
	})
	if err != nil || busy != 0 {
		f.dirty.Store(true)
	}
}
