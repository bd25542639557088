package recorded_test

import (
	"os"
	"path/filepath"
	"testing"

	"example.org/omellium/omemo/internal/recorded"
)

// A directory that was named comes before testdata, file by file.
func TestFile(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "one"), []byte("other\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ dir, name, want string }{
		{"", "one", "own\n"}, {"", "two", "own\n"}, {dir, "one", "other\n"}, {dir, "two", "own\n"},
	} {
		t.Setenv("OMEMO_VECTORS", c.dir)
		if got := string(recorded.File(t, c.name)); got != c.want {
			t.Errorf("%s in %q: %q", c.name, c.dir, got)
		}
	}
}
