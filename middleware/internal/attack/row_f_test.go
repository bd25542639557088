package attack

import (
	"fmt"
	"go/parser"
	"go/token"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"example.org/omellium/middleware"
	"example.org/omellium/middleware/internal/logscan"
	"example.org/omellium/omemo"
	"example.org/omellium/omemo/sqlstore/sqlite"
	"example.org/omellium/stanza"
)

// hostile are texts that mean something to a database.
var hostile = []string{
	`'; DROP TABLE omemo_device; --`, `" OR ""="`, `' OR '1'='1`, `\'; --`, "`; --", `%' ESCAPE '`, `?1`, `:name`, `$1`, `@p1`, `{{.}}`,
	"a\nb", "\u0000"[:0] + "x", `x'00'`, `/*`, `*/ UNION SELECT 1`, "😀'", `‘`, `robert'); DELETE FROM omemo_session; --`, `_%_%`, `\0`, `""`, `''`,
}

// f8 has hostile texts stored wherever somebody else chooses the text.
func f8(t *testing.T) {
	ctx := t.Context()
	store, err := sqlite.Open(ctx, filepath.Join(t.TempDir(), "f8.db"), juliet)
	ok(t, err)
	t.Cleanup(func() { store.Close() })
	m, err := omemo.NewManager(ctx, store, omemo.Options{})
	ok(t, err)
	a := newDevice(t, romeo)
	for i, text := range hostile {
		t.Run(fmt.Sprintf("%q", text), func(t *testing.T) {
			cases.Add(1)
			account := text + "@example.net"
			b := a.bundle(omemo.V2)
			b.Owner = omemo.Address{JID: account, Device: omemo.DeviceID(i + 1)}
			ok(t, m.SetList(ctx, account, omemo.V2, []omemo.DeviceID{b.Owner.Device}, omemo.Label{Device: b.Owner.Device, Text: text}))
			_, err := m.Compare(ctx, b)
			ok(t, err)
			f, err := b.Fingerprint()
			ok(t, err)
			ok(t, m.SetTrust(ctx, account, f, omemo.Verified))
			_, err = m.Keep(ctx, b.Owner, text, []byte(text))
			ok(t, err)
			ok(t, store.Commit(ctx, &omemo.Changes{
				Inbox:   []omemo.InboxRow{{Seq: uint64(i + 1), Event: text, Stanza: []byte(text), Received: time.Now()}},
				Outbox:  []omemo.OutboxRow{{Seq: uint64(i + 1), ID: text, Chat: account, Stanza: []byte(text), Created: time.Now()}},
				Cursors: []omemo.Cursor{{Archive: text, Position: text, When: time.Now()}},
			}))
			known, err := store.Accounts(ctx, account)
			ok(t, err)
			if len(known.Contacts) != 1 || len(known.Devices) != 1 || known.Devices[0].Label != text || len(known.Trust) != 1 {
				t.Errorf("read back: %+v", known)
			}
		})
	}
	all, err := store.Accounts(ctx)
	ok(t, err)
	inbox, err := store.Inbox(ctx, 0, 1000)
	ok(t, err)
	outbox, err := store.Outbox(ctx, 0, 1000)
	ok(t, err)
	if len(all.Devices) != len(hostile) || len(inbox) != len(hostile) || len(outbox) != len(hostile) {
		t.Errorf("%d devices, %d in, %d out", len(all.Devices), len(inbox), len(outbox))
	}
}

// f9 has a conversation, and failures of all kinds, logged at the lowest level,
// and searches the log for what must not stand in it: so are the logs of all
// suites that run the middleware.
func f9(t *testing.T) {
	for _, v := range omemo.Versions() {
		var scan logscan.Scan
		var log *slog.Logger
		s := newStage(t, v, func(c *middleware.Config) {
			scan.Watch(c)
			log = c.Logger
		})
		s.in(t, v.String(), func() {
			const secret = "the secret text of a person"
			scan.Text(secret)
			for range 20 {
				text := s.id(secret)
				s.delivers("direct", s.romeo.text(s, v, text), text)
				_, err := s.say(romeo, s.id(secret))
				ok(s.t, err)
			}
			_, _ = s.say("nobody@example.net", secret)
			s.inject(string(s.romeo.stanza(s, juliet, stanza.NewText(stanza.NSClient, "body", secret)).AppendXML(nil)))
			for way := range slices.Values(ways) {
				m := s.rekey(s.romeo.text(s, v, secret), func(b []byte, _ bool) []byte { b[len(b)-1] ^= 1; return b })
				s.inject(s.by(way, m))
			}
			s.settle()
			log.Debug("the whole of it", "manager", s.om.Manager())
			for _, found := range scan.Leaks() {
				s.t.Error(found)
			}
			log.Debug("and now on purpose", "text", secret)
			if len(scan.Leaks()) == 0 {
				s.t.Error("the search finds nothing")
			}
		})
	}
}

// f18 counts the modules that a program which uses the project gets from it. What
// only tests import is not among them.
func f18(t *testing.T) {
	root := filepath.Join("..", "..", "..")
	b, err := os.ReadFile(filepath.Join(root, "go.mod"))
	ok(t, err)
	imports := importsOf(t, root)
	direct := 0
	for line := range strings.Lines(string(b)) {
		fields := strings.Fields(strings.TrimPrefix(line, "require "))
		if len(fields) >= 2 && strings.HasPrefix(fields[1], "v") && strings.Contains(fields[0], ".") && !strings.Contains(line, "// indirect") &&
			slices.ContainsFunc(imports, func(path string) bool { return path == fields[0] || strings.HasPrefix(path, fields[0]+"/") }) {
			direct++
		}
		if strings.HasPrefix(line, "replace ") {
			t.Errorf("%s", line)
		}
	}
	if direct > 9 || direct == 0 {
		t.Errorf("%d direct dependencies, at most 9 are wanted", direct)
	}
	sums, err := os.ReadFile(filepath.Join(root, "go.sum"))
	ok(t, err)
	if len(sums) == 0 {
		t.Error("no checksums")
	}
	cases.Add(1)
}

// importsOf returns what the files of the module import, except for tests.
func importsOf(t *testing.T, root string) (paths []string) {
	ok(t, filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if _, err := os.Stat(filepath.Join(path, "go.mod")); err == nil && path != root || d.Name() == "history" {
				return filepath.SkipDir // a module of its own; a package for tests
			}
			return nil
		}
		if !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return nil
		}
		f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		for _, spec := range f.Imports {
			paths = append(paths, strings.Trim(spec.Path.Value, `"`))
		}
		return nil
	}))
	return paths
}
