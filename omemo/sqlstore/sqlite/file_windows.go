package sqlite

import (
	"errors"
	"fmt"
	"io/fs"
	"syscall"

	"example.org/omellium/omemo"
)

// checkOwner leaves access to the lists of the directory.
func checkOwner(string, fs.FileInfo) error { return nil }

// lock is held by the one process that uses a database file: a file of its own
// that is opened without sharing.
type lock struct{ h syscall.Handle }

// errSharing is ERROR_SHARING_VIOLATION.
const errSharing = syscall.Errno(32)

func takeLock(name string) (*lock, error) {
	path, err := syscall.UTF16PtrFromString(name)
	if err != nil {
		return nil, fmt.Errorf("sqlite: %w", err)
	}
	h, err := syscall.CreateFile(path, syscall.GENERIC_READ|syscall.GENERIC_WRITE, 0, nil,
		syscall.OPEN_ALWAYS, syscall.FILE_ATTRIBUTE_NORMAL, 0)
	if errors.Is(err, errSharing) {
		return nil, fmt.Errorf("sqlite: %s: %w", name, omemo.ErrLocked)
	}
	if err != nil {
		return nil, fmt.Errorf("sqlite: lock %s: %w", name, err)
	}
	return &lock{h}, nil
}

func (l *lock) release() error { return syscall.CloseHandle(l.h) }
