package ratchet

import (
	"slices"

	"example.org/omellium/omemo/internal/curve"
)

// Chain is a receiving chain.
type Chain struct {
	Remote curve.Montgomery // the peer's ratchet key
	Key    [32]byte         // the chain key
	Next   uint32           // number of the next message
}

// walk moves the chain to message n and returns what the keys of the messages before it are made of. The caller bounds
// the gap.
func (c *Chain) walk(n uint32) (links []link) {
	if n <= c.Next {
		return nil
	}
	links = make([]link, n-c.Next)
	s := scratches.Get().(*scratch)
	defer s.done()
	for i := range links {
		s.load(&c.Key)
		s.link(&links[i])
		s.chainKey(&c.Key)
	}
	c.Next = n
	return links
}

// messageKeys appends the keys of the messages of a chain from the first on, and clears what they are made of.
func messageKeys(skipped []Skipped, remote curve.Montgomery, first uint32, links []link) []Skipped {
	if len(links) == 0 {
		return skipped
	}
	at := len(skipped)
	skipped = slices.Grow(skipped, len(links))[:at+len(links)]
	s := scratches.Get().(*scratch)
	defer s.done()
	s.key = zeroKey
	for i := range links {
		k := &skipped[at+i]
		k.Key, k.N = remote, first+uint32(i)
		s.follow(&links[i])
		s.messageKey(&k.Seed)
	}
	clear(links)
	return skipped
}

// skip moves the chain to message n and appends the keys of the messages before it. The caller bounds the gap.
func (c *Chain) skip(n uint32, skipped []Skipped) []Skipped {
	first := c.Next
	return messageKeys(skipped, c.Remote, first, c.walk(n))
}

// step moves the chain by one and returns the message key.
func (c *Chain) step() (key [32]byte) {
	c.Key, key = kdfChain(&c.Key)
	c.Next++
	return key
}
