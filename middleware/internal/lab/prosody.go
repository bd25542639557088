package lab

import (
	_ "embed"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

//go:embed mod_stanza_tap.lua
var stanzaTap []byte

// prosody keeps accounts and rosters in files that it reads when they are
// needed, so both are made by writing those.
type prosody struct {
	log growing // the tap
}

const prosodyConfig = `
run_as_root = true
daemonize = false
data_path = %[1]q
plugin_paths = { %[2]q }
interfaces = { "127.0.0.1" }
local_interfaces = { "127.0.0.1" }
c2s_ports = { %[3]d }
c2s_direct_tls_ports = { }
s2s_ports = { }
modules_enabled = {
	"roster"; "saslauth"; "tls"; "disco"; "ping"; "blocklist"; "bookmarks"; "pep"; "carbons"; "mam"; "offline"; "smacks"; "stanza_tap";
}
modules_disabled = { "s2s"; "s2s_auth_certs" }
http_ports = { }
https_ports = { %[8]d }
https_interfaces = { "127.0.0.1" }
https_ssl = { key = %[6]q; certificate = %[7]q }
stanza_tap_file = %[4]q
storage = "internal"
authentication = "internal_plain"
c2s_require_encryption = true
archive_expires_after = "never"
limits = { }
log = { debug = %[5]q }
ssl = { key = %[6]q; certificate = %[7]q }
VirtualHost "localhost"
Component "upload.localhost" "http_file_share"
	http_host = "localhost"
	http_external_url = "https://localhost:%[8]d/"
	http_file_share_size_limit = %[9]d
	http_file_share_daily_quota = 100 * %[9]d
Component "muc.localhost" "muc"
	modules_enabled = { "muc_mam" }
	muc_room_locking = false
	muc_room_default_persistent = true
	muc_room_default_members_only = true
	muc_room_default_public_jids = true
`

func (p *prosody) command(t testing.TB, s *Server, port int) *exec.Cmd {
	t.Helper()
	p.log.path = s.file("tap.log")
	for _, dir := range []string{"data/localhost/accounts", "data/localhost/roster", "modules"} {
		if err := os.MkdirAll(s.file(dir), 0o700); err != nil {
			t.Fatalf("lab: %v", err)
		}
	}
	config := fmt.Sprintf(prosodyConfig, s.file("data"), s.file("modules"), port,
		p.log.path, s.file("prosody.log"), s.file("key.pem"), s.CAFile, freePort(t), MaxUpload)
	for name, content := range map[string][]byte{
		"modules/mod_stanza_tap.lua": stanzaTap,
		"prosody.cfg.lua":            []byte(config),
	} {
		if err := os.WriteFile(s.file(name), content, 0o600); err != nil {
			t.Fatalf("lab: %v", err)
		}
	}
	return exec.Command(program(t, "prosody"), "--config", s.file("prosody.cfg.lua"), "-F")
}

// ready is true at once: Prosody opens its ports last.
func (*prosody) ready(*Server) bool { return true }

func (*prosody) register(s *Server, a *Account) error {
	return writeData(s, "accounts", a, fmt.Sprintf("return { [\"password\"] = %q; };\n", a.Password))
}

func (*prosody) befriend(s *Server, a, b *Account) error {
	for _, account := range []*Account{a, b} {
		var roster strings.Builder
		roster.WriteString("return { [false] = { version = 1; pending = { }; };\n")
		for _, friend := range account.friends {
			fmt.Fprintf(&roster, "[%q] = { subscription = \"both\"; groups = { }; };\n", friend)
		}
		roster.WriteString("};\n")
		if err := writeData(s, "roster", account, roster.String()); err != nil {
			return err
		}
	}
	return nil
}

// tap needs no waiting: a stanza is written before it is routed.
func (p *prosody) tap(*Server) (string, error) { return p.log.read() }

// outgoing is as mod_stanza_tap writes it.
func (*prosody) outgoing() string { return " out " }

func (*prosody) logs(s *Server) []string { return []string{s.file("prosody.log"), s.file("tap.log")} }

// writeData writes one of an account's files in Prosody's storage. Names of
// letters and digits stand for themselves there.
func writeData(s *Server, kind string, a *Account, content string) error {
	return os.WriteFile(filepath.Join(s.dir, "data", "localhost", kind, a.Local+".dat"), []byte(content), 0o600)
}

// Spoil makes what Prosody has stored of the items of an account's PEP node
// unreadable, as a disk may.
func (s *Server) Spoil(t testing.TB, a *Account, node string) {
	t.Helper()
	if s.Kind != "prosody" {
		t.Fatalf("lab: %s keeps items elsewhere", s.Kind)
	}
	var store strings.Builder // names of stores: all but letters, digits and _ are escaped
	for _, c := range []byte("pep_" + node) {
		if c == '_' || c >= '0' && c <= '9' || c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z' {
			store.WriteByte(c)
			continue
		}
		fmt.Fprintf(&store, "%%%02x", c)
	}
	file := filepath.Join(s.dir, "data", "localhost", store.String(), a.Local+".list")
	if _, err := os.Stat(file); err != nil {
		t.Fatalf("lab: %v", err)
	}
	if err := os.WriteFile(file, []byte("item({ unreadable\n"), 0o600); err != nil {
		t.Fatalf("lab: %v", err)
	}
}
