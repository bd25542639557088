package omemo

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"time"
)

// Options are the choices of an account.
type Options struct {
	// Policy decides about keys that nobody has decided about; nil is
	// BlindBeforeVerification.
	Policy TrustPolicy
	// Prefer says which version serves a device that lists both and has shown
	// neither; nil, or 0 for an address, is Legacy, because every client known
	// to list both reads it.
	Prefer func(jid string) Version
	// AllowDowngrade serves devices that have spoken omemo:2 and are now listed
	// for legacy only. By default they are refused: whoever hides a device list
	// must not be able to choose the weaker version.
	AllowDowngrade bool
	// AllowUnauthenticatedLegacy reads the 16-byte key form of very old legacy
	// clients, whose text any recipient of the message can replace.
	AllowUnauthenticatedLegacy bool
	// Versions are those in which anything is sent; nil is both. What comes in
	// another one can be read all the same.
	Versions []Version
	// SignedPreKeyPeriod is how long a signed pre key is published:
	// SignedPreKeyPeriod, which is the default, to MaxSignedPreKeyPeriod.
	SignedPreKeyPeriod time.Duration
	// StaleAfter is how long nothing must have been heard of a device, besides
	// StaleMessages sent to it, until it is not sent to any more; 0 is
	// DefaultStaleAfter, less than 0 is never.
	StaleAfter time.Duration
}

// Manager encrypts and decrypts for one account. It owns the account's store,
// caches what it has read from it, and does one thing after another: every
// method is safe for concurrent use, each runs from load to commit alone.
type Manager struct {
	store   Store
	options Options
	turn    chan struct{}   // holds one token: the right to work
	draw    func() [32]byte // randomness
	served  []Version       // in which anything is sent

	account  *account
	sessions map[Peer]*slot
	known    map[string]*knowledge
	census   *census // nil: not taken yet
	inbox    uint64  // sequence numbers in use
	outbox   uint64
	marks    marks // removals that ride with the next commit
	catchUp  bool
	answered map[uint64]time.Time // session → last completion that was owed

	rolledBack    bool      // the store says so
	anchorMissing bool      // likewise, when it was opened
	pruned        time.Time // when marks of ended chains were last looked through
}

// cacheLimit bounds the peers and accounts kept in memory. When it is reached,
// the cache is emptied: what is needed is read again in one call. Anybody can name
// accounts and devices that are looked up in vain.
const cacheLimit = 16384

// NewManager loads the account of a store, or creates one in an empty store.
func NewManager(ctx context.Context, store Store, o Options) (*Manager, error) {
	if o.Policy == nil {
		o.Policy = BlindBeforeVerification
	}
	if o.SignedPreKeyPeriod == 0 {
		o.SignedPreKeyPeriod = SignedPreKeyPeriod
	}
	if o.SignedPreKeyPeriod < SignedPreKeyPeriod || o.SignedPreKeyPeriod > MaxSignedPreKeyPeriod {
		return nil, fmt.Errorf("omemo: signed pre keys of %v: one to four weeks are allowed", o.SignedPreKeyPeriod)
	}
	if o.StaleAfter == 0 {
		o.StaleAfter = DefaultStaleAfter
	}
	served, err := o.served()
	if err != nil {
		return nil, err
	}
	m := &Manager{store: store, options: o, turn: make(chan struct{}, 1), draw: random, served: served}
	m.turn <- struct{}{}
	m.forget()
	state, err := store.Load(ctx)
	if err != nil {
		return nil, fmt.Errorf("omemo: loading the account: %w", err)
	}
	m.inbox, m.outbox, m.rolledBack, m.anchorMissing = state.Inbox, state.Outbox, state.RolledBack, state.AnchorMissing
	if state.Account == nil {
		return m, m.create(ctx, state.JID)
	}
	if m.account, err = parseAccount(state.Account); err != nil {
		return nil, err
	}
	if m.account.jid != state.JID {
		return nil, fmt.Errorf("%w: %s", ErrWrongAccount, m.account.jid)
	}
	return m, nil
}

// random is the only source of randomness: crypto/rand.
func random() (b [32]byte) {
	rand.Read(b[:]) // never fails: it ends the process instead
	return b
}

// create commits a new account, with both bundles owed to the server.
func (m *Manager) create(ctx context.Context, jid string) error {
	now := time.Now()
	a, rows := newAccount(jid, m.draw, now)
	c := &Changes{Account: a.record(), PreKeys: rows}
	for _, v := range Versions() {
		c.Owed = append(c.Owed, OwedRow{OwedID{Kind: OwedBundle, Peer: Peer{Version: v}}, now})
	}
	if err := m.store.Commit(ctx, c); err != nil {
		return fmt.Errorf("omemo: creating the account: %w", err)
	}
	m.account = a
	return nil
}

// forget empties the caches. What is known about devices points to their sessions:
// neither is emptied without the other.
func (m *Manager) forget() {
	m.sessions = make(map[Peer]*slot)
	m.known = make(map[string]*knowledge)
	m.census = nil
	m.answered = make(map[uint64]time.Time)
}

// trim empties the caches if they have grown too large, but for what limits how
// often something is done.
func (m *Manager) trim() {
	if len(m.sessions) > cacheLimit || len(m.known) > cacheLimit {
		m.sessions, m.known = make(map[Peer]*slot), make(map[string]*knowledge)
	}
	if len(m.answered) > cacheLimit {
		now := time.Now()
		maps.DeleteFunc(m.answered, func(_ uint64, at time.Time) bool { return now.Sub(at).Abs() >= completionPause })
	}
}

// lock waits for this caller's turn.
func (m *Manager) lock(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	select {
	case <-m.turn:
		m.trim()
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (m *Manager) unlock() { m.turn <- struct{}{} }

// unit is one piece of work: what it has changed so far, on top of what is
// committed. It is dropped unless it is committed, and then nothing has happened.
type unit struct {
	*Manager
	now     time.Time
	changes Changes
	account *account              // changed account, or nil
	slots   []*slot               // whose lists are changed
	known   map[string]*knowledge // changed knowledge; nil: none
	events  []Event
	after   []func() // run when the commit is done
	from    Peer     // whose message is answered inside its commit
	apart   bool     // the next message has to see this one committed
	records slab     // of sessions
}

func (m *Manager) unit() *unit {
	return &unit{Manager: m, now: time.Now()}
}

// work runs f as a unit of work and commits what it has changed. A commit that
// fails leaves the manager as it was; when the store was taken over, all that
// was cached is dropped.
func (m *Manager) work(ctx context.Context, f func(u *unit) error) error {
	if err := m.lock(ctx); err != nil {
		return err
	}
	defer m.unlock()
	u := m.unit()
	defer u.dropLists()
	if err := f(u); err != nil {
		return err
	}
	riding := m.marks.take()
	u.changes.DropInbox = append(u.changes.DropInbox, riding.inbox...)
	u.changes.DropOutbox = append(u.changes.DropOutbox, riding.outbox...)
	u.changes.DropOccupants = append(u.changes.DropOccupants, riding.gone...)
	u.changes.Occupants = append(u.changes.Occupants, riding.occupants...)
	u.changes.Cursors = append(riding.cursors, u.changes.Cursors...) // the later counts
	if u.account != nil {
		u.changes.Account = u.account.record()
	}
	if u.changes.empty() {
		return nil
	}
	changes := &u.changes
	if changes.Within != nil { // it works on the unit's, once for each attempt
		own := u.changes
		changes = &own
	}
	if err := m.store.Commit(ctx, changes); err != nil {
		m.marks.back(riding)
		if errors.Is(err, ErrFenced) || errors.Is(err, ErrClosed) {
			m.forget()
		}
		return fmt.Errorf("%w: %w", ErrCommit, err)
	}
	if u.account != nil {
		m.account = u.account
	}
	for _, s := range u.slots {
		s.sessions = s.changed
	}
	maps.Copy(m.known, u.known)
	for _, done := range u.after {
		done()
	}
	return nil
}

// id draws a random 63-bit number that is not 0.
func (u *unit) id() uint64 {
	for {
		b := u.draw()
		if id := binary.BigEndian.Uint64(b[:8]) >> 1; id != 0 {
			return id
		}
	}
}

// own returns the account as this unit sees it.
func (u *unit) own() *account {
	if u.account != nil {
		return u.account
	}
	return u.Manager.account
}

// change returns a copy of the account that the unit may change.
func (u *unit) change() *account {
	if u.account == nil {
		a := *u.Manager.account
		u.account = &a
	}
	return u.account
}

// owe records a piece of owed work.
func (u *unit) owe(kind OwedKind, p Peer, session uint64) {
	if kind != OwedBundle && kind != OwedDevices && !u.serves(p.Version) {
		return // a message, and none leaves in this version
	}
	u.changes.Owed = append(u.changes.Owed, OwedRow{OwedID{kind, p, session}, u.now})
}

// Event is something an application may want to know about a device.
type Event struct {
	Kind EventKind
	Peer Peer
	// Fingerprint is the identity key concerned, the new one for
	// IdentityChanged.
	Fingerprint Fingerprint
}

// EventKind is a kind of event.
type EventKind int

// The events of the core.
const (
	NewDevice        EventKind = iota + 1 // the identity key of a device was seen for the first time
	SessionBuilt                          // a first session with the device, active or passive
	SessionReplaced                       // a key exchange replaced the current session
	SessionConfirmed                      // the first message decrypted in an active session
	IdentityChanged                       // another identity key was presented; the known one stays
	IdentityShared                        // the key of another account was presented; it is undecided for this one
	DeviceStale                           // nothing is sent to the device any more: it has not been heard of for long
	KeyVerified                           // a trust message has made a key verified; the device may be unknown
	KeyDistrusted                         // a trust message has made a key distrusted; the device may be unknown
	DeviceReturned                        // a stale device has shown a sign of life
)

func (u *unit) event(k EventKind, p Peer, f Fingerprint) {
	u.events = append(u.events, Event{k, p, f})
}

// Device returns our own address.
func (m *Manager) Device(ctx context.Context) (Address, error) {
	if err := m.lock(ctx); err != nil {
		return Address{}, err
	}
	defer m.unlock()
	return Address{m.account.jid, m.account.device}, nil
}

// Fingerprint returns our own identity key.
func (m *Manager) Fingerprint(ctx context.Context) (Fingerprint, error) {
	if err := m.lock(ctx); err != nil {
		return Fingerprint{}, err
	}
	defer m.unlock()
	return Fingerprint(m.account.identity.Montgomery()), nil
}

// Sessions returns the sessions held with a peer, the current one first, the
// archived ones after it, newest first.
func (m *Manager) Sessions(ctx context.Context, p Peer) ([]*Session, error) {
	var list []*Session
	err := m.read(ctx, func(u *unit) error {
		var err error
		list, err = u.held(ctx, p)
		return err
	})
	return list, err
}

// read runs f without committing anything.
func (m *Manager) read(ctx context.Context, f func(u *unit) error) error {
	if err := m.lock(ctx); err != nil {
		return err
	}
	defer m.unlock()
	u := m.unit()
	defer u.dropLists()
	return f(u)
}
