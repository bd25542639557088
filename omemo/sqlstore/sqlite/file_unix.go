//go:build darwin || dragonfly || freebsd || linux || netbsd || openbsd

package sqlite

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"

	"example.org/omellium/omemo"
)

// checkOwner refuses a file that others may read or write, and one that has a
// second name: its lock would not be found under that.
func checkOwner(name string, info fs.FileInfo) error {
	if perm := info.Mode().Perm(); perm&0o077 != 0 {
		return fmt.Errorf("sqlite: %s has mode %04o: it must not be readable or writable by others (chmod 600)", name, perm)
	}
	if stat, ok := info.Sys().(*syscall.Stat_t); ok && stat.Nlink > 1 {
		return fmt.Errorf("sqlite: %s has several names (hard links)", name)
	}
	return nil
}

// lock is held by the one process that uses a database file. It is a file of
// its own, because closing a descriptor of the database itself would give up
// the locks that SQLite holds there. It stays when it is released: deleting it
// would let two processes lock two files.
type lock struct{ f *os.File }

func takeLock(name string) (*lock, error) {
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fmt.Errorf("sqlite: %w", err)
	}
	for {
		err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if !errors.Is(err, syscall.EINTR) {
			break
		}
	}
	if err == nil {
		return &lock{f}, nil
	}
	f.Close()
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return nil, fmt.Errorf("sqlite: %s: %w", name, omemo.ErrLocked)
	}
	return nil, fmt.Errorf("sqlite: lock %s: %w", name, err)
}

func (l *lock) release() error { return l.f.Close() }
