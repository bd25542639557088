package front

import (
	"bytes"
	"os"
	"sync"
	"time"
)

// outbound is the direction of the pipe from the application: a Write returns
// when the parser has taken all of its bytes. So it waits while the parser
// waits, and what has been written has been taken.
//
// The encoder of a mellium session fails for good after one failed Write: there
// is none before the end.
type outbound struct {
	writing sync.Mutex // held during Write

	mu       sync.Mutex
	changed  *sync.Cond
	opened   bool   // bytes count; before, they belong to the negotiation
	chunk    []byte // what is left of the Write in progress
	taken    int64  // bytes the parser has taken
	between  bool   // the parser stands behind an element, and has taken nothing since
	err      error  // what Write returns after the end
	deadline deadline

	keepalive func(space []byte)
}

func newOutbound() *outbound {
	out := &outbound{}
	out.changed = sync.NewCond(&out.mu)
	return out
}

// open ends the negotiation.
func (out *outbound) open() {
	out.mu.Lock()
	defer out.mu.Unlock()
	out.opened = true
}

// close makes Write and Read return err from now on. Only the first one counts.
func (out *outbound) close(err error) {
	out.mu.Lock()
	defer out.mu.Unlock()
	if out.err == nil {
		out.err = err
		out.changed.Broadcast()
	}
}

func (out *outbound) closed() bool {
	out.mu.Lock()
	defer out.mu.Unlock()
	return out.err != nil
}

func (out *outbound) setDeadline(t time.Time) {
	out.mu.Lock()
	defer out.mu.Unlock()
	if !t.IsZero() && !t.After(time.Now()) {
		return
	}
	out.deadline.set(t, out.changed)
	out.changed.Broadcast()
}

func (out *outbound) Write(b []byte) (int, error) {
	out.writing.Lock()
	defer out.writing.Unlock()
	out.mu.Lock()
	defer out.mu.Unlock()
	switch {
	case !out.opened:
		return len(b), nil
	case out.err != nil && string(b) == closing:
		// Serve closes the stream when it has ended, and would report an error.
		return len(b), nil
	}
	if out.err == nil && out.between && len(b) > 0 && len(bytes.TrimLeft(b, " \t\r\n")) == 0 {
		// White space between stanzas keeps a connection alive (RFC 6120, section
		// 4.6.1). The parser would see it with the next stanza only.
		out.mu.Unlock()
		defer out.mu.Lock()
		out.keepalive(b)
		return len(b), nil
	}
	out.chunk = b
	out.changed.Broadcast()
	for len(out.chunk) > 0 && out.err == nil && !out.deadline.passed() {
		out.changed.Wait()
	}
	n := len(b) - len(out.chunk)
	out.chunk = nil
	switch {
	case n == len(b):
		return n, nil
	case out.err != nil:
		return n, out.err
	}
	return n, os.ErrDeadlineExceeded
}

// Read is the parser's side.
func (out *outbound) Read(b []byte) (int, error) {
	out.mu.Lock()
	defer out.mu.Unlock()
	for len(out.chunk) == 0 && out.err == nil {
		out.changed.Wait()
	}
	if out.err != nil {
		return 0, out.err
	}
	n := copy(b, out.chunk)
	out.chunk = out.chunk[n:]
	out.taken += int64(n)
	out.between = false
	if len(out.chunk) == 0 {
		out.changed.Broadcast()
	}
	return n, nil
}

// rest tells that the parser is between two elements, after offset bytes.
func (out *outbound) rest(offset int64) {
	out.mu.Lock()
	defer out.mu.Unlock()
	out.between = offset == out.taken
}
