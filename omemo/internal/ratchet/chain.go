package ratchet

import (
	"math"
	"slices"

	"example.org/omellium/omemo/internal/curve"
)

// Chain is a receiving chain.
type Chain struct {
	Remote curve.Montgomery // the peer's ratchet key
	Key    [32]byte         // the chain key
	Next   uint32           // number of the next message
}

// open moves the chain past message n and returns its key, and those of the messages before it that are missing.
func (c *Chain) open(n uint32, skipped []Skipped) ([32]byte, []Skipped, error) {
	if n < c.Next {
		return [32]byte{}, nil, ErrDuplicate
	}
	// Message 2^32-1 is never opened: the number after it does not exist.
	if uint64(n)-uint64(c.Next) > MaxSkip || n == math.MaxUint32 {
		return [32]byte{}, nil, ErrTooManySkipped
	}
	skipped = c.skip(n, skipped)
	return c.step(), skipped, nil
}

// skip moves the chain to message n and appends the keys of the messages before it. The caller bounds the gap.
func (c *Chain) skip(n uint32, skipped []Skipped) []Skipped {
	if n <= c.Next {
		return skipped
	}
	skipped = slices.Grow(skipped, int(n-c.Next))
	s := scratches.Get().(*scratch)
	defer s.done()
	for ; c.Next < n; c.Next++ {
		skipped = append(skipped, Skipped{Key: c.Remote, N: c.Next})
		s.chain(&c.Key, &skipped[len(skipped)-1].Seed)
	}
	return skipped
}

// step moves the chain by one and returns the message key.
func (c *Chain) step() (key [32]byte) {
	c.Key, key = kdfChain(&c.Key)
	c.Next++
	return key
}
