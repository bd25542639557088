package media_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"time"

	"example.org/omellium/middleware/media"
	"example.org/omellium/middleware/xmpptest"
	"mellium.im/xmpp"
	"mellium.im/xmpp/jid"
)

// patience is how long a test waits for what must happen.
const patience = time.Minute

// depot is an HTTPS server that keeps what is put to it in a directory.
type depot struct {
	*httptest.Server
	dir string

	mu   sync.Mutex
	puts []*http.Request
	take func(w http.ResponseWriter, r *http.Request) // in the place of storing
}

func newDepot(t testing.TB) *depot {
	t.Helper()
	d := newDepotIn(t.TempDir())
	t.Cleanup(d.Close)
	return d
}

func newDepotIn(dir string) *depot {
	d := &depot{dir: dir}
	d.Server = httptest.NewUnstartedServer(d)
	d.Config.ErrorLog = log.New(io.Discard, "", 0)
	d.StartTLS()
	return d
}

func (d *depot) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	name := filepath.Join(d.dir, strings.ReplaceAll(strings.Trim(r.URL.Path, "/"), "/", "_"))
	if r.Method == http.MethodGet {
		http.ServeFile(w, r, name)
		return
	}
	d.mu.Lock()
	d.puts = append(d.puts, r)
	take := d.take
	d.mu.Unlock()
	if take != nil {
		take(w, r)
		return
	}
	if r.Method != http.MethodPut || !strings.HasPrefix(r.Header.Get("Authorization"), "Bearer ") || r.ContentLength < 0 {
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
}

func (d *depot) fetcher() *media.Fetcher {
	roots := x509.NewCertPool()
	roots.AddCert(d.Certificate())
	return &media.Fetcher{Allow: func(to netip.AddrPort) bool { return to.Addr().IsLoopback() }, RootCAs: roots}
}

// network is a server with a service for uploads to a depot, and a session on it.
func network(t testing.TB, d *depot, maxSize int64) (*xmpptest.Server, *xmpp.Session) {
	t.Helper()
	srv, err := xmpptest.NewServer()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = srv.Close() })
	if err := srv.AddAccount("romeo@example.net", "secret"); err != nil {
		t.Fatal(err)
	}
	if d != nil {
		if err := srv.AddUploads("upload.example.net", d.URL+"/store", maxSize); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	session, err := srv.Client(ctx, "romeo@example.net/orchard", "secret")
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = session.Serve(nil) }()
	return srv, session
}

func random(n int) []byte {
	b := make([]byte, n)
	rand.Read(b)
	return b
}

func TestUpload(t *testing.T) {
	d := newDepot(t)
	_, session := network(t, d, 10<<20)
	plain := random(3<<20 + 17)
	name := filepath.Join(t.TempDir(), "Secret Plans.JPEG")
	if err := os.WriteFile(name, plain, 0o600); err != nil {
		t.Fatal(err)
	}
	var done, total int64
	u := &media.Uploader{Session: session, Client: d.Client(), Progress: func(a, b int64) {
		if a <= done {
			t.Errorf("from %d to %d", done, a)
		}
		done, total = a, b
	}}
	file, err := u.UploadFile(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(plain)
	if file.Name != "Secret Plans.JPEG" || file.MediaType != "image/jpeg" || file.Size != int64(len(plain)) || len(file.Hashes) != 1 ||
		file.Hashes[0].Algorithm != "sha-256" || !bytes.Equal(file.Hashes[0].Sum, sum[:]) || file.Key.Cipher() != media.AES256GCM {
		t.Errorf("%+v", file)
	}
	if done != total || total != file.Size+16 {
		t.Errorf("progress %d of %d", done, total)
	}
	if got, err := d.fetcher().Bytes(t.Context(), file); err != nil || !bytes.Equal(got, plain) {
		t.Errorf("fetched: %v", err)
	}
	link, err := file.Link()
	if err != nil {
		t.Fatal(err)
	}
	byLink, err := media.ParseBody(link)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := d.fetcher().Bytes(t.Context(), byLink); err != nil || !bytes.Equal(got, plain) {
		t.Errorf("fetched by link: %v", err)
	}
	// What the server saw: no name, no type, no content.
	put := d.puts[0]
	if len(d.puts) != 1 || !strings.HasSuffix(put.URL.Path, ".jpeg") || strings.Contains(put.URL.Path, "ecret") || put.Header.Get("Content-Type") != "application/octet-stream" {
		t.Errorf("put %v", put.Header)
	}
	entries, err := os.ReadDir(d.dir)
	if err != nil || len(entries) != 1 {
		t.Fatalf("%v, %v", entries, err)
	}
	stored, err := os.ReadFile(filepath.Join(d.dir, entries[0].Name()))
	if err != nil || bytes.Contains(stored, plain[:16]) || bytes.Contains(stored, plain[len(plain)-16:]) {
		t.Errorf("stored: %v", err)
	}

	if _, err := u.UploadFile(t.Context(), filepath.Dir(name)); err == nil {
		t.Error("a directory was uploaded")
	}
	if _, err := u.UploadFile(t.Context(), name+"x"); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
}

func TestUploadLimits(t *testing.T) {
	d := newDepot(t)
	_, session := network(t, d, 1000)
	u := &media.Uploader{Session: session, Client: d.Client()}
	upload := func(size int) error {
		_, err := u.Upload(t.Context(), bytes.NewReader(make([]byte, size)), media.Metadata{Size: int64(size)})
		return err
	}
	if err := upload(984); err != nil {
		t.Error(err)
	}
	if err := upload(985); !errors.Is(err, media.ErrTooLarge) {
		t.Error(err)
	}
	if err := upload(0); err != nil {
		t.Error(err)
	}
	// The same by word of the service, which says its limit only when asked for more.
	u.Service = media.Service{Address: jid.MustParse("upload.example.net")}
	if err := upload(985); !errors.Is(err, media.ErrTooLarge) {
		t.Error(err)
	}
	u.Service.Address = jid.MustParse("example.net")
	if err := upload(1); !errors.Is(err, media.ErrUpload) {
		t.Errorf("no service: %v", err)
	}
	_, session = network(t, nil, 0)
	u = &media.Uploader{Session: session, Client: d.Client()}
	if err := upload(1); !errors.Is(err, media.ErrNoService) {
		t.Error(err)
	}
}

// TestUploadFails: no file is returned for what the server has not got whole.
func TestUploadFails(t *testing.T) {
	d := newDepot(t)
	_, session := network(t, d, 0)
	u := &media.Uploader{Session: session, Client: d.Client()}
	plain := random(5 << 20)
	status := func(code int) func(http.ResponseWriter, *http.Request) {
		return func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			if code == http.StatusFound || code == http.StatusTemporaryRedirect {
				w.Header().Set("Location", d.URL+"/elsewhere")
			}
			w.WriteHeader(code)
		}
	}
	for name, c := range map[string]struct {
		take func(http.ResponseWriter, *http.Request)
		want error
	}{
		"forbidden":       {status(403), media.ErrUpload},
		"too large":       {status(413), media.ErrTooLarge},
		"failing":         {status(500), media.ErrUpload},
		"redirects":       {status(302), media.ErrUpload},
		"redirects again": {status(307), media.ErrUpload},
		"accepts at once": {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(201) }, nil},
		"closes":          {func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, nil},
	} {
		d.mu.Lock()
		d.take, d.puts = c.take, nil
		d.mu.Unlock()
		content := plain
		if name == "accepts at once" { // more than the buffers of a connection hold
			content = make([]byte, 64<<20)
		}
		file, err := u.Upload(t.Context(), bytes.NewReader(content), media.Metadata{Size: int64(len(content))})
		if err == nil || c.want != nil && !errors.Is(err, c.want) || file != nil {
			t.Errorf("%s: %v", name, err)
		}
		d.mu.Lock()
		if len(d.puts) != 1 {
			t.Errorf("%s: %d requests", name, len(d.puts))
		}
		d.mu.Unlock()
	}
	d.mu.Lock()
	d.take = nil
	d.mu.Unlock()

	broken := errors.New("disk")
	for name, c := range map[string]struct {
		src  io.Reader
		want error
	}{
		"shrinks": {bytes.NewReader(plain[1:]), media.ErrSize},
		"grows":   {bytes.NewReader(append(slices.Clone(plain), 0)), media.ErrSize},
		"breaks":  {io.MultiReader(bytes.NewReader(plain[1:]), iotest.ErrReader(broken)), broken},
	} {
		if file, err := u.Upload(t.Context(), c.src, media.Metadata{Size: int64(len(plain))}); !errors.Is(err, c.want) || file != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	u.Progress = func(done, _ int64) {
		if done > 1<<20 {
			cancel()
		}
	}
	large := make([]byte, 64<<20) // not all of it is on its way when the end is noticed
	if _, err := u.Upload(ctx, bytes.NewReader(large), media.Metadata{Size: int64(len(large))}); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	d.Close() // once it has let go of what was cut short
	if entries, err := os.ReadDir(d.dir); err != nil || len(entries) != 0 {
		t.Errorf("stored: %v, %v", entries, err)
	}
}

// TestSlots: what a service can answer instead of a slot.
func TestSlots(t *testing.T) {
	d := newDepot(t)
	srv, session := network(t, d, 0)
	u := &media.Uploader{Session: session, Client: d.Client()}
	slot := func(put, get, headers string) string {
		return "<slot xmlns='urn:xmpp:http:upload:0'><put url='" + put + "'>" + headers + "</put><get url='" + get + "'/></slot>"
	}
	good := d.URL + "/x"
	var answer string
	srv.SetFilter(func(_ context.Context, st xmpptest.Stanza) [][]byte {
		i, j := bytes.Index(st.XML, []byte("<slot")), bytes.Index(st.XML, []byte("</slot>"))
		if i < 0 || j < 0 {
			return [][]byte{st.XML}
		}
		return [][]byte{slices.Concat(st.XML[:i], []byte(answer), st.XML[j+len("</slot>"):])}
	})
	for name, c := range map[string]struct {
		answer string
		ok     bool
	}{
		"headers": {slot(good, good, "<header name='Authorization'>Bearer\n x\n</header><header name='Cookie'>a=b</header><header name='Expires'>0</header>"+
			"<header name='Host'>evil.example</header><header name='X-Evil'>x</header><header name='Content-Type'>text/html</header>"), true},
		"nothing":         {"", false},
		"no URL":          {"<slot xmlns='urn:xmpp:http:upload:0'/>", false},
		"empty URL":       {slot("", "", ""), false},
		"put by http":     {slot(strings.Replace(good, "https", "http", 1), good, ""), false},
		"get by http":     {slot(good, strings.Replace(good, "https", "http", 1), ""), false},
		"put to a file":   {slot("file:///etc/passwd", good, ""), false},
		"get from a file": {slot(good, "file:///etc/passwd", ""), false},
		"password":        {slot(strings.Replace(good, "://", "://u:p@", 1), good, ""), false},
		"fragment":        {slot(good, good+"#x", ""), false},
		"malformed":       {slot("https://%zz", good, ""), false},
	} {
		answer = c.answer
		d.mu.Lock()
		d.puts = nil
		d.mu.Unlock()
		file, err := u.Upload(t.Context(), strings.NewReader("x"), media.Metadata{Size: 1})
		d.mu.Lock()
		puts := d.puts
		d.mu.Unlock()
		switch {
		case !c.ok && (!errors.Is(err, media.ErrUpload) || len(puts) != 0 || file != nil):
			t.Errorf("%s: %v, %d requests", name, err, len(puts))
		case c.ok && (err != nil || len(puts) != 1):
			t.Errorf("%s: %v, %d requests", name, err, len(puts))
		case c.ok:
			h := puts[0].Header
			if h.Get("Authorization") != "Bearer x" || h.Get("Cookie") != "a=b" || h.Get("X-Evil") != "" || puts[0].Host == "evil.example" ||
				h.Get("Content-Type") != "application/octet-stream" {
				t.Errorf("%s: %v", name, h)
			}
		}
		if err != nil && strings.Contains(err.Error(), "127.0.0.1") {
			t.Errorf("%s: quotes the URL: %v", name, err)
		}
	}
}
