package crash

import (
	"fmt"
	"testing"

	"example.org/omellium/omemo"
)

// texts returns texts that hold the canary.
func texts(who string, from, n int) []string {
	var all []string
	for i := range n {
		all = append(all, fmt.Sprintf("%s %s %d", canary, who, from+i))
	}
	return all
}

// heartbeatAfter is how many messages of one chain bring about a heartbeat
// (XEP-0384, section 5.5.3).
const heartbeatAfter = 53

var scenarios = []*scenario{
	{
		name: "first start", devices: 1,
		romeo: texts("romeo", 0, 1),
	},
	{
		name: "first message out", devices: 1, short: true,
		before: func(w *world) { w.settle() },
		romeo:  texts("romeo", 0, 1),
	},
	{
		name: "first message in", devices: 1,
		before: func(w *world) { w.settle() },
		juliet: texts("juliet", 0, 1),
	},
	{
		name: "both start at once", devices: 1,
		before: func(w *world) { w.settle() },
		romeo:  texts("romeo", 0, 1), juliet: texts("juliet", 0, 1),
	},
	{
		name: "ratchet step", devices: 1, short: true,
		before: func(w *world) {
			w.talk(texts("romeo", 0, 1), nil)
			w.talk(nil, texts("juliet", 0, 1))
		},
		romeo: texts("romeo", 1, 2), juliet: texts("juliet", 1, 2),
	},
	{
		name: "answers from a handler", devices: 1, answers: true,
		before: func(w *world) { w.talk(texts("romeo", 0, 1), nil) },
		juliet: texts("juliet", 0, 2),
	},
	{
		name: "written to the session", devices: 1, written: true,
		before: func(w *world) { w.talk(texts("romeo", 0, 1), nil) },
		romeo:  texts("romeo", 1, 4),
	},
	{
		name: "fan-out to three devices", devices: 3,
		before: func(w *world) { w.settle() },
		romeo:  texts("romeo", 0, 2),
	},
	{
		name: "heartbeat", devices: 1, short: true,
		before: func(w *world) {
			w.talk(nil, texts("juliet", 0, 1))
			w.talk(nil, texts("juliet", 1, heartbeatAfter))
		},
		juliet: texts("juliet", 1+heartbeatAfter, 1),
	},
	{
		name: "first messages in a room", devices: 1, room: true,
		before: func(w *world) { w.settle() },
		romeo:  texts("romeo", 0, 2), juliet: texts("juliet", 0, 2),
	},
	{
		name: "a room", devices: 1, room: true, short: true,
		before: func(w *world) {
			w.settle()
			w.talk(texts("romeo", 0, 1), texts("juliet", 0, 1))
		},
		romeo: texts("romeo", 1, 2), juliet: texts("juliet", 1, 2),
	},
	{
		name: "reconnect with a full outbox", devices: 1,
		before: func(w *world) {
			w.talk(texts("romeo", 0, 1), nil)
			w.tap.setSwallow(true)
			w.talk(texts("romeo", 1, 20), nil)
			w.stop()
			w.tap.setSwallow(false)
		},
		romeo: texts("romeo", 1, 20),
	},
	{
		name: "catching up with an archive", devices: 1, catches: true,
		before: missing(60),
		juliet: texts("juliet", 1, 62),
	},
}

// missing has the subject miss n messages of juliet's, of which some more are to
// come when it is back.
func missing(n int) func(*world) {
	return func(w *world) {
		w.talk(texts("romeo", 0, 1), texts("juliet", 0, 1))
		w.stop()
		ok(w.t, w.peers[0].say(w.ctx, romeo, texts("juliet", 1, n)...))
		w.settle()
	}
}

// tally sums outcomes up.
type tally struct {
	runs, hits, resent, again int
}

func (y tally) String() string {
	return fmt.Sprintf("%d runs, %d crashes, %d stanzas sent again, %d messages handed over again", y.runs, y.hits, y.resent, y.again)
}

func (y *tally) add(o outcome) {
	y.runs++
	y.hits += o.hits
	y.resent += o.resent
	y.again += o.again
}

// sweep runs a scenario with a crash at every point of its first life, in each
// way that makes a difference; of all of them, every stride-th.
func (s *scenario) sweep(t *testing.T, v omemo.Version, open opener, stride, first int) {
	steps := s.run(t, v, open).steps[0]
	var y tally
	turn := first
	// Some more than one run has shown: not every run is the same.
	for step := 1; step <= len(steps)+len(steps)/10; step++ {
		k := write
		if step <= len(steps) {
			k = steps[step-1]
		}
		for _, what := range modes[k] {
			if turn++; turn%stride == 0 {
				y.add(s.run(t, v, open, point{step, what}))
			}
		}
	}
	t.Logf("%d steps; %v", len(steps), y)
}

// TestFailpoints has the subject die at each step of each scenario.
func TestFailpoints(t *testing.T) {
	stride := knob(t, "OMELLIUM_FAILPOINTS", 8, 40)
	for _, on := range stores {
		for i, s := range scenarios {
			t.Run(on.name+"/"+s.name, func(t *testing.T) {
				t.Parallel()
				s.sweep(t, omemo.Versions()[i%2], on.open, stride, i)
			})
		}
	}
}

// TestFailpointPairs has the subject die a second time, at each step with an
// effect on the way back from the first death.
func TestFailpointPairs(t *testing.T) {
	stride := knob(t, "OMELLIUM_FAILPOINTS", 8, 40)
	for _, on := range stores {
		for i, s := range scenarios {
			if !s.short {
				continue
			}
			t.Run(on.name+"/"+s.name, func(t *testing.T) {
				t.Parallel()
				s.sweepPairs(t, omemo.Versions()[(i+1)%2], on.open, stride, i)
			})
		}
	}
}

// sweepPairs runs a scenario with two crashes: of the second ones, every stride-th.
func (s *scenario) sweepPairs(t *testing.T, v omemo.Version, open opener, stride, first int) {
	var y tally
	turn := first
	for step, k := range s.run(t, v, open).steps[0] {
		if k == read || step%(1+stride/8) != 0 {
			continue
		}
		one := point{step + 1, modes[k][step%2]}
		way := s.run(t, v, open, one).steps
		if len(way) < 2 {
			continue // it was not reached this time
		}
		for step, k := range way[1] {
			if turn++; k == read || turn%stride != 0 {
				continue
			}
			other := point{step + 1, modes[k][turn/stride%len(modes[k])]}
			y.add(s.run(t, v, open, one, other))
		}
	}
	t.Logf("%v", y)
}
