// Package recorded reads test vectors. Only tests use it.
package recorded

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

// Dir returns the directory that OMEMO_VECTORS puts in the place of testdata, or
// nothing.
func Dir() string { return os.Getenv("OMEMO_VECTORS") }

// File returns a file of vectors: of Dir, if there is one of that name, else of
// the package's testdata.
func File(t testing.TB, name string) []byte {
	t.Helper()
	if dir := Dir(); dir != "" {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err == nil {
			return b
		}
		if !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
	}
	b, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}
