package ratchet

import (
	"math"
	"testing"

	"example.org/omellium/omemo/internal/curve"
)

// TestSkipLimit is attack C9: the bound holds for every number, and before any work is done.
func TestSkipLimit(t *testing.T) {
	a, b := pair(t, v2)
	mustOpen(t, b, v2, a.seal(t, v2))
	known, fresh := b.Receiving.Remote, drawer(9)().Public()
	tests := []struct {
		name    string
		h       Header
		skipped int
		err     error
	}{
		{"next", Header{Key: known, N: 1}, 0, nil},
		{"999", Header{Key: known, N: 1 + 999}, 999, nil},
		{"1000", Header{Key: known, N: 1 + 1000}, 1000, nil},
		{"1001", Header{Key: known, N: 1 + 1001}, 0, ErrTooManySkipped},
		{"2^31", Header{Key: known, N: 1 << 31}, 0, ErrTooManySkipped},
		{"2^32-1", Header{Key: known, N: math.MaxUint32}, 0, ErrTooManySkipped},

		{"new chain", Header{Key: fresh, PN: 1}, 0, nil},
		{"new chain, 999", Header{Key: fresh, N: 999, PN: 1}, 999, nil},
		{"new chain, 1000", Header{Key: fresh, N: 1000, PN: 1}, 1000, nil},
		{"new chain, 1001", Header{Key: fresh, N: 1001, PN: 1}, 0, ErrTooManySkipped},
		{"new chain, 2^31", Header{Key: fresh, N: 1 << 31, PN: 1}, 0, ErrTooManySkipped},
		{"new chain, 2^32-1", Header{Key: fresh, N: math.MaxUint32, PN: 1}, 0, ErrTooManySkipped},

		{"old chain, none", Header{Key: fresh, PN: 0}, 0, nil},
		{"old chain, 999", Header{Key: fresh, PN: 1 + 999}, 999, nil},
		{"old chain, 1000", Header{Key: fresh, PN: 1 + 1000}, 1000, nil},
		{"old chain, 1001: nothing stored", Header{Key: fresh, PN: 1 + 1001}, 0, nil},
		{"old chain, 2^31: nothing stored", Header{Key: fresh, PN: 1 << 31}, 0, nil},
		{"old chain, 2^32-1: nothing stored", Header{Key: fresh, PN: math.MaxUint32}, 0, nil},

		{"both, 1000", Header{Key: fresh, N: 400, PN: 1 + 600}, 1000, nil},
		{"both, 1001: of the new chain only", Header{Key: fresh, N: 401, PN: 1 + 600}, 401, nil},
		{"both, 2000: of the new chain only", Header{Key: fresh, N: 1000, PN: 1 + 1000}, 1000, nil},
	}
	for _, test := range tests {
		next, _, skipped, err := opened(&b.State, v2, test.h)
		if err != test.err || len(skipped) != test.skipped {
			t.Errorf("%s: %d skipped, %v", test.name, len(skipped), err)
			continue
		}
		if err != nil && (next != State{}) {
			t.Errorf("%s: a state comes with the error", test.name)
		}
		seen := map[Header]bool{}
		for _, k := range skipped {
			seen[Header{Key: k.Key, N: k.N}] = true
		}
		if len(seen) != len(skipped) {
			t.Errorf("%s: a key is named twice", test.name)
		}
	}
}

// TestBudget: all that is tried for a stanza shares one bound, and nothing is done beyond it. What is missing in the
// chain before is derived only when the message is authenticated.
func TestBudget(t *testing.T) {
	a, b := pair(t, v2)
	mustOpen(t, b, v2, a.seal(t, v2))
	known, fresh := b.Receiving.Remote, drawer(9)().Public()
	const step, turn = 2, 3 // HMACs
	var budget Budget
	for i, test := range []struct {
		h      Header
		err    error
		open   uint64 // HMACs before the message is authenticated
		keep   uint64 // and after
		agreed uint64
	}{
		{Header{Key: known, N: 1 + 600}, nil, 600 + step, 600, 0},
		{Header{Key: known, N: 1 + 401}, ErrTooManySkipped, 0, 0, 0},
		{Header{Key: fresh, N: 401}, ErrTooManySkipped, 0, 0, 0},
		{Header{Key: fresh, N: 300, PN: 1 + 700}, nil, 300 + turn + step, 300 + 700*step, 1},
		{Header{Key: fresh, N: 300, PN: 1 + 701}, ErrTooManySkipped, 0, 0, 0},
		{Header{Key: known, N: 0}, ErrDuplicate, 0, 0, 0},
		{Header{Key: fresh, N: 100}, nil, 100 + turn + step, 100, 1},
		{Header{Key: known, N: 1 + 1}, ErrTooManySkipped, 0, 0, 0},
		{Header{Key: fresh, PN: 1 + 1000}, nil, turn + step, 1000 * step, 1},
		{Header{Key: known, N: 1}, nil, step, 0, 0},
	} {
		hmacs, agreed := HMACs(), curve.Agreements()
		o, err := b.Open(v2, test.h, &budget)
		if n, m := HMACs()-hmacs, curve.Agreements()-agreed; err != test.err || n != test.open || m != test.agreed {
			t.Errorf("%d: %v, %d HMACs, %d agreements", i, err, n, m)
		}
		if err != nil {
			continue
		}
		hmacs = HMACs()
		o.Keep()
		if n := HMACs() - hmacs; n != test.keep {
			t.Errorf("%d: %d HMACs when it is kept", i, n)
		}
	}
}

// TestSkippedOrder: oldest first, as the store drops the oldest first.
func TestSkippedOrder(t *testing.T) {
	a, b := pair(t, v2)
	first := a.sealN(t, v2, 4)
	mustOpen(t, b, v2, first[0])
	mustOpen(t, a, v2, b.seal(t, v2))
	second := a.sealN(t, v2, 3)
	_, _, skipped, err := opened(&b.State, v2, second[2].Header)
	if err != nil {
		t.Fatal(err)
	}
	want := []message{first[1], first[2], first[3], second[0], second[1]}
	if len(skipped) != len(want) {
		t.Fatalf("%d keys", len(skipped))
	}
	for i, m := range want {
		if skipped[i].Key != m.Key || skipped[i].N != m.N || skipped[i].Seed != m.key {
			t.Errorf("%d: message %d of another chain or key", i, skipped[i].N)
		}
	}
}

// TestLastNumber: a chain ends one message before its numbers wrap round.
func TestLastNumber(t *testing.T) {
	a, b := pair(t, v2)
	mustOpen(t, b, v2, a.seal(t, v2))
	b.Receiving.Next = math.MaxUint32 - 1
	h := Header{Key: b.Receiving.Remote, N: math.MaxUint32}
	if _, _, _, err := opened(&b.State, v2, h); err != ErrTooManySkipped {
		t.Errorf("2^32-1: %v", err)
	}
	h.N--
	next, _, _, err := opened(&b.State, v2, h)
	if err != nil || next.Receiving.Next != math.MaxUint32 {
		t.Fatalf("2^32-2: %v", err)
	}
	if _, _, _, err := opened(&next, v2, h); err != ErrDuplicate {
		t.Errorf("2^32-2 again: %v", err)
	}
	h.N++
	if _, _, _, err := opened(&next, v2, h); err != ErrTooManySkipped {
		t.Errorf("2^32-1 after 2^32-2: %v", err)
	}
	if next, _, _, err := opened(&next, v2, Header{Key: drawer(9)().Public(), PN: math.MaxUint32}); err != nil || next.Previous.Next != math.MaxUint32 {
		t.Errorf("step after the end: %v", err)
	}
}

// TestImplausiblePN: nothing is stored, the session goes on, and the old chain stays open where it was.
func TestImplausiblePN(t *testing.T) {
	a, b := pair(t, legacy)
	first := a.sealN(t, legacy, 3)
	mustOpen(t, b, legacy, first[0])
	mustOpen(t, a, legacy, b.seal(t, legacy))
	m := a.seal(t, legacy)
	m.PN = math.MaxUint32
	mustOpen(t, b, legacy, m)
	if len(b.skipped) != 0 || b.Previous.Next != 1 {
		t.Errorf("%d keys stored, previous chain at %d", len(b.skipped), b.Previous.Next)
	}
	mustOpen(t, b, legacy, first[2], first[1])
	if err := b.open(legacy, message{Header: Header{Key: first[0].Key, N: 3 + 1001}}); err != ErrTooManySkipped {
		t.Errorf("the limit does not hold in the previous chain: %v", err)
	}

	// The chain is dropped by the next step: the key of its last message is stored only if that is the next one.
	b.ShortPN = true
	for _, pn := range []uint32{4, 1 << 20, 1 << 31, math.MaxUint32} {
		b.PreviousPN = pn
		_, _, skipped, err := opened(&b.State, legacy, Header{Key: drawer(9)().Public(), PN: b.Receiving.Next})
		if err != nil || len(skipped) != 0 {
			t.Errorf("pn = %d: %d keys, %v", pn, len(skipped), err)
		}
	}
}

// shorten announces messages as peers of the libsignal family do.
func shorten(ms ...message) []message {
	for i := range ms {
		ms[i].PN = max(ms[i].PN, 1) - 1
	}
	return ms
}

// TestShortPN: the last message of a chain arrives after the first of the next one, and even after the one after that
// if the peer is known to count short.
func TestShortPN(t *testing.T) {
	turn := func(a, b *side, n int) []message {
		t.Helper()
		mustOpen(t, a, legacy, b.seal(t, legacy))
		return shorten(a.sealN(t, legacy, n)...)
	}

	a, b := pair(t, legacy)
	first := a.sealN(t, legacy, 2)
	mustOpen(t, b, legacy, first[0])
	second := turn(a, b, 3)
	if second[0].PN != 1 {
		t.Fatalf("pn = %d", second[0].PN)
	}
	mustOpen(t, b, legacy, second[0]) // announces 1 of 2 messages
	if b.ShortPN {
		t.Error("an honest peer could have announced this")
	}
	mustOpen(t, b, legacy, first[1], second[1], second[2])

	third := turn(a, b, 3)
	mustOpen(t, b, legacy, third[0]) // announces 2, but 3 have come
	if !b.ShortPN {
		t.Fatal("a short count is not noticed")
	}
	fourth := turn(a, b, 1)
	mustOpen(t, b, legacy, fourth...)
	fifth := turn(a, b, 2)
	mustOpen(t, b, legacy, fifth[0])
	mustOpen(t, b, legacy, third[2], third[1]) // two steps late
	if err := b.open(legacy, third[2]); err == nil {
		t.Error("a message opens twice")
	}

	// The chain of one message came in full: its key is not stored a second time.
	sixth := turn(a, b, 1)
	mustOpen(t, b, legacy, sixth...)
	for at := range b.skipped {
		if at.Key == fourth[0].Key {
			t.Errorf("message %d of a complete chain is stored as skipped", at.N)
		}
	}
	mustOpen(t, b, legacy, fifth[1])
}

// TestShortPNBudget: the key of the last message counts as well.
func TestShortPNBudget(t *testing.T) {
	a, b := pair(t, legacy)
	mustOpen(t, b, legacy, a.sealN(t, legacy, 2)...)
	for range 2 {
		mustOpen(t, a, legacy, b.seal(t, legacy))
		ms := shorten(a.sealN(t, legacy, 2)...)
		mustOpen(t, b, legacy, ms[0])
	}
	if !b.ShortPN || b.Previous.Next != b.PreviousPN {
		t.Fatal("the last message of the previous chain should be missing")
	}
	tests := []struct{ n, gap, skipped, lasts int }{
		{0, 0, 1, 1},
		{999, 0, 1000, 1},
		{1000, 0, 1000, 0},
		{400, 599, 1000, 1},
		{400, 600, 401, 1}, // one too many: those of the receiving chain are not stored
		{0, 999, 1000, 1},
		{0, 1000, 1, 1},
	}
	for _, test := range tests {
		h := Header{Key: drawer(9)().Public(), N: uint32(test.n), PN: b.Receiving.Next + uint32(test.gap)}
		_, _, skipped, err := opened(&b.State, legacy, h)
		lasts := 0
		for _, k := range skipped {
			if k.Key == b.Previous.Remote {
				lasts++
			}
		}
		if err != nil || len(skipped) != test.skipped || lasts != test.lasts {
			t.Errorf("%+v: %d keys, %d of the previous chain, %v", test, len(skipped), lasts, err)
		}
	}
}

// TestEmptyChain: a chain of which nothing was sent is announced with 0, which is no sign of a short count.
func TestEmptyChain(t *testing.T) {
	a, b := pair(t, legacy)
	if m := a.seal(t, legacy); m.PN != 0 || b.ShortPN {
		t.Fatal("the first chain announces something")
	} else {
		mustOpen(t, b, legacy, m)
	}
	mustOpen(t, a, legacy, b.seal(t, legacy))
	if m := a.seal(t, legacy); m.PN != 1 {
		t.Fatalf("pn = %d", m.PN)
	} else {
		mustOpen(t, b, legacy, m)
	}
	if b.ShortPN {
		t.Error("an honest peer is taken for a short one")
	}
	if (b.Previous.Remote == curve.Montgomery{}) {
		t.Error("no previous chain")
	}
}
