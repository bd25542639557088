package sqlstore

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"example.org/omellium/omemo"
)

// anchor is the number of the last commit in a file that does not stand beside
// the database. A database whose own number is lower is older than it was: a
// copy was restored. The file is written after every commit and never synced;
// a power failure makes it lower, which says nothing, and so does its absence.
type anchor struct {
	f      *os.File
	number uint64
}

// anchorSize is the length of the file: the number, big endian.
const anchorSize = 8

// defaultAnchors is the directory of the anchors, where programs keep their
// state (XDG base directories); empty if there is none.
func defaultAnchors() string {
	if dir := os.Getenv("XDG_STATE_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "omellium")
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return ""
	}
	return filepath.Join(home, ".local", "state", "omellium")
}

// openAnchor opens the anchor of an account's state and returns the number in
// it, zero if there was none: commits are counted from 1.
func openAnchor(dir string, store []byte) (*anchor, uint64, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, 0, fmt.Errorf("sqlstore: anchor: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(dir, hex.EncodeToString(store)), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, 0, fmt.Errorf("sqlstore: anchor: %w", err)
	}
	var b [anchorSize]byte
	switch _, err := f.ReadAt(b[:], 0); {
	case errors.Is(err, io.EOF):
		return &anchor{f: f}, 0, nil
	case err != nil:
		return nil, 0, errors.Join(fmt.Errorf("sqlstore: anchor: %w", err), f.Close())
	}
	number := binary.BigEndian.Uint64(b[:])
	return &anchor{f, number}, number, nil
}

// set writes the number of a commit. An anchor that cannot be written is as
// good as one that was lost.
func (a *anchor) set(commit uint64) {
	var b [anchorSize]byte
	binary.BigEndian.PutUint64(b[:], commit)
	a.number = commit
	_, _ = a.f.WriteAt(b[:], 0)
}

// close closes the file.
func (a *anchor) close() error {
	if err := a.f.Close(); err != nil && !errors.Is(err, fs.ErrClosed) {
		return fmt.Errorf("sqlstore: anchor: %w", err)
	}
	return nil
}

// moor opens the anchor of a store and compares it. Where nobody asked for one,
// a directory that cannot be written means that there is none.
func (s *Store) moor(settings Settings, store []byte) error {
	if settings.Anchor == "" {
		return nil
	}
	a, number, err := openAnchor(settings.Anchor, store)
	if err != nil {
		if settings.AnchorRequired {
			return err
		}
		return nil
	}
	s.anchor = a
	if number > s.counters.commits {
		s.rolledBack.Store(true)
	}
	s.unanchored = number == 0 && s.counters.commits > 0
	return nil
}

// anchored moves the anchor on after a commit. That of a database that was
// rolled back stays ahead of it, however far it comes, until the sending state
// was made anew.
func (s *Store) anchored(c *omemo.Changes) {
	if c.Renewed {
		s.rolledBack.Store(false)
		s.moved = ""
	}
	switch {
	case s.anchor == nil:
	case s.rolledBack.Load():
		s.anchor.set(max(s.anchor.number, s.counters.commits+1))
	default:
		s.anchor.set(s.counters.commits)
	}
}
