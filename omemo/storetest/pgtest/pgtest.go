//go:build unix

// Package pgtest runs a PostgreSQL server of its own for tests, in a temporary
// directory, reachable through a Unix socket only.
package pgtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// Port is the number in the name of the server's socket.
const Port = 5432

// Server is a running server.
type Server struct {
	// Dir is the directory of the socket.
	Dir string

	root      string
	bin       string // directory of the programs
	attr      *syscall.SysProcAttr
	settings  []string
	process   *exec.Cmd
	ended     chan error
	databases atomic.Int64
}

// Start creates a cluster and starts a server with further settings, written as
// name=value. Servers do not run as root: then, the user postgres runs it.
func Start(settings ...string) (*Server, error) {
	bin, err := binaries()
	if err != nil {
		return nil, err
	}
	root, err := os.MkdirTemp("", "pgtest")
	if err != nil {
		return nil, err
	}
	s := &Server{Dir: root, root: root, bin: bin, settings: settings, ended: make(chan error, 1)}
	if err := s.create(); err != nil {
		return nil, errors.Join(err, s.Stop())
	}
	if err := s.start(); err != nil {
		return nil, errors.Join(err, s.Stop())
	}
	return s, nil
}

// data returns the directory of the cluster.
func (s *Server) data() string { return filepath.Join(s.root, "data") }

// create makes the cluster.
func (s *Server) create() error {
	var err error
	if s.attr, err = runAs(s.root); err != nil {
		return err
	}
	_, err = s.run("initdb", "-D", s.data(), "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync")
	return err
}

// run runs one of PostgreSQL's programs and returns what it prints.
func (s *Server) run(name string, args ...string) ([]byte, error) {
	var stderr bytes.Buffer
	cmd := exec.Command(filepath.Join(s.bin, name), args...)
	cmd.SysProcAttr, cmd.Dir, cmd.Stderr = s.attr, s.root, &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("pgtest: %s: %w\n%s", name, err, stderr.Bytes())
	}
	return out, nil
}

// start starts the server and waits until it answers.
func (s *Server) start() error {
	args := []string{"-D", s.data(), "-k", s.root, "-p", strconv.Itoa(Port), "-c", "listen_addresses=", "-c", "max_connections=200", "-c", "fsync=off"}
	for _, setting := range s.settings {
		args = append(args, "-c", setting)
	}
	log, err := os.OpenFile(filepath.Join(s.root, "log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	s.process = exec.Command(filepath.Join(s.bin, "postgres"), args...)
	s.process.SysProcAttr, s.process.Dir, s.process.Stdout, s.process.Stderr = s.attr, s.root, log, log
	if err := s.process.Start(); err != nil {
		return fmt.Errorf("pgtest: %w", err)
	}
	go func() { s.ended <- s.process.Wait() }()
	return s.await()
}

// await waits until the server answers.
func (s *Server) await() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for {
		conn, err := pgx.Connect(ctx, s.url("postgres"))
		if err == nil {
			return conn.Close(ctx)
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case ended := <-s.ended:
			s.process = nil
			out, _ := os.ReadFile(filepath.Join(s.root, "log"))
			return fmt.Errorf("pgtest: the server ended: %w\n%s", ended, out)
		case <-ctx.Done():
			return fmt.Errorf("pgtest: the server does not answer: %w", err)
		}
	}
}

// Stop stops the server and removes what it wrote. Stopping a server that was
// stopped does nothing.
func (s *Server) Stop() error {
	return errors.Join(s.halt(), os.RemoveAll(s.root))
}

// halt ends the process, without waiting for clients.
func (s *Server) halt() error {
	if s.process == nil || s.process.Process == nil {
		return nil
	}
	err := s.process.Process.Signal(syscall.SIGINT)
	<-s.ended
	s.process = nil
	return err
}

// Restart stops the server and starts it again.
func (s *Server) Restart(t testing.TB) {
	t.Helper()
	if err := errors.Join(s.halt(), s.start()); err != nil {
		t.Fatal(err)
	}
}

// Recover stops the server and starts it again as one that was restored from a
// backup: it is on a new timeline afterwards.
func (s *Server) Recover(t testing.TB) {
	t.Helper()
	err := s.halt()
	for name, text := range map[string]string{"recovery.signal": "", "postgresql.auto.conf": "restore_command = 'false'\n"} {
		if err == nil {
			err = os.WriteFile(filepath.Join(s.data(), name), []byte(text), 0o600)
		}
		if err == nil && s.attr != nil {
			err = os.Chown(filepath.Join(s.data(), name), int(s.attr.Credential.Uid), int(s.attr.Credential.Gid))
		}
	}
	if err == nil {
		err = s.start()
	}
	if err != nil {
		t.Fatal(err)
	}
	for {
		var still bool
		s.Query(t, s.url("postgres"), `SELECT pg_is_in_recovery()`, &still)
		if !still {
			return
		}
	}
}

// Dump returns the statements that make a database anew.
func (s *Server) Dump(t testing.TB, url string) string {
	t.Helper()
	dump, err := s.run("pg_dump", "--inserts", "--no-owner", "--no-privileges", url)
	if err != nil {
		t.Fatal(err)
	}
	var sql strings.Builder
	for line := range strings.Lines(string(dump)) {
		if !strings.HasPrefix(line, "\\") && !strings.HasPrefix(line, "--") { // of psql
			sql.WriteString(line)
		}
	}
	return sql.String()
}

// Restore makes a database of a dump and returns its URL.
func (s *Server) Restore(t testing.TB, dump string) string {
	t.Helper()
	url := s.Database(t)
	s.Exec(t, url, dump)
	return url
}

// Query runs a query that has one row.
func (s *Server) Query(t testing.TB, url, query string, row ...any) {
	t.Helper()
	ctx := context.Background()
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(ctx)
	if err := conn.QueryRow(ctx, query).Scan(row...); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
}

func (s *Server) url(database string) string {
	return fmt.Sprintf("postgres://postgres@/%s?host=%s&port=%d", database, s.Dir, Port)
}

// As returns the URL of a database for another user.
func (s *Server) As(url, user string) string { return strings.Replace(url, "postgres@", user+"@", 1) }

// Database creates a database and returns its URL.
func (s *Server) Database(t testing.TB) string {
	t.Helper()
	name := fmt.Sprintf("test%d", s.databases.Add(1))
	s.Exec(t, s.url("postgres"), "CREATE DATABASE "+name)
	return s.url(name)
}

// Exec runs statements in the database of a URL.
func (s *Server) Exec(t testing.TB, url string, statements ...string) {
	t.Helper()
	ctx := context.Background()
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(ctx)
	for _, statement := range statements {
		if _, err := conn.Exec(ctx, statement); err != nil {
			t.Fatalf("%s: %v", statement, err)
		}
	}
}

// binaries returns the directory of the newest server that is installed.
func binaries() (string, error) {
	if path, err := exec.LookPath("postgres"); err == nil {
		if path, err = filepath.EvalSymlinks(path); err == nil { // its other programs stand beside it
			return filepath.Dir(path), nil
		}
	}
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/postgres")
	if len(found) == 0 {
		return "", errors.New("pgtest: PostgreSQL is not installed (Debian: apt-get install postgresql)")
	}
	newest := slices.MaxFunc(found, func(a, b string) int { return major(a) - major(b) })
	return filepath.Dir(newest), nil
}

// major returns the version in the path of a server.
func major(path string) int {
	n, _ := strconv.Atoi(filepath.Base(filepath.Dir(filepath.Dir(path))))
	return n
}

// runAs returns the attributes of processes that work in a directory: for root,
// those of the user postgres, who gets the directory.
func runAs(dir string) (*syscall.SysProcAttr, error) {
	if os.Geteuid() != 0 {
		return nil, nil
	}
	u, err := user.Lookup("postgres")
	if err != nil {
		return nil, fmt.Errorf("pgtest: %w", err)
	}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		return nil, fmt.Errorf("pgtest: %w", err)
	}
	gid, err := strconv.ParseUint(u.Gid, 10, 32)
	if err != nil {
		return nil, fmt.Errorf("pgtest: %w", err)
	}
	if err := os.Chown(dir, int(uid), int(gid)); err != nil {
		return nil, fmt.Errorf("pgtest: %w", err)
	}
	return &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}, nil
}
