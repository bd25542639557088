//go:build unix

package sqlite_test

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"example.org/omellium/omemo"
	"example.org/omellium/omemo/sqlstore"
)

// TestModes: every file belongs to the owner alone, from the beginning.
func TestModes(t *testing.T) {
	dir := t.TempDir()
	s := open(t, filepath.Join(dir, "store.db"), account)
	commit(t, s, &omemo.Changes{Account: []byte("record")})
	files, err := os.ReadDir(dir)
	if err != nil || len(files) != 4 {
		t.Fatalf("%d files, %v, want the database, its log, its index and its lock", len(files), err)
	}
	for _, f := range files {
		info, err := f.Info()
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v, %v", f.Name(), info.Mode(), err)
		}
	}
}

func TestRefusedFiles(t *testing.T) {
	for _, test := range []struct {
		name string
		make func(path string) error
		want string
	}{
		{"readable by all", func(path string) error { return os.WriteFile(path, nil, 0o644) }, "mode 0644"},
		{"readable by the group", func(path string) error { return os.WriteFile(path, nil, 0o640) }, "mode 0640"},
		{"log readable by all", func(path string) error { return os.WriteFile(path+"-wal", nil, 0o644) }, "mode 0644"},
		{"symbolic link", func(path string) error { return os.Symlink(path+"x", path) }, "symbolic link"},
		{"log is a symbolic link", func(path string) error { return os.Symlink(path+"x", path+"-wal") }, "symbolic link"},
		{"lock is a symbolic link", func(path string) error { return os.Symlink(path+"x", path+"-lock") }, "-lock"},
		{"directory", func(path string) error { return os.Mkdir(path, 0o700) }, "regular file"},
		{"two names", func(path string) error {
			return errors.Join(os.WriteFile(path, nil, 0o600), os.Link(path, path+"2"))
		}, "several names"},
		{"no directory", func(path string) error { return os.Remove(filepath.Dir(path)) }, "no such file"},
		{"not a database", func(path string) error { return os.WriteFile(path, bytes.Repeat([]byte("x"), 4096), 0o600) }, "not a database"},
	} {
		t.Run(test.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "dir", "store.db")
			if err := os.Mkdir(filepath.Dir(path), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := test.make(path); err != nil {
				t.Fatal(err)
			}
			if _, err := try(t, path, account); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want an error with %q", err, test.want)
			}
			// What was refused is not kept locked.
			if err := os.RemoveAll(filepath.Dir(path)); err != nil {
				t.Fatal(err)
			}
			if err := os.Mkdir(filepath.Dir(path), 0o700); err != nil {
				t.Fatal(err)
			}
			open(t, path, account)
		})
	}
}

// TestNames uses characters that mean something in the driver's names.
func TestNames(t *testing.T) {
	for _, name := range []string{"a b.db", "a%20b.db", "a?mode=memory", "a#b", "ä;'\".db", ":memory:"} {
		path := filepath.Join(t.TempDir(), name)
		s := open(t, path, account)
		commit(t, s, &omemo.Changes{Account: []byte("record")})
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		if info, err := os.Stat(path); err != nil || info.Size() == 0 {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestErased: what was consumed or delivered stands in no file any more, when
// the account was closed.
func TestErased(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "store.db")
	s := open(t, path, account)
	keeper := open(t, path, "romeo@montague.example") // keeps the file open
	var canaries [][]byte
	canary := func() (b [32]byte) {
		rand.Read(b[:])
		canaries = append(canaries, b[:])
		return b
	}
	peer := omemo.Peer{Version: omemo.V2, Address: omemo.Address{JID: "romeo@montague.example", Device: 1}}
	const n = 300
	var insert, remove, advance omemo.Changes
	for i := range uint64(n) {
		peer.Device = omemo.DeviceID(i + 1)
		text := canary()
		old, key, preKey, kept := canary(), canary(), canary(), canary()
		canaries = canaries[:len(canaries)-1] // the last one stays
		id := omemo.SkippedID{Session: i + 1, N: uint32(i)}
		insert.PreKeys = append(insert.PreKeys, omemo.PreKeyRow{Version: omemo.V2, ID: uint32(i + 1), Private: preKey})
		insert.Sessions = append(insert.Sessions, omemo.SessionRow{ID: i + 1, Peer: peer, Record: append(old[:], make([]byte, 300)...)})
		insert.Skipped = append(insert.Skipped, omemo.SkippedRow{SkippedID: id, Key: key})
		insert.Inbox = append(insert.Inbox, omemo.InboxRow{Seq: i + 1, Stanza: fmt.Appendf(nil, "<body>%x</body>%s", text, strings.Repeat("x", int(i*37)))})
		remove.DropPreKeys = append(remove.DropPreKeys, omemo.PreKeyID{Version: omemo.V2, ID: uint32(i + 1)})
		remove.DropSkipped = append(remove.DropSkipped, id)
		remove.DropInbox = append(remove.DropInbox, i+1)
		advance.Sessions = append(advance.Sessions, omemo.SessionRow{ID: i + 1, Peer: peer, Record: append(kept[:], make([]byte, 300-i%50)...)})
		if i%50 == 49 { // in several commits, with moving pages
			commit(t, s, &insert)
			insert = omemo.Changes{}
		}
	}
	if left := scan(t, dir, canaries); left == 0 {
		t.Fatal("the scan does not find what is there")
	}
	commit(t, s, &remove)
	commit(t, s, &advance)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if left := scan(t, dir, canaries); left != 0 {
		t.Errorf("%d of %d canaries stand in the files, with the file open", left, len(canaries))
	}
	if err := keeper.Close(); err != nil {
		t.Fatal(err)
	}
	if left := scan(t, dir, canaries); left != 0 {
		t.Errorf("%d of %d canaries stand in the files", left, len(canaries))
	}
}

// TestRolledBack: an older copy of the database is noticed, until the sending
// state was made anew; a lower anchor, or none, says nothing.
func TestRolledBack(t *testing.T) {
	dir, anchors := t.TempDir(), filepath.Join(t.TempDir(), "anchors")
	path := filepath.Join(dir, "store.db")
	opts := []sqlstore.Option{sqlstore.WithAnchor(anchors)}
	run := func(want bool, changes ...*omemo.Changes) {
		t.Helper()
		s := open(t, path, account, opts...)
		defer s.Close()
		if state, err := s.Load(t.Context()); err != nil || state.RolledBack != want {
			t.Errorf("rolled back: %v, %v, want %v", state.RolledBack, err, want)
		}
		for _, c := range changes {
			commit(t, s, c)
		}
	}
	some := &omemo.Changes{Account: []byte("record")}
	run(false, some, some)
	backup, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	files, err := os.ReadDir(anchors)
	if err != nil || len(files) != 1 {
		t.Fatal(files, err)
	}
	anchor := filepath.Join(anchors, files[0].Name())
	lower, err := os.ReadFile(anchor)
	if err != nil {
		t.Fatal(err)
	}
	run(false, some, some)
	if err := os.WriteFile(path, backup, 0o600); err != nil {
		t.Fatal(err)
	}
	consumed := &omemo.Changes{Account: []byte("record"), PreKeys: []omemo.PreKeyRow{{Version: omemo.V2, ID: 1}}}
	run(true, some, consumed, some, some, some) // it comes further than it was
	run(true, some)
	run(true, &omemo.Changes{Account: []byte("record"), Renewed: true})
	run(false, some)
	if err := os.WriteFile(anchor, lower, 0o600); err != nil {
		t.Fatal(err)
	}
	run(false, some)
	if err := os.Remove(anchor); err != nil {
		t.Fatal(err)
	}
	run(false, some)
	if err := os.WriteFile(anchor, []byte("short"), 0o600); err != nil {
		t.Fatal(err)
	}
	run(false)

	// A directory that cannot be made is an error only where it was asked for.
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := try(t, path, account, sqlstore.WithAnchor(file)); err == nil {
		t.Error("an anchor that was asked for and cannot be had is no error")
	}
	t.Setenv("XDG_STATE_HOME", file)
	opts = []sqlstore.Option{func(s *sqlstore.Settings) { *s = sqlstore.Collect(nil) }}
	run(false, some)
	t.Setenv("XDG_STATE_HOME", dir)
	run(false, some)
	if _, err := os.Stat(filepath.Join(dir, "omellium", files[0].Name())); err != nil {
		t.Errorf("the anchor does not stand where programs keep their state: %v", err)
	}
}
