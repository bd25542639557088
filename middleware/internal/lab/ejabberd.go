package lab

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// ejabberd makes accounts and rosters through its HTTP interface, which
// listens on loopback like the rest.
type ejabberd struct {
	api string  // URL of the interface
	log growing // the tap
}

// The log is the tap: stanzas stand in it at level debug only, as notices.
const ejabberdConfig = `
hosts: [localhost]
loglevel: debug
hide_sensitive_log_data: false
certfiles: [%[1]q]
ca_file: %[2]q
auth_password_format: plain
default_db: mnesia
listen:
  - port: %[3]d
    ip: "127.0.0.1"
    module: ejabberd_c2s
    starttls: true
    starttls_required: true
    max_stanza_size: 524288
    access: all
    shaper: none
  - port: %[4]d
    ip: "127.0.0.1"
    module: ejabberd_http
    request_handlers: {/api: mod_http_api}
  - port: %[5]d
    ip: "127.0.0.1"
    module: ejabberd_http
    tls: true
    request_handlers: {/upload: mod_http_upload}
api_permissions:
  lab:
    who: [{access: [{allow: [{ip: "127.0.0.0/8"}]}]}]
    what: "*"
modules:
  mod_admin_extra: {}
  mod_blocking: {}
  mod_caps: {}
  mod_carboncopy: {}
  mod_disco: {}
  mod_http_api: {}
  mod_http_upload:
    host: upload.localhost
    access: all
    docroot: %[6]q
    max_size: %[7]d
    put_url: "https://localhost:%[5]d/upload"
  mod_mam: {default: never}
  mod_muc:
    host: muc.localhost
    access_mam: all
    default_room_options: {persistent: true, members_only: true, anonymous: false, mam: true, public: true}
  mod_offline: {access_max_user_messages: offline_messages}
  mod_ping: {}
  mod_privacy: {}
  mod_pubsub: {access_createnode: all, plugins: [flat, pep]}
  mod_roster: {}
  mod_stream_mgmt: {}
shaper_rules:
  offline_messages: {100000: all}
`

// wholeLog is the environment of the application ejabberd in which its log is never
// begun anew, as it is else after 10 MiB, and the old one deleted after the second
// time. ejabberd starts its logger before it reads its configuration file, whose
// options of the same names it never looks at.
var wholeLog = []string{"-ejabberd", "log_rotate_size", "infinity", "log_rotate_count", "0"}

// completeLog keeps the notices alone, of any length (the formatter cuts them after
// 100 KiB), and lets senders wait where the logger would drop them: over 500 in a
// second, or when 1000 wait. Stanzas stand in it as they are, one a line, not as
// Erlang prints binaries: as numbers, once a letter in them is not of Latin-1. The
// file it leaves says that all is as it shall be.
const completeLog = `ok = logger:set_primary_config(level, notice),
ok = logger:set_handler_config(default, level, error),
ok = logger:update_formatter_config(ejabberd_log, max_size, unlimited),
ok = logger:update_handler_config(ejabberd_log, config, #{burst_limit_enable => false,
	sync_mode_qlen => 10, drop_mode_qlen => 1000000, flush_qlen => 1000000}),
{ok, #{config := #{max_no_bytes := infinity}}} = logger:get_handler_config(ejabberd_log),
Readable = fun
	(#{msg := {report, #{format := Format, args := [Who, Stanza]}}} = Event, _) when is_binary(Stanza) ->
		Line = binary:replace(Stanza, <<10>>, <<"&#10;">>, [global]),
		Text = case unicode:characters_to_list(Line) of
			Letters when is_list(Letters) -> Letters;
			_ -> binary_to_list(Line)
		end,
		Event#{msg := {lists:flatten(string:replace(Format, "~p", "~ts")), [Who, Text]}};
	(Event, _) -> Event
end,
ok = logger:add_handler_filter(ejabberd_log, readable, {Readable, none}),
ok = file:write_file("complete", <<>>).`

func (e *ejabberd) command(t testing.TB, s *Server, port int) *exec.Cmd {
	t.Helper()
	libraries, err := filepath.Glob("/usr/lib/*/ejabberd-*/ebin/ejabberd.app")
	if err != nil || len(libraries) == 0 {
		t.Fatalf("lab: ejabberd is missing: apt-get install %s", debian["erl"])
	}
	apiPort := freePort(t)
	e.log.path = s.file("ejabberd.log")
	e.api = fmt.Sprintf("http://127.0.0.1:%d/api/", apiPort)
	key, err := os.ReadFile(s.file("key.pem"))
	if err != nil {
		t.Fatalf("lab: %v", err)
	}
	cert, err := os.ReadFile(s.CAFile)
	if err != nil {
		t.Fatalf("lab: %v", err)
	}
	config := fmt.Sprintf(ejabberdConfig, s.file("both.pem"), s.CAFile, port, apiPort, freePort(t), s.file("files"), MaxUpload)
	for name, content := range map[string][]byte{
		"both.pem":     append(key, cert...),
		"ejabberd.yml": []byte(config),
	} {
		if err := os.WriteFile(s.file(name), content, 0o600); err != nil {
			t.Fatalf("lab: %v", err)
		}
	}
	// Without a node name Erlang opens no port of its own and starts no port mapper.
	arguments := slices.Concat([]string{"-noinput", "-mnesia", "dir", fmt.Sprintf("%q", s.file("mnesia"))}, wholeLog,
		[]string{"-s", "ejabberd", "-eval", completeLog})
	cmd := exec.Command(program(t, "erl"), arguments...)
	cmd.Env = append(os.Environ(),
		"HOME="+s.dir,
		"ERL_LIBS="+filepath.Dir(filepath.Dir(filepath.Dir(libraries[0]))),
		"EJABBERD_CONFIG_PATH="+s.file("ejabberd.yml"),
		"EJABBERD_LOG_PATH="+e.log.path,
		"ERL_CRASH_DUMP="+s.file("crash.dump"))
	return cmd
}

// ready waits for completeLog: the ports open before all modules have started.
func (*ejabberd) ready(s *Server) bool {
	_, err := os.Stat(s.file("complete"))
	return err == nil
}

func (e *ejabberd) register(_ *Server, a *Account) error {
	return e.call("register", map[string]string{"user": a.Local, "host": Domain, "password": a.Password})
}

func (e *ejabberd) befriend(_ *Server, a, b *Account) error {
	for _, pair := range [][2]*Account{{a, b}, {b, a}} {
		err := e.call("add_rosteritem", map[string]string{
			"localuser": pair[0].Local, "localserver": Domain,
			"user": pair[1].Local, "server": Domain,
			"nick": pair[1].Local, "group": "", "subs": "both",
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func (e *ejabberd) call(command string, arguments map[string]string) error {
	body, err := json.Marshal(arguments)
	if err != nil {
		return err
	}
	client := http.Client{Timeout: 10 * time.Second}
	response, err := client.Post(e.api+command, "application/json", bytes.NewReader(body))
	if err != nil {
		return err
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(response.Body, 4096))
	if err != nil {
		return err
	}
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s: %s", command, response.Status, answer)
	}
	return nil
}

// tap opens a stream under a new name and waits until that stands in the log,
// which lags behind: what was sent before then stands there too.
func (e *ejabberd) tap(s *Server) (string, error) {
	before, err := e.log.read()
	if err != nil {
		return "", err
	}
	conn, err := net.Dial("tcp", s.Addr)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	marker := "marker-" + rand.Text()
	_, err = fmt.Fprintf(conn, "<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'"+
		" version='1.0' to='localhost' from='%s@localhost'>", marker)
	if err != nil {
		return "", err
	}
	var text string
	if !Until(patience, func() bool {
		text, err = e.log.read()
		return err == nil && strings.Contains(text[len(before):], marker)
	}) {
		return "", errors.Join(errors.New("the log lags behind"), err)
	}
	return text, nil
}

// outgoing is as ejabberd's library for XMPP writes it.
func (*ejabberd) outgoing() string { return ") Send XML on stream = " }

func (*ejabberd) logs(s *Server) []string { return []string{s.file("ejabberd.log")} }
