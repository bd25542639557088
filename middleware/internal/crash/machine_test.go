package crash

import (
	"context"
	"errors"
	"fmt"
	"net"
	"reflect"
	"sync"
	"testing"

	"example.org/omellium/omemo"
	"example.org/omellium/omemo/memstore"
)

// errCrash is what a program gets to see of its own death.
var errCrash = errors.New("crash")

// kind is a kind of crash point.
type kind int

const (
	read   kind = iota // the store is asked
	commit             // the store writes
	write              // bytes go to the network
	kinds
)

func (k kind) String() string { return [...]string{"read", "commit", "write"}[k] }

// mode is what happens at a crash point.
type mode int

const (
	before mode = iota // death, and the call has no effect
	after              // the call has its effect, but the program dies before it hears of it
	half               // half of the bytes are written, then death
	cut                // the bytes are written and the connection breaks; the program lives on
)

func (m mode) String() string { return [...]string{"before", "after", "half", "cut"}[m] }

// modes are what can be told apart at a kind of point: a read has no effect.
var modes = [kinds][]mode{read: {before}, commit: {before, after}, write: {before, after, half, cut}}

// point is a crash point: the number of a step, counted from 1 for each life of
// the program, and what happens there.
type point struct {
	step int
	mode mode
}

func (p point) String() string { return fmt.Sprintf("step %d, %v", p.step, p.mode) }

// machine is the computer that a program runs on. All calls of its store and all
// writes to its connections are steps, in one order. When it dies, everything
// that the program does from then on fails and has no effect.
type machine struct {
	mu    sync.Mutex
	armed bool
	plan  []point // at most one for each life
	steps []kind  // of this life
	dead  bool
	hit   bool // the point of this life was reached
	cut   bool // the connection was broken, and the program lives
	conns []net.Conn
	// powerFails is called when the machine dies, if it is set.
	powerFails func()
}

// start begins a life: with the next point of the plan if there is one.
func (m *machine) start() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.hit {
		m.plan = m.plan[1:]
	}
	m.armed, m.steps, m.dead, m.hit = true, nil, false, false
}

// disarm stops counting. It reports what has become of the life.
func (m *machine) disarm() (steps []kind, hit, dead bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.armed = false
	return m.steps, m.hit, m.dead
}

// died reports whether the program is dead.
func (m *machine) died() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.dead
}

// offline reports whether the connection of a living program was broken.
func (m *machine) offline() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.cut
}

// step counts a call and says what is to happen to it: nil if nothing.
func (m *machine) step(k kind) (*mode, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.dead {
		return nil, errCrash
	}
	if !m.armed {
		return nil, nil
	}
	m.steps = append(m.steps, k)
	if m.hit || len(m.plan) == 0 || m.plan[0].step != len(m.steps) {
		return nil, nil
	}
	m.hit = true
	what := m.plan[0].mode
	if what >= half && k != write || k == read {
		what = before
	}
	m.cut, m.dead = what == cut, what != cut
	return &what, nil
}

// die lets the machine die between two steps.
func (m *machine) die() {
	m.mu.Lock()
	m.dead = true
	m.mu.Unlock()
	m.hangUp()
}

// hangUp breaks all connections. If the machine has died, this is when.
func (m *machine) hangUp() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.dead && m.powerFails != nil {
		m.powerFails()
	}
	for _, c := range m.conns {
		c.Close()
	}
}

// wire puts a connection onto the machine.
func (m *machine) wire(c net.Conn) net.Conn {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.conns, m.cut = append(m.conns, c), false
	return &conn{c, m}
}

type conn struct {
	net.Conn
	m *machine
}

// Write makes one step of one stanza: the middleware writes them so.
func (c *conn) Write(b []byte) (int, error) {
	what, err := c.m.step(write)
	if err != nil {
		return 0, err
	}
	if what == nil {
		return c.Conn.Write(b)
	}
	n := 0
	switch *what {
	case half:
		n = len(b) / 2
	case after, cut:
		n = len(b)
	}
	if n > 0 {
		_, _ = c.Conn.Write(b[:n])
	}
	c.m.hangUp()
	return 0, errCrash
}

// disk is the store of a machine.
type disk struct {
	omemo.Store
	m *machine
}

// call makes one step. A store that belongs to a dead program is closed.
func call[T any](d *disk, k kind, below func() (T, error)) (T, error) {
	var none T
	what, err := d.m.step(k)
	if err != nil {
		return none, fmt.Errorf("%w: %w", err, omemo.ErrClosed)
	}
	if what == nil {
		v, err := below()
		if d.m.died() {
			// Meanwhile: the power may have failed before this was on the drive, and
			// nobody is left who hears of it.
			return none, fmt.Errorf("%w: %w", errCrash, omemo.ErrClosed)
		}
		return v, err
	}
	if *what == after {
		if _, err := below(); err != nil {
			return none, err
		}
	}
	d.m.hangUp()
	return none, fmt.Errorf("%w: %w", errCrash, omemo.ErrClosed)
}

// Lost is that of the store below: nil, which says nothing ever, if it has none.
func (d *disk) Lost() <-chan struct{} {
	if s, ok := d.Store.(interface{ Lost() <-chan struct{} }); ok {
		return s.Lost()
	}
	return nil
}

func (d *disk) Load(ctx context.Context) (omemo.State, error) {
	return call(d, read, func() (omemo.State, error) { return d.Store.Load(ctx) })
}

func (d *disk) PreKeys(ctx context.Context, v omemo.Version, ids ...uint32) ([]omemo.PreKeyRow, error) {
	return call(d, read, func() ([]omemo.PreKeyRow, error) { return d.Store.PreKeys(ctx, v, ids...) })
}

func (d *disk) Sessions(ctx context.Context, peers []omemo.Peer) ([]omemo.SessionRow, error) {
	return call(d, read, func() ([]omemo.SessionRow, error) { return d.Store.Sessions(ctx, peers) })
}

func (d *disk) Skipped(ctx context.Context, ids []omemo.SkippedID) ([]omemo.SkippedRow, error) {
	return call(d, read, func() ([]omemo.SkippedRow, error) { return d.Store.Skipped(ctx, ids) })
}

func (d *disk) Ended(ctx context.Context, ids []omemo.ChainID) ([]omemo.EndedChain, error) {
	return call(d, read, func() ([]omemo.EndedChain, error) { return d.Store.Ended(ctx, ids) })
}

func (d *disk) Accounts(ctx context.Context, jids ...string) (omemo.Accounts, error) {
	return call(d, read, func() (omemo.Accounts, error) { return d.Store.Accounts(ctx, jids...) })
}

func (d *disk) Inbox(ctx context.Context, after uint64, limit int) ([]omemo.InboxRow, error) {
	return call(d, read, func() ([]omemo.InboxRow, error) { return d.Store.Inbox(ctx, after, limit) })
}

func (d *disk) Outbox(ctx context.Context, after uint64, limit int) ([]omemo.OutboxRow, error) {
	return call(d, read, func() ([]omemo.OutboxRow, error) { return d.Store.Outbox(ctx, after, limit) })
}

func (d *disk) Journal(ctx context.Context, from omemo.Address) ([]omemo.JournalRow, error) {
	return call(d, read, func() ([]omemo.JournalRow, error) { return d.Store.Journal(ctx, from) })
}

func (d *disk) Owed(ctx context.Context) ([]omemo.OwedRow, error) {
	return call(d, read, func() ([]omemo.OwedRow, error) { return d.Store.Owed(ctx) })
}

func (d *disk) Cursors(ctx context.Context) ([]omemo.Cursor, error) {
	return call(d, read, func() ([]omemo.Cursor, error) { return d.Store.Cursors(ctx) })
}

func (d *disk) Occupants(ctx context.Context, rooms ...string) ([]omemo.OccupantRow, error) {
	return call(d, read, func() ([]omemo.OccupantRow, error) { return d.Store.Occupants(ctx, rooms...) })
}

func (d *disk) Echoes(ctx context.Context, hashes ...[32]byte) ([]omemo.EchoRow, error) {
	return call(d, read, func() ([]omemo.EchoRow, error) { return d.Store.Echoes(ctx, hashes...) })
}

func (d *disk) Statements(ctx context.Context, jids ...string) ([]omemo.StatementRow, error) {
	return call(d, read, func() ([]omemo.StatementRow, error) { return d.Store.Statements(ctx, jids...) })
}

func (d *disk) Commit(ctx context.Context, c *omemo.Changes) error {
	_, err := call(d, commit, func() (struct{}, error) { return struct{}{}, d.Store.Commit(ctx, c) })
	return err
}

// TestEveryCallIsNumbered has the methods of a store called on a machine that is
// dead: one that the disk does not number would reach the store, which is not
// there. Close is left out: a program that dies does not call it.
func TestEveryCallIsNumbered(t *testing.T) {
	of := reflect.TypeFor[omemo.Store]()
	d := reflect.ValueOf(&disk{m: &machine{dead: true}})
	for i := range of.NumMethod() {
		m := of.Method(i)
		if m.Name == "Close" {
			continue
		}
		t.Run(m.Name, func(t *testing.T) {
			in := []reflect.Value{reflect.ValueOf(t.Context())}
			for n := 1; n < m.Type.NumIn() && !(m.Type.IsVariadic() && n == m.Type.NumIn()-1); n++ {
				in = append(in, reflect.Zero(m.Type.In(n)))
			}
			out := d.MethodByName(m.Name).Call(in)
			if err, _ := out[len(out)-1].Interface().(error); !errors.Is(err, errCrash) {
				t.Errorf("%v, want %v", err, errCrash)
			}
		})
	}
}

// A program that has lost its store to another on the same disk learns of it.
func TestLostStoreIsTold(t *testing.T) {
	below := memstore.New(romeo)
	d := &disk{Store: below, m: &machine{}}
	below.Reopen()
	select {
	case <-d.Lost():
	default:
		t.Error("the store was lost, and nobody is told")
	}
}
