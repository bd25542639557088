package sqlite

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// resolve returns the one name under which a file is known: absolute, with the
// links of its directory followed.
func resolve(path string) (string, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return "", fmt.Errorf("sqlite: %w", err)
	}
	dir, err := filepath.EvalSymlinks(filepath.Dir(abs))
	if err != nil {
		return "", fmt.Errorf("sqlite: %w", err)
	}
	return filepath.Join(dir, filepath.Base(abs)), nil
}

// prepare creates the database file if there is none, before SQLite would with
// the mode that the umask leaves. SQLite gives its other files the same mode.
func prepare(name string) error {
	if err := refuseNetwork(filepath.Dir(name)); err != nil {
		return err
	}
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err == nil {
		err = f.Close()
	}
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("sqlite: %w", err)
	}
	for _, suffix := range []string{"", "-wal", "-shm"} {
		if err := check(name + suffix); err != nil {
			return err
		}
	}
	return nil
}

// check refuses a file that is not the owner's alone.
func check(name string) error {
	info, err := os.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("sqlite: %w", err)
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("sqlite: %s is a symbolic link or not a regular file", name)
	}
	return checkOwner(name, info)
}
