package sqlstore

import (
	"context"
	"crypto/rand"
	"database/sql"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"example.org/omellium/omemo"
)

// Store is the state of one account, an omemo.Store. It is safe for concurrent
// use; commits are made one after the other.
type Store struct {
	db      *Database
	name    string // the account, a bare JID
	account int64  // its number in this database
	fence   int64
	sealer  *sealer // nil: secrets are not sealed
	release func() error
	gate    chan struct{} // one commit at a time
	onWrite func()        // told of every commit

	// Both are changed by commits only, one at a time.
	counters counters
	digest   *digest // nil if secrets are not sealed

	anchor     *anchor // nil if there is none
	unanchored bool    // there should be one, and was none
	rolledBack atomic.Bool
	moved      string // place that is noted when the sending state was made anew

	fresh sync.RWMutex // held while what stands in the database, counters and digest change

	mu   sync.Mutex
	err  error          // why the store may not be used any more
	uses sync.WaitGroup // calls under way; none begins once err is set
	lost chan struct{}
}

// counters are what every commit moves on.
type counters struct {
	commits, inbox, outbox uint64
}

// Open takes an account over, which is created if there is none of that name.
// Release is called when the store is closed, or could not be opened; onWrite,
// unless nil, after every commit.
func (d *Database) Open(ctx context.Context, account string, s Settings, release func() error, onWrite func()) (*Store, error) {
	st, err := d.open(ctx, account, s, release, onWrite)
	if err != nil {
		return nil, errors.Join(err, release())
	}
	return st, nil
}

func (d *Database) open(ctx context.Context, account string, s Settings, release func() error, onWrite func()) (*Store, error) {
	if err := d.ready(ctx); err != nil {
		return nil, err
	}
	unclaim, err := d.claim(ctx, account, s.Wait || d.leases != nil)
	if err != nil {
		return nil, err
	}
	st := &Store{db: d, name: account, gate: d.gate, onWrite: onWrite, lost: make(chan struct{})}
	if st.gate == nil {
		st.gate = make(chan struct{}, 1)
	}
	st.release = func() error {
		unclaim()
		return release()
	}
	if st.account, err = d.find(ctx, account, s.Key); err == nil {
		err = st.start(ctx, s)
	}
	if err != nil {
		unclaim()
		return nil, err
	}
	return st, nil
}

// find returns the number of an account, which is created if need be.
func (d *Database) find(ctx context.Context, name string, key KeyProvider) (int64, error) {
	query := d.dialect.text(`SELECT id FROM omemo_account WHERE name = ?`)
	var id int64
	look := func() error { return d.sql.QueryRowContext(ctx, query, name).Scan(&id) }
	err := d.retry(ctx, look)
	if err == nil {
		return id, nil
	}
	if !errors.Is(err, sql.ErrNoRows) {
		return 0, fmt.Errorf("sqlstore: find the account: %w", err)
	}
	var number [8]byte
	rand.Read(number[:])
	store := make([]byte, storeIDSize)
	rand.Read(store)
	wrapped, sum, err := newDataKey(ctx, key, store)
	if err != nil {
		return 0, err
	}
	// Another process may be faster: then its row counts.
	err = d.retry(ctx, func() error {
		_, err := d.sql.ExecContext(ctx, d.dialect.text(`INSERT INTO omemo_account
			(id, name, store, fence, commits, inbox, outbox, wrapped, digest, written) VALUES (?, ?, ?, 0, 0, 0, 0, ?, ?, 0)
			ON CONFLICT (name) DO NOTHING`), int64(binary.BigEndian.Uint64(number[:])>>1), name, store, wrapped, sum)
		return err
	})
	if err == nil {
		err = d.retry(ctx, look)
	}
	if err != nil {
		return 0, fmt.Errorf("sqlstore: create the account: %w", err)
	}
	return id, nil
}

// start takes the account over and reads where it stands.
func (s *Store) start(ctx context.Context, settings Settings) error {
	taken, err := s.db.await(ctx, s.account)
	if err != nil {
		return err
	}
	if s.db.leases != nil {
		s.db.leases.hold(s.account, taken, func() { s.die(omemo.ErrFenced) })
	}
	if err = s.unlock(ctx, settings); err != nil && s.db.leases != nil {
		err = errors.Join(err, s.db.leases.release(context.WithoutCancel(ctx), s.account))
	}
	return err
}

// unlock reads the account's row, opens its data key, and checks that no
// session was replaced by an older one.
func (s *Store) unlock(ctx context.Context, settings Settings) error {
	var store, wrapped, sum []byte
	var written uint64
	var place sql.NullString
	err := s.db.retry(ctx, func() error {
		return s.db.sql.QueryRowContext(ctx, s.db.dialect.text(`SELECT store, fence, commits, inbox, outbox, wrapped, digest, written, place
			FROM omemo_account WHERE id = ?`), s.account).
			Scan(&store, &s.fence, &s.counters.commits, &s.counters.inbox, &s.counters.outbox, &wrapped, &sum, &written, &place)
	})
	if err != nil {
		return fmt.Errorf("sqlstore: read the account: %w", err)
	}
	if s.sealer, err = openDataKey(ctx, settings.Key, store, wrapped); err != nil {
		return err
	}
	if s.sealer != nil {
		if s.digest, err = s.readDigest(ctx, sum, written); err != nil {
			return err
		}
	}
	if err := s.moor(settings, store); err != nil {
		return err
	}
	return s.locate(ctx, place.String)
}

// Rewrap seals the data key of a sealed account with another key. The data
// stays as it is. It is one statement: if it fails, or the program dies in it,
// either key may be the one that opens the account, and both are to be kept until
// one of them did. Whoever has an old copy of the database, or a log of
// PostgreSQL's, can still open what is in there with the former key.
func (s *Store) Rewrap(ctx context.Context, key KeyProvider) error {
	done, err := s.use()
	if err != nil {
		return err
	}
	defer done()
	if s.sealer == nil {
		return ErrNotSealed
	}
	wrapped, err := key.Wrap(ctx, s.sealer.store, s.sealer.key)
	if err != nil {
		return fmt.Errorf("sqlstore: wrap the data key: %w", err)
	}
	if err := acquire(ctx, s.gate); err != nil {
		return err
	}
	defer func() { <-s.gate }()
	if err := s.alter(ctx, `UPDATE omemo_account SET wrapped = ? WHERE id = ? AND fence = ?`, wrapped); err != nil {
		return fmt.Errorf("sqlstore: write the data key: %w", err)
	}
	s.wrote()
	return nil
}

// alter changes a column of the account's row beside the commits.
func (s *Store) alter(ctx context.Context, statement string, value any) error {
	return s.db.retry(ctx, func() error {
		r, err := s.db.sql.ExecContext(ctx, s.db.dialect.text(statement), value, s.account, s.fence)
		if err != nil {
			return err
		}
		n, err := r.RowsAffected()
		if err == nil && n != 1 {
			err = s.die(omemo.ErrFenced)
		}
		return err
	})
}

// Lost is closed when the account went to another owner, or the store does not
// know any more what it holds. Every call fails from then on; streams of the
// account should be closed.
func (s *Store) Lost() <-chan struct{} { return s.lost }

// Close gives the account up, after the calls that are under way.
func (s *Store) Close() error {
	s.mu.Lock()
	if s.err == nil {
		s.err = omemo.ErrClosed
	}
	release := s.release
	s.release = nil
	s.mu.Unlock()
	s.uses.Wait()
	if release == nil {
		return nil
	}
	var err error
	if s.db.leases != nil {
		ctx, cancel := context.WithTimeout(context.Background(), s.db.leases.ttl)
		defer cancel()
		err = s.db.leases.release(ctx, s.account)
	}
	if s.anchor != nil {
		err = errors.Join(err, s.anchor.close())
	}
	return errors.Join(err, release())
}

// use begins a call, unless the store is closed or fenced off.
func (s *Store) use() (done func(), err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return nil, fmt.Errorf("sqlstore: %w", s.err)
	}
	s.uses.Add(1)
	return s.uses.Done, nil
}

// die ends the use of the store and returns the reason. The first one counts.
func (s *Store) die(reason error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err == nil {
		s.err = reason
		close(s.lost)
	}
	return fmt.Errorf("sqlstore: %w", s.err)
}

// wrote tells of a commit.
func (s *Store) wrote() {
	if s.onWrite != nil {
		s.onWrite()
	}
}
