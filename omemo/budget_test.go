package omemo_test

import (
	"testing"

	"example.org/omellium/omemo"
)

// sealedIn seals n empty messages in the session with the given place in the list
// and returns the last.
func (p *party) sealedIn(to *party, v omemo.Version, index, n int) *omemo.Message {
	p.Helper()
	m := &omemo.Message{Version: v, Sender: p.address(), IV: make([]byte, 12)}
	for range n {
		k, err := p.m.SealIn(p.ctx, to.peer(v), index, make([]byte, 32), [32]byte{1: byte(p.sends), 2: byte(index), 3: 1}, false)
		p.ok(err)
		m.Keys = []omemo.Key{k}
	}
	p.sends++
	return m
}

// TestBudgetOfHonestMessages: what is skipped before a message is authenticated is
// bounded for all sessions in which it is tried together. One of a chain that is
// open, or with a new ratchet key in the current session, has all of it; one with a
// new ratchet key in the session number k has the k-th part. What comes after a
// greater gap opens when something in the gap has come.
func TestBudgetOfHonestMessages(t *testing.T) {
	versions(t, func(t *testing.T, v omemo.Version) {
		a, b := crowded(t, v)
		receive := func(p *party, m *omemo.Message) {
			t.Helper()
			_, err := p.receive(m)
			p.ok(err)
		}
		for index := range omemo.MaxArchived + 1 {
			most := 1000 / (index + 1)
			receive(a, b.sealedIn(a, v, index, 1)) // has a step in it
			if index > 0 {
				within := a.sealedIn(b, v, index, 2)
				beyond := a.sealedIn(b, v, index, most)
				b.refuses(beyond, omemo.ErrRefused)
				receive(b, within)
				receive(b, beyond)
				receive(a, b.sealedIn(a, v, index, 1))
			}
			receive(b, a.sealedIn(b, v, index, most+1))
		}
		receive(b, a.sealedIn(b, v, omemo.MaxArchived, 1001)) // in the chain that is open now
	})
}

// TestBudgetOfOthersKeys: what stands beside a key takes nothing from it if its
// chain is open.
func TestBudgetOfOthersKeys(t *testing.T) {
	versions(t, func(t *testing.T, v omemo.Version) {
		a, b := crowded(t, v)
		a.sealedIn(b, v, 0, 1000)
		message := a.doubled("after the gap", b, v, 3)
		h, err := message.Keys[2].Header(v)
		a.ok(err)
		var beside []omemo.Key
		for i, n := range []uint32{0, 100, 900, h.N + 2, h.N + 3} {
			other := h
			other.N = n
			if i < 3 {
				other.Key[0] ^= byte(i + 1)
			}
			beside = append(beside, b.forged(other, v))
		}
		k := message.Keys
		whole := with(message, beside[0], k[2], beside[1], beside[3], k[1], beside[2], k[0], beside[4])
		o, err := b.receive(whole)
		b.ok(err)
		if string(o.Plaintext) != "after the gap" {
			t.Errorf("%q", o.Plaintext)
		}
		// Whichever keys are left: it was read.
		b.refuses(whole, omemo.ErrDuplicate)
		for _, k := range k {
			b.refuses(with(message, k), omemo.ErrDuplicate)
		}
		b.reads(a.send("honest", bob), "honest")
	})
}
