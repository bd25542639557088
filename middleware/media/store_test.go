package media

import (
	"crypto/x509"
	"errors"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// storage is an HTTPS server that keeps what is put to it in a directory. It looks at
// each request, which may be answered in its place.
type storage struct {
	*httptest.Server
	dir string

	mu       sync.Mutex
	requests []*http.Request
	answer   func(w http.ResponseWriter, r *http.Request) bool // whether it has answered
}

func newStorage(t testing.TB) *storage {
	t.Helper()
	s := &storage{dir: t.TempDir()}
	s.Server = httptest.NewUnstartedServer(s)
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	t.Cleanup(s.Close)
	return s
}

func (s *storage) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	s.requests = append(s.requests, r)
	answer := s.answer
	s.mu.Unlock()
	if answer != nil && answer(w, r) {
		return
	}
	name := filepath.Join(s.dir, strings.ReplaceAll(strings.Trim(r.URL.Path, "/"), "/", "_"))
	switch r.Method {
	case http.MethodPut:
		if !strings.HasPrefix(r.Header.Get("Authorization"), "Bearer ") {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		f, err := os.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
		if err != nil {
			w.WriteHeader(http.StatusConflict)
			return
		}
		n, err := io.Copy(f, r.Body)
		if err = errors.Join(err, f.Close()); err != nil || n != r.ContentLength {
			_ = os.Remove(name)
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		w.WriteHeader(http.StatusCreated)
	case http.MethodGet:
		http.ServeFile(w, r, name)
	}
}

// respond sets what is answered from now on.
func (s *storage) respond(answer func(w http.ResponseWriter, r *http.Request) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answer, s.requests = answer, nil
}

func (s *storage) seen() []*http.Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.requests
}

// put stores a file that was encrypted, without an upload.
func (s *storage) put(t testing.TB, name string, plain []byte) *File {
	t.Helper()
	e, b := encrypted(t, plain)
	s.raw(t, name, b)
	sum := e.Hash()
	return &File{
		Metadata: Metadata{Name: name, Size: int64(len(plain))}, URL: s.URL + "/" + name, Key: e.Key(), Hashes: []Hash{{"sha-256", sum[:]}},
	}
}

func (s *storage) raw(t testing.TB, name string, b []byte) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(s.dir, name), b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// fetcher returns one that may fetch from this server, whose address is not public.
func (s *storage) fetcher() *Fetcher {
	roots := x509.NewCertPool()
	roots.AddCert(s.Certificate())
	return &Fetcher{Allow: func(to netip.AddrPort) bool { return to.Addr().IsLoopback() }, RootCAs: roots}
}

// files lists a directory.
func files(t testing.TB, dir string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}
