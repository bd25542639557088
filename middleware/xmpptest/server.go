package xmpptest

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"

	"mellium.im/xmpp/jid"
)

// DefaultMaxStanza is the size of a stanza, in bytes, above which the server ends the stream of its
// sender with policy-violation.
const DefaultMaxStanza = 4 << 20

// Errors of the server's methods.
var (
	ErrClosed    = errors.New("xmpptest: server closed")
	ErrNoAccount = errors.New("xmpptest: no such account")
	ErrNoSession = errors.New("xmpptest: no such session")
)

// Server is an XMPP server. Its methods may be called from several goroutines. Addresses are given
// as strings, and are prepared as RFC 7622 says.
type Server struct {
	tls             *tls.Config
	maxStanza       int
	refuseMaxItems  bool
	forbidStrangers bool
	storeOffline    bool
	archives        bool

	filter atomic.Pointer[Filter]
	wire   wire
	ctx    context.Context // ends with the server
	cancel context.CancelFunc
	wg     sync.WaitGroup // every goroutine of the server

	mu       sync.Mutex // guards what follows, and the contents of accounts and bound sessions
	closed   bool
	listener net.Listener
	conns    map[*session]struct{}
	accounts map[string]*account // by bare JID
	domains  map[string]struct{}

	roomDomains map[string]RoomConfig // of services for rooms, with the standard configuration
	rooms       map[string]*room      // by bare JID
	uploads     map[string]*uploads   // services for files, by domain
}

// An Option changes what a server does.
type Option func(*Server)

// TLS offers STARTTLS. Clients that do not want it may still log in without.
func TLS(config *tls.Config) Option { return func(s *Server) { s.tls = config } }

// MaxStanza sets the largest stanza accepted from a client, in bytes, in place of
// [DefaultMaxStanza].
func MaxStanza(bytes int) Option { return func(s *Server) { s.maxStanza = bytes } }

// RefuseMaxItems answers publish-options that contain max_items with resource-constraint and
// publishes nothing, as ejabberd 23.01 does. The owner can still configure it.
func RefuseMaxItems() Option { return func(s *Server) { s.refuseMaxItems = true } }

// ForbidStrangers answers forbidden, as Prosody 0.12 does, when somebody asks for a node or an
// account that does not exist or for a node that the asker may not read. Without it the answer is
// item-not-found or the error that XEP-0060 gives for the access model.
func ForbidStrangers() Option { return func(s *Server) { s.forbidStrangers = true } }

// StoreOffline keeps chat and normal messages for accounts without an available session, and
// delivers them with a delay stamp (XEP-0160). Without it they are answered with
// service-unavailable.
func StoreOffline() Option { return func(s *Server) { s.storeOffline = true } }

// NewServer returns a running server without accounts. It must be closed.
func NewServer(options ...Option) (*Server, error) {
	s := &Server{
		maxStanza: DefaultMaxStanza,
		conns:     make(map[*session]struct{}),
		accounts:  make(map[string]*account),
		domains:   make(map[string]struct{}),
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	for _, o := range options {
		o(s)
	}
	if s.maxStanza <= 0 {
		return nil, fmt.Errorf("xmpptest: largest stanza of %d bytes", s.maxStanza)
	}
	return s, nil
}

// Close cuts all connections and waits until every goroutine of the server has ended.
func (s *Server) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		s.wg.Wait()
		return nil
	}
	s.closed = true
	var err error
	if s.listener != nil {
		err = s.listener.Close()
	}
	for c := range s.conns {
		c.abort()
	}
	s.mu.Unlock()
	s.cancel()
	s.wg.Wait()
	return err
}

// AddAccount creates an account, given its bare JID.
func (s *Server) AddAccount(bare, password string) error {
	j, err := jid.Parse(bare)
	if err != nil {
		return fmt.Errorf("xmpptest: account %q: %w", bare, err)
	}
	if j.Localpart() == "" || j.Resourcepart() != "" {
		return fmt.Errorf("xmpptest: account %q is not a bare JID of a user", bare)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, exists := s.accounts[j.String()]; exists {
		return fmt.Errorf("xmpptest: account %s exists", j)
	}
	s.accounts[j.String()] = newAccount(j, password)
	s.domains[j.Domainpart()] = struct{}{}
	return nil
}

// account finds an account by any address of it. The caller holds s.mu.
func (s *Server) account(address string) (*account, error) {
	j, err := jid.Parse(address)
	if err != nil {
		return nil, fmt.Errorf("xmpptest: address %q: %w", address, err)
	}
	a := s.accounts[j.Bare().String()]
	if a == nil {
		return nil, fmt.Errorf("%w: %s", ErrNoAccount, j.Bare())
	}
	return a, nil
}

// targets finds the session of a full JID, or all sessions of a bare one. The caller holds s.mu.
func (s *Server) targets(address string) ([]*session, error) {
	a, err := s.account(address)
	if err != nil {
		return nil, err
	}
	j, err := jid.Parse(address)
	if err != nil {
		return nil, fmt.Errorf("xmpptest: address %q: %w", address, err)
	}
	var found []*session
	for _, c := range a.ordered() {
		if j.Resourcepart() == "" || j.Resourcepart() == c.jid.Resourcepart() {
			found = append(found, c)
		}
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("%w: %s", ErrNoSession, j)
	}
	return found, nil
}

// Sessions returns the full JIDs of the account's bound sessions, in no particular order.
func (s *Server) Sessions(account string) ([]string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	a, err := s.account(account)
	if err != nil {
		return nil, err
	}
	var found []string
	for _, c := range a.sessions {
		found = append(found, c.full)
	}
	return found, nil
}

// Addr returns the address, as host:port on the loopback interface, on which the server accepts TCP
// connections. It starts to do so with the first call.
func (s *Server) Addr() (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return "", ErrClosed
	}
	if s.listener == nil {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return "", fmt.Errorf("xmpptest: %w", err)
		}
		s.listener = l
		s.wg.Go(func() {
			for {
				conn, err := l.Accept()
				if err != nil {
					return // the listener was closed
				}
				if s.start(conn) != nil {
					return
				}
			}
		})
	}
	return s.listener.Addr().String(), nil
}

// Dial returns a new connection to the server that does not leave the process. It is buffered and
// supports deadlines.
func (s *Server) Dial(ctx context.Context) (net.Conn, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("xmpptest: %w", err)
	}
	client, server := newPipe()
	if err := s.start(server); err != nil {
		return nil, err
	}
	return client, nil
}

// start serves a connection; it closes it when the server is closed.
func (s *Server) start(conn net.Conn) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		_ = conn.Close()
		return ErrClosed
	}
	c := newSession(s, conn)
	s.conns[c] = struct{}{}
	s.wg.Go(func() {
		c.run()
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.conns, c)
	})
	return nil
}

// newID returns an identifier that was not used before.
func newID() string { return rand.Text()[:16] }
