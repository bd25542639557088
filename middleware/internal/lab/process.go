package lab

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

// patience is the deadline of everything that happens soon on an idle machine.
const patience = 60 * time.Second

// debian names the package that brings each program.
var debian = map[string]string{
	"prosody":          "prosody",
	"erl":              "ejabberd",
	"profanity":        "profanity",
	"tmux":             "tmux",
	"/usr/bin/python3": "python3-slixmpp python3-omemo python3-oldmemo python3-twomemo python3-xmlschema",
}

// program returns the path of a program, or fails the test.
func program(t testing.TB, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Fatalf("lab: %s is missing: apt-get install %s", name, debian[name])
	}
	return path
}

// Process is a program that runs beside the test, in a process group of its
// own.
type Process struct {
	cmd  *exec.Cmd
	done chan struct{}
	err  error // of Wait, once done is closed
}

// Start runs cmd. The caller ends it with Kill, or waits for Done.
func Start(cmd *exec.Cmd) (*Process, error) {
	cmd.SysProcAttr = attributes()
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("lab: %w", err)
	}
	p := &Process{cmd: cmd, done: make(chan struct{})}
	go func() {
		defer close(p.done)
		p.err = cmd.Wait()
	}()
	return p, nil
}

// Done is closed when the process has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Err returns how the process ended. Only valid after Done.
func (p *Process) Err() error { return p.err }

// Signal sends a signal to the process alone.
func (p *Process) Signal(s syscall.Signal) error { return p.cmd.Process.Signal(s) }

// Kill ends the process and what it started, and waits until it is gone.
func (p *Process) Kill() {
	select {
	case <-p.done:
		return
	default:
	}
	// A process that has just ended is no error: this is what was wanted.
	if err := syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
		_ = p.cmd.Process.Kill()
	}
	<-p.done
}

// Until waits until the condition holds, looking about fifty times a second,
// and reports whether it did before the deadline.
func Until(deadline time.Duration, condition func() bool) bool {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	end := time.After(deadline)
	for {
		if condition() {
			return true
		}
		select {
		case <-tick.C:
		case <-end:
			return condition()
		}
	}
}

// tail returns the last n lines of a file, for the log of a failed test.
func tail(path string, n int) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimRight(string(b), "\n"), "\n")
	if len(lines) > n {
		lines = lines[len(lines)-n:]
	}
	return path + ":\n" + strings.Join(lines, "\n")
}
