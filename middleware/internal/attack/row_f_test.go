package attack

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"example.org/omellium/middleware"
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
// and searches the log for what must not stand in it.
func f9(t *testing.T) {
	for _, v := range omemo.Versions() {
		var log safeBuffer
		s := newStage(t, v, func(c *middleware.Config) {
			c.Logger = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug - 100, AddSource: true}))
		})
		s.in(t, v.String(), func() {
			const secret = "the secret text of a person"
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
			secrets := s.secrets()
			s.settle()
			events, _ := s.since(watch{})
			text := log.String() + fmt.Sprintf("%v %+v %#v", events, events, s.om.Manager())
			for _, e := range events {
				text += fmt.Sprintln(e.Err)
			}
			if len(log.String()) < 1000 {
				s.t.Fatalf("only %d bytes were logged", len(log.String()))
			}
			for _, form := range forms([]byte(secret)) {
				if strings.Contains(text, form) {
					s.t.Errorf("the text stands in the log as %q", form)
				}
			}
			for _, found := range leaks(text, append(secrets, s.secrets()...)) {
				s.t.Errorf("a key stands in the log: %s", found)
			}
		})
	}
	t.Run("the search finds", func(t *testing.T) {
		key := bytes.Repeat([]byte{1, 2, 250}, 11)
		for _, form := range forms(key) {
			if len(leaks("level=debug key="+form+" done", [][]byte{append([]byte("in the middle of "), key...)})) == 0 {
				t.Errorf("%q is not found", form)
			}
		}
	})
}

// forms are the ways in which bytes are written.
func forms(b []byte) []string {
	decimal := strings.Trim(fmt.Sprint(b), "[]")
	return []string{
		string(b), hex.EncodeToString(b), strings.ToUpper(hex.EncodeToString(b)),
		base64.StdEncoding.EncodeToString(b), base64.RawURLEncoding.EncodeToString(b), decimal, strings.ReplaceAll(decimal, " ", ", "),
	}
}

var (
	digits   = regexp.MustCompile(`[0-9a-fA-F]{24,}`)
	base     = regexp.MustCompile(`[A-Za-z0-9+/_-]{16,}`)
	decimals = regexp.MustCompile(`\d{1,3}(?:,? \d{1,3}){11,}`)
)

// leaks returns what stands in a text and holds 12 bytes of a secret, in any of
// the forms.
func leaks(text string, secrets [][]byte) (found []string) {
	all := bytes.Join(secrets, []byte("|"))
	holds := func(b []byte) bool {
		for i := 0; i+12 <= len(b); i++ {
			if bytes.Contains(all, b[i:i+12]) {
				return true
			}
		}
		return false
	}
	for _, token := range digits.FindAllString(text, -1) {
		if b, err := hex.DecodeString(token[:len(token)&^1]); err == nil && holds(b) {
			found = append(found, token)
		}
	}
	for _, token := range base.FindAllString(text, -1) {
		token = strings.NewReplacer("-", "+", "_", "/").Replace(token)
		for shift := range 4 {
			if len(token) < shift+16 {
				continue
			}
			cut := token[shift:]
			if b, err := base64.RawStdEncoding.DecodeString(cut[:len(cut)&^3]); err == nil && holds(b) {
				found = append(found, token)
				break
			}
		}
	}
	for _, token := range decimals.FindAllString(text, -1) {
		var b []byte
		for _, n := range strings.Fields(strings.ReplaceAll(token, ",", " ")) {
			var x int
			if _, err := fmt.Sscan(n, &x); err == nil {
				b = append(b, byte(x))
			}
		}
		if holds(b) {
			found = append(found, token)
		}
	}
	for i := 0; i+12 <= len(all); i += 4 {
		if strings.Contains(text, string(all[i:i+12])) {
			found = append(found, "raw bytes")
			break
		}
	}
	return found
}

// secrets returns what the victim's store holds that is nobody's business.
func (s *stage) secrets() (secrets [][]byte) {
	s.t.Helper()
	ctx := context.Background()
	state, err := s.store.Store.Load(ctx)
	ok(s.t, err)
	secrets = append(secrets, bytes.ReplaceAll(state.Account, []byte(juliet), nil)) // whose it is is no secret
	for _, v := range omemo.Versions() {
		rows, err := s.store.Store.PreKeys(ctx, v)
		ok(s.t, err)
		for _, r := range rows {
			secrets = append(secrets, bytes.Clone(r.Private[:]))
		}
	}
	f, err := s.om.Manager().Fingerprint(ctx)
	ok(s.t, err)
	public := [][]byte{f[:]}
	s.store.mu.Lock()
	peers := keysOf(s.store.peers)
	s.store.mu.Unlock()
	rows, err := s.store.Store.Sessions(ctx, peers)
	ok(s.t, err)
	accounts, err := s.store.Store.Accounts(ctx)
	ok(s.t, err)
	for _, d := range accounts.Devices {
		public = append(public, bytes.Clone(d.Identity[:]), bytes.Clone(d.Fingerprint[:]))
	}
	for _, r := range rows {
		record := bytes.Clone(r.Record)
		for _, p := range public { // identity keys are shown on purpose
			record = bytes.ReplaceAll(record, p, nil)
		}
		secrets = append(secrets, record)
	}
	return secrets
}

// f18 counts the modules that the project depends on directly.
func f18(t *testing.T) {
	b, err := os.ReadFile(filepath.Join("..", "..", "..", "go.mod"))
	ok(t, err)
	direct := 0
	for line := range strings.Lines(string(b)) {
		fields := strings.Fields(strings.TrimPrefix(line, "require "))
		if len(fields) >= 2 && strings.HasPrefix(fields[1], "v") && strings.Contains(fields[0], ".") && !strings.Contains(line, "// indirect") {
			direct++
		}
		if strings.HasPrefix(line, "replace ") {
			t.Errorf("%s", line)
		}
	}
	if direct > 9 || direct == 0 {
		t.Errorf("%d direct dependencies, at most 9 are wanted", direct)
	}
	sums, err := os.ReadFile(filepath.Join("..", "..", "..", "go.sum"))
	ok(t, err)
	if len(sums) == 0 {
		t.Error("no checksums")
	}
	cases.Add(1)
}
