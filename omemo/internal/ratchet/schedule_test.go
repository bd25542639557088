package ratchet

import (
	"testing"

	"example.org/omellium/omemo/internal/curve"
	"pgregory.net/rapid"
)

// TestSchedules drives two parties at random: messages are lost, come late, out of order and twice, forged ones come
// in between, and either party may announce its chains one message short. Every message opens exactly once with the
// key it was sealed with, however late.
func TestSchedules(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := rapid.SampledFrom([]Params{legacy, v2}).Draw(t, "version")
		a, b := pair(t, p)
		sides := [2]*side{a, b}
		short := [2]bool{rapid.Bool().Draw(t, "short"), rapid.Bool().Draw(t, "short")}
		var flying, opened [2][]message // by receiver
		excused := map[Header]bool{}    // may be lost, PN is zero
		drawForged := drawer(9)

		deliver := func(to int, m message) {
			receiver := sides[to]
			before := receiver.State
			if err := receiver.open(p, m); err != nil {
				if !excused[Header{Key: m.Key, N: m.N}] {
					t.Fatalf("to %d: message %d of %x: %v", to, m.N, m.Key[:4], err)
				}
				return
			}
			opened[to] = append(opened[to], m)
			// A chain was closed for good without a sign yet that the peer counts short: its last message is lost.
			if before.HasPrevious && receiver.Previous.Remote != before.Previous.Remote && !receiver.ShortPN && short[1-to] {
				excused[Header{Key: before.Previous.Remote, N: before.Previous.Next}] = true
			}
			if receiver.ShortPN && !short[1-to] {
				t.Fatalf("to %d: an honest peer is taken for a short one", to)
			}
		}

		t.Repeat(map[string]func(*rapid.T){
			"send": func(t *rapid.T) {
				from := rapid.IntRange(0, 1).Draw(t, "from")
				if from == 1 && !b.CanReceive {
					return
				}
				for _, m := range sides[from].sealN(t, p, rapid.IntRange(1, 4).Draw(t, "count")) {
					if short[from] {
						m = shorten(m)[0]
					}
					flying[1-from] = append(flying[1-from], m)
				}
			},
			"deliver": func(t *rapid.T) {
				to := rapid.IntRange(0, 1).Draw(t, "to")
				if n := len(flying[to]); n > 0 {
					i := rapid.IntRange(0, n-1).Draw(t, "which")
					m := flying[to][i]
					flying[to] = append(flying[to][:i:i], flying[to][i+1:]...)
					deliver(to, m)
				}
			},
			"deliver in order": func(t *rapid.T) {
				to := rapid.IntRange(0, 1).Draw(t, "to")
				for _, m := range flying[to] {
					deliver(to, m)
				}
				flying[to] = nil
			},
			"lose": func(t *rapid.T) {
				to := rapid.IntRange(0, 1).Draw(t, "to")
				if n := len(flying[to]); n > 0 {
					flying[to] = flying[to][:n-1]
				}
			},
			"repeat": func(t *rapid.T) {
				to := rapid.IntRange(0, 1).Draw(t, "to")
				if n := len(opened[to]); n > 0 {
					before := sides[to].State
					m := opened[to][rapid.IntRange(0, n-1).Draw(t, "which")]
					if err := sides[to].open(p, m); err == nil {
						t.Fatalf("message %d opens twice", m.N)
					}
					if sides[to].State != before {
						t.Fatal("a repeated message changes the state")
					}
				}
			},
			"forge": func(t *rapid.T) {
				to := rapid.IntRange(0, 1).Draw(t, "to")
				h := Header{N: rapid.Uint32().Draw(t, "n"), PN: rapid.Uint32().Draw(t, "pn")}
				h.Key = rapid.SampledFrom([]curve.Montgomery{
					{}, drawForged().Public(), sides[to].Receiving.Remote, sides[to].Previous.Remote,
				}).Draw(t, "key")
				before := sides[to].State
				if err := sides[to].open(p, message{Header: h}); err == nil {
					t.Fatal("a forged message opens")
				}
				if sides[to].State != before {
					t.Fatal("a forged message changes the state")
				}
			},
		})

		for to := range sides {
			for _, m := range flying[to] {
				deliver(to, m)
			}
		}
	})
}
