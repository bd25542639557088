package ratchet

import (
	"fmt"
	"math"

	"example.org/omellium/omemo/internal/curve"
)

// Opening is how a state opens one message. Nothing is authenticated yet: the caller verifies the MAC under Key and only
// then calls [Opening.Keep], or else drops the opening. What the message key does not depend on is left for Keep: a
// forged message costs one HMAC for each message that it claims to be missing before it, and nothing for those of the
// chain before.
type Opening struct {
	Key [32]byte // the message key, see [Expand]

	header Header
	next   State
	first  uint32 // number of the first message of the chain that is missing
	links  []link // those of the missing messages

	ended Chain // the receiving chain that a ratchet step has ended
	ends  bool  // there is one
}

// Open derives the key of a received message. The steps of the chain before it come out of the budget. Errors are
// [ErrDuplicate], [ErrTooManySkipped] and [curve.ErrZero]; the first two cost nothing.
func (s *State) Open(p Params, h Header, b *Budget) (o Opening, err error) {
	gap, chain := h.N, s.chain(h.Key)
	if chain != nil {
		if h.N < chain.Next {
			return Opening{}, ErrDuplicate
		}
		gap -= chain.Next
	}
	// Message 2^32-1 is never opened: the number after it does not exist.
	if h.N == math.MaxUint32 || !b.take(gap) {
		return Opening{}, ErrTooManySkipped
	}
	o.header, o.next = h, *s
	if chain == nil {
		o.ended, o.ends = s.Receiving, s.CanReceive
		if err := o.next.turn(p, h.Key); err != nil {
			return Opening{}, err
		}
	}
	chain = o.next.chain(h.Key)
	o.first = chain.Next
	o.links = chain.walk(h.N)
	o.Key = chain.step()
	return o, nil
}

// Keep returns the state after the message, and the keys of the messages before it that are missing, oldest first. It
// is called once, and only after the MAC held.
func (o *Opening) Keep() (next State, skipped []Skipped) {
	if o.ends {
		skipped = o.next.retire(o.ended, o.header.PN, MaxSkip-o.header.N)
	}
	return o.next, messageKeys(skipped, o.header.Key, o.first, o.links)
}

// turn is the receiving half of a ratchet step: a message brings a new key of the peer. It begins a receiving chain and
// ends the sending one. If the peer steps again before we have sent anything, our key is still the one it knows, and so
// is the number of messages that we sent under it.
func (s *State) turn(p Params, remote curve.Montgomery) error {
	secret, err := s.Own.DH(remote)
	if err != nil {
		return fmt.Errorf("ratchet: %w", err)
	}
	s.Remote = remote
	s.Receiving = Chain{Remote: remote}
	s.Root, s.Receiving.Key = kdfRoot(p.Root, &s.Root, &secret)
	s.CanReceive = true
	if s.CanSend {
		s.PreviousSent, s.Sent = s.Sent, 0
		s.Sending, s.CanSend = [32]byte{}, false
	}
	return nil
}

// retire makes the receiving chain that has ended, for which the peer announces pn messages, the previous one. It
// returns the keys of those that are missing, at most limit. An announcement beyond that is no error (some senders let
// it underflow): the chain then stays open where it is.
func (s *State) retire(ended Chain, pn, limit uint32) (skipped []Skipped) {
	if uint64(ended.Next) == uint64(pn)+1 {
		s.ShortPN = true
	}
	// The chain before is closed for good. If the peer counts short, one message beyond the announced ones is missing.
	if s.HasPrevious && s.ShortPN && s.Previous.Next == s.PreviousPN && limit > 0 {
		skipped = s.Previous.skip(s.PreviousPN+1, skipped)
		limit--
	}
	s.Previous, s.HasPrevious, s.PreviousPN = ended, true, pn
	if pn > ended.Next && pn-ended.Next <= limit {
		skipped = s.Previous.skip(pn, skipped)
	}
	return skipped
}
