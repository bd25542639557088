package omemo_test

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"

	"example.org/omellium/omemo"
	"example.org/omellium/omemo/internal/ratchet"
)

// recordedSession is the state of python's session after a step.
type recordedSession struct {
	Own       octets         `json:"own_ratchet_priv"`
	Remote    octets         `json:"other_ratchet_pub"`
	Root      octets         `json:"root_key"`
	Sending   *recordedChain `json:"sending_chain"`
	Receiving *recordedChain `json:"receiving_chain"`
	Previous  *uint32        `json:"previous_sending_chain_length"`
	Skipped   []struct {
		Ratchet octets `json:"ratchet_pub"`
		N       uint32
		MK      octets
	}
	AssociatedData octets `json:"associated_data"`
	Initiation     string
	Confirmed      bool
}

type recordedChain struct {
	Key octets
	N   uint32
}

// compare compares the session that a message was sealed in.
func (p *replay) compare(step *recordedStep, own *replayed, index int) {
	list, err := own.m.Sessions(p.Context(), omemo.Peer{Version: p.v, Address: p.other(own).address})
	if err != nil {
		p.Fatal(err)
	}
	p.compareSession(step, own, list[index])
}

// compareSession compares a session with python's. Where python has begun a
// sending chain and we have not, ours is taken one message further than python's.
func (p *replay) compareSession(step *recordedStep, own *replayed, s *omemo.Session) {
	want := step.SessionAfter
	if want == nil {
		return
	}
	state := s.State()
	sending := want.Sending
	if !state.CanSend {
		var err error
		if state, err = s.Ahead(own.ratchets[s.ID()]); err != nil {
			p.Fatalf("step %d: %v", step.I, err)
		}
		sending = sending.next()
	}
	private := state.Own.Bytes()
	for what, pair := range map[string][2][]byte{
		"root key":          {state.Root[:], want.Root},
		"own ratchet key":   {private[:], want.Own},
		"other ratchet key": {state.Remote[:], want.Remote},
		"sending chain":     {state.Sending[:], sending.Key},
		"associated data":   {own.m.AssociatedData(s), want.AssociatedData},
	} {
		if !bytes.Equal(pair[0], pair[1]) {
			p.Errorf("step %d: %s is %x, want %x", step.I, what, pair[0], pair[1])
		}
	}
	if state.Sent != sending.N {
		p.Errorf("step %d: %d sent, want %d", step.I, state.Sent, sending.N)
	}
	if want.Previous != nil && state.PreviousSent != *want.Previous || want.Previous == nil && state.PreviousSent != 0 {
		p.Errorf("step %d: previous sending chain of %d", step.I, state.PreviousSent)
	}
	switch r := want.Receiving; {
	case (r != nil) != state.CanReceive:
		p.Errorf("step %d: receiving chain: %t", step.I, state.CanReceive)
	case r != nil && (state.Receiving.Key != r.Key.key() || state.Receiving.Next != r.N):
		p.Errorf("step %d: receiving chain at %d, want %d, or another key", step.I, state.Receiving.Next, r.N)
	}
	confirmed := want.Confirmed || s.Initiation() == omemo.Passive // by nature, not in python
	if s.Confirmed() != confirmed || s.Initiation() != map[string]omemo.Initiation{"ACTIVE": omemo.Active, "PASSIVE": omemo.Passive}[want.Initiation] {
		p.Errorf("step %d: %v, confirmed %t", step.I, s.Initiation(), s.Confirmed())
	}
	p.compareSkipped(step, own, s, state)
}

// next returns the chain after one more message.
func (c *recordedChain) next() *recordedChain {
	mac := hmac.New(sha256.New, c.Key)
	mac.Write([]byte{2})
	return &recordedChain{Key: mac.Sum(nil), N: c.N + 1}
}

// compareSkipped compares skipped message keys. The keys of a chain that is
// still open at both ends may be stored later than python does.
func (p *replay) compareSkipped(step *recordedStep, own *replayed, s *omemo.Session, state ratchet.State) {
	rows, err := own.store.Store.Skipped(p.Context(), keysOf(own.store.skipped))
	if err != nil {
		p.Fatal(err)
	}
	ours := make(map[omemo.SkippedID][32]byte)
	for _, r := range rows {
		if r.Session == s.ID() {
			ours[r.SkippedID] = r.Key
		}
	}
	if len(ours) != len(step.SessionAfter.Skipped) {
		p.Errorf("step %d: %d skipped message keys, want %d", step.I, len(ours), len(step.SessionAfter.Skipped))
	}
	for _, want := range step.SessionAfter.Skipped {
		if ours[omemo.SkippedID{Session: s.ID(), Ratchet: want.Ratchet.key(), N: want.N}] != want.MK.key() {
			p.Errorf("step %d: skipped message key %d is not the one", step.I, want.N)
		}
	}
}
