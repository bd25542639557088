package middleware

import (
	"fmt"
	"sync"
	"time"

	"example.org/omellium/omemo"
)

// Limits of what is remembered about messages.
const (
	traceMessages = 512 // the newest
	traceSteps    = 32  // of one message, the first
	traceID       = 256 // bytes; messages with a longer id are not remembered
)

// Step is a step on the way of a message.
type Step struct {
	At   time.Time
	What string
}

// Trace returns the way that a message has taken, in or out, by its stanza id, as
// far as it is remembered: for a bug report. It names no account and no device,
// and holds neither content nor keys.
func (m *Middleware) Trace(id string) []Step {
	t := &m.traces
	t.mu.Lock()
	defer t.mu.Unlock()
	return append([]Step(nil), t.steps[id]...)
}

// traces remembers the newest messages.
type traces struct {
	mu    sync.Mutex
	steps map[string][]Step
	order [traceMessages]string // ids, in a ring
	next  int
}

func (t *traces) note(id, format string, args ...any) {
	if id == "" || len(id) > traceID {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.steps == nil {
		t.steps = make(map[string][]Step)
	}
	steps, known := t.steps[id]
	if !known {
		delete(t.steps, t.order[t.next])
		t.order[t.next] = id
		t.next = (t.next + 1) % traceMessages
	}
	if len(steps) < traceSteps {
		t.steps[id] = append(steps, Step{time.Now(), fmt.Sprintf(format, args...)})
	}
}

// event notes an event.
func (t *traces) event(e Event) {
	switch {
	case e.Err != nil:
		t.note(e.ID, "%v: %s", e.Kind, reason(e.Err))
	default:
		t.note(e.ID, "%v", e.Kind)
	}
}

// sealed notes what became of the devices of a message.
func (t *traces) sealed(id string, devices []omemo.DeviceResult) {
	served := make(map[omemo.Version]int)
	exchanges := 0
	for _, d := range devices {
		switch {
		case d.Err != nil:
			t.note(id, "a device is not served in %v: %s", d.Peer.Version, reason(d.Err))
			continue
		case d.Exchange:
			exchanges++
		}
		served[d.Peer.Version]++
	}
	t.note(id, "sealed for %d devices in omemo:2 and %d in legacy, %d key exchanges", served[omemo.V2], served[omemo.Legacy], exchanges)
}
