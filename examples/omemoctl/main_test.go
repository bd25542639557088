package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"example.org/omellium/devicelist"
	"example.org/omellium/middleware"
	"example.org/omellium/middleware/xmpptest"
	"example.org/omellium/omemo"
	"example.org/omellium/omemo/memstore"
	"example.org/omellium/omemo/sqlstore"
	"example.org/omellium/omemo/sqlstore/sqlite"
)

const juliet = "juliet@example.net"

// site is a server with TLS, a file of authorities and a store.
type site struct {
	t    *testing.T
	srv  *xmpptest.Server
	addr string
	ca   string
	db   string
	said string // on standard error, last
}

func newSite(t *testing.T) *site {
	t.Helper()
	dir := t.TempDir()
	s := &site{t: t, ca: filepath.Join(dir, "ca.pem"), db: filepath.Join(dir, "bot.db")}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	ok(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: []string{"example.net"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	ok(t, err)
	ok(t, os.WriteFile(s.ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600))
	s.srv, err = xmpptest.NewServer(xmpptest.TLS(&tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}))
	ok(t, err)
	t.Cleanup(func() { s.srv.Close() })
	ok(t, s.srv.AddAccount(romeo, "secret"))
	ok(t, s.srv.AddAccount(juliet, "secret"))
	s.addr, err = s.srv.Addr()
	ok(t, err)
	t.Setenv(passwordVariable, "secret")
	return s
}

// run runs the command and returns its exit code and what it has printed.
func (s *site) run(args ...string) (int, string) {
	s.t.Helper()
	return s.pipe("", args...)
}

func (s *site) pipe(in string, args ...string) (int, string) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), time.Minute)
	defer cancel()
	var out, errs bytes.Buffer
	code := run(ctx, append([]string{"-jid", romeo, "-db", s.db, "-addr", s.addr, "-ca", s.ca}, args...), strings.NewReader(in), &out, &errs)
	s.said = errs.String()
	s.t.Logf("%v: %d\n%s%s", args, code, &out, &errs)
	return code, out.String()
}

// between opens the store, which is made if there is none, while no program has it.
func (s *site) between(do func(m *omemo.Manager)) {
	s.t.Helper()
	store, err := sqlite.Open(s.t.Context(), s.db, romeo)
	ok(s.t, err)
	defer func() { ok(s.t, store.Close()) }()
	m, err := omemo.NewManager(s.t.Context(), store, omemo.Options{})
	ok(s.t, err)
	do(m)
}

// bot has the store made by a program that is stopped again, and returns the device.
func (s *site) bot() (own omemo.Address) {
	s.t.Helper()
	s.between(func(m *omemo.Manager) {
		var err error
		own, err = m.Device(s.t.Context())
		ok(s.t, err)
	})
	return own
}

// contact is a program that reads what is sent to it, until the test ends.
func (s *site) contact() *middleware.Middleware {
	s.t.Helper()
	om, err := middleware.New(s.t.Context(), middleware.Config{Store: memstore.New(juliet), AnswerStrangers: true})
	ok(s.t, err)
	session, err := s.srv.Client(s.t.Context(), juliet, "secret")
	ok(s.t, err)
	session, err = om.Wrap(s.t.Context(), session)
	ok(s.t, err)
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = session.Serve(nil)
	}()
	s.t.Cleanup(func() {
		om.Close()
		<-served
	})
	return om
}

func TestWrongUse(t *testing.T) {
	s := newSite(t)
	s.bot()
	for _, args := range [][]string{
		{}, {"dance"}, {"devices", "a", "b"}, {"devices", "@"}, {"trust"}, {"trust", "verify"}, {"trust", "verify", juliet, "abc"}, {"trust", "verify", "xmpp:" + juliet},
		{"trust", "perhaps", juliet, strings.Repeat("ab", 32)}, {"trust", "distrust", juliet}, {"trust", "decide"}, {"trust", "decide", "perhaps"},
		{"trust", "decide", juliet, juliet, "verified"}, {"trust", "list", "a", "b"}, {"trust", "list", "@"}, {"trust", "verify", "-x"}, {"qr", "x"}, {"replace"}, {"replace", juliet, "x"}, {"purge"}, {"purge", "version", "omemo:3"},
		{"prune", "-older", "1h"}, {"send", juliet}, {"doctor", "now"}, {"import"}, {"import", "x"}, {"export", "x"}, {"fingerprint", "x"}, {"rotate", "x"},
		{"doctor", "-anew"}, {"purge", "device", "0"}, {"replace", juliet, "0"}, {"-key", "nowhere", "devices"}, {"-nothing"},
	} {
		if code, _ := s.run(args...); code != exitError {
			t.Errorf("%q: exit code %d", args, code)
		}
	}
	s.db = filepath.Join(t.TempDir(), "none.db")
	if code, _ := s.run("devices"); code != exitError {
		t.Errorf("no store: exit code %d", code)
	}
	if _, err := os.Stat(s.db); err == nil {
		t.Error("a store was made by looking for one")
	}
	t.Setenv(passwordVariable, "")
	if code, _ := s.run("doctor"); code != exitError {
		t.Errorf("no password: exit code %d", code)
	}
}

func TestDoctorCommand(t *testing.T) {
	s := newSite(t)
	s.bot() // never connected: nothing is published
	if code, out := s.run("doctor"); code != exitFaults || !strings.Contains(out, "own device on the list") || !strings.Contains(out, "fault") {
		t.Errorf("exit code %d", code)
	}
	if code, out := s.run("doctor", "-fix"); code != exitOK || !strings.Contains(out, "fixed") {
		t.Errorf("exit code %d", code)
	}
	code, out := s.run("-json", "doctor")
	var findings []finding
	ok(t, json.Unmarshal([]byte(out), &findings))
	if code != exitOK || len(findings) < 10 {
		t.Errorf("exit code %d, %d findings", code, len(findings))
	}
}

func TestTalkAndLook(t *testing.T) {
	s := newSite(t)
	own := s.bot()
	contact := s.contact()
	if code, out := s.run("send", juliet, "wherefore", "canary"); code != exitOK || !strings.Contains(out, "done") {
		t.Fatalf("send: exit code %d", code)
	}
	for _, st := range s.srv.Wire() {
		if bytes.Contains(st.XML, []byte("canary")) {
			t.Fatalf("on the wire: %s", st.XML)
		}
	}
	theirs, err := contact.Manager().Device(t.Context())
	ok(t, err)
	f, err := contact.Manager().Fingerprint(t.Context())
	ok(t, err)
	_, out := s.run("-json", "devices", juliet)
	var rows []deviceRow
	ok(t, json.Unmarshal([]byte(out), &rows))
	if len(rows) == 0 || rows[0].Device != uint32(theirs.Device) || !strings.Contains(out, f.String()) || !strings.Contains(out, "trusted blindly") {
		t.Errorf("devices: %+v", rows)
	}
	if code, out := s.run("devices"); code != exitOK || !strings.Contains(out, decimal(uint32(own.Device))) || !strings.Contains(out, "ourselves") {
		t.Errorf("own devices: exit code %d", code)
	}
	if code, out := s.run("fingerprint"); code != exitOK || !strings.Contains(out, decimal(uint32(own.Device))) {
		t.Errorf("fingerprint: exit code %d", code)
	}
	groups := append([]string{juliet}, strings.Fields(f.String())...)
	if code, _ := s.run(append([]string{"trust", "distrust"}, groups...)...); code != exitOK {
		t.Errorf("trust: exit code %d", code)
	}
	if code, _ := s.run("send", juliet, "no"); code == exitOK {
		t.Error("sent to a distrusted device")
	}
	if code, out := s.run("replace", juliet); code != exitFaults || !strings.Contains(out, "trusted") {
		t.Errorf("replace: exit code %d", code)
	}
	if code, _ := s.run(append([]string{"trust", "verify"}, groups...)...); code != exitOK {
		t.Errorf("trust: exit code %d", code)
	}
	if code, _ := s.run("replace", juliet, decimal(uint32(theirs.Device))); code != exitOK {
		t.Errorf("replace: exit code %d", code)
	}
	if code, _ := s.run("send", juliet, "again"); code != exitOK {
		t.Errorf("send: exit code %d", code)
	}
	if code, _ := s.run("purge", "contact", juliet); code != exitOK {
		t.Errorf("purge: exit code %d", code)
	}
	if _, out := s.run("-json", "devices", juliet); strings.TrimSpace(out) != "[]" {
		t.Errorf("left: %s", out)
	}
}

func TestRotateAndPurge(t *testing.T) {
	s := newSite(t)
	own := s.bot()
	if code, _ := s.run("rotate"); code != exitOK {
		t.Fatalf("rotate: exit code %d", code)
	}
	items, err := s.srv.Items(romeo, "urn:xmpp:omemo:2:bundles")
	ok(t, err)
	if len(items) != 1 || !bytes.Contains(items[0].Payload, []byte(`spk id="2"`)) && !bytes.Contains(items[0].Payload, []byte(`spk id='2'`)) {
		t.Errorf("bundle: %.200s", items[0].Payload)
	}
	if code, _ := s.run("prune", "-older", "720h", "-dry"); code != exitOK {
		t.Errorf("prune: exit code %d", code)
	}
	if code, _ := s.run("purge", "version", "omemo:2"); code != exitOK {
		t.Errorf("purge version: exit code %d", code)
	}
	if items, err := s.srv.Items(romeo, devicelist.NodeV2); err != nil || len(items) != 0 {
		t.Errorf("list: %v, %v", items, err)
	}
	if code, _ := s.run("purge", "device", decimal(uint32(own.Device))); code != exitError {
		t.Errorf("purge our own device: exit code %d", code)
	}
	if code, _ := s.run("purge", "account"); code != exitOK {
		t.Errorf("purge account: exit code %d", code)
	}
	for _, node := range []string{devicelist.NodeV2, devicelist.NodeLegacy, "urn:xmpp:omemo:2:bundles"} {
		if items, err := s.srv.Items(romeo, node); err != nil || len(items) != 0 {
			t.Errorf("%s: %v, %v", node, items, err)
		}
	}
	if s.bot() == own {
		t.Error("the store still holds the device")
	}
}

func TestExportAndImport(t *testing.T) {
	s := newSite(t)
	own := s.bot()
	code, data := s.run("export")
	if code != exitOK {
		t.Fatalf("export: exit code %d", code)
	}
	if code, _ := s.pipe(data, "import"); code != exitError {
		t.Errorf("import over an account: exit code %d", code)
	}
	s.db = filepath.Join(t.TempDir(), "moved.db")
	if code, _ := s.pipe(data, "import"); code != exitOK {
		t.Fatalf("import: exit code %d", code)
	}
	if got := s.bot(); got != own {
		t.Errorf("imported %v, exported %v", got, own)
	}
}

// For scripts: every command prints JSON or nothing.
func TestJSON(t *testing.T) {
	s := newSite(t)
	own := s.bot()
	contact := s.contact()
	theirs, err := contact.Manager().Device(t.Context())
	ok(t, err)
	f, err := contact.Manager().Fingerprint(t.Context())
	ok(t, err)
	for _, c := range []struct {
		args  []string
		code  int
		holds string
	}{
		{[]string{"doctor"}, exitFaults, `"state": "fault"`},
		{[]string{"doctor", "-fix"}, exitOK, `"state": "fixed"`},
		{[]string{"devices"}, exitOK, "["},
		{[]string{"devices", "nobody@example.net"}, exitOK, "[]"},
		{[]string{"fingerprint"}, exitOK, decimal(uint32(own.Device))},
		{[]string{"send", juliet, "canary"}, exitOK, decimal(uint32(theirs.Device))},
		{[]string{"send", "nobody@example.net", "canary"}, exitError, ""},
		{[]string{"devices"}, exitOK, `"own": true`},
		{[]string{"trust", "verify", juliet, f.String()}, exitOK, `"verified"`},
		{[]string{"replace", juliet}, exitOK, `"trust": "verified"`},
		{[]string{"trust", "distrust", juliet, f.String()}, exitOK, `"distrusted"`},
		{[]string{"replace", juliet}, exitFaults, `"error"`},
		{[]string{"rotate"}, exitOK, ""},
		{[]string{"prune", "-dry"}, exitOK, "[]"},
		{[]string{"export"}, exitOK, "{"},
		{[]string{"purge", "contact", juliet}, exitOK, ""},
		{[]string{"purge", "device", "7"}, exitOK, ""},
		{[]string{"purge", "version", "legacy"}, exitOK, ""},
		{[]string{"purge", "account"}, exitOK, ""},
	} {
		code, out := s.run(append([]string{"-json"}, c.args...)...)
		if code != c.code || !strings.Contains(out, c.holds) || out != "" && !json.Valid([]byte(out)) || code == exitOK && c.holds == "" && out != "" {
			t.Errorf("%q: exit code %d, want %d; %s", c.args, code, c.code, out)
		}
	}
}

// The store of a program that runs is left alone.
func TestStoreInUse(t *testing.T) {
	s := newSite(t)
	s.bot()
	store, err := sqlite.Open(t.Context(), s.db, romeo)
	ok(t, err)
	defer store.Close()
	for command := range commands {
		if code, out := s.run(command); code != exitError || out != "" || !strings.Contains(s.said, omemo.ErrLocked.Error()+": stop the program first") {
			t.Errorf("%s: exit code %d, %s%s", command, code, out, s.said)
		}
	}
}

// A sealed account is opened by those who have its key.
func TestSealedStore(t *testing.T) {
	dir := t.TempDir()
	key := filepath.Join(dir, "key")
	ok(t, os.WriteFile(key, bytes.Repeat([]byte{7}, 32), 0o600))
	other := filepath.Join(dir, "other")
	ok(t, os.WriteFile(other, bytes.Repeat([]byte{8}, 32), 0o600))
	for _, c := range []struct {
		name     string
		provider sqlstore.KeyProvider
		key      string
		phrase   string
		code     int
	}{
		{"key", sqlstore.KeyFile(key), key, "", exitOK},
		{"passphrase", sqlstore.Passphrase("canary"), "", "canary", exitOK},
		{"no key", sqlstore.KeyFile(key), "", "", exitError},
		{"another key", sqlstore.KeyFile(key), other, "", exitError},
		{"another passphrase", sqlstore.Passphrase("canary"), "", "bird", exitError},
		{"both", sqlstore.KeyFile(key), key, "canary", exitError},
		{"not sealed", nil, key, "", exitError},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newSite(t)
			var opts []sqlstore.Option
			if c.provider != nil {
				opts = append(opts, sqlstore.WithKey(c.provider))
			}
			store, err := sqlite.Open(t.Context(), s.db, romeo, opts...)
			ok(t, err)
			_, err = omemo.NewManager(t.Context(), store, omemo.Options{})
			ok(t, err)
			ok(t, store.Close())
			t.Setenv(passphraseVariable, c.phrase)
			if code, _ := s.run("-key", c.key, "fingerprint"); code != c.code || strings.Contains(s.said, "canary") || (code != exitOK) != (s.said != "") {
				t.Errorf("exit code %d, %s", code, s.said)
			}
		})
	}
}

// What is wrong with a database is said without its password.
func TestPostgresThatIsNotThere(t *testing.T) {
	s := newSite(t)
	s.db = "postgres://bot:canary@127.0.0.1:1/bots?connect_timeout=1"
	if code, out := s.run("devices"); code != exitError || out != "" || s.said == "" || strings.Contains(s.said, "canary") {
		t.Errorf("exit code %d, %s%s", code, out, s.said)
	}
}

// A message that nobody got is an error, which is told beside what became of each
// device.
func TestNobodyGotIt(t *testing.T) {
	s := newSite(t)
	s.bot()
	contact := s.contact()
	f, err := contact.Manager().Fingerprint(t.Context())
	ok(t, err)
	if code, _ := s.run("send", juliet, "one"); code != exitOK {
		t.Fatalf("send: exit code %d", code)
	}
	s.run("trust", "distrust", juliet, f.String())
	if code, out := s.run("send", juliet, "two"); code != exitError || !strings.Contains(out, omemo.ErrUntrusted.Error()) || s.said == "" {
		t.Errorf("send: exit code %d, %s%s", code, out, s.said)
	}
}
