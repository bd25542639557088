package logscan

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"example.org/omellium/middleware"
	"example.org/omellium/omemo"
	"example.org/omellium/omemo/memstore"
)

var key = []byte{250, 1, 99, 7, 0, 254, 31, 8, 77, 200, 143, 12, 65, 90, 3, 18, 222, 45, 101, 6, 89, 171, 33, 64, 5, 119, 237, 14, 52, 180, 27, 94}

// What is written in any of these forms is found, wherever it begins.
func TestFound(t *testing.T) {
	decimal := strings.Trim(fmt.Sprint(key), "[]")
	for name, form := range map[string]any{
		"bytes": key, "array": [32]byte(key), "raw": string(key), "quoted": fmt.Sprintf("%q", key),
		"hex": hex.EncodeToString(key), "upper hex": fmt.Sprintf("%X", key), "hex of a part": hex.EncodeToString(key[3:20]),
		"base64": base64.StdEncoding.EncodeToString(key), "base64 of a part": base64.StdEncoding.EncodeToString(key[5:]),
		"base64 in the middle": "x" + base64.RawURLEncoding.EncodeToString(append([]byte("y"), key...)),
		"decimal":              decimal, "with commas": strings.ReplaceAll(decimal, " ", ", "), "as Go": fmt.Sprintf("%#v", key),
		"in an error": fmt.Errorf("key %v", key),
	} {
		t.Run(name, func(t *testing.T) {
			var s Scan
			var c middleware.Config
			s.Watch(&c)
			s.Secret(append([]byte("before"), key...))
			s.Text("a text that nobody may read")
			c.Logger.With("with", 1).Debug("nothing", "number", 17)
			if found := s.Leaks(); len(found) > 0 {
				t.Fatalf("found too early: %q", found)
			}
			c.Logger.Debug("value", "v", form)
			if found := s.Leaks(); len(found) == 0 {
				t.Errorf("not found: %v", form)
			}
		})
	}
	for name, write := range map[string]func(middleware.Config){
		"text in a message":    func(c middleware.Config) { c.Logger.Info("it says: a text that nobody may read") },
		"text in base64":       func(c middleware.Config) { c.Logger.Info("x", "b", []byte("a text that nobody may read")) },
		"text with attributes": func(c middleware.Config) { c.Logger.With("x", "a text that nobody may read").Info("y") },
		"text in an event": func(c middleware.Config) {
			c.OnEvent(middleware.Event{Err: fmt.Errorf("bad: %q", "a text that nobody may read")})
		},
		"text in a result": func(c middleware.Config) {
			c.OnEvent(middleware.Event{Result: &middleware.Result{Devices: []omemo.DeviceResult{{Err: fmt.Errorf("text that nobody")}}}})
		},
	} {
		t.Run(name, func(t *testing.T) {
			var s Scan
			c := middleware.Config{Logger: slog.New(slog.NewTextHandler(io.Discard, nil))}
			s.Watch(&c)
			s.Text("a text that nobody may read")
			write(c)
			if len(s.Leaks()) == 0 {
				t.Error("not found")
			}
		})
	}
}

// What is committed is noted.
func TestNoted(t *testing.T) {
	var s Scan
	c := middleware.Config{Store: memstore.New("juliet@example.net")}
	s.Watch(&c)
	if _, err := omemo.NewManager(t.Context(), c.Store, omemo.Options{}); err != nil {
		t.Fatal(err)
	}
	session := bytes.Repeat(key, 4)
	if err := c.Store.Commit(t.Context(), &omemo.Changes{
		Sessions: []omemo.SessionRow{{ID: 1, Peer: omemo.Peer{Version: omemo.V2, Address: omemo.Address{JID: "romeo@example.net", Device: 1}}, Record: session}},
		Inbox:    []omemo.InboxRow{{Seq: 1, Event: "e", Stanza: []byte("<message><body>fish &amp; chips &amp; more</body></message>")}},
	}); err != nil {
		t.Fatal(err)
	}
	if len(s.secrets) < 200*32 || !bytes.Contains(s.secrets, session) || !s.texts["fish & chips & more"] {
		t.Errorf("%d bytes of secrets, texts %v", len(s.secrets), s.texts)
	}
}

// Every suite of this module that runs the middleware is searched.
func TestEverySuite(t *testing.T) {
	made := regexp.MustCompile(`middleware\.New\([^)]*[cC]onfig|middleware\.New\((?:t\.Context\(\)|ctx), c\)`)
	// Examples are documentation, and benchmarks measure; what they do, others do
	// as well.
	example := regexp.MustCompile(`(^|_)(example|bench)_test\.go$`)
	suites := make(map[string]bool)
	err := filepath.WalkDir(filepath.Join("..", ".."), func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, "_test.go") || example.MatchString(d.Name()) || filepath.Dir(path) == "." {
			return err
		}
		b, err := os.ReadFile(path)
		dir := filepath.Dir(path)
		if strings.HasSuffix(dir, "logscan") || err != nil || !made.Match(b) {
			return err
		}
		suites[dir] = true
		if !bytes.Contains(b, []byte("logscan.Watch(")) {
			t.Errorf("%s: a program that is not searched", path)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(suites) < 4 {
		t.Errorf("only %v", suites)
	}
	for dir := range suites {
		files, err := filepath.Glob(filepath.Join(dir, "*_test.go"))
		if err != nil {
			t.Fatal(err)
		}
		searched := false
		for _, file := range files {
			b, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			searched = searched || bytes.Contains(b, []byte("logscan.Main(m)")) || bytes.Contains(b, []byte("logscan.Check("))
		}
		if !searched {
			t.Errorf("%s: TestMain does not search", dir)
		}
	}
}
