package sqlstore

import (
	"context"
	"crypto/rand"
	"database/sql"
	"fmt"
	"sync"
	"time"

	"example.org/omellium/omemo"
)

// leasePoll is how often a lease is looked at that is waited for.
const leasePoll = 200 * time.Millisecond

// leases keeps the accounts that this process owns. They are renewed together,
// three times within their time to live. Where a lease is not renewed for its
// whole time, others may have taken the account: it is given up, and its fence
// keeps commits out that are still under way.
type leases struct {
	db       *sql.DB
	ttl      time.Duration
	instance string
	token    string // names this owner; a lease with another one is not ours

	take, create, left, drop, renewal string // statements

	mu     sync.Mutex
	held   map[int64]*lease
	cancel context.CancelFunc
	done   chan struct{} // closed when the renewal has ended
}

// lease is one account that is owned.
type lease struct {
	until time.Time // by our own monotonic clock: when others may take it
	lost  func()
}

func newLeases(db *sql.DB, d *Dialect, settings Settings) *leases {
	l := &leases{
		db: db, ttl: settings.Lease, instance: settings.Instance, token: rand.Text(),
		held: make(map[int64]*lease), done: make(chan struct{}),

		// An owner that lives has its lease end after ttl at most. If it ends after
		// twice that, the clock was set back, and the owner may be dead.
		take: d.text(`UPDATE omemo_lease SET instance = ?, token = ?, ttl = CAST(? AS BIGINT), expires = {now} + CAST(? AS BIGINT)
			WHERE account = ? AND (expires <= {now} OR (ttl > 0 AND expires > {now} + 2 * ttl) OR (instance = ? AND instance <> ''))`),
		create: d.text(`INSERT INTO omemo_lease (account, instance, token, ttl, expires) VALUES (?, ?, ?, CAST(? AS BIGINT), {now} + CAST(? AS BIGINT))
			ON CONFLICT (account) DO NOTHING`),
		left:    d.text(`SELECT expires - {now} FROM omemo_lease WHERE account = ?`),
		drop:    d.text(`UPDATE omemo_lease SET expires = 0 WHERE account = ? AND token = ?`),
		renewal: d.text(`UPDATE omemo_lease SET expires = {now} + ? WHERE token = ? AND expires > 0 RETURNING account`),
	}
	ctx, cancel := context.WithCancel(context.Background())
	l.cancel = cancel
	go l.keep(ctx)
	return l
}

// acquire takes the lease of an account within a transaction. If another owner
// has it, it returns how long that one has left.
func (l *leases) acquire(ctx context.Context, tx *sql.Tx, account int64) (taken bool, left time.Duration, err error) {
	ttl := l.ttl.Milliseconds()
	r, err := tx.ExecContext(ctx, l.take, l.instance, l.token, ttl, ttl, account, l.instance)
	if err != nil {
		return false, 0, err
	}
	if n, err := r.RowsAffected(); err != nil || n == 1 {
		return err == nil, 0, err
	}
	if r, err = tx.ExecContext(ctx, l.create, account, l.instance, l.token, ttl, ttl); err != nil {
		return false, 0, err
	}
	if n, err := r.RowsAffected(); err != nil || n == 1 {
		return err == nil, 0, err
	}
	var ms int64
	err = tx.QueryRowContext(ctx, l.left, account).Scan(&ms)
	return false, time.Duration(ms) * time.Millisecond, err
}

// hold renews a lease that was taken at a time, until release. Lost is called
// once if it goes to somebody else.
func (l *leases) hold(account int64, taken time.Time, lost func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.held[account] = &lease{taken.Add(l.ttl), lost}
}

// release gives a lease back, so that nobody needs to wait for its end.
func (l *leases) release(ctx context.Context, account int64) error {
	l.mu.Lock()
	delete(l.held, account)
	l.mu.Unlock()
	if _, err := l.db.ExecContext(ctx, l.drop, account, l.token); err != nil {
		return fmt.Errorf("sqlstore: give the lease back: %w", err)
	}
	return nil
}

// keep renews the leases until the context ends.
func (l *leases) keep(ctx context.Context) {
	defer close(l.done)
	tick := time.NewTicker(l.ttl / 3)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		l.mu.Lock()
		idle := len(l.held) == 0
		l.mu.Unlock()
		if !idle {
			l.renew(ctx)
		}
	}
}

// renew renews all leases, and gives up those that were lost.
func (l *leases) renew(ctx context.Context) {
	start := time.Now()
	l.mu.Lock()
	before := make(map[int64]*lease, len(l.held))
	for account, held := range l.held {
		before[account] = held
	}
	l.mu.Unlock()

	ctx, cancel := context.WithTimeout(ctx, l.ttl/3)
	defer cancel()
	renewed, err := l.renewAll(ctx)

	l.mu.Lock()
	defer l.mu.Unlock()
	for account, held := range before {
		if l.held[account] != held {
			continue
		}
		switch {
		case err == nil && renewed[account]:
			held.until = start.Add(l.ttl)
		case err == nil || !time.Now().Before(held.until):
			delete(l.held, account)
			held.lost()
		}
	}
}

func (l *leases) renewAll(ctx context.Context) (map[int64]bool, error) {
	rows, err := l.db.QueryContext(ctx, l.renewal, l.ttl.Milliseconds(), l.token)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	renewed := make(map[int64]bool)
	for rows.Next() {
		var account int64
		if err := rows.Scan(&account); err != nil {
			return nil, err
		}
		renewed[account] = true
	}
	return renewed, rows.Err()
}

// close ends the renewal.
func (l *leases) close() error {
	l.cancel()
	<-l.done
	return l.db.Close()
}

// await takes an account over: its lease, where there are leases, and its next
// fence. Unless a lease is to be waited for, it is one short transaction.
func (d *Database) await(ctx context.Context, account int64) (taken time.Time, err error) {
	for try := 1; ; try++ {
		taken = time.Now()
		left, err := d.takeOver(ctx, account)
		switch {
		case err == nil && left == 0:
			return taken, nil
		case err == nil:
			// Before it ends, because it may be given back.
			err = sleep(ctx, min(max(left, leasePoll/10), leasePoll))
			try = 0
		case d.dialect.Transient(err) && try < commitTries:
			err = pause(ctx, try)
		}
		if err != nil && ctx.Err() != nil {
			return taken, locked(ctx)
		}
		if err != nil {
			return taken, err
		}
	}
}

// takeOver is one attempt of await. It returns how long the present owner has
// left, or zero if the account is ours.
func (d *Database) takeOver(ctx context.Context, account int64) (time.Duration, error) {
	tx, err := d.sql.BeginTx(ctx, nil)
	if err != nil {
		return 0, fmt.Errorf("sqlstore: take the account: %w", err)
	}
	defer tx.Rollback()
	if d.dialect.Begin != "" {
		if _, err := tx.ExecContext(ctx, d.dialect.Begin); err != nil {
			return 0, fmt.Errorf("sqlstore: take the account: %w", err)
		}
	}
	if d.leases != nil {
		taken, left, err := d.leases.acquire(ctx, tx, account)
		if err != nil {
			return 0, fmt.Errorf("sqlstore: take the lease: %w", err)
		}
		if !taken {
			return max(left, time.Millisecond), nil
		}
	}
	r, err := tx.ExecContext(ctx, d.dialect.text(`UPDATE omemo_account SET fence = fence + 1 WHERE id = ?`), account)
	if err != nil {
		return 0, fmt.Errorf("sqlstore: take the account: %w", err)
	}
	if n, err := r.RowsAffected(); err != nil || n != 1 {
		return 0, fmt.Errorf("sqlstore: the account's row is gone: %w", omemo.ErrCorrupt)
	}
	if err := tx.Commit(); err != nil {
		return 0, fmt.Errorf("sqlstore: take the account: %w", err)
	}
	return 0, nil
}
