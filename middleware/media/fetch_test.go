package media

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/iotest"
	"time"
)

func TestFetch(t *testing.T) {
	s, dir := newStorage(t), t.TempDir()
	plain := random(3*pieceSize + 17)
	file := s.put(t, "photo.jpg", plain)
	f := s.fetcher()
	var done, total int64
	f.Progress = func(d, n int64) {
		if d <= done {
			t.Errorf("from %d to %d", done, d)
		}
		done, total = d, n
	}
	for _, want := range []string{"photo.jpg", "photo (1).jpg", "photo (2).jpg"} {
		done = 0
		path, err := f.Save(t.Context(), file, dir)
		if err != nil || path != filepath.Join(dir, want) {
			t.Fatalf("%s, %v", path, err)
		}
		got, err := os.ReadFile(path)
		if err != nil || !bytes.Equal(got, plain) {
			t.Errorf("another file: %v", err)
		}
		info, err := os.Stat(path)
		if err != nil || info.Mode().Perm()&0o077 != 0 {
			t.Errorf("mode %v, %v", info.Mode(), err)
		}
		if done != int64(len(plain))+tagSize || total != done {
			t.Errorf("progress %d of %d", done, total)
		}
	}
	if got := files(t, dir); len(got) != 3 {
		t.Errorf("files %q", got)
	}
	f.Progress = nil
	if got, err := f.Bytes(t.Context(), file); err != nil || !bytes.Equal(got, plain) {
		t.Error(err)
	}
	for _, r := range s.seen() {
		if len(r.Cookies()) != 0 || r.Header.Get("Authorization") != "" || r.Referer() != "" || r.URL.Fragment != "" || r.Header.Get("Accept-Encoding") != "" {
			t.Errorf("request %v", r.Header)
		}
	}
	if _, err := f.Save(t.Context(), file, filepath.Join(dir, "missing")); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
}

// TestFetchNames: whatever name a sender gives, the file lands in the directory.
func TestFetchNames(t *testing.T) {
	s := newStorage(t)
	f := s.fetcher()
	file := s.put(t, "x", []byte("content"))
	for _, name := range []string{
		"../../etc/passwd", "/etc/passwd", `..\..\x`, ".bashrc", "", "..", ".", "CON", "a\x00b", "\u202egpj.exe", strings.Repeat("x", 1000), "a/b/c",
	} {
		parent := t.TempDir()
		dir := filepath.Join(parent, "downloads")
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		file.Name = name
		path, err := f.Save(t.Context(), file, dir)
		if err != nil || filepath.Dir(path) != dir || filepath.Base(path) != SafeName(name) {
			t.Errorf("%q: %q, %v", name, path, err)
		}
		if got := files(t, dir); len(got) != 1 || len(files(t, parent)) != 1 {
			t.Errorf("%q: %q", name, got)
		}
	}
	// A link that waits in the directory is not followed.
	dir, outside := t.TempDir(), filepath.Join(t.TempDir(), "outside")
	if err := os.Symlink(outside, filepath.Join(dir, "photo.jpg")); err != nil {
		t.Fatal(err)
	}
	file.Name = "photo.jpg"
	if path, err := f.Save(t.Context(), file, dir); err != nil || filepath.Base(path) != "photo (1).jpg" {
		t.Errorf("%s, %v", path, err)
	}
	if _, err := os.Stat(outside); !errors.Is(err, os.ErrNotExist) {
		t.Error("written outside")
	}
}

// TestFetchForged: what is not the file that was shared leaves nothing behind.
func TestFetchForged(t *testing.T) {
	s, dir := newStorage(t), t.TempDir()
	plain := random(2*pieceSize + 5)
	file := s.put(t, "x", plain)
	b, err := os.ReadFile(filepath.Join(s.dir, "x"))
	if err != nil {
		t.Fatal(err)
	}
	other := s.put(t, "other", plain)
	f := s.fetcher()
	for name, c := range map[string]struct {
		stored []byte
		change func(*File)
	}{
		"a bit":        {append(bytes.Clone(b[:9]), append([]byte{b[9] ^ 1}, b[10:]...)...), nil},
		"cut":          {b[:len(b)-1], nil},
		"at a piece":   {b[:pieceSize+tagSize], nil},
		"empty":        {nil, nil},
		"longer":       {append(bytes.Clone(b), 0), nil},
		"another key":  {b, func(f *File) { f.Key = other.Key }},
		"another hash": {b, func(f *File) { f.Hashes = []Hash{{"sha-256", random(32)}} }},
		"second hash":  {b, func(f *File) { f.Hashes = append(slices.Clone(f.Hashes), Hash{"sha3-512", random(64)}) }},
		"size":         {b, func(f *File) { f.Size++ }},
		"shorter":      {b, func(f *File) { f.Size-- }}, // the hash is of more
	} {
		s.raw(t, "x", c.stored)
		changed := *file
		if c.change != nil {
			c.change(&changed)
		}
		if path, err := f.Save(t.Context(), &changed, dir); !errors.Is(err, ErrForged) || path != "" {
			t.Errorf("%s: %q, %v", name, path, err)
		}
		if got, err := f.Bytes(t.Context(), &changed); !errors.Is(err, ErrForged) || got != nil {
			t.Errorf("%s: %d bytes, %v", name, len(got), err)
		}
	}
	if got := files(t, dir); len(got) != 0 {
		t.Errorf("left behind: %q", got)
	}
	// What goes beyond the size is cut off (XEP-0448, section 3.2).
	padded := append(bytes.Clone(plain), make([]byte, 1000)...)
	longer := s.put(t, "padded", padded)
	longer.Size, longer.Hashes = file.Size, file.Hashes
	if got, err := f.Bytes(t.Context(), longer); err != nil || !bytes.Equal(got, plain) {
		t.Errorf("padded: %v", err)
	}
}

// TestFetchAnswers: what a server can answer instead of the file.
func TestFetchAnswers(t *testing.T) {
	s, dir := newStorage(t), t.TempDir()
	file := s.put(t, "x", random(1000))
	hang := make(chan struct{})
	defer close(hang)
	for name, c := range map[string]struct {
		answer func(w http.ResponseWriter, r *http.Request)
		want   error
	}{
		"missing":    {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(404) }, ErrFetch},
		"no content": {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(204) }, ErrFetch},
		"partial": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Range", "bytes 0-1/2")
			w.WriteHeader(206)
		}, ErrFetch},
		"says that it is large": {func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Content-Length", "5000") }, ErrTooLarge},
		"is large, and does not say": {func(w http.ResponseWriter, _ *http.Request) {
			w.(http.Flusher).Flush()
			for range 100 {
				_, _ = w.Write(make([]byte, 1000))
			}
		}, ErrTooLarge},
		"says more than it has": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "1016")
			_, _ = w.Write(make([]byte, 500))
		}, ErrFetch},
		"closes": {func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, ErrFetch},
		"hangs": {func(_ http.ResponseWriter, r *http.Request) {
			select {
			case <-hang:
			case <-r.Context().Done():
			}
		}, context.DeadlineExceeded},
		"hangs in the middle": {func(w http.ResponseWriter, r *http.Request) {
			_, _ = w.Write(make([]byte, 500))
			w.(http.Flusher).Flush()
			select {
			case <-hang:
			case <-r.Context().Done():
			}
		}, context.DeadlineExceeded},
		"large header": {func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("X", strings.Repeat("x", 1<<20)) }, ErrFetch},
		"compressed": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			_, _ = w.Write([]byte("\x1f\x8b\x08\x00\x00\x00\x00\x00\x02\xff\x03\x00\x00\x00\x00\x00\x00\x00\x00\x00"))
		}, ErrForged},
	} {
		t.Run(name, func(t *testing.T) {
			s.respond(func(w http.ResponseWriter, r *http.Request) bool { c.answer(w, r); return true })
			f := s.fetcher()
			f.MaxSize = 2000
			if c.want == context.DeadlineExceeded {
				f.Timeout = 300 * time.Millisecond
			}
			_, err := f.Save(t.Context(), file, dir)
			if !errors.Is(err, c.want) {
				t.Error(err)
			}
			if err != nil && strings.Contains(err.Error(), "/x") {
				t.Errorf("quotes the URL: %v", err)
			}
		})
	}
	if got := files(t, dir); len(got) != 0 {
		t.Errorf("left behind: %q", got)
	}
	s.respond(nil)
	f := s.fetcher()
	f.MaxSize = 1016
	if _, err := f.Bytes(t.Context(), file); err != nil {
		t.Errorf("as large as allowed: %v", err)
	}
	f.MaxSize = 1015
	if _, err := f.Bytes(t.Context(), file); !errors.Is(err, ErrTooLarge) {
		t.Errorf("larger: %v", err)
	}
	file.Size = 1016
	s.respond(nil)
	if _, err := f.Bytes(t.Context(), file); !errors.Is(err, ErrTooLarge) || len(s.seen()) != 0 {
		t.Errorf("said to be larger: %v, %d requests", err, len(s.seen()))
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	file.Size = -1
	if _, err := f.Bytes(ctx, file); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if _, err := (&Fetcher{Allow: f.Allow}).Bytes(t.Context(), file); !errors.Is(err, ErrFetch) {
		t.Errorf("an authority that nobody knows: %v", err)
	}
}

func TestFetchRedirects(t *testing.T) {
	s, elsewhere := newStorage(t), newStorage(t)
	file := s.put(t, "x", random(1000))
	plain := httptest.NewServer(s)
	defer plain.Close()
	f := s.fetcher()
	f.RootCAs.AddCert(elsewhere.Certificate())
	for _, c := range []struct {
		name string
		to   func(n int) string
		want error
	}{
		{"three", func(n int) string {
			if n <= 3 {
				return s.URL + "/" + strconv.Itoa(n) + "#fragment"
			}
			return ""
		}, nil},
		{"four", func(n int) string {
			if n <= 4 {
				return s.URL + "/x"
			}
			return ""
		}, ErrLink},
		{"for ever", func(int) string { return s.URL + "/x" }, ErrLink},
		{"to http", func(int) string { return plain.URL + "/x" }, ErrLink},
		{"to a file", func(int) string { return "file:///etc/passwd" }, ErrLink},
		{"to another scheme", func(int) string { return "ftp://example.net/x" }, ErrLink},
		{"with a password", func(int) string { return strings.Replace(s.URL, "://", "://user:password@", 1) + "/x" }, ErrLink},
	} {
		n := 0
		s.respond(func(w http.ResponseWriter, r *http.Request) bool {
			n++
			if to := c.to(n); to != "" {
				w.Header().Set("Set-Cookie", "a=b; Secure")
				http.Redirect(w, r, to, http.StatusFound)
				return true
			}
			r.URL.Path = "/x"
			return false
		})
		if _, err := f.Bytes(t.Context(), file); !errors.Is(err, c.want) || c.want == nil && err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		for _, r := range s.seen() {
			if len(r.Cookies()) != 0 || r.Referer() != "" {
				t.Errorf("%s: %v", c.name, r.Header)
			}
		}
	}
	// To an address that is not allowed, though the first is.
	port := func(s *storage) string { return s.URL[strings.LastIndexByte(s.URL, ':')+1:] }
	f.Allow = func(to netip.AddrPort) bool { return fmt.Sprint(to.Port()) == port(s) }
	s.respond(func(w http.ResponseWriter, r *http.Request) bool {
		http.Redirect(w, r, elsewhere.URL+"/x", http.StatusFound)
		return true
	})
	if _, err := f.Bytes(t.Context(), file); !errors.Is(err, ErrAddress) || len(elsewhere.seen()) != 0 {
		t.Errorf("to another server: %v", err)
	}
}

// TestProxy: a proxy would connect where a Fetcher does not. That of the system is
// read once for a process, and never used for this machine: so no request can tell.
func TestProxy(t *testing.T) {
	if new(Fetcher).transport().Proxy != nil {
		t.Error("a proxy is used")
	}
}

// TestSave: what was fetched in another way is as little trusted.
func TestSave(t *testing.T) {
	dir, plain := t.TempDir(), random(pieceSize+5)
	e, b := encrypted(t, plain)
	sum := e.Hash()
	file := &File{Metadata: Metadata{Name: "../x", Size: -1}, Key: e.Key(), Hashes: []Hash{{"sha-256", sum[:]}}}
	path, err := file.Save(bytes.NewReader(b), dir)
	if err != nil || path != filepath.Join(dir, "x") {
		t.Fatalf("%s, %v", path, err)
	}
	if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, plain) {
		t.Errorf("another file: %v", err)
	}
	b[len(b)-1] ^= 1
	if path, err := file.Save(bytes.NewReader(b), dir); !errors.Is(err, ErrForged) || path != "" {
		t.Errorf("%s, %v", path, err)
	}
	broken := errors.New("network")
	if _, err := file.Save(io.MultiReader(bytes.NewReader(b[:100]), iotest.ErrReader(broken)), dir); !errors.Is(err, broken) {
		t.Error(err)
	}
	if got := files(t, dir); len(got) != 1 {
		t.Errorf("left behind: %q", got)
	}
}

func TestSaveFails(t *testing.T) {
	dir, broken := t.TempDir(), errors.New("broken")
	if _, err := save(dir, "x", func(w io.Writer) error {
		_, _ = w.Write(make([]byte, 2*pieceSize))
		return broken
	}); !errors.Is(err, broken) {
		t.Error(err)
	}
	if got := files(t, dir); len(got) != 0 {
		t.Errorf("left behind: %q", got)
	}
}
