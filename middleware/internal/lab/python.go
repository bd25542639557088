package lab

import (
	"bufio"
	_ "embed"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

//go:embed python_peer.py
var pythonPeer string

// Versions of OMEMO, as the Python client names them.
const (
	Legacy = "legacy"
	V2     = "omemo:2"
)

// PythonOptions says how a Python client runs.
type PythonOptions struct {
	// Versions are those that the device speaks, the preferred one first. The
	// default is both, omemo:2 first.
	Versions []string
	// Store is the file of the device's state. The default is a new one, so
	// that each client is a device of its own; a file used before is the same
	// device again.
	Store string
}

// PythonClient is a running Python-OMEMO client.
type PythonClient struct {
	Account *Account
	Device  uint32 // device id, the same in both versions

	process *Process
	stdin   io.WriteCloser
	stderr  string // file

	mu     sync.Mutex
	events []PythonEvent
	news   chan struct{} // closed and replaced with each event
	refs   int
}

// PythonEvent is one thing that a Python client reported.
type PythonEvent struct {
	// Event is one of:
	//
	//	ready          logged in, published
	//	message        decrypted, with a body
	//	empty          decrypted, without a body
	//	receipt        decrypted: a message was received
	//	plain          a body in clear
	//	undecryptable  encrypted for this device, and refused
	//	foreign        encrypted, not for this device
	//	completed      sent an empty message by itself
	//	devices        a device list arrived
	//	presence       a contact came or went
	//	occupant       somebody came to a room, went, or changed
	//	error          a message came back
	//	answer         of a command
	//	failed         an error of the client itself
	//	disconnected
	Event   string
	JID     string // bare; of a message to a room, the room
	Sender  string // bare, behind a message
	Nick    string // of an occupant
	Own     bool   // the occupant is this client
	ID      string // of the stanza
	Body    string
	Version string
	Device  uint32 // the sender's device id
	Devices []uint32
	Type    string // of a presence
	Carbon  bool
	Reason  string

	Ref      int
	Failure  string
	IDs      []string // of the stanzas that were sent
	Versions []string
	List     []PythonDevice
	Errors   []string

	line string // as it came
}

// PythonDevice is a device as a Python client sees it.
type PythonDevice struct {
	Device   uint32
	Versions []string // in which it is active
}

// Python logs a Python-OMEMO client in and waits until its device is published.
// It ends with the test.
func Python(t testing.TB, s *Server, a *Account, o PythonOptions) *PythonClient {
	t.Helper()
	dir := t.TempDir()
	script := filepath.Join(dir, "peer.py")
	if err := os.WriteFile(script, []byte(pythonPeer), 0o600); err != nil {
		t.Fatalf("lab: %v", err)
	}
	if len(o.Versions) == 0 {
		o.Versions = []string{V2, Legacy}
	}
	if o.Store == "" {
		o.Store = filepath.Join(dir, "store.json")
	}
	config, err := json.Marshal(map[string]any{
		"jid": a.JID, "password": a.Password, "addr": s.Addr, "ca": s.CAFile, "store": o.Store, "versions": o.Versions,
	})
	if err != nil {
		t.Fatalf("lab: %v", err)
	}
	stderr, err := os.Create(filepath.Join(dir, "stderr.log"))
	if err != nil {
		t.Fatalf("lab: %v", err)
	}
	defer stderr.Close()
	// Debian's own interpreter: it has the packages.
	cmd := exec.Command(program(t, "/usr/bin/python3"), script, string(config))
	cmd.Stderr = stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatalf("lab: %v", err)
	}
	stdout, stdoutWriter := io.Pipe()
	cmd.Stdout = stdoutWriter
	c := &PythonClient{Account: a, stdin: stdin, stderr: stderr.Name(), news: make(chan struct{})}
	if c.process, err = Start(cmd); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.process.Kill()
		stdoutWriter.Close()
		if t.Failed() {
			t.Log(c.report())
		}
	})
	go c.read(stdout)
	c.Device = c.Await(t, "to be ready", func(e PythonEvent) bool { return e.Event == "ready" }).Device
	return c
}

func (c *PythonClient) read(r io.Reader) {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 4<<20)
	for lines.Scan() {
		e := PythonEvent{line: lines.Text()}
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			e = PythonEvent{Event: "failed", Reason: err.Error(), line: lines.Text()}
		}
		c.mu.Lock()
		c.events = append(c.events, e)
		close(c.news)
		c.news = make(chan struct{})
		c.mu.Unlock()
	}
}

// Events returns what the client reported so far.
func (c *PythonClient) Events() []PythonEvent {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.events)
}

// Bodies returns the decrypted texts from a bare JID so far, in order, carbons
// left out.
func (c *PythonClient) Bodies(from string) []string {
	var bodies []string
	for _, e := range c.Events() {
		if e.Event == "message" && e.JID == from && !e.Carbon {
			bodies = append(bodies, e.Body)
		}
	}
	return bodies
}

// Await waits for an event, or takes one that has happened already.
func (c *PythonClient) Await(t testing.TB, what string, match func(PythonEvent) bool) PythonEvent {
	t.Helper()
	deadline := time.After(patience)
	for seen := 0; ; {
		c.mu.Lock()
		events, news := c.events[seen:], c.news
		seen = len(c.events)
		c.mu.Unlock()
		if i := slices.IndexFunc(events, match); i >= 0 {
			return events[i]
		}
		select {
		case <-news:
		case <-c.process.Done():
			t.Fatalf("lab: %s: client ended while waiting for it %s: %v", c.Account.JID, what, c.process.Err())
		case <-deadline:
			t.Fatalf("lab: %s: waited in vain for it %s", c.Account.JID, what)
		}
	}
}

// AwaitBody waits for a decrypted text from a bare JID.
func (c *PythonClient) AwaitBody(t testing.TB, from, body string) PythonEvent {
	t.Helper()
	return c.Await(t, fmt.Sprintf("to receive %q from %s", body, from), func(e PythonEvent) bool {
		return e.Event == "message" && e.JID == from && e.Body == body
	})
}

// Undecryptable returns the messages that the client could not read.
func (c *PythonClient) Undecryptable() []PythonEvent {
	return slices.DeleteFunc(c.Events(), func(e PythonEvent) bool { return e.Event != "undecryptable" })
}

// AwaitPresence waits until a contact's last known presence is of a type:
// "available" or "unavailable".
func (c *PythonClient) AwaitPresence(t testing.TB, of, kind string) {
	t.Helper()
	if !Until(patience, func() bool {
		last := ""
		for _, e := range c.Events() {
			if e.Event == "presence" && e.JID == of {
				last = e.Type
			}
		}
		return last == kind
	}) {
		t.Fatalf("lab: %s: waited in vain for %s to become %s", c.Account.JID, of, kind)
	}
}

// AwaitDevice waits until the client knows that a device is on an account's
// list.
func (c *PythonClient) AwaitDevice(t testing.TB, of string, device uint32) {
	t.Helper()
	c.Await(t, fmt.Sprintf("to learn of device %d of %s", device, of), func(e PythonEvent) bool {
		return e.Event == "devices" && e.JID == of && slices.Contains(e.Devices, device)
	})
}

// Send encrypts and sends a text, and returns which devices got a key.
func (c *PythonClient) Send(t testing.TB, to, body string) PythonEvent {
	t.Helper()
	return c.command(t, map[string]any{"command": "send", "to": to, "body": body})
}

// SendAndAwaitReceipt sends a text, asks for a receipt, and waits for it. The
// client and one of the recipient's devices must speak omemo:2.
func (c *PythonClient) SendAndAwaitReceipt(t testing.TB, to, body string) {
	t.Helper()
	ids := c.command(t, map[string]any{"command": "send", "to": to, "body": body, "receipt": true}).IDs
	c.Await(t, fmt.Sprintf("to get a receipt for %q", body), func(e PythonEvent) bool {
		return e.Event == "receipt" && e.JID == to && slices.Contains(ids, e.ID)
	})
}

// Join enters a room and waits until it is in. Send to the room's address then
// encrypts for its members, and what they say has the room's address as its JID.
func (c *PythonClient) Join(t testing.TB, room, nick string) {
	t.Helper()
	c.command(t, map[string]any{"command": "join", "to": room, "nick": nick})
	c.awaitNick(t, room, nick)
}

// Nick takes another nick in a room.
func (c *PythonClient) Nick(t testing.TB, room, nick string) {
	t.Helper()
	c.command(t, map[string]any{"command": "nick", "to": room, "nick": nick})
	c.awaitNick(t, room, nick)
}

func (c *PythonClient) awaitNick(t testing.TB, room, nick string) {
	t.Helper()
	c.Await(t, fmt.Sprintf("to be %s in %s", nick, room), func(e PythonEvent) bool {
		return e.Event == "occupant" && e.JID == room && e.Own && e.Nick == nick && e.Type == "available"
	})
}

// SendPlain sends a text in clear.
func (c *PythonClient) SendPlain(t testing.TB, to, body string) {
	t.Helper()
	c.command(t, map[string]any{"command": "plain", "to": to, "body": body})
}

// Echo makes the client answer each decrypted text with the same text.
func (c *PythonClient) Echo(t testing.TB, on bool) {
	t.Helper()
	c.command(t, map[string]any{"command": "echo", "on": on})
}

// Devices fetches an account's device lists.
func (c *PythonClient) Devices(t testing.TB, of string) []PythonDevice {
	t.Helper()
	return c.command(t, map[string]any{"command": "devices", "to": of}).List
}

// ReplaceSessions starts new sessions with all devices of an account.
func (c *PythonClient) ReplaceSessions(t testing.TB, with string) {
	t.Helper()
	c.command(t, map[string]any{"command": "replace", "to": with})
}

// Stop logs out and waits until the client has ended.
func (c *PythonClient) Stop(t testing.TB) {
	t.Helper()
	if err := c.stdin.Close(); err != nil {
		t.Fatalf("lab: %s: %v", c.Account.JID, err)
	}
	select {
	case <-c.process.Done():
	case <-time.After(patience):
		t.Fatalf("lab: %s: client did not end", c.Account.JID)
	}
}

func (c *PythonClient) command(t testing.TB, command map[string]any) PythonEvent {
	t.Helper()
	c.mu.Lock()
	c.refs++
	ref := c.refs
	c.mu.Unlock()
	command["ref"] = ref
	line, err := json.Marshal(command)
	if err != nil {
		t.Fatalf("lab: %v", err)
	}
	if _, err := c.stdin.Write(append(line, '\n')); err != nil {
		t.Fatalf("lab: %s: %v", c.Account.JID, err)
	}
	answer := c.Await(t, fmt.Sprintf("to obey %s", line), func(e PythonEvent) bool {
		return e.Event == "answer" && e.Ref == ref
	})
	if answer.Failure != "" {
		t.Fatalf("lab: %s: %s: %s", c.Account.JID, line, answer.Failure)
	}
	return answer
}

// report returns the last events, for the log of a failed test.
func (c *PythonClient) report() string {
	events := c.Events()
	events = events[max(0, len(events)-40):]
	var b strings.Builder
	fmt.Fprintf(&b, "python %s, device %d, last events:\n", c.Account.JID, c.Device)
	for _, e := range events {
		fmt.Fprintln(&b, e.line)
	}
	b.WriteString(strings.TrimSpace(tail(c.stderr, 40)))
	return b.String()
}
