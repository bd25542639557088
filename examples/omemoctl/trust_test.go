package main

import (
	"bytes"
	"encoding/json"
	"image/png"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"example.org/omellium/omemo"
	"example.org/omellium/omemo/memstore"
	"example.org/omellium/omemo/verify"
)

// keysOf returns what trust list says.
func (s *site) keysOf(accounts ...string) map[string]trustRow {
	s.t.Helper()
	code, out := s.run(append([]string{"-json", "trust", "list"}, accounts...)...)
	var rows []trustRow
	ok(s.t, json.Unmarshal([]byte(out), &rows))
	if code != exitOK {
		s.t.Fatalf("list: exit code %d", code)
	}
	found := make(map[string]trustRow)
	for _, r := range rows {
		found[r.Fingerprint] = r
	}
	return found
}

// meets has the store learn of a device of an account.
func (s *site) meets(account string) omemo.Fingerprint {
	s.t.Helper()
	f, _ := s.presents(account, 0)
	return f
}

// presents has the store learn of a new key of a device, or of a new device if id
// is 0.
func (s *site) presents(account string, id omemo.DeviceID) (omemo.Fingerprint, omemo.DeviceID) {
	s.t.Helper()
	other, err := omemo.NewManager(s.t.Context(), memstore.New(account), omemo.Options{})
	ok(s.t, err)
	b, err := other.Bundle(s.t.Context(), omemo.V2)
	ok(s.t, err)
	if id != 0 {
		b.Owner.Device = id
	}
	s.between(func(m *omemo.Manager) {
		_, err := m.Compare(s.t.Context(), b)
		ok(s.t, err)
	})
	f, err := other.Fingerprint(s.t.Context())
	ok(s.t, err)
	return f, b.Owner.Device
}

func TestTrustCommands(t *testing.T) {
	s := newSite(t)
	s.bot()
	one, two, own, nurse := s.meets(juliet), s.meets(juliet), s.meets(romeo), s.meets("nurse@example.net")
	check := func(want map[omemo.Fingerprint]omemo.Trust) {
		t.Helper()
		rows := s.keysOf()
		if len(rows) != len(want) {
			t.Errorf("%d keys, want %d", len(rows), len(want))
		}
		for f, trust := range want {
			if r := rows[f.String()]; r.Trust != trust.String() || len(r.Devices) > 1 || r.Own != (f == own) {
				t.Errorf("%+v, want %v", r, trust)
			}
		}
	}
	un, ve, di := omemo.Undecided, omemo.Verified, omemo.Distrusted
	check(map[omemo.Fingerprint]omemo.Trust{one: un, two: un, own: un, nurse: un})
	if rows := s.keysOf(juliet); len(rows) != 2 {
		t.Errorf("%d keys of one account", len(rows))
	}
	must := func(args ...string) string {
		t.Helper()
		code, out := s.run(args...)
		if code != exitOK {
			t.Errorf("%q: exit code %d", args, code)
		}
		return out
	}
	must("trust", "verify", juliet, one.String())
	must("trust", "distrust", juliet, strings.ReplaceAll(two.String(), " ", ""))
	check(map[omemo.Fingerprint]omemo.Trust{one: ve, two: di, own: un, nurse: un})
	// Decisions stand; only what is undecided is decided about.
	if out := must("trust", "decide", juliet, "verified"); strings.Contains(out, two.String()) {
		t.Errorf("decided once more: %s", out)
	}
	must("trust", "reset", juliet, two.String())
	if out := must("-json", "trust", "decide", "distrusted"); !strings.Contains(out, nurse.String()) || strings.Contains(out, one.String()) {
		t.Errorf("%s", out)
	}
	check(map[omemo.Fingerprint]omemo.Trust{one: ve, two: di, own: di, nurse: di})

	// By URI: exactly what it names.
	unknown := omemo.Fingerprint(bytes.Repeat([]byte{9}, 32))
	row := s.keysOf(juliet)[two.String()]
	u := "xmpp:" + juliet + "?omemo-sid-" + decimal(row.Devices[0]) + "=" + strings.ReplaceAll(two.String(), " ", "") +
		";omemo-sid-77=" + strings.ReplaceAll(unknown.String(), " ", "")
	must("trust", "verify", u)
	check(map[omemo.Fingerprint]omemo.Trust{one: ve, two: ve, unknown: ve, own: di, nurse: di})
	if code, _ := s.run("trust", "verify", strings.ReplaceAll(u, strings.ReplaceAll(two.String(), " ", ""), strings.Repeat("07", 32))); code != exitError {
		t.Errorf("another key for a known device: exit code %d", code)
	}
	check(map[omemo.Fingerprint]omemo.Trust{one: ve, two: ve, unknown: ve, own: di, nurse: di})
}

// TestTrustAccept: a key that a device presents in place of the known one is shown,
// is taken over by its fingerprint alone, and is not decided about by that.
func TestTrustAccept(t *testing.T) {
	s := newSite(t)
	s.bot()
	known, id := s.presents(juliet, 0)
	changed, _ := s.presents(juliet, id)
	stays := func() {
		t.Helper()
		rows := s.keysOf(juliet)
		if r := rows[known.String()]; len(r.Devices) != 1 || r.Changed {
			t.Errorf("the key in use: %+v", r)
		}
		if r := rows[changed.String()]; len(r.Devices) != 1 || r.Active || !r.Changed {
			t.Errorf("the other key: %+v", r)
		}
	}
	stays()
	if _, out := s.run("trust", "list"); !regexp.MustCompile(`changed +undecided .*` + changed.String()).MatchString(out) {
		t.Errorf("not shown: %s", out)
	}
	for _, args := range [][]string{
		{juliet}, {juliet, "all"}, {juliet, known.String()}, {juliet, strings.Repeat("07", 32)}, {"nurse@example.net", changed.String()}, {"-tell", juliet, changed.String()},
	} {
		if code, _ := s.run(append([]string{"trust", "accept"}, args...)...); code != exitError {
			t.Errorf("%q: exit code %d", args, code)
		}
		stays()
	}
	// All that nobody has decided about: that is the key in use alone.
	if _, out := s.run("trust", "decide", "distrusted"); strings.Contains(out, changed.String()) || !strings.Contains(out, known.String()) {
		t.Errorf("decided about a key that is not accepted: %s", out)
	}
	if code, _ := s.run(append([]string{"trust", "accept", juliet}, strings.Fields(changed.String())...)...); code != exitOK {
		t.Errorf("exit code %d", code)
	}
	rows := s.keysOf(juliet)
	if r := rows[changed.String()]; r.Changed || len(r.Devices) != 1 || r.Trust != omemo.Undecided.String() {
		t.Errorf("accepted: %+v", r)
	}
	if r := rows[known.String()]; len(r.Devices) != 0 || r.Trust != omemo.Distrusted.String() {
		t.Errorf("what was decided about the key before: %+v", r)
	}
	if code, _ := s.run("trust", "accept", juliet, changed.String()); code != exitError {
		t.Errorf("accepted twice: exit code %d", code)
	}
}

func TestTrustIsTold(t *testing.T) {
	s := newSite(t)
	s.bot()
	contact := s.contact()
	if code, _ := s.run("send", juliet, "hello"); code != exitOK {
		t.Fatalf("send: exit code %d", code)
	}
	f, err := contact.Manager().Fingerprint(t.Context())
	ok(t, err)
	if code, _ := s.run("trust", "verify", "-tell", juliet, f.String()); code != exitOK {
		t.Errorf("exit code %d", code)
	}
	if r := s.keysOf(juliet)[f.String()]; r.Trust != omemo.Verified.String() {
		t.Errorf("%+v", r)
	}
}

func TestQR(t *testing.T) {
	s := newSite(t)
	own := s.bot()
	code, out := s.run("-json", "qr")
	var rows []struct{ URI string }
	ok(t, json.Unmarshal([]byte(out), &rows))
	u, err := verify.ParseURI(rows[0].URI)
	if err != nil || code != exitOK || u.Account.String() != romeo || len(u.Devices) != 1 || u.Devices[0].ID != own.Device {
		t.Errorf("%s: %+v, %v", out, u, err)
	}
	if code, out := s.run("qr"); code != exitOK || !strings.Contains(out, "▀") || !strings.Contains(out, rows[0].URI) {
		t.Errorf("exit code %d: %s", code, out)
	}
	file := filepath.Join(t.TempDir(), "code.png")
	if code, _ := s.run("qr", "-png", file); code != exitOK {
		t.Errorf("exit code %d", code)
	}
	b, err := os.ReadFile(file)
	ok(t, err)
	if _, err := png.Decode(bytes.NewReader(b)); err != nil {
		t.Error(err)
	}
}
