package lab

import (
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"mellium.im/xmlstream"
	"mellium.im/xmpp/form"
	"mellium.im/xmpp/pubsub"
	xmppstanza "mellium.im/xmpp/stanza"
)

// ProfanityClient is Profanity in a terminal of its own. It speaks legacy only,
// and trusts every device on sight.
type ProfanityClient struct {
	Account *Account
	Device  uint32

	dir      string
	terminal *Process        // the tmux server
	window   string          // bare JID of the chat that is typed into
	started  map[string]bool // encryption was started in this chat
}

const (
	profanityPreferences = `
[connection]
autoconnect=false
carbons=true
[ui]
splash=false
[logging]
chlog=true
rotate=false
[chatstates]
enabled=false
[omemo]
trustmode=blind
log=on
policy=manual
`
	profanityAccount = `
[%[1]s]
enabled=true
jid=%[1]s
resource=profanity
server=%[2]s
port=%[3]s
tls.policy=trust
password=%[4]s
`
)

// Profanity logs Profanity in, makes its keys, and waits until its device is
// published. It ends with the test.
//
// Its bundle is readable for contacts only, on both servers: befriend the
// accounts that are to write first.
func Profanity(t testing.TB, s *Server, a *Account) *ProfanityClient {
	t.Helper()
	tmux, profanity := program(t, "tmux"), program(t, "profanity")
	prime(t, s, a)
	// The path of a socket must be short, and t.TempDir names the test.
	dir, err := os.MkdirTemp(shared.root, "profanity")
	if err != nil {
		t.Fatalf("lab: %v", err)
	}
	c := &ProfanityClient{Account: a, dir: dir, started: make(map[string]bool)}
	host, port, _ := strings.Cut(s.Addr, ":")
	for name, content := range map[string]string{
		"config/profanity/profrc": profanityPreferences,
		"data/profanity/accounts": fmt.Sprintf(profanityAccount, a.JID, host, port, a.Password),
		"tmux.conf":               "set -g history-limit 10000\n",
	} {
		if err := os.MkdirAll(filepath.Dir(c.file(name)), 0o700); err != nil {
			t.Fatalf("lab: %v", err)
		}
		if err := os.WriteFile(c.file(name), []byte(content), 0o600); err != nil {
			t.Fatalf("lab: %v", err)
		}
	}
	output, err := os.Create(c.file("tmux.log"))
	if err != nil {
		t.Fatalf("lab: %v", err)
	}
	defer output.Close()
	// With -D the tmux server stays in the foreground: it ends as any process.
	cmd := exec.Command(tmux, "-D", "-S", c.file("tmux"), "-f", c.file("tmux.conf"))
	cmd.Stdout, cmd.Stderr = output, output
	cmd.Env = []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "TERM=xterm-256color", "LANG=C.UTF-8", "SHELL=/bin/sh",
		"XDG_CONFIG_HOME=" + c.file("config"), "XDG_DATA_HOME=" + c.file("data"),
	}
	if c.terminal, err = Start(cmd); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(c.report())
		}
		c.terminal.Kill()
	})
	c.until(t, "open a terminal", func() bool {
		return c.tmux("new-session", "-d", "-s", "lab", "-x", "200", "-y", "50",
			fmt.Sprintf("exec %s -a %s -l DEBUG -f %s 2>>%s", profanity, a.JID, c.file("profanity.log"), c.file("stderr.log"))) == nil
	})
	c.untilLogged(t, regexp.QuoteMeta(a.JID)+" logged in successfully")
	// What the server offers must be known before the keys are made: they are
	// published at once.
	c.untilLogged(t, "cannot publish crypto materials before they are generated")
	c.line(t, "/omemo gen")
	// Its own bundle went to the server and came back.
	device := c.untilLogged(t, `create session with `+regexp.QuoteMeta(a.JID)+` device (\d+)`)
	id, err := strconv.ParseUint(device, 10, 32)
	if err != nil {
		t.Fatalf("lab: profanity: %v", err)
	}
	c.Device = uint32(id)
	return c
}

// Start turns encryption on towards a bare JID and waits for the session with
// the given device of it.
func (c *ProfanityClient) Start(t testing.TB, with string, device uint32) {
	t.Helper()
	c.line(t, "/omemo start "+with)
	c.window, c.started[with] = with, true
	c.AwaitSession(t, with, device)
}

// AwaitSession waits until there is a session with a device.
func (c *ProfanityClient) AwaitSession(t testing.TB, with string, device uint32) {
	t.Helper()
	c.until(t, fmt.Sprintf("to have a session with %s/%d", with, device), func() bool { return c.hasSession(with, device) })
}

func (c *ProfanityClient) hasSession(with string, device uint32) bool {
	section := regexp.MustCompile(`(?m)^\[` + regexp.QuoteMeta(with) + `\]\n(?:[^\[\n]*\n)*?` + fmt.Sprint(device) + `=`)
	b, err := os.ReadFile(c.file("data/profanity/omemo/" + pathOf(c.Account.JID) + "/sessions.txt"))
	return err == nil && section.Match(b)
}

// Renew makes Profanity look at the devices of an account again: it opens no
// session with a device that comes later by itself.
func (c *ProfanityClient) Renew(t testing.TB, with string, device uint32) {
	t.Helper()
	end := time.Now().Add(patience)
	for time.Now().Before(end) {
		c.line(t, "/msg "+with)
		c.line(t, "/omemo end")
		c.line(t, "/omemo start")
		c.window = with
		if Until(5*time.Second, func() bool { return c.hasSession(with, device) }) {
			return
		}
	}
	t.Fatalf("lab: profanity %s: no session with %s/%d", c.Account.JID, with, device)
}

// Send types a text to a bare JID, with which encryption was started, and waits
// until it was sent.
func (c *ProfanityClient) Send(t testing.TB, to, body string) {
	t.Helper()
	if !c.started[to] {
		t.Fatalf("lab: profanity: encryption was not started with %s", to)
	}
	if c.window != to {
		c.line(t, "/msg "+to)
		c.window = to
	}
	c.line(t, body)
	c.until(t, fmt.Sprintf("to send %q to %s", body, to), func() bool {
		return slices.Contains(c.history(to, "me"), body)
	})
}

// AwaitBody waits for a text from a bare JID.
func (c *ProfanityClient) AwaitBody(t testing.TB, from, body string) {
	t.Helper()
	c.until(t, fmt.Sprintf("to receive %q from %s", body, from), func() bool {
		return slices.Contains(c.history(from, from), body)
	})
}

// Bodies returns the texts from a bare JID so far, in order.
func (c *ProfanityClient) Bodies(from string) []string { return c.history(from, from) }

// history returns what the speaker, "me" or the bare JID, said in the chat with
// a bare JID, from Profanity's chat log: one line each, with the time in front.
func (c *ProfanityClient) history(with, speaker string) []string {
	files, err := filepath.Glob(c.file("data/profanity/chatlogs/" + pathOf(c.Account.JID) + "/" + pathOf(with) + "/*.log"))
	if err != nil {
		return nil
	}
	var texts []string
	for _, file := range files { // one a day, sorted
		b, err := os.ReadFile(file)
		if err != nil {
			return nil
		}
		for line := range strings.Lines(string(b)) {
			_, said, _ := strings.Cut(line, " - ")
			if text, ok := strings.CutPrefix(said, speaker+": "); ok && strings.HasSuffix(text, "\n") {
				texts = append(texts, strings.TrimSuffix(text, "\n"))
			}
		}
	}
	return texts
}

// AwaitPresence waits until a contact's last known presence is of a type:
// "available" or "unavailable".
func (c *ProfanityClient) AwaitPresence(t testing.TB, of, kind string) {
	t.Helper()
	from := regexp.MustCompile(` from="` + regexp.QuoteMeta(of) + `[/"]`)
	c.until(t, fmt.Sprintf("to see that %s is %s", of, kind), func() bool {
		b, err := os.ReadFile(c.file("profanity.log"))
		if err != nil {
			return false
		}
		last := ""
		for line := range strings.Lines(string(b)) {
			_, tag, found := strings.Cut(line, "RECV: <presence ")
			if !found {
				continue
			}
			if tag, _, _ = strings.Cut(tag, ">"); !from.MatchString(" " + tag) {
				continue
			}
			if last = "available"; strings.Contains(" "+tag, ` type="unavailable"`) {
				last = "unavailable"
			}
		}
		return last == kind
	})
}

// pathOf names an account in Profanity's directories.
func pathOf(jid string) string { return strings.ReplaceAll(jid, "@", "_at_") }

// AwaitLogged waits for a line of Profanity's own log.
func (c *ProfanityClient) AwaitLogged(t testing.TB, expression string) {
	t.Helper()
	c.untilLogged(t, expression)
}

// untilLogged waits for a line of Profanity's own log and returns the first
// group of the expression, if there is one.
func (c *ProfanityClient) untilLogged(t testing.TB, expression string) string {
	t.Helper()
	re := regexp.MustCompile(expression)
	var found [][]byte
	c.until(t, "to log "+expression, func() bool {
		b, err := os.ReadFile(c.file("profanity.log"))
		if err != nil {
			return false
		}
		found = re.FindSubmatch(b)
		return found != nil
	})
	return string(found[len(found)-1])
}

func (c *ProfanityClient) until(t testing.TB, what string, condition func() bool) {
	t.Helper()
	if !Until(patience, condition) {
		t.Fatalf("lab: profanity %s: waited in vain for it %s", c.Account.JID, what)
	}
}

// line types a line.
func (c *ProfanityClient) line(t testing.TB, text string) {
	t.Helper()
	if err := c.tmux("send-keys", "-t", "lab", "-l", "--", text, ";", "send-keys", "-t", "lab", "Enter"); err != nil {
		t.Fatalf("lab: profanity: %v", err)
	}
}

func (c *ProfanityClient) tmux(args ...string) error {
	// With -N the command starts no server of its own, should ours not be up yet.
	out, err := exec.Command("tmux", append([]string{"-N", "-S", c.file("tmux")}, args...)...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("tmux %s: %w: %s", args[0], err, out)
	}
	return nil
}

func (c *ProfanityClient) file(name string) string { return filepath.Join(c.dir, name) }

// report returns what the terminal shows and what was logged, for the log of a
// failed test.
func (c *ProfanityClient) report() string {
	screen, err := exec.Command("tmux", "-N", "-S", c.file("tmux"), "capture-pane", "-p", "-J", "-t", "lab").CombinedOutput()
	if err != nil {
		screen = fmt.Append(screen, err)
	}
	return fmt.Sprintf("profanity %s shows:\n%s\n%s", c.Account.JID,
		strings.TrimSpace(string(screen)), tail(c.file("profanity.log"), 60))
}

// prime publishes a legacy device list without devices, open as Profanity
// itself wants it. Without a list, Profanity 0.13 publishes its own only after
// an error with code 404, which Prosody does not send.
func prime(t testing.TB, s *Server, a *Account) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	session, err := s.Dial(ctx, a)
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- session.Serve(nil) }()
	const legacy = "eu.siacs.conversations.axolotl"
	options, _ := form.New(
		form.Hidden("FORM_TYPE", form.Value(pubsub.NS+"#publish-options")),
		form.List("pubsub#access_model", form.Value("open")),
	).Submit()
	list := element(nil, legacy, "list")
	item := element(list, "", "item", xml.Attr{Name: xml.Name{Local: "id"}, Value: "current"})
	publish := element(item, "", "publish", xml.Attr{Name: xml.Name{Local: "node"}, Value: legacy + ".devicelist"})
	err = session.UnmarshalIQElement(ctx, element(
		xmlstream.MultiReader(publish, element(options, "", "publish-options")), pubsub.NS, "pubsub",
	), xmppstanza.IQ{Type: xmppstanza.SetIQ}, nil)
	if err != nil {
		t.Fatalf("lab: profanity: %v", err)
	}
	if err := errors.Join(session.Close(), <-served, session.Conn().Close()); err != nil {
		t.Fatalf("lab: profanity: %v", err)
	}
}

func element(content xml.TokenReader, namespace, name string, attributes ...xml.Attr) xml.TokenReader {
	return xmlstream.Wrap(content, xml.StartElement{Name: xml.Name{Space: namespace, Local: name}, Attr: attributes})
}

// Join enters a room and turns encryption on there.
func (c *ProfanityClient) Join(t testing.TB, room, nick string) {
	t.Helper()
	c.line(t, "/join "+room+" nick "+nick)
	c.untilShown(t, "You have joined the room as "+nick)
	c.window = room
	// It refuses until it has learnt what kind of room this is.
	for end := time.Now().Add(patience); time.Now().Before(end); {
		c.line(t, "/omemo start")
		if Until(2*time.Second, func() bool { return c.shows("[OMEMO]") }) {
			return
		}
	}
	t.Fatalf("lab: profanity %s: no encryption in %s", c.Account.JID, room)
}

// Say types a text in the room that was joined last.
func (c *ProfanityClient) Say(t testing.TB, body string) {
	t.Helper()
	c.line(t, body)
}

// AwaitShown waits for a text on the screen.
func (c *ProfanityClient) AwaitShown(t testing.TB, body string) {
	t.Helper()
	c.untilShown(t, body)
}

func (c *ProfanityClient) untilShown(t testing.TB, text string) {
	t.Helper()
	c.until(t, "to show "+text, func() bool { return c.shows(text) })
}

func (c *ProfanityClient) shows(text string) bool {
	screen, err := exec.Command("tmux", "-N", "-S", c.file("tmux"), "capture-pane", "-p", "-J", "-t", "lab").CombinedOutput()
	return err == nil && strings.Contains(string(screen), text)
}
