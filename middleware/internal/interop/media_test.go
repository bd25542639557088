//go:build live

package interop

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"io"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"example.org/omellium/middleware/internal/lab"
	"example.org/omellium/middleware/media"
	"mellium.im/xmpp/jid"
	xmppstanza "mellium.im/xmpp/stanza"
	"mellium.im/xmpp/upload"
)

// pythonFile encrypts and decrypts files with the library of its own: fetch URL IV
// KEY, or seal PATH IV-SIZE, which writes PATH.sealed and prints IV and key.
const pythonFile = `
import hashlib, os, ssl, sys, urllib.request
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
if sys.argv[1] == "fetch":
    context = ssl.create_default_context(cafile=os.environ["AUTHORITY"])
    with urllib.request.urlopen(sys.argv[2], context=context) as response:
        sealed = response.read()
    plain = AESGCM(bytes.fromhex(sys.argv[4])).decrypt(bytes.fromhex(sys.argv[3]), sealed, None)
    print(hashlib.sha256(plain).hexdigest())
else:
    iv, key = os.urandom(int(sys.argv[3])), os.urandom(32)
    with open(sys.argv[2], "rb") as f:
        sealed = AESGCM(key).encrypt(iv, f.read(), None)
    with open(sys.argv[2] + ".sealed", "wb") as f:
        f.write(sealed)
    print(iv.hex() + key.hex())
`

func runPython(t *testing.T, s *lab.Server, arguments ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "/usr/bin/python3", append([]string{"-c", pythonFile}, arguments...)...)
	cmd.Env = append(os.Environ(), "AUTHORITY="+s.CAFile)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, stderr.Bytes())
	}
	return strings.TrimSpace(string(out))
}

// web returns what a program speaks with the HTTPS side of a server with.
func web(t *testing.T, s *lab.Server) (*http.Client, *media.Fetcher) {
	t.Helper()
	config, err := s.TLS()
	if err != nil {
		t.Fatal(err)
	}
	pem, err := os.ReadFile(s.CAFile)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	return &http.Client{Transport: &http.Transport{TLSClientConfig: config}}, &media.Fetcher{
		RootCAs: roots, MaxSize: lab.MaxUpload, Timeout: 10 * time.Minute,
		Allow: func(to netip.AddrPort) bool { return to.Addr().IsLoopback() },
	}
}

// TestFileToPython: a file that a program sends is decrypted by another library,
// from the link that python-omemo has read.
func TestFileToPython(t *testing.T) {
	eachVersion(t, func(t *testing.T, s *lab.Server, versions []string) {
		one, user := s.Account(t, "program"), s.Account(t, "user")
		lab.Befriend(t, one, user)
		p := newProgram(t, s, one)
		peer := python{lab.Python(t, s, user, lab.PythonOptions{Versions: versions})}
		client, _ := web(t, s)
		plain := make([]byte, 3<<20+7)
		rand.Read(plain)
		name := filepath.Join(t.TempDir(), "canary-name.jpg")
		if err := os.WriteFile(name, plain, 0o600); err != nil {
			t.Fatal(err)
		}
		file, err := (&media.Uploader{Session: p.session, Client: client}).UploadFile(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		to := xmppstanza.Message{To: jid.MustParse(user.JID), Type: xmppstanza.ChatMessage}
		if err := p.session.Send(t.Context(), to.Wrap(file.TokenReader())); err != nil {
			t.Fatal(err)
		}
		link, err := file.Link()
		if err != nil {
			t.Fatal(err)
		}
		peer.AwaitBody(t, one.JID, link)
		_, fragment, _ := strings.Cut(link, "#")
		sum := sha256.Sum256(plain)
		if got := runPython(t, s, "fetch", file.URL, fragment[:24], fragment[24:]); got != hex.EncodeToString(sum[:]) {
			t.Errorf("another file: %s", got)
		}
		secretOf(t, s, sent{one.JID: 1}, []string{"canary-name", fragment, fragment[24:]})
	})
}

// TestFileFromPython: a file that another library has encrypted, with IVs of both
// sizes, and that python-omemo has sent the link of.
func TestFileFromPython(t *testing.T) {
	eachVersion(t, func(t *testing.T, s *lab.Server, versions []string) {
		one, user := s.Account(t, "program"), s.Account(t, "user")
		lab.Befriend(t, one, user)
		p := newProgram(t, s, one)
		peer := python{lab.Python(t, s, user, lab.PythonOptions{Versions: versions})}
		client, fetcher := web(t, s)
		service, err := media.FindService(t.Context(), p.session)
		if err != nil || service.MaxSize != lab.MaxUpload {
			t.Fatalf("service %+v, %v", service, err)
		}
		dir := t.TempDir()
		for i, ivSize := range []string{"12", "16"} {
			plain := make([]byte, 1<<20+i)
			rand.Read(plain)
			name := filepath.Join(dir, ivSize)
			if err := os.WriteFile(name, plain, 0o600); err != nil {
				t.Fatal(err)
			}
			fragment := runPython(t, s, "seal", name, ivSize)
			sealed, err := os.ReadFile(name + ".sealed")
			if err != nil {
				t.Fatal(err)
			}
			slot, err := upload.GetSlot(t.Context(), upload.File{Name: "x.bin", Size: len(sealed)}, service.Address, p.session)
			if err != nil {
				t.Fatal(err)
			}
			put, err := slot.Put(t.Context(), bytes.NewReader(sealed))
			if err != nil {
				t.Fatal(err)
			}
			response, err := client.Do(put)
			if err != nil {
				t.Fatal(err)
			}
			response.Body.Close()
			if response.StatusCode != http.StatusCreated {
				t.Fatal(response.Status)
			}
			link := "aesgcm" + strings.TrimPrefix(slot.GetURL.String(), "https") + "#" + fragment
			peer.Send(t, one.JID, link)
			p.AwaitBody(t, user.JID, link)
			file, err := media.ParseBody(link)
			if err != nil {
				t.Fatal(err)
			}
			if got, err := fetcher.Bytes(t.Context(), file); err != nil || !bytes.Equal(got, plain) {
				t.Errorf("IV of %s: %v", ivSize, err)
			}
		}
	})
}

// TestLargeFile: a large file by way of each server's own storage.
func TestLargeFile(t *testing.T) {
	size := int64(16 << 20) // Prosody takes about 2 MB a second
	if s := os.Getenv("OMELLIUM_MEDIA_BYTES"); s != "" {
		n, err := strconv.ParseInt(s, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		size = min(n, lab.MaxUpload-16)
	}
	lab.Each(t, func(t *testing.T, s *lab.Server) {
		p := newProgram(t, s, s.Account(t, "program"))
		client, fetcher := web(t, s)
		want := sha256.New()
		steps := 0
		u := &media.Uploader{Session: p.session, Client: client, Progress: func(int64, int64) { steps++ }}
		started := time.Now()
		file, err := u.Upload(t.Context(), io.TeeReader(io.LimitReader(rand.Reader, size), want), media.Metadata{Name: "large.bin", Size: size})
		if err != nil {
			t.Fatal(err)
		}
		uploaded := time.Since(started)
		path, err := fetcher.Save(t.Context(), file, t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		got := sha256.New()
		n, err := io.Copy(got, f)
		if err != nil || n != size || !bytes.Equal(got.Sum(nil), want.Sum(nil)) {
			t.Errorf("%d of %d bytes, %v", n, size, err)
		}
		t.Logf("%d bytes: up in %v, down in %v, %d steps", size, uploaded.Round(time.Millisecond), (time.Since(started) - uploaded).Round(time.Millisecond), steps)

		if _, err := u.Upload(t.Context(), rand.Reader, media.Metadata{Size: lab.MaxUpload}); !errors.Is(err, media.ErrTooLarge) {
			t.Errorf("more than the server takes: %v", err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		u.Progress = func(done, _ int64) {
			if done > size/2 {
				cancel()
			}
		}
		if _, err := u.Upload(ctx, rand.Reader, media.Metadata{Size: size}); !errors.Is(err, context.Canceled) {
			t.Errorf("cancelled: %v", err)
		}
	})
}
