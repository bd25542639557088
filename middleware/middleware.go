package middleware

import (
	"context"
	"crypto/rand"
	"encoding/xml"
	"errors"
	"fmt"
	"slices"
	"sync"

	"example.org/omellium/omemo"
	"example.org/omellium/stanza"
	"mellium.im/xmpp"
	"mellium.im/xmpp/jid"
	xmppstanza "mellium.im/xmpp/stanza"
)

// Middleware serves one account. It lives as long as the program; the sessions
// that Wrap is given come and go.
type Middleware struct {
	config  Config
	manager *omemo.Manager
	account jid.JID // bare
	own     identity

	mu     sync.Mutex
	link   *link // the session in use, or nil
	closed bool

	catchUp   catchUp
	ownClear  ownClear
	withdrawn map[omemo.Version]error // versions that cannot be served, and why

	wrapping sync.Mutex // one Wrap at a time
	answers  limiter    // re-announcements of our own device
	leaves   limiter    // of lists on which our device stands again
	doubts   limiter    // of our own device lists
	traces   traces
}

// New loads the account of the store, or makes one in an empty store.
func New(ctx context.Context, c Config) (*Middleware, error) {
	if c.Store == nil {
		return nil, ErrOwnStore
	}
	c.setDefaults()
	manager, err := omemo.NewManager(ctx, c.Store, c.options())
	if err != nil {
		return nil, fmt.Errorf("middleware: %w", err)
	}
	m := &Middleware{
		config: c, manager: manager,
		answers: limiter{limit: reannounceLimit, window: reannounceWindow},
		leaves:  limiter{limit: reannounceLimit, window: reannounceWindow},
		doubts:  limiter{limit: 1, window: doubtPause},
	}
	for _, v := range omemo.Versions() {
		if c.Versions != nil && !slices.Contains(c.Versions, v) {
			m.setWithdrawn(v, ErrPurged)
		}
	}
	own, err := manager.Device(ctx)
	if err != nil {
		return nil, fmt.Errorf("middleware: %w", err)
	}
	m.own.set(own)
	if m.account, err = jid.Parse(m.own.JID); err != nil {
		return nil, fmt.Errorf("middleware: account of the store: %w", err)
	}
	if manager.AnchorMissing() {
		m.emit(Event{Kind: AnchorMissing})
	}
	return m, nil
}

// Manager returns the account below: devices, sessions, trust.
func (m *Middleware) Manager() *omemo.Manager { return m.manager }

// Wrap puts the middleware before a negotiated client session and returns the
// session to use in its place. Everything the program sends through that leaves
// encrypted, as the policy says, and its handlers see plain text. The program
// must not use the session that it has passed in any more.
//
// Wrap returns when our own device list and bundle are published and were read
// back, or with an error; ctx bounds only that. A second Wrap of the account ends
// the session of the first (ErrReplaced) and sends what that one had left. A store
// that is lost to another owner (Lost of sqlstore.Store) ends the session at once:
// reading it fails with omemo.ErrFenced, and so does every later Wrap; a store that
// is opened anew, with a Middleware of its own, waits for its turn.
func (m *Middleware) Wrap(ctx context.Context, session *xmpp.Session) (*xmpp.Session, error) {
	if !session.LocalAddr().Bare().Equal(m.account) {
		return nil, fmt.Errorf("middleware: %w: session of %s", omemo.ErrWrongAccount, session.LocalAddr().Bare())
	}
	m.wrapping.Lock()
	defer m.wrapping.Unlock()
	if err := m.replace(nil, ErrReplaced); err != nil {
		return nil, err
	}
	l, err := newLink(ctx, m, session)
	if err != nil {
		return nil, fmt.Errorf("middleware: %w", err)
	}
	if err := m.replace(l, ErrReplaced); err != nil {
		l.end(ErrClosed)
		return nil, err
	}
	if err := l.open(ctx); err != nil {
		l.end(err)
		return nil, fmt.Errorf("middleware: %w", err)
	}
	return l.front.Session(), nil
}

// replace ends the session in use and puts another in its place.
func (m *Middleware) replace(next *link, cause error) error {
	m.mu.Lock()
	old := m.link
	m.link = nil
	m.mu.Unlock()
	if old != nil {
		old.end(cause)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return ErrClosed
	}
	m.link = next
	return nil
}

// current returns the session in use, or nil.
func (m *Middleware) current() *link {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.link
}

// Close ends the session in use. The store stays open: it belongs to the caller.
func (m *Middleware) Close() error {
	m.mu.Lock()
	m.closed = true
	m.mu.Unlock()
	if err := m.replace(nil, ErrClosed); !errors.Is(err, ErrClosed) {
		return err
	}
	return m.manager.Flush(context.Background())
}

// Result says what became of a message.
type Result struct {
	ID      string // stanza id
	Devices []omemo.DeviceResult
	// Unserved are the members of a room of whom no device was served.
	Unserved []*omemo.RecipientError
	// Plain: the policy let it leave in clear.
	Plain bool
}

// Send sends a message as the session would, but waits until it is committed and
// handed to the connection, and returns what became of each device. payload holds
// the children of the message. The promise of delivery starts when Send returns
// without an error: what could not be written yet is sent after the next Wrap.
// When ctx ends before the message is committed, it is not sent.
func (m *Middleware) Send(ctx context.Context, message xmppstanza.Message, payload xml.TokenReader) (*Result, error) {
	l := m.current()
	if l == nil {
		return nil, ErrOffline
	}
	e, err := toElement(message.Wrap(payload), m.config.Limits)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMessage, err)
	}
	c := &caller{ctx: ctx, sealed: make(chan outcome, 1), done: make(chan struct{})}
	if err := l.enqueue(ctx, &job{message: e, caller: c}); err != nil {
		return nil, err
	}
	select {
	case <-c.done:
	case <-ctx.Done():
		if !c.decided.Swap(true) {
			return nil, fmt.Errorf("middleware: %w", ctx.Err())
		}
		// It was begun. All that waits in it ends with ctx, except for writing what
		// is committed already.
	}
	o := <-c.sealed
	return o.result, o.err
}

// toElement reads one element from tokens.
func toElement(r xml.TokenReader, limits stanza.Limits) (*stanza.Element, error) {
	t, err := r.Token()
	if err != nil && t == nil {
		return nil, err
	}
	start, ok := t.(xml.StartElement)
	if !ok {
		return nil, fmt.Errorf("unexpected %T", t)
	}
	return stanza.ReadElement(r, start, limits)
}

// newID returns a stanza id that nobody can guess.
func newID() string { return rand.Text() }
