package golden

import (
	"bytes"
	"compress/gzip"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Check runs a test for each golden database with a suffix in testdata: make
// makes a database of its content, and returns what opens the accounts in it.
func Check(t *testing.T, suffix string, make func(t *testing.T, content []byte) Opener) {
	files, err := filepath.Glob(filepath.Join("testdata", "golden-*"+suffix+".gz"))
	if err != nil || len(files) == 0 {
		t.Fatalf("%d golden databases, %v", len(files), err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			open := make(t, unpackFile(t, file))
			want := string(unpackFile(t, strings.TrimSuffix(file, suffix+".gz")+".txt.gz"))
			compare(t, Listing(t, open), want)
			Use(t, open)
		})
	}
}

// Save writes a golden database and its listing to testdata.
func Save(t *testing.T, name, suffix string, content []byte, listing string) {
	t.Helper()
	packFile(t, filepath.Join("testdata", name+suffix+".gz"), content)
	packFile(t, filepath.Join("testdata", name+".txt.gz"), []byte(listing))
}

// compare reports the lines in which listings differ.
func compare(t *testing.T, got, want string) {
	t.Helper()
	for line := range strings.Lines(want) {
		if !strings.Contains(got, line) {
			t.Errorf("missing: %.300s", line)
		}
	}
	for line := range strings.Lines(got) {
		if !strings.Contains(want, line) {
			t.Errorf("too much: %.300s", line)
		}
	}
}

func packFile(t *testing.T, name string, content []byte) {
	t.Helper()
	var b bytes.Buffer
	w, err := gzip.NewWriterLevel(&b, gzip.BestCompression)
	if err == nil {
		_, err = w.Write(content)
	}
	if err == nil {
		err = w.Close()
	}
	if err == nil {
		err = os.WriteFile(name, b.Bytes(), 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func unpackFile(t *testing.T, name string) []byte {
	t.Helper()
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	content, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return content
}
