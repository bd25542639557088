package ratchet

import (
	"fmt"
	"math"

	"example.org/omellium/omemo/internal/curve"
)

// State is one side of a session. It is a plain value: copying it copies everything.
//
// The sending chain is lazy. A message with a new ratchet key ends it; the next one begins, with a new own key, when
// there is something to send. What travels is the same as if it had begun at once.
type State struct {
	Root [32]byte

	Own    *curve.Private   // own ratchet key, never nil; on the passive side the signed pre key until something is sent
	Remote curve.Montgomery // the peer's newest ratchet key; on the active side its signed pre key until it answers

	Sending      [32]byte // chain key
	CanSend      bool     // there is a sending chain; without one Seal begins it
	Sent         uint32   // messages sent in the sending chain
	PreviousSent uint32   // messages sent in the one before

	Receiving  Chain
	CanReceive bool // there is a receiving chain: a message was opened

	// The receiving chain before, which stays open at its position. Peers of the libsignal family announce one message
	// too few for it, so its last one may arrive after the first of the new chain.
	Previous    Chain
	HasPrevious bool
	PreviousPN  uint32 // how many messages the peer announced for it
	ShortPN     bool   // this peer has been seen to announce one message too few
}

// Initiate begins a session on the active side: secret comes from the key agreement, own is a fresh ratchet key,
// remote the peer's signed pre key. The state can send at once.
func Initiate(p Params, secret [32]byte, own *curve.Private, remote curve.Montgomery) (State, error) {
	s := State{Root: secret, Remote: remote}
	if err := s.begin(p, own); err != nil {
		return State{}, err
	}
	return s, nil
}

// Accept begins a session on the passive side. The state can send once it has opened a message.
func Accept(_ Params, secret [32]byte, signedPreKey *curve.Private) State {
	return State{Root: secret, Own: signedPreKey}
}

// Knows reports whether key is the ratchet key of a receiving chain that is still open. A message under any other
// key makes a ratchet step, or is one whose key was skipped long ago.
func (s *State) Knows(key curve.Montgomery) bool { return s.chain(key) != nil }

// Begins reports whether the next message to send begins a sending chain, with a fresh ratchet key.
func (s *State) Begins() bool { return !s.CanSend }

// Seal moves the state on, and returns the header and the message key of the next message to send. It calls draw for a
// fresh ratchet key if a sending chain has to begin. After an error the state is the one before.
func (s *State) Seal(p Params, draw func() *curve.Private) (h Header, key [32]byte, err error) {
	if s.Sent == math.MaxUint32 {
		return Header{}, [32]byte{}, ErrExhausted
	}
	if !s.CanSend {
		if !s.CanReceive {
			return Header{}, [32]byte{}, ErrNoRemote
		}
		if err := s.begin(p, draw()); err != nil {
			return Header{}, [32]byte{}, err
		}
	}
	h = Header{Key: s.Own.Public(), N: s.Sent, PN: s.PreviousSent}
	s.Sending, key = kdfChain(&s.Sending)
	s.Sent++
	return h, key, nil
}

// chain returns the open receiving chain of a ratchet key, or nil.
func (s *State) chain(key curve.Montgomery) *Chain {
	switch {
	case s.CanReceive && s.Receiving.Remote == key:
		return &s.Receiving
	case s.HasPrevious && s.Previous.Remote == key:
		return &s.Previous
	}
	return nil
}

// begin is the sending half of a ratchet step: a new own key, and the chain that it gives.
func (s *State) begin(p Params, own *curve.Private) error {
	secret, err := own.DH(s.Remote)
	if err != nil {
		return fmt.Errorf("ratchet: %w", err)
	}
	s.Own = own
	s.Root, s.Sending = kdfRoot(p.Root, &s.Root, &secret)
	s.CanSend = true
	return nil
}
