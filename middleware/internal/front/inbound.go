package front

import (
	"io"
	"os"
	"sync"
	"time"
)

// closing is the end tag of a stream, as mellium writes it (RFC 6120, section
// 4.4).
const closing = "</stream:stream>"

// slot is a stanza that waits for the application: itself, or the function that
// knows where it is.
type slot struct {
	stanza []byte
	read   func()
	next   func() (stanza []byte, read func(), ok bool)
}

// inbound is the direction of the pipe towards the application: a queue of
// stanzas on one side, a reader on the other that returns bytes of at most one
// stanza at a time.
type inbound struct {
	limit int // bytes that may wait

	reading sync.Mutex // held during Read
	rest    []byte     // what is left of the stanza being read
	read    func()     // called when the application is done with that stanza

	mu       sync.Mutex
	changed  *sync.Cond
	slots    []slot
	bytes    int
	err      error // what follows the slots
	aborted  bool  // err comes at once, even within a stanza
	deadline deadline
}

func newInbound(limit int) *inbound {
	in := &inbound{limit: limit}
	in.changed = sync.NewCond(&in.mu)
	return in
}

// push appends a slot. It reports false if the bytes that wait would exceed the
// limit. What is pushed after the end is dropped.
func (in *inbound) push(s slot) bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.err != nil || len(s.stanza) == 0 && s.next == nil {
		return true
	}
	if len(s.stanza) > 0 && in.bytes+len(s.stanza) > in.limit {
		return false
	}
	in.bytes += len(s.stanza)
	in.slots = append(in.slots, s)
	in.changed.Broadcast()
	return true
}

// end lets err follow the last slot, or the end tag of the stream if err is nil.
func (in *inbound) end(err error) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.err != nil {
		return
	}
	if in.err = err; err == nil {
		in.slots = append(in.slots, slot{stanza: []byte(closing)})
		in.err = io.EOF
	}
	in.changed.Broadcast()
}

// abort drops what waits and lets err come at once.
func (in *inbound) abort(err error) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.aborted {
		return
	}
	in.slots, in.bytes = nil, 0
	in.err, in.aborted = err, true
	in.changed.Broadcast()
}

func (in *inbound) setDeadline(t time.Time) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.deadline.set(t, in.changed)
	in.changed.Broadcast()
}

func (in *inbound) Read(b []byte) (int, error) {
	in.reading.Lock()
	defer in.reading.Unlock()
	if len(b) == 0 {
		return 0, nil
	}
	if len(in.rest) == 0 && in.read != nil {
		// The reader asks for more: it is done with what it had.
		read := in.read
		in.read = nil
		read()
	}
	if err := in.interrupted(); err != nil {
		return 0, err
	}
	for len(in.rest) == 0 {
		s, err := in.pop()
		if err != nil {
			return 0, err
		}
		if s.next != nil {
			// Not under the lock: the wire reader must not wait for it.
			var ok bool
			if s.stanza, s.read, ok = s.next(); !ok || len(s.stanza) == 0 {
				continue
			}
		}
		in.rest, in.read = s.stanza, s.read
	}
	n := copy(b, in.rest)
	if in.rest = in.rest[n:]; len(in.rest) == 0 {
		in.rest = nil // let go of it
	}
	return n, nil
}

// interrupted returns what stops even a stanza that was read in part.
func (in *inbound) interrupted() error {
	in.mu.Lock()
	defer in.mu.Unlock()
	switch {
	case in.aborted:
		return in.err
	case in.deadline.passed():
		return os.ErrDeadlineExceeded
	}
	return nil
}

// pop waits for a slot and takes it.
func (in *inbound) pop() (slot, error) {
	in.mu.Lock()
	defer in.mu.Unlock()
	for {
		switch {
		case in.aborted:
			return slot{}, in.err
		case in.deadline.passed():
			return slot{}, os.ErrDeadlineExceeded
		case len(in.slots) > 0:
			s := in.slots[0]
			in.slots[0] = slot{}
			in.slots = in.slots[1:]
			in.bytes -= len(s.stanza)
			return s, nil
		case in.err != nil:
			return slot{}, in.err
		}
		in.changed.Wait()
	}
}
