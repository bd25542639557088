package sqlite_test

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"example.org/omellium/omemo"
	"example.org/omellium/omemo/sqlstore"
)

// testKey returns a provider of a fixed key.
func testKey(b byte) sqlstore.KeyProvider {
	return sqlstore.KeyFunc(func(context.Context) ([]byte, error) { return bytes.Repeat([]byte{b}, 32), nil })
}

// keyFile writes a file and returns a provider that reads it.
func keyFile(t *testing.T, content string, mode os.FileMode) sqlstore.KeyProvider {
	t.Helper()
	path := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(path, []byte(content), mode); err != nil {
		t.Fatal(err)
	}
	return sqlstore.KeyFile(path)
}

// TestKeys opens accounts that were created with one key, or none, with another.
func TestKeys(t *testing.T) {
	broken := errors.New("vault is closed")
	digits := strings.Repeat("ab", 32)
	for _, test := range []struct {
		name    string
		created sqlstore.KeyProvider
		opened  sqlstore.KeyProvider
		want    error
	}{
		{"none", nil, nil, nil},
		{"key", testKey(1), testKey(1), nil},
		{"passphrase", sqlstore.Passphrase("correct horse"), sqlstore.Passphrase("correct horse"), nil},
		{"file", keyFile(t, digits+"\n", 0o600), keyFile(t, digits, 0o400), nil},
		{"file of bytes", keyFile(t, strings.Repeat("k", 32), 0o600), testKey('k'), nil},
		{"no key", testKey(1), nil, sqlstore.ErrSealed},
		{"not sealed", nil, testKey(1), sqlstore.ErrNotSealed},
		{"wrong key", testKey(1), testKey(2), sqlstore.ErrWrongKey},
		{"wrong passphrase", sqlstore.Passphrase("correct horse"), sqlstore.Passphrase("battery staple"), sqlstore.ErrWrongKey},
		{"passphrase for key", testKey(1), sqlstore.Passphrase("correct horse"), sqlstore.ErrWrongKey},
		{"key for passphrase", sqlstore.Passphrase("correct horse"), testKey(1), sqlstore.ErrWrongKey},
		{"broken", testKey(1), sqlstore.KeyFunc(func(context.Context) ([]byte, error) { return nil, broken }), broken},
	} {
		t.Run(test.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "store.db")
			s := open(t, path, account, sqlstore.WithKey(test.created))
			commit(t, s, &omemo.Changes{Account: []byte("record")})
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			s, err := try(t, path, account, sqlstore.WithKey(test.opened))
			if !errors.Is(err, test.want) {
				t.Errorf("got %v, want %v", err, test.want)
			}
			if err != nil {
				s = open(t, path, account, sqlstore.WithKey(test.created)) // not kept locked
			}
			defer s.Close()
			if state, err := s.Load(t.Context()); err != nil || string(state.Account) != "record" {
				t.Errorf("got %q, %v", state.Account, err)
			}
		})
	}
}

// TestRefusedKeys: accounts are not created with keys that cannot be had.
func TestRefusedKeys(t *testing.T) {
	for name, key := range map[string]sqlstore.KeyProvider{
		"short":      sqlstore.KeyFunc(func(context.Context) ([]byte, error) { return make([]byte, 16), nil }),
		"no file":    sqlstore.KeyFile(filepath.Join(t.TempDir(), "none")),
		"short file": keyFile(t, "short", 0o600),
		"long file":  keyFile(t, strings.Repeat("a", 200), 0o600),
		"readable":   keyFile(t, strings.Repeat("a", 32), 0o644),
		"directory":  sqlstore.KeyFile(t.TempDir()),
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "store.db")
			if _, err := try(t, path, account, sqlstore.WithKey(key)); err == nil {
				t.Fatal("the key was accepted")
			}
			open(t, path, account) // nothing was created
		})
	}
}

func TestRewrap(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store.db")
	s := open(t, path, account, sqlstore.WithKey(testKey(1)))
	commit(t, s, &omemo.Changes{Account: []byte("record")})
	if err := s.Rewrap(t.Context(), testKey(2)); err != nil {
		t.Fatal(err)
	}
	commit(t, s, &omemo.Changes{Inbox: []omemo.InboxRow{{Seq: 1, Stanza: []byte("<message/>")}}})
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := s.Rewrap(t.Context(), testKey(3)); !errors.Is(err, omemo.ErrClosed) {
		t.Errorf("closed: got %v", err)
	}
	if _, err := try(t, path, account, sqlstore.WithKey(testKey(1))); !errors.Is(err, sqlstore.ErrWrongKey) {
		t.Errorf("the old key: got %v, want sqlstore.ErrWrongKey", err)
	}
	s = open(t, path, account, sqlstore.WithKey(testKey(2)))
	if rows, err := s.Inbox(t.Context(), 0, 9); err != nil || len(rows) != 1 || string(rows[0].Stanza) != "<message/>" {
		t.Errorf("%d rows, %v", len(rows), err)
	}
	if err := open(t, path, "romeo@montague.example").Rewrap(t.Context(), testKey(2)); !errors.Is(err, sqlstore.ErrNotSealed) {
		t.Errorf("not sealed: got %v", err)
	}
}

// TestRewrapInterrupted: a rotation that comes to nothing leaves the former key.
func TestRewrapInterrupted(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store.db")
	s := open(t, path, account, sqlstore.WithKey(testKey(1)))
	commit(t, s, &omemo.Changes{Account: []byte("record")})
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	broken := sqlstore.KeyFunc(func(context.Context) ([]byte, error) { return nil, errors.New("vault is closed") })
	short := sqlstore.KeyFunc(func(context.Context) ([]byte, error) { return make([]byte, 31), nil })
	for name, err := range map[string]error{
		"cancelled": s.Rewrap(cancelled, testKey(2)),
		"broken":    s.Rewrap(t.Context(), broken),
		"short":     s.Rewrap(t.Context(), short),
	} {
		if err == nil {
			t.Errorf("%s: the key was changed", name)
		}
	}
	commit(t, s, &omemo.Changes{Inbox: []omemo.InboxRow{{Seq: 1}}}) // it is still in use
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, path, account, sqlstore.WithKey(testKey(1)))
	if state, err := s.Load(t.Context()); err != nil || string(state.Account) != "record" {
		t.Errorf("got %q, %v", state.Account, err)
	}
}

// secrets are changes with every secret, each with the canary in it.
func secrets(canary string) *omemo.Changes {
	var key [32]byte
	copy(key[:], canary)
	peer := omemo.Peer{Version: omemo.V2, Address: omemo.Address{JID: "romeo@montague.example", Device: 1}}
	other := peer
	other.Device = 2
	return &omemo.Changes{
		Account:  []byte(canary),
		PreKeys:  []omemo.PreKeyRow{{Version: omemo.V2, ID: 1, Private: key}, {Version: omemo.V2, ID: 2, Private: key}},
		Sessions: []omemo.SessionRow{{ID: 1, Peer: peer, Record: []byte(canary)}, {ID: 2, Peer: other, Record: []byte(canary)}},
		Skipped: []omemo.SkippedRow{
			{SkippedID: omemo.SkippedID{Session: 1, N: 1}, Key: key}, {SkippedID: omemo.SkippedID{Session: 1, N: 2}, Key: key},
		},
		Inbox:   []omemo.InboxRow{{Seq: 1, Stanza: []byte(canary)}, {Seq: 2, Stanza: []byte(canary)}},
		Outbox:  []omemo.OutboxRow{{Seq: 1, Stanza: []byte(canary)}, {Seq: 2, Stanza: []byte(canary)}},
		Journal: []omemo.JournalRow{{ID: 1, Stanza: []byte(canary)}, {ID: 2, Stanza: []byte(canary)}},
	}
}

// TestSealed: no secret stands in the files of a sealed account.
func TestSealed(t *testing.T) {
	const canary = "a canary that sings 0123456789abcdef"
	for name, opts := range map[string][]sqlstore.Option{"open": nil, "sealed": {sqlstore.WithKey(testKey(1))}} {
		dir := t.TempDir()
		s := open(t, filepath.Join(dir, "store.db"), account, opts...)
		commit(t, s, secrets(canary))
		if found := scan(t, dir, [][]byte{[]byte(canary)}); (found == 0) != (name == "sealed") {
			t.Errorf("%s: found %d", name, found)
		}
		s.Close()
	}
}

// scan counts the canaries that stand in the files of a directory, as they are
// or in hexadecimal digits.
func scan(t *testing.T, dir string, canaries [][]byte) int {
	t.Helper()
	files, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var all []byte
	for _, f := range files {
		b, err := os.ReadFile(filepath.Join(dir, f.Name()))
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, b...)
	}
	found := 0
	for _, c := range canaries {
		if bytes.Contains(all, c[:16]) || bytes.Contains(all, []byte(hex.EncodeToString(c[:16]))) {
			found++
		}
	}
	return found
}

// readAll reads everything and returns the first error.
func readAll(t *testing.T, s *sqlstore.Store) error {
	t.Helper()
	ctx, c := t.Context(), secrets("")
	_, err := s.Load(ctx)
	errs := []error{err}
	_, err = s.PreKeys(ctx, omemo.V2)
	errs = append(errs, err)
	stray := c.Sessions[0]
	stray.Device = 3
	for _, row := range append(c.Sessions, stray) {
		_, err = s.Sessions(ctx, []omemo.Peer{row.Peer})
		errs = append(errs, err)
	}
	for _, row := range c.Skipped {
		_, err = s.Skipped(ctx, []omemo.SkippedID{row.SkippedID})
		errs = append(errs, err)
	}
	_, err = s.Inbox(ctx, 0, 9)
	errs = append(errs, err)
	_, err = s.Outbox(ctx, 0, 9)
	errs = append(errs, err)
	_, err = s.Journal(ctx, omemo.Address{})
	return errors.Join(append(errs, err)...)
}

// TestTampered: secrets that were swapped, moved, changed, or put back into an
// older state are noticed when the account is opened, or when they are read.
func TestTampered(t *testing.T) {
	swap := func(table, key, column string) string {
		return fmt.Sprintf(`UPDATE omemo_%[1]s SET %[3]s = (SELECT o.%[3]s FROM omemo_%[1]s o WHERE o.%[2]s = 3 - omemo_%[1]s.%[2]s)`, table, key, column)
	}
	for name, statement := range map[string]string{
		"pre keys swapped":      swap("pre_key", "id", "private"),
		"sessions swapped":      swap("session", "id", "record"),
		"skipped keys swapped":  swap("skipped", "n", "secret"),
		"inbox swapped":         swap("inbox", "seq", "stanza"),
		"outbox swapped":        swap("outbox", "seq", "stanza"),
		"journal swapped":       swap("journal", "id", "stanza"),
		"session of another":    `UPDATE omemo_session SET device = 3 WHERE id = 1`,
		"session archived":      `UPDATE omemo_session SET archived = 1 WHERE id = 1`,
		"session removed":       `DELETE FROM omemo_session WHERE id = 1`,
		"session put back":      `UPDATE omemo_session SET record = (SELECT record FROM old WHERE id = 1), written = (SELECT written FROM old WHERE id = 1) WHERE id = 1`,
		"half put back":         `UPDATE omemo_session SET record = (SELECT record FROM old WHERE id = 1) WHERE id = 1`,
		"session written later": `UPDATE omemo_session SET written = written + 1`,
		"record written later":  `UPDATE omemo_account SET written = written + 1`,
		"commits put back":      `UPDATE omemo_account SET commits = commits - 1`,
		"digest removed":        `UPDATE omemo_account SET digest = NULL`,
		"secret cut off":        `UPDATE omemo_session SET record = x'0102'`,
		"record of the session": `UPDATE omemo_account SET record = (SELECT record FROM omemo_session WHERE id = 1)`,
		"another store":         `UPDATE omemo_account SET store = x'00112233445566778899aabbccddeeff'`,
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "store.db")
			sealed := sqlstore.WithKey(testKey(1))
			s := open(t, path, account, sealed)
			commit(t, s, secrets("old"))
			db := raw(t, path)
			execute(t, db, `CREATE TABLE old AS SELECT * FROM omemo_session`)
			commit(t, s, secrets("new"))
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			execute(t, db, statement)
			s, err := try(t, path, account, sealed)
			if err == nil {
				err = readAll(t, s)
				s.Close()
			}
			if !errors.Is(err, sqlstore.ErrTampered) && !errors.Is(err, sqlstore.ErrWrongKey) {
				t.Errorf("got %v", err)
			}
		})
	}
	t.Run("untouched", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "store.db")
		sealed := sqlstore.WithKey(testKey(1))
		s := open(t, path, account, sealed)
		for _, canary := range []string{"old", "new"} {
			commit(t, s, secrets(canary))
		}
		commit(t, s, &omemo.Changes{DropSessions: []uint64{2}})
		for range 3 {
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			s = open(t, path, account, sealed)
			if err := readAll(t, s); err != nil {
				t.Error(err)
			}
		}
	})
	t.Run("put back while open", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "store.db")
		s := open(t, path, account, sqlstore.WithKey(testKey(1)))
		commit(t, s, secrets("old"))
		db := raw(t, path)
		execute(t, db, `CREATE TABLE old AS SELECT * FROM omemo_session`)
		commit(t, s, secrets("new"))
		execute(t, db, `DELETE FROM omemo_session`, `INSERT INTO omemo_session SELECT * FROM old`)
		if err := readAll(t, s); !errors.Is(err, sqlstore.ErrTampered) {
			t.Errorf("got %v, want sqlstore.ErrTampered", err)
		}
	})
}

// TestDamaged: rows that cannot be read are errors, not panics.
func TestDamaged(t *testing.T) {
	for _, statement := range []string{
		`UPDATE omemo_pre_key SET private = x'01'`,
		`UPDATE omemo_pre_key SET id = id + 5000000000`,
		`UPDATE omemo_session SET archived = -1`,
		`UPDATE omemo_skipped SET secret = x''`,
		`UPDATE omemo_inbox SET dead = 2`,
		`UPDATE omemo_inbox SET attempts = 'many'`,
		`UPDATE omemo_outbox SET devices = x'ff'`,
		`UPDATE omemo_outbox SET devices = x'0101ff'`,
		`UPDATE omemo_outbox SET devices = x'0101ffffffffffffffffff01'`,
		`UPDATE omemo_journal SET device = 5000000000`,
	} {
		path := filepath.Join(t.TempDir(), "store.db")
		s := open(t, path, account)
		commit(t, s, secrets("record"))
		execute(t, raw(t, path), statement)
		if err := readAll(t, s); !errors.Is(err, omemo.ErrCorrupt) {
			t.Errorf("%s: got %v, want omemo.ErrCorrupt", statement, err)
		}
		s.Close()
	}
}

// TestRedacted: a passphrase is not printed.
func TestRedacted(t *testing.T) {
	const phrase = "correct horse"
	key := sqlstore.Passphrase(phrase)
	var b bytes.Buffer
	slog.New(slog.NewTextHandler(&b, nil)).Info("key", "key", key)
	slog.New(slog.NewJSONHandler(&b, nil)).Info("key", "key", key)
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		fmt.Fprintf(&b, verb+"\n", key)
	}
	if strings.Contains(b.String(), phrase) || strings.Contains(b.String(), fmt.Sprintf("%x", phrase)) || strings.Contains(b.String(), "99 111") {
		t.Errorf("printed: %s", b.String())
	}
}
