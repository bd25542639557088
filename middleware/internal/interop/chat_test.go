//go:build live

package interop

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"example.org/omellium/middleware/internal/lab"
)

// terminal is examples/chat in a terminal of its own.
type terminal struct {
	t       *testing.T
	dir     string
	process *lab.Process
}

func newChat(t *testing.T, s *lab.Server, a *lab.Account) *terminal {
	t.Helper()
	dir, err := os.MkdirTemp("", "chat") // the path of a socket must be short
	if err != nil {
		t.Fatal(err)
	}
	c := &terminal{t: t, dir: dir}
	binary := filepath.Join(dir, "chat")
	if out, err := exec.Command("go", "build", "-C", "../../../examples/chat", "-o", binary, ".").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v: %s", err, out)
	}
	config := filepath.Join(dir, "tmux.conf")
	if err := os.WriteFile(config, []byte("set -g escape-time 0\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("tmux", "-D", "-S", filepath.Join(dir, "tmux"), "-f", config)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "TERM=xterm-256color", "LANG=C.UTF-8", "SHELL=/bin/sh", "XMPP_PASSWORD=" + a.Password}
	if c.process, err = lab.Start(cmd); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		t.Logf("the last screen:\n%s", c.screen())
		c.process.Kill()
		os.RemoveAll(dir)
	})
	c.until("a terminal", func() bool {
		return c.tmux("new-session", "-d", "-s", "chat", "-x", "140", "-y", "46",
			fmt.Sprintf("exec %s -jid %s -addr %s -ca %s -db %s/chat.db 2>%s/stderr.log", binary, a.JID, s.Addr, s.CAFile, dir, dir)) == nil
	})
	c.shows("online")
	return c
}

func (c *terminal) tmux(args ...string) error {
	return exec.Command("tmux", append([]string{"-N", "-S", filepath.Join(c.dir, "tmux")}, args...)...).Run()
}

func (c *terminal) screen() string {
	out, err := exec.Command("tmux", "-N", "-S", filepath.Join(c.dir, "tmux"), "capture-pane", "-p", "-J", "-t", "chat").CombinedOutput()
	if err != nil {
		out = fmt.Append(out, err)
	}
	return strings.TrimRight(string(out), "\n ")
}

func (c *terminal) until(what string, condition func() bool) {
	c.t.Helper()
	if !lab.Until(deadline, condition) {
		c.t.Fatalf("waited in vain for %s; the screen:\n%s", what, c.screen())
	}
}

// shows waits until the screen fits an expression, and keeps it in the log.
func (c *terminal) shows(expression string) string {
	c.t.Helper()
	re := regexp.MustCompile(expression)
	var found string
	c.until(expression, func() bool {
		screen := c.screen()
		if re.MatchString(screen) {
			found = screen
		}
		return found != ""
	})
	c.t.Logf("the screen shows %s:\n%s", expression, found)
	return found
}

func (c *terminal) types(text string) {
	c.t.Helper()
	if err := c.tmux("send-keys", "-t", "chat", "-l", "--", text); err != nil {
		c.t.Fatal(err)
	}
	c.keys("Enter")
}

func (c *terminal) keys(names ...string) {
	c.t.Helper()
	if err := c.tmux(append([]string{"send-keys", "-t", "chat"}, names...)...); err != nil {
		c.t.Fatal(err)
	}
}

// TestChatClient drives examples/chat as a person would, against the Python peer,
// the echo bot and a room.
func TestChatClient(t *testing.T) {
	s := lab.Prosody(t)
	me, user, account := s.Account(t, "person"), s.Account(t, "user"), s.Account(t, "bot")
	lab.Befriend(t, me, user)
	lab.Befriend(t, me, account)
	bot := newEchobot(t, s, account)
	peer := python{lab.Python(t, s, user, lab.PythonOptions{})}
	c := newChat(t, s, me)

	// With the bot: an encrypted exchange.
	c.types("/chat " + bot.Account.JID)
	c.types("hello, bot")
	c.shows(`🔒~\s*me: hello, bot`)
	c.shows(`🔒~\s*` + account.Local + `: hello, bot`)
	c.shows(fmt.Sprintf("new device %d of %s", bot.Device, bot.Account.JID))

	// Its key is verified in the dialog: then its messages are marked as that.
	c.keys("F2")
	c.shows("trusted blindly")
	c.keys("v", "Enter")
	c.types("again")
	c.shows(`🔒✓\s*me: again`)
	c.shows(`🔒✓\s*` + account.Local + `: again`)

	// With Python, which begins.
	peer.Send(t, me.JID, "from python")
	c.types("/chat " + user.JID)
	c.shows(`🔒~\s*` + user.Local + `: from python`)
	c.types("to python")
	c.shows(`me: to python`)
	peer.AwaitBody(t, me.JID, "to python")

	// A file.
	if err := os.WriteFile(filepath.Join(c.dir, "balcony.txt"), []byte("what light"), 0o600); err != nil {
		t.Fatal(err)
	}
	c.types("/file " + filepath.Join(c.dir, "balcony.txt"))
	c.shows(`me: file \S*balcony.txt`)
	if !lab.Until(deadline, func() bool {
		return slices.ContainsFunc(peer.Bodies(me.JID), func(body string) bool { return strings.HasPrefix(body, "aesgcm://") })
	}) {
		t.Errorf("no file came: %q", peer.Bodies(me.JID))
	}

	// Our own code, as a URI and to scan.
	c.keys("F3")
	uri := regexp.MustCompile(`xmpp:\S+`).FindString(strings.ReplaceAll(c.shows(`omemo-sid-\d+=[0-9a-f]{64}`), "\n", ""))
	if !strings.HasPrefix(uri, "xmpp:"+me.Local+"@"+lab.Domain+"?omemo-sid-") {
		t.Errorf("URI %q", uri)
	}
	c.keys("Escape")

	// A device of our own that comes later: the message waits for a decision.
	other := newProgram(t, s, me)
	c.shows(fmt.Sprintf("a device was added to this account: %d", other.Device))
	c.types("to all of mine")
	c.shows("Nobody has decided about these devices")
	c.keys("V", "Enter")
	c.shows(`me: to all of mine`)
	peer.AwaitBody(t, me.JID, "to all of mine")

	// A room.
	host := newProgram(t, s, s.Account(t, "host"))
	h := newHall(t, host, "anyone")
	h.affiliate("member", me)
	c.types("/join " + h.jid + "/person")
	c.shows(`joined, \d+ members`)
	c.types("to the room")
	c.shows(`🔒~\s*me: to the room`)
	host.hears(t, h.jid, me.JID, "to the room")
	if _, err := host.tell(t, h.jid, "from the room"); err != nil {
		t.Fatal(err)
	}
	c.shows(`🔒~\s*Owner: from the room`)

	secretOf(t, s, sent{me.JID: 5, bot.Account.JID: 2, user.JID: 1, h.jid: 2},
		[]string{"hello, bot", "from python", "to python", "to all of mine", "to the room", "from the room"})
	c.types("/quit")
}
