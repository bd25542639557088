package ratchet

import (
	"bytes"
	"crypto/sha256"
	"crypto/subtle"
	"encoding"
	"hash"
	"sync"
)

// The two paddings of HMAC (RFC 2104 section 2).
var (
	innerPad = [sha256.BlockSize]byte(bytes.Repeat([]byte{0x36}, sha256.BlockSize))
	outerPad = [sha256.BlockSize]byte(bytes.Repeat([]byte{0x5c}, sha256.BlockSize))
)

// hmacSHA256 is HMAC (RFC 2104) for a key of 32 bytes that is used once. Unlike crypto/hmac, which builds its state
// on the heap, it allocates only for long messages.
func hmacSHA256(key *[32]byte, message ...[]byte) [32]byte {
	var short [4 * sha256.BlockSize]byte
	subtle.XORBytes(short[:], innerPad[:], key[:])
	copy(short[len(key):], innerPad[len(key):])
	inner := short[:sha256.BlockSize]
	for _, part := range message {
		inner = append(inner, part...)
	}
	sum := sha256.Sum256(inner)

	var outer [sha256.BlockSize + sha256.Size]byte
	subtle.XORBytes(outer[:], outerPad[:], key[:])
	copy(outer[len(key):], outerPad[len(key):])
	copy(outer[sha256.BlockSize:], sum[:])
	return sha256.Sum256(outer[:])
}

// stateSize is the length of a state of SHA-256 as crypto/sha256 saves it.
const stateSize = 108

// states are those of SHA-256 after the two blocks that HMAC makes of a key: where a key is used more than once, it is
// processed once.
type states struct {
	inner, outer [stateSize]byte
}

// scratch is what the key derivation works with. It holds secrets while it is in use, and none between.
type scratch struct {
	digest interface {
		hash.Hash
		encoding.BinaryAppender
		encoding.BinaryUnmarshaler
	}
	key    states
	buffer [96]byte
}

var scratches = sync.Pool{New: func() any {
	s := new(scratch)
	s.digest = sha256.New().(interface {
		hash.Hash
		encoding.BinaryAppender
		encoding.BinaryUnmarshaler
	})
	return s
}}

// zeroKey is the state of the key of zeros, the salt of the key derivation of messages.
var zeroKey = func() states {
	s := scratches.Get().(*scratch)
	s.load(new([32]byte))
	return s.key
}()

// done returns a scratch, without secrets.
func (s *scratch) done() {
	s.restore(&zeroKey.inner) // overwrites the digest
	s.key = states{}
	clear(s.buffer[:])
	scratches.Put(s)
}

// load processes a key.
func (s *scratch) load(key *[32]byte) {
	s.pad(&s.key.inner, key, &innerPad)
	s.pad(&s.key.outer, key, &outerPad)
}

func (s *scratch) pad(state *[stateSize]byte, key *[32]byte, pad *[sha256.BlockSize]byte) {
	block := s.buffer[:sha256.BlockSize]
	copy(block, pad[:])
	subtle.XORBytes(block, block, key[:])
	s.digest.Reset()
	s.digest.Write(block)
	if b, err := s.digest.AppendBinary(state[:0]); err != nil || len(b) != stateSize {
		panic("ratchet: crypto/sha256 saves another state than it did") // a test would have shown it
	}
}

func (s *scratch) restore(state *[stateSize]byte) {
	if err := s.digest.UnmarshalBinary(state[:]); err != nil {
		panic(err) // unreachable: it was saved by the same package
	}
}

// sum is HMAC-SHA-256 of the first n bytes of the buffer. The result takes their place.
func (s *scratch) sum(key *states, n int) {
	s.restore(&key.inner)
	s.digest.Write(s.buffer[:n])
	s.digest.Sum(s.buffer[:0])
	s.restore(&key.outer)
	s.digest.Write(s.buffer[:sha256.Size])
	s.digest.Sum(s.buffer[:0])
}
