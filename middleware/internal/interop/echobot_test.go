//go:build live

package interop

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"example.org/omellium/middleware/internal/lab"
)

// deadline is that of what takes long on a slow machine only.
const deadline = 45 * time.Second

// echobot is examples/echobot as a process. It may be started again after it
// was stopped or killed, and is the same device then.
type echobot struct {
	Account *lab.Account
	Device  uint32

	server  *lab.Server
	dir     string
	db      string   // file or URL
	rooms   []string // with the nick
	process *lab.Process
	runs    int
	log     string // file, of this run
}

// binary is the built bot.
var binary struct {
	sync.Once
	dir string
	err error
}

func echobotBinary(t testing.TB) string {
	t.Helper()
	binary.Do(func() {
		if binary.dir, binary.err = os.MkdirTemp("", "echobot"); binary.err != nil {
			return
		}
		var out []byte
		out, binary.err = exec.Command("go", "build", "-o", binary.dir, "example.org/omellium/examples/echobot").CombinedOutput()
		if binary.err != nil {
			binary.err = fmt.Errorf("go build: %w: %s", binary.err, out)
		}
	})
	if binary.err != nil {
		t.Fatal(binary.err)
	}
	return filepath.Join(binary.dir, "echobot")
}

func removeBinary() {
	if binary.dir != "" {
		_ = os.RemoveAll(binary.dir) // in the system's directory for what may be lost
	}
}

// newEchobot starts a bot for an account and waits until it is online.
func newEchobot(t testing.TB, s *lab.Server, a *lab.Account) *echobot {
	t.Helper()
	b := idleEchobot(t, s, a)
	b.start(t)
	return b
}

// newRoomBot starts a bot that is in rooms.
func newRoomBot(t *testing.T, s *lab.Server, a *lab.Account, rooms ...string) *echobot {
	t.Helper()
	b := idleEchobot(t, s, a)
	b.rooms = rooms
	b.start(t)
	return b
}

// awaitLog waits until the bot has logged a text in this run.
func (b *echobot) awaitLog(t *testing.T, text string) {
	t.Helper()
	if !lab.Until(deadline, func() bool { return b.says(text) }) {
		t.Fatalf("the bot has not logged %q", text)
	}
}

// idleEchobot returns a bot that was not started yet.
func idleEchobot(t testing.TB, s *lab.Server, a *lab.Account) *echobot {
	t.Helper()
	b := &echobot{Account: a, server: s, dir: t.TempDir()}
	b.db = filepath.Join(b.dir, "bot.db")
	t.Cleanup(func() {
		b.kill()
		if t.Failed() {
			t.Log(b.report())
		}
	})
	return b
}

// start starts a bot and waits until it is online.
func (b *echobot) start(t testing.TB) {
	t.Helper()
	b.launch(t)
	b.awaitOnline(t)
}

// launch starts a bot.
func (b *echobot) launch(t testing.TB) {
	t.Helper()
	b.runs++
	b.log = filepath.Join(b.dir, "bot"+strconv.Itoa(b.runs)+".log")
	stderr, err := os.Create(b.log)
	if err != nil {
		t.Fatal(err)
	}
	defer stderr.Close()
	cmd := exec.Command(echobotBinary(t), "-jid", b.Account.JID, "-addr", b.server.Addr, "-ca", b.server.CAFile,
		"-db", b.db, "-policy", "required")
	for _, room := range b.rooms {
		cmd.Args = append(cmd.Args, "-room", room)
	}
	cmd.Env = append(os.Environ(), "XMPP_PASSWORD="+b.Account.Password, "XDG_STATE_HOME="+b.dir)
	cmd.Stderr = stderr
	if b.process, err = lab.Start(cmd); err != nil {
		t.Fatal(err)
	}
}

// awaitOnline waits until a bot that was started is online.
func (b *echobot) awaitOnline(t testing.TB) {
	t.Helper()
	var online []byte
	if !lab.Until(deadline, func() bool {
		text, err := os.ReadFile(b.log)
		if err != nil {
			return false
		}
		if found := regexp.MustCompile(`msg=online .*device=(\d+)`).FindSubmatch(text); found != nil {
			online = found[1]
		}
		return online != nil
	}) {
		t.Fatal("the bot did not come online")
	}
	device, err := strconv.ParseUint(string(online), 10, 32)
	if err != nil {
		t.Fatal(err)
	}
	if b.Device != 0 && b.Device != uint32(device) {
		t.Fatalf("the bot was device %d, and is %d now", b.Device, device)
	}
	b.Device = uint32(device)
}

// stop ends the bot as an operator would, and checks that it ends cleanly.
func (b *echobot) stop(t testing.TB) {
	t.Helper()
	if err := b.process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	select {
	case <-b.process.Done():
		if err := b.process.Err(); err != nil {
			t.Fatalf("the bot ended with %v", err)
		}
	case <-time.After(deadline):
		t.Fatal("the bot did not end")
	}
}

// says reports whether the bot has logged a text in this run.
func (b *echobot) says(text string) bool {
	log, err := os.ReadFile(b.log)
	return err == nil && strings.Contains(string(log), text)
}

// kill ends the bot without warning.
func (b *echobot) kill() {
	if b.process != nil {
		b.process.Kill()
	}
}

// awaitResources waits until the bot is shown so many resources of an account. It asks
// for the lists of one that has come before it writes to the account: an event need
// not have told it (see AwaitDevice).
func (b *echobot) awaitResources(t testing.TB, of string, n int) {
	t.Helper()
	if !lab.Until(deadline, func() bool { return b.server.Present(b.server.Tap(t), of, b.Account.JID) >= n }) {
		t.Fatalf("the bot was not shown %d resources of %s", n, of)
	}
}

func (b *echobot) report() string {
	var all bytes.Buffer
	for run := range b.runs {
		text, err := os.ReadFile(filepath.Join(b.dir, "bot"+strconv.Itoa(run+1)+".log"))
		if err != nil {
			text = []byte(err.Error())
		}
		all.WriteString("bot, run " + strconv.Itoa(run+1) + ":\n")
		all.Write(text)
	}
	return strings.TrimSpace(all.String())
}
