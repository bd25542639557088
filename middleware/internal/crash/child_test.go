package crash

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"example.org/omellium/middleware/internal/logscan"
	"example.org/omellium/omemo"
)

// childVariable makes the test binary one of the programs below instead of a
// test: its value says which, and how.
const childVariable = "OMELLIUM_CRASH_CHILD"

// order is what a child is told.
type order struct {
	Do       string // name of the program
	Store    string // of storeKinds
	Where    string // file or URL of the store
	Anchors  string // directory of the anchors
	Server   string // host:port
	Next     int    // number of the first message to send
	Answer   bool   // Config.Receive answers instead of handlers
	Idle     bool   // sends nothing by itself
	Version  omemo.Version
	Lease    int    // time to live of a lease, milliseconds
	Instance string // name under which a lease is retaken
}

// children are the programs.
var children = map[string]func(context.Context, order) error{
	"chat":      chat,
	"contender": contend,
	"full disk": fillDisk,
}

func TestMain(m *testing.M) {
	text := os.Getenv(childVariable)
	if text == "" {
		code := logscan.Main(m)
		if err := stopPostgres(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
		os.Exit(code)
	}
	var o order
	if err := json.Unmarshal([]byte(text), &o); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	if err := children[o.Do](context.Background(), o); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// child is a running program. Its lines are told to a function.
type child struct {
	cmd    *exec.Cmd
	stdin  io.WriteCloser
	stderr strings.Builder
	silent chan struct{} // closed when it has printed its last line
}

// start starts a child. Each line that it prints is told, in order.
func start(o order, tell func(line string)) (*child, error) {
	text, err := json.Marshal(o)
	if err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	c := &child{cmd: exec.Command(self), silent: make(chan struct{})}
	c.cmd.Env = append(os.Environ(), childVariable+"="+string(text))
	c.cmd.Stderr = &c.stderr
	if c.stdin, err = c.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	stdout, err := c.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := c.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		defer close(c.silent)
		lines := bufio.NewScanner(stdout)
		for lines.Scan() {
			tell(lines.Text())
		}
	}()
	return c, nil
}

// kill kills the child and waits until all it has printed is told.
func (c *child) kill() {
	_ = c.cmd.Process.Kill() // it may have ended by itself
	<-c.silent
	_ = c.cmd.Wait()
}

// pause stops the child for a while. It may wake up long after its time.
func (c *child) pause(d time.Duration) {
	_ = c.cmd.Process.Signal(syscall.SIGSTOP)
	time.AfterFunc(d, func() { _ = c.cmd.Process.Signal(syscall.SIGCONT) })
}

// gone reports whether the child has ended by itself.
func (c *child) gone() bool {
	select {
	case <-c.silent:
		return true
	default:
		return false
	}
}

// end asks the child to end in order.
func (c *child) end() error {
	c.stdin.Close()
	<-c.silent
	if err := c.cmd.Wait(); err != nil {
		return fmt.Errorf("child: %w: %s", err, c.stderr.String())
	}
	return nil
}

// chat is romeo's program as a process: it sends numbered messages one after the
// other, and prints the number of each that was accepted and the text of each
// that it reads. It ends in order when its standard input does.
func chat(ctx context.Context, o order) error {
	kind := storeKinds[o.Store]
	p := newProgram(romeo, o.Version, func(ctx context.Context) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", o.Server)
	})
	p.open = func(ctx context.Context) (omemo.Store, error) { return kind.open(ctx, o) }
	p.catchUp = true
	p.tell = func(text string) { fmt.Println("got", text) }
	if o.Answer {
		p.receive = receiveInto(kind.values)
	}
	if err := p.live(ctx); err != nil {
		return err
	}
	fmt.Println("online")
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_, _ = io.Copy(io.Discard, os.Stdin)
	}()
	for n := o.Next; ; n++ {
		select {
		case <-ended:
			return p.quit()
		case <-p.served:
			return fmt.Errorf("the session has ended")
		default:
		}
		if o.Idle {
			<-ended
			return p.quit()
		}
		if err := p.trySend(ctx, juliet, numbered(n)); err != nil {
			return err
		}
		fmt.Println("accepted", n)
	}
}

func numbered(n int) string { return fmt.Sprintf("%s romeo %d", canary, n) }
