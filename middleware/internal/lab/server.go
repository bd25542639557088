package lab

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"mellium.im/sasl"
	"mellium.im/xmpp"
	"mellium.im/xmpp/jid"
)

// Domain is the domain that every server serves.
const Domain = "localhost"

// MaxUpload is how large a file can be that is uploaded to a server (XEP-0363), in
// bytes.
const MaxUpload int64 = 2 << 30

// Server is a running XMPP server.
type Server struct {
	Kind   string // "prosody" or "ejabberd"
	Addr   string // host:port of the client port, with STARTTLS
	CAFile string // PEM, the authority of its certificate

	dir     string
	process *Process
	backend backend

	mu       sync.Mutex
	accounts int
}

// backend is what differs between the two servers.
type backend interface {
	// command writes the configuration and returns what to run.
	command(t testing.TB, s *Server, port int) *exec.Cmd
	// ready reports whether the server, which listens already, can serve.
	ready(s *Server) bool
	register(s *Server, a *Account) error
	// befriend gives a and b presence subscriptions to each other.
	befriend(s *Server, a, b *Account) error
	// tap returns all stanzas so far as text, outgoing what is in each line of
	// one that leaves for a client. logs names the files that explain a failure.
	tap(s *Server) (string, error)
	outgoing() string
	logs(s *Server) []string
}

// shared holds the servers of this test binary, started when first asked for.
var shared struct {
	sync.Mutex
	root    string
	servers map[string]*Server
}

// Main runs the tests of a package and then stops the servers that they
// started. A package that uses the lab calls it in its TestMain:
//
//	func TestMain(m *testing.M) { os.Exit(lab.Main(m)) }
func Main(m *testing.M) int {
	root, err := os.MkdirTemp("", "lab")
	if err != nil {
		fmt.Fprintln(os.Stderr, "lab:", err)
		return 1
	}
	shared.root, shared.servers = root, make(map[string]*Server)
	defer func() {
		for _, s := range shared.servers {
			s.process.Kill()
		}
		if err := os.RemoveAll(root); err != nil {
			fmt.Fprintln(os.Stderr, "lab:", err)
		}
	}()
	return m.Run()
}

// Prosody returns the Prosody of this test binary.
func Prosody(t testing.TB) *Server {
	t.Helper()
	return serve(t, "prosody", &prosody{})
}

// Ejabberd returns the ejabberd of this test binary. It leaves the
// configuration of nodes to its clients, as it comes.
func Ejabberd(t testing.TB) *Server {
	t.Helper()
	return serve(t, "ejabberd", &ejabberd{})
}

// Each runs a test against both servers at the same time, as parallel subtests
// named after them.
func Each(t *testing.T, test func(t *testing.T, s *Server)) {
	t.Run("prosody", func(t *testing.T) {
		t.Parallel()
		test(t, Prosody(t))
	})
	t.Run("ejabberd", func(t *testing.T) {
		t.Parallel()
		test(t, Ejabberd(t))
	})
}

func serve(t testing.TB, kind string, b backend) *Server {
	t.Helper()
	shared.Lock()
	defer shared.Unlock()
	if shared.servers == nil {
		t.Fatal("lab: the package has no TestMain that calls lab.Main")
	}
	s := shared.servers[kind]
	if s == nil {
		s = start(t, kind, b)
		shared.servers[kind] = s
	}
	t.Cleanup(func() {
		if t.Failed() {
			for _, file := range b.logs(s) {
				t.Log(tail(file, 60))
			}
		}
	})
	return s
}

func start(t testing.TB, kind string, b backend) *Server {
	t.Helper()
	dir := filepath.Join(shared.root, kind)
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatalf("lab: %v", err)
	}
	s := &Server{Kind: kind, CAFile: filepath.Join(dir, "cert.pem"), dir: dir, backend: b}
	if err := certificate(s.CAFile, s.file("key.pem")); err != nil {
		t.Fatal(err)
	}
	port := freePort(t)
	s.Addr = net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	output, err := os.Create(s.file("out.log"))
	if err != nil {
		t.Fatalf("lab: %v", err)
	}
	defer output.Close()
	cmd := b.command(t, s, port)
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, output, output
	if s.process, err = Start(cmd); err != nil {
		t.Fatal(err)
	}
	up := Until(patience, func() bool {
		select {
		case <-s.process.Done():
			return true
		default:
		}
		conn, err := net.DialTimeout("tcp", s.Addr, time.Second)
		if err != nil {
			return false
		}
		conn.Close()
		return b.ready(s)
	})
	select {
	case <-s.process.Done():
		up = false
	default:
	}
	if !up {
		s.process.Kill()
		t.Log(tail(s.file("out.log"), 60))
		for _, file := range b.logs(s) {
			t.Log(tail(file, 60))
		}
		t.Fatalf("lab: %s did not start", kind)
	}
	return s
}

func (s *Server) file(name string) string { return filepath.Join(s.dir, name) }

// freePort returns a loopback port that nobody listens on. It lies below the
// ports that the system gives to outgoing connections, so that none of those
// takes it before the server does.
func freePort(t testing.TB) int {
	t.Helper()
	for range 1000 {
		port := 20000 + rand.IntN(12000)
		l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err != nil {
			continue
		}
		l.Close()
		return port
	}
	t.Fatal("lab: no free port")
	return 0
}

// TLS returns the configuration that trusts the server's certificate alone.
func (s *Server) TLS() (*tls.Config, error) {
	pem, err := os.ReadFile(s.CAFile)
	if err != nil {
		return nil, fmt.Errorf("lab: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("lab: no certificate in %s", s.CAFile)
	}
	return &tls.Config{ServerName: Domain, RootCAs: roots, MinVersion: tls.VersionTLS12}, nil
}

// Dial logs in, negotiating further features if given, and returns the session.
// It has sent no presence.
func (s *Server) Dial(ctx context.Context, a *Account, features ...xmpp.StreamFeature) (*xmpp.Session, error) {
	config, err := s.TLS()
	if err != nil {
		return nil, err
	}
	addr, err := jid.Parse(a.JID)
	if err != nil {
		return nil, fmt.Errorf("lab: %w", err)
	}
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", s.Addr)
	if err != nil {
		return nil, fmt.Errorf("lab: %w", err)
	}
	// mellium sets a deadline for a moment when the context ends, which can be missed.
	stopClosing := context.AfterFunc(ctx, func() { conn.Close() })
	defer stopClosing()
	session, err := xmpp.NewClientSession(ctx, addr, conn, append(features,
		xmpp.StartTLS(config),
		xmpp.SASL("", a.Password, sasl.ScramSha256, sasl.ScramSha1, sasl.Plain),
		xmpp.BindResource())...)
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("lab: %s: %w", a.JID, err)
	}
	return session, nil
}
