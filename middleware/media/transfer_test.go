package media_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/metrics"
	"strconv"
	"strings"
	"testing"
	"time"

	"example.org/omellium/middleware/internal/logscan"
	"example.org/omellium/middleware/media"
	"example.org/omellium/middleware/xmpptest"
)

// transferLimit is the memory, in bytes, below which a program of its own sends and
// receives a file of any size. What the race detector adds is not the program's.
const transferLimit = 32 << 20

// errand is what such a program is to do: send the file, and save it to the directory.
type errand struct{ File, Dir, Depot, Authority string }

// account is what it says afterwards. Memory is what the runtime has taken of the
// system at most, Resident what the system has counted, in bytes; the latter is 0
// where it does not say.
type account struct {
	Path             string
	Memory, Resident uint64
}

const errandVariable = "OMELLIUM_TEST_ERRAND"

func TestMain(m *testing.M) {
	if raw := os.Getenv(errandVariable); raw != "" {
		if err := runErrand(raw); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(logscan.Main(m))
}

// runErrand is the program.
func runErrand(raw string) error {
	var e errand
	if err := json.Unmarshal([]byte(raw), &e); err != nil {
		return err
	}
	watch := watchMemory()
	authority, err := os.ReadFile(e.Authority)
	if err != nil {
		return err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(authority) {
		return errors.New("no certificate")
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Minute)
	defer cancel()
	srv, err := xmpptest.NewServer()
	if err != nil {
		return err
	}
	defer srv.Close()
	if err := errors.Join(srv.AddAccount("romeo@example.net", "secret"), srv.AddUploads("upload.example.net", e.Depot, 0)); err != nil {
		return err
	}
	session, err := srv.Client(ctx, "romeo@example.net", "secret")
	if err != nil {
		return err
	}
	go func() { _ = session.Serve(nil) }()
	file, err := (&media.Uploader{
		Session: session, Client: &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}},
	}).UploadFile(ctx, e.File)
	if err != nil {
		return err
	}
	path, err := (&media.Fetcher{
		MaxSize: 1 << 40, Timeout: 30 * time.Minute, RootCAs: roots,
		Allow: func(to netip.AddrPort) bool { return to.Addr().IsLoopback() },
	}).Save(ctx, file, e.Dir)
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(account{path, watch(), resident()})
}

// watchMemory looks at the program's memory until the function that it returns is
// called, which returns the most that it has seen.
func watchMemory() func() uint64 {
	stop, peak := make(chan struct{}), make(chan uint64)
	go func() {
		samples := []metrics.Sample{{Name: "/memory/classes/total:bytes"}, {Name: "/memory/classes/heap/released:bytes"}}
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		most := uint64(0)
		for {
			metrics.Read(samples)
			most = max(most, samples[0].Value.Uint64()-samples[1].Value.Uint64())
			select {
			case <-tick.C:
			case <-stop:
				peak <- most
				return
			}
		}
	}()
	return func() uint64 { close(stop); return <-peak }
}

// resident returns the most memory that the process had at a time, as Linux counts it.
func resident() uint64 {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0
	}
	_, rest, _ := strings.Cut(string(status), "VmHWM:")
	fields := strings.Fields(rest)
	if len(fields) == 0 {
		return 0
	}
	n, err := strconv.ParseUint(fields[0], 10, 64)
	if err != nil {
		return 0
	}
	return n << 10
}

// transferSize is 64 MiB, or what OMELLIUM_MEDIA_BYTES says.
func transferSize(t testing.TB) int64 {
	t.Helper()
	s := os.Getenv("OMELLIUM_MEDIA_BYTES")
	if s == "" {
		return 64 << 20
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n <= 0 {
		t.Fatalf("OMELLIUM_MEDIA_BYTES is %q", s)
	}
	return n
}

// TestTransfer: a large file is encrypted, uploaded, fetched and decrypted by a
// program of its own, which needs little memory for it.
func TestTransfer(t *testing.T) {
	size := transferSize(t)
	d, dir := newDepot(t), t.TempDir()
	source, authority := filepath.Join(dir, "source.bin"), filepath.Join(dir, "authority.pem")
	certificate := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: d.Certificate().Raw})
	if err := os.WriteFile(authority, certificate, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(source)
	if err != nil {
		t.Fatal(err)
	}
	want := sha256.New()
	_, err = io.CopyN(io.MultiWriter(f, want), rand.NewChaCha8([32]byte{1}), size)
	if err = errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
	received := filepath.Join(dir, "received")
	if err := os.Mkdir(received, 0o700); err != nil {
		t.Fatal(err)
	}
	task, err := json.Marshal(errand{source, received, d.URL, authority})
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), errandVariable+"="+string(task))
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	started := time.Now()
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, stderr.Bytes())
	}
	took := time.Since(started)
	var a account
	if err := json.Unmarshal(out, &a); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d bytes both ways in %v: %.1f MiB of memory, %.1f MiB resident", size, took.Round(time.Millisecond),
		float64(a.Memory)/(1<<20), float64(a.Resident)/(1<<20))
	if a.Memory >= transferLimit || !raceEnabled && a.Resident >= transferLimit {
		t.Errorf("more than %d bytes of memory: %d, resident %d", transferLimit, a.Memory, a.Resident)
	}
	got := sha256.New()
	saved, err := os.Open(a.Path)
	if err != nil {
		t.Fatal(err)
	}
	defer saved.Close()
	n, err := io.Copy(got, saved)
	if err != nil || n != size || !bytes.Equal(got.Sum(nil), want.Sum(nil)) {
		t.Errorf("%d of %d bytes, %v", n, size, err)
	}
}
