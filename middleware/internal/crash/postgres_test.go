package crash

import (
	"database/sql"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib" // the driver, to look at databases from outside
)

// postgresServer is a PostgreSQL server of these tests, in a temporary directory
// and reachable through a Unix socket only. It is started when it is first
// needed.
var postgresServer struct {
	sync.Mutex
	dir       string
	process   *exec.Cmd
	databases int
}

// postgresDatabase returns the URL of a new database.
func postgresDatabase(t *testing.T) string {
	t.Helper()
	s := &postgresServer
	s.Lock()
	defer s.Unlock()
	if s.process == nil {
		ok(t, startPostgres())
	}
	s.databases++
	name := fmt.Sprintf("crash%d", s.databases)
	db, err := sql.Open("pgx", postgresURL("postgres"))
	ok(t, err)
	defer db.Close()
	_, err = db.Exec("CREATE DATABASE " + name)
	ok(t, err)
	return postgresURL(name)
}

func postgresURL(database string) string {
	return fmt.Sprintf("postgres://postgres@/%s?host=%s", database, postgresServer.dir)
}

// startPostgres makes a cluster and starts the server, with the settings of a
// database that is meant to keep what it was given.
func startPostgres() error {
	bin, err := postgresPrograms()
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "crash")
	if err != nil {
		return err
	}
	postgresServer.dir = dir
	attr, err := asPostgres(dir)
	if err != nil {
		return err
	}
	data := filepath.Join(dir, "data")
	create := exec.Command(filepath.Join(bin, "initdb"), "-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync")
	create.SysProcAttr, create.Dir = attr, dir
	if out, err := create.CombinedOutput(); err != nil {
		return fmt.Errorf("initdb: %w: %s", err, out)
	}
	server := exec.Command(filepath.Join(bin, "postgres"), "-D", data, "-k", dir, "-c", "listen_addresses=", "-c", "max_connections=200")
	server.SysProcAttr, server.Dir = attr, dir
	if err := server.Start(); err != nil {
		return err
	}
	postgresServer.process = server
	db, err := sql.Open("pgx", postgresURL("postgres"))
	if err != nil {
		return err
	}
	defer db.Close()
	for deadline := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		if err = db.Ping(); err == nil || time.Now().After(deadline) {
			return err
		}
	}
}

// stopPostgres stops the server, if there is one, and removes what it wrote.
func stopPostgres() error {
	s := &postgresServer
	if s.process == nil {
		return nil
	}
	err := s.process.Process.Signal(syscall.SIGINT) // without waiting for clients
	return errors.Join(err, s.process.Wait(), os.RemoveAll(s.dir))
}

// postgresPrograms returns the directory of the server's programs.
func postgresPrograms() (string, error) {
	if path, err := exec.LookPath("postgres"); err == nil {
		return filepath.Dir(path), nil
	}
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin")
	if err != nil || len(found) == 0 {
		return "", errors.New("PostgreSQL is not installed (Debian: apt-get install postgresql)")
	}
	return found[len(found)-1], nil
}

// asPostgres has the server run as the user postgres if this is root, for whom
// it refuses to work.
func asPostgres(dir string) (*syscall.SysProcAttr, error) {
	if os.Geteuid() != 0 {
		return nil, nil
	}
	u, err := user.Lookup("postgres")
	if err != nil {
		return nil, err
	}
	uid, err := strconv.Atoi(u.Uid)
	if err != nil {
		return nil, err
	}
	gid, err := strconv.Atoi(u.Gid)
	if err != nil {
		return nil, err
	}
	return &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}, os.Chown(dir, uid, gid)
}
