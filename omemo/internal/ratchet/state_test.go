package ratchet

import (
	"errors"
	"math"
	"testing"

	"example.org/omellium/omemo/internal/curve"
	"pgregory.net/rapid"
)

var v2 = Params{Root: "OMEMO Root Chain", Message: "OMEMO Message Key Material", MACSize: 16}

// A side is one party with its store of skipped message keys. Every message key is checked when it is used, in place
// of a MAC.
type side struct {
	State
	draw    func() *curve.Private
	skipped map[Header]([32]byte) // PN is zero
}

type message struct {
	Header
	key [32]byte
}

var errKey = errors.New("wrong message key")

func pair(tb rapid.TB, p Params) (active, passive *side) {
	tb.Helper()
	active = &side{draw: drawer(1), skipped: map[Header][32]byte{}}
	passive = &side{draw: drawer(2), skipped: map[Header][32]byte{}}
	signedPreKey := passive.draw()
	var err error
	if active.State, err = Initiate(p, [32]byte{1}, active.draw(), signedPreKey.Public()); err != nil {
		tb.Fatal(err)
	}
	passive.State = Accept(p, [32]byte{1}, signedPreKey)
	return active, passive
}

func (s *side) seal(tb rapid.TB, p Params) message {
	tb.Helper()
	h, key, err := s.Seal(p, s.draw)
	if err != nil {
		tb.Fatal(err)
	}
	return message{h, key}
}

func (s *side) sealN(tb rapid.TB, p Params, n int) (ms []message) {
	tb.Helper()
	for range n {
		ms = append(ms, s.seal(tb, p))
	}
	return ms
}

// open does what a session does with a message: skipped keys first, then the ratchet, which is kept only if the key
// is right.
func (s *side) open(p Params, m message) error {
	at := Header{Key: m.Key, N: m.N}
	if key, ok := s.skipped[at]; ok {
		if key != m.key {
			return errKey
		}
		delete(s.skipped, at)
		return nil
	}
	next, key, skipped, err := opened(&s.State, p, m.Header)
	if err != nil {
		return err
	}
	if key != m.key {
		return errKey
	}
	s.State = next
	for _, k := range skipped {
		s.skipped[Header{Key: k.Key, N: k.N}] = k.Seed
	}
	return nil
}

// opened opens the only key of a stanza as if its MAC held.
func opened(s *State, p Params, h Header) (next State, key [32]byte, skipped []Skipped, err error) {
	o, err := s.Open(p, h, new(Budget))
	if err != nil {
		return State{}, [32]byte{}, nil, err
	}
	next, skipped = o.Keep()
	return next, o.Key, skipped, nil
}

func mustOpen(tb rapid.TB, s *side, p Params, ms ...message) {
	tb.Helper()
	for _, m := range ms {
		if err := s.open(p, m); err != nil {
			tb.Fatalf("message %d (pn %d): %v", m.N, m.PN, err)
		}
	}
}

func TestPingPong(t *testing.T) {
	for _, p := range []Params{legacy, v2} {
		a, b := pair(t, p)
		for i := range 5 {
			ms := a.sealN(t, p, i+1)
			for j, m := range ms {
				if want := (Header{Key: a.Own.Public(), N: uint32(j), PN: uint32(i)}); m.Header != want {
					t.Fatalf("header %+v, want %+v", m.Header, want)
				}
			}
			mustOpen(t, b, p, ms...)
			mustOpen(t, a, p, b.sealN(t, p, i+1)...)
		}
		if len(a.skipped) != 0 || len(b.skipped) != 0 {
			t.Error("keys were skipped")
		}
	}
}

// TestLazy: a fresh own key is drawn only when something is sent, once for each turn.
func TestLazy(t *testing.T) {
	a, b := pair(t, v2)
	draws := 0
	draw := b.draw
	b.draw = func() *curve.Private { draws++; return draw() }
	signedPreKey := b.Own
	for _, m := range a.sealN(t, v2, 3) {
		mustOpen(t, b, v2, m)
		if b.Own != signedPreKey || b.CanSend || draws != 0 {
			t.Fatal("a sending chain begins on receipt")
		}
	}
	ms := b.sealN(t, v2, 3)
	if draws != 1 || ms[0].Key == signedPreKey.Public() || ms[0].Key != ms[2].Key {
		t.Fatalf("%d draws", draws)
	}
}

func TestAcceptedCannotSendFirst(t *testing.T) {
	_, b := pair(t, legacy)
	if _, _, err := b.Seal(legacy, b.draw); err != ErrNoRemote {
		t.Errorf("Seal = %v", err)
	}
	if b.Knows(curve.Montgomery{}) {
		t.Error("the zero key is known")
	}
}

// TestFirstMessageLate: the message that builds the session has n > 0.
func TestFirstMessageLate(t *testing.T) {
	a, b := pair(t, legacy)
	ms := a.sealN(t, legacy, 4)
	mustOpen(t, b, legacy, ms[3])
	if len(b.skipped) != 3 {
		t.Fatalf("%d keys skipped", len(b.skipped))
	}
	mustOpen(t, b, legacy, ms[1], ms[0], ms[2])
}

func TestDuplicate(t *testing.T) {
	a, b := pair(t, v2)
	first := a.sealN(t, v2, 2)
	mustOpen(t, b, v2, first[0], first[1])
	mustOpen(t, a, v2, b.seal(t, v2))
	second := a.sealN(t, v2, 2)
	mustOpen(t, b, v2, second[1], second[0])
	for range 3 { // attack C14
		for _, m := range append(first, second...) {
			if err := b.open(v2, m); err != ErrDuplicate {
				t.Errorf("message %d: %v", m.N, err)
			}
		}
	}
}

func TestKnows(t *testing.T) {
	a, b := pair(t, v2)
	var keys []curve.Montgomery
	for i := range 4 {
		m := a.seal(t, v2)
		if b.Knows(m.Key) {
			t.Errorf("%d: the new key is known", i)
		}
		mustOpen(t, b, v2, m)
		keys = append(keys, m.Key)
		for j, key := range keys {
			if b.Knows(key) != (j >= i-1) {
				t.Errorf("after %d steps key %d: %v", i, j, b.Knows(key))
			}
		}
		mustOpen(t, a, v2, b.seal(t, v2))
	}
	if a.Knows(b.Own.Public()) == a.Knows(a.Own.Public()) {
		t.Error("own key and the peer's are told apart")
	}
}

// TestZero: a ratchet key of small order is refused wherever it comes from.
func TestZero(t *testing.T) {
	if _, err := Initiate(v2, [32]byte{}, curve.NewPrivate(&[32]byte{1}), curve.Montgomery{}); !errors.Is(err, curve.ErrZero) {
		t.Errorf("Initiate = %v", err)
	}
	a, b := pair(t, v2)
	if _, _, _, err := opened(&b.State, v2, Header{Key: curve.Montgomery{1}}); !errors.Is(err, curve.ErrZero) {
		t.Errorf("first Open = %v", err)
	}
	mustOpen(t, b, v2, a.seal(t, v2))
	if _, _, _, err := opened(&b.State, v2, Header{}); !errors.Is(err, curve.ErrZero) {
		t.Errorf("Open = %v", err)
	}
	b.Remote = curve.Montgomery{} // as only a damaged record could have it
	before := b.State
	if _, _, err := b.Seal(v2, b.draw); !errors.Is(err, curve.ErrZero) || b.State != before {
		t.Errorf("Seal = %v, or it has changed the state", err)
	}
}

// TestUntouched: whatever Open returns, the state it was called on is as before (attack C6), and so it is after an
// error of Seal.
func TestUntouched(t *testing.T) {
	a, b := pair(t, v2)
	mustOpen(t, b, v2, a.sealN(t, v2, 2)...)
	mustOpen(t, a, v2, b.sealN(t, v2, 2)...)
	held := a.sealN(t, v2, 3)
	mustOpen(t, b, v2, held[1])
	before := b.State
	known, forged := held[0].Key, drawer(9)().Public()
	for _, h := range []Header{
		{Key: known, N: 0}, {Key: known, N: 1}, {Key: known, N: 900}, {Key: known, N: 5000},
		{Key: forged}, {Key: forged, N: 1000, PN: 1000}, {Key: forged, N: 1001}, {Key: forged, PN: math.MaxUint32},
		{}, {Key: before.Previous.Remote, N: 7},
	} {
		_, _, _, _ = opened(&b.State, v2, h)
		if b.State != before {
			t.Fatalf("header %+v changed the state", h)
		}
	}
	mustOpen(t, b, v2, held[0], held[2])
	mustOpen(t, a, v2, b.seal(t, v2))
}

// TestForget: what is over is not in the new state any more.
func TestForget(t *testing.T) {
	a, b := pair(t, v2)
	root, sending := a.Root, a.Sending
	mustOpen(t, b, v2, a.seal(t, v2))
	if a.Sending == sending || b.Receiving.Key == sending {
		t.Error("a chain key stays after its message key was derived")
	}
	mustOpen(t, a, v2, b.seal(t, v2))
	if a.Root == root || a.Sending != [32]byte{} || a.CanSend {
		t.Error("the old sending chain stays after a turn")
	}
	own := a.Own
	a.seal(t, v2)
	if a.Own == own {
		t.Error("the old ratchet key stays after a turn")
	}
}

// TestStepTwice: a peer steps again although we have sent nothing since. Our key stays in use, and so does the count
// of what we sent under it.
func TestStepTwice(t *testing.T) {
	a, b := pair(t, v2)
	mustOpen(t, b, v2, a.seal(t, v2))
	held := b.sealN(t, v2, 3)
	mustOpen(t, a, v2, held[0])
	for range 2 {
		mustOpen(t, b, v2, a.seal(t, v2))
		a.CanSend = false // begins another chain on the same key of the peer
		a.PreviousSent, a.Sent = a.Sent, 0
	}
	if b.PreviousSent != 3 {
		t.Errorf("PreviousSent = %d, want 3", b.PreviousSent)
	}
	m := b.seal(t, v2)
	if m.PN != 3 || m.N != 0 {
		t.Errorf("header %+v", m.Header)
	}
	mustOpen(t, a, v2, m, held[2], held[1])
}

func TestExhausted(t *testing.T) {
	a, _ := pair(t, v2)
	a.Sent = math.MaxUint32 - 1
	if m := a.seal(t, v2); m.N != math.MaxUint32-1 {
		t.Errorf("N = %d", m.N)
	}
	if _, _, err := a.Seal(v2, a.draw); err != ErrExhausted {
		t.Errorf("Seal = %v", err)
	}
}
