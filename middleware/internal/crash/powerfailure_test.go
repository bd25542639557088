package crash

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/url"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"

	modernc "modernc.org/sqlite"

	"example.org/omellium/omemo"
	"example.org/omellium/omemo/sqlstore"
	"example.org/omellium/omemo/sqlstore/sqlite"
)

// onDrive has the power fail whenever the program dies. With seed 0, all is gone
// that was not synced; with others some of it is.
func onDrive(seed uint64) opener {
	return func(t *testing.T, p *program) {
		onSQLite(t, p)
		mount(t, p, dice(seed))
	}
}

// mount puts the store of a program onto a drive.
func mount(t *testing.T, p *program, dice *rand.Rand) *drive {
	t.Helper()
	d := newDrive(t, p.file, p.anchors, dice)
	p.m.powerFails = func() {
		if err := d.cut(); err != nil {
			t.Error(err)
		}
	}
	open := p.open
	p.open = func(ctx context.Context) (omemo.Store, error) {
		if err := d.back(); err != nil {
			return nil, err
		}
		return open(ctx)
	}
	return d
}

func dice(seed uint64) *rand.Rand {
	if seed == 0 {
		return nil
	}
	return rand.New(rand.NewPCG(seed, 0))
}

// TestPowerFailure has the power fail at each commit and each write to the network
// of each scenario: what the wire has seen is in the database.
func TestPowerFailure(t *testing.T) {
	stride := knob(t, "OMELLIUM_FAILPOINTS", 8, 40)
	for i, s := range scenarios {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			v := omemo.Versions()[i%2]
			var y tally
			turn := i
			for step, k := range s.run(t, v, onSQLite).steps[0] {
				if k == read {
					continue
				}
				for _, what := range []mode{before, after} {
					if turn++; turn%stride == 0 {
						y.add(s.run(t, v, onDrive(uint64(turn/stride%4)), point{step + 1, what}))
					}
				}
			}
			t.Logf("%v", y)
		})
	}
}

// weaken has the driver open the databases of weak drives with less than the
// store asks for.
var weaken = sync.OnceFunc(func() {
	modernc.RegisterConnectionHook(func(conn modernc.ExecQuerierContext, dsn string) error {
		source, err := url.Parse(dsn)
		if err != nil {
			return nil // another test's: not a URL
		}
		d := drives.drive(source.Path)
		if d == nil || d.synchronous == "" {
			return nil
		}
		_, err = conn.ExecContext(context.Background(), "PRAGMA synchronous="+d.synchronous, nil)
		return err
	})
})

// TestPowerFailureWitness: with less than synchronous=FULL, a power failure takes
// back what the wire has seen. The scenarios do not overlook that: the program,
// even without anchors, finds that its state is older than it was, and says so.
func TestPowerFailureWitness(t *testing.T) {
	weaken()
	for _, synchronous := range []string{"", "NORMAL"} {
		synctest.Test(t, func(t *testing.T) {
			var d *drive
			w := newWorld(t, &scenario{devices: 1}, omemo.V2, func(t *testing.T, p *program) {
				p.file = filepath.Join(t.TempDir(), "store.db")
				p.open = func(ctx context.Context) (omemo.Store, error) { return sqlite.Open(ctx, p.file, p.account) }
				d = mount(t, p, nil)
			})
			defer w.close()
			d.synchronous = synchronous
			ok(t, w.up())
			w.talk(nil, texts("juliet", 0, 2))
			w.talk(texts("romeo", 0, 2), nil) // begins a chain, which the others go on with
			ok(t, w.subject.say(w.ctx, juliet, texts("romeo", 2, 2)...))
			synctest.Wait() // and no longer: a checkpoint has the log synced
			w.subject.m.die()
			w.stop()
			w.subject.m.start()
			ok(t, w.up())
			w.talk(texts("romeo", 4, 2), nil)
			ok(t, w.tap.verdict())
			if found, holds := w.rollbacks(), synchronous == ""; holds != (found == 0) {
				t.Errorf("synchronous=%q: %d rollbacks were found", synchronous, found)
			}
		})
	}
}

// TestPowerFailureInCommit has the power fail before every single write, truncation
// and sync of SQLite's, in commits and in the checkpoints between them: what is
// left is sound and holds each commit that had returned, and of the one that was
// under way all or nothing. With less than synchronous=FULL it does not, which
// the test finds as well.
func TestPowerFailureInCommit(t *testing.T) {
	weaken()
	for _, c := range []struct {
		synchronous string
		holds       bool
	}{{"", true}, {"NORMAL", false}, {"OFF", false}} {
		name := c.synchronous
		if c.holds {
			name = "as the store asks for"
		}
		t.Run(name, func(t *testing.T) {
			stride := knob(t, "OMELLIUM_FAILPOINTS", 8, 40)
			if !c.holds {
				stride = 10
			}
			r := newLosses(t, c.synchronous, stride)
			err := r.run(t, 60)
			if c.holds != (err == nil) {
				t.Errorf("found: %v", err)
			}
			t.Logf("%d changes of files, %d power failures", r.changes, r.tried)
		})
	}
}

// losses are the power failures of a store.
type losses struct {
	drive   *drive
	stride  int
	tried   int
	mu      sync.Mutex // the store checkpoints whenever it likes
	changes int        // of files
	// durable is the number of the last commit that has returned.
	durable int
	taken   []loss // to be looked at
}

// loss is what is left after a power failure, and what must be among it.
type loss struct {
	*remains
	durable int
}

func newLosses(t *testing.T, synchronous string, stride int) *losses {
	t.Helper()
	r := &losses{drive: newDrive(t, filepath.Join(t.TempDir(), "store.db"), t.TempDir(), nil), stride: stride}
	r.drive.synchronous = synchronous
	r.drive.step = func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.changes++; r.changes%r.stride != 0 || r.durable == 0 {
			return
		}
		r.drive.dice = dice(uint64(r.changes / r.stride % 5))
		left, err := r.drive.loss()
		if err != nil {
			t.Error(err)
			return
		}
		r.taken = append(r.taken, loss{left, r.durable})
	}
	return r
}

// run makes n commits and looks at what the power failures meanwhile have left.
func (r *losses) run(t *testing.T, n int) error {
	t.Helper()
	ctx := t.Context()
	open := func() *sqlstore.Store {
		s, err := sqlite.Open(ctx, r.drive.path, romeo, sqlstore.WithAnchor(r.drive.anchors))
		ok(t, err)
		return s
	}
	s := open()
	for i := 1; i <= n; i++ {
		ok(t, s.Commit(ctx, numberedCommit(i)))
		r.mu.Lock()
		r.durable = i
		r.mu.Unlock()
		if i%12 == 0 {
			ok(t, s.Close()) // with a checkpoint
			s = open()
		}
		r.mu.Lock()
		taken := r.taken
		r.taken = nil
		r.mu.Unlock()
		for _, l := range taken {
			r.tried++
			if err := l.check(t); err != nil {
				return errors.Join(fmt.Errorf("power failure after commit %d: %w", l.durable, err), s.Close())
			}
		}
	}
	return s.Close()
}

// numberedCommit writes an outbox row and removes an older one, and a cursor
// tells its number.
func numberedCommit(i int) *omemo.Changes {
	return &omemo.Changes{
		Outbox:     []omemo.OutboxRow{{Seq: uint64(i), ID: fmt.Sprint(i), Chat: juliet, Stanza: numberedStanza(i)}},
		DropOutbox: []uint64{uint64(max(i-20, 0))},
		Cursors:    []omemo.Cursor{{Archive: romeo, Position: fmt.Sprint(i)}},
	}
}

func numberedStanza(i int) []byte { return bytes.Repeat([]byte{byte(i)}, 300*(1+i%40)) }

// check opens what is left, as a store.
func (l *loss) check(t *testing.T) (err error) {
	t.Helper()
	dir, anchors := t.TempDir(), t.TempDir()
	path := filepath.Join(dir, "store.db")
	err = l.write(func(name string) string {
		if _, isAnchor := l.anchors[name]; isAnchor {
			return filepath.Join(anchors, filepath.Base(name))
		}
		return filepath.Join(dir, filepath.Base(name))
	})
	if err != nil {
		return err
	}
	s, err := sqlite.Open(t.Context(), path, romeo, sqlstore.WithAnchor(anchors))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close(), integrity(path)) }()
	state, err := s.Load(t.Context())
	if err != nil {
		return err
	}
	if state.RolledBack {
		return errors.New("rolled back")
	}
	last := int(state.Outbox)
	if last != l.durable && last != l.durable+1 {
		return fmt.Errorf("the last commit is %d", last)
	}
	cursors, err := s.Cursors(t.Context())
	if err != nil {
		return err
	}
	if len(cursors) != 1 || cursors[0].Position != fmt.Sprint(last) {
		return fmt.Errorf("after commit %d the cursors are %v", last, cursors)
	}
	rows, err := s.Outbox(t.Context(), 0, 100)
	if err != nil {
		return err
	}
	first := max(last-19, 1)
	if len(rows) != last-first+1 {
		return fmt.Errorf("after commit %d there are %d rows", last, len(rows))
	}
	for i, row := range rows {
		if row.Seq != uint64(first+i) || !bytes.Equal(row.Stanza, numberedStanza(first+i)) {
			return fmt.Errorf("after commit %d, row %d is damaged", last, row.Seq)
		}
	}
	return nil
}

// integrity asks SQLite whether a database is sound.
func integrity(path string) error {
	db, err := sql.Open("sqlite", path)
	if err != nil {
		return err
	}
	defer db.Close()
	var verdict string
	if err := db.QueryRow(`PRAGMA integrity_check`).Scan(&verdict); err != nil {
		return err
	}
	if verdict != "ok" {
		return fmt.Errorf("integrity check: %s", verdict)
	}
	return nil
}
