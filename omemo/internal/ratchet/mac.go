package ratchet

import (
	"bytes"
	"crypto/sha256"
	"crypto/subtle"
	"encoding"
	"encoding/binary"
	"hash"
	"sync"
	"sync/atomic"
)

// The two paddings of HMAC (RFC 2104 section 2).
var (
	innerPad = [sha256.BlockSize]byte(bytes.Repeat([]byte{0x36}, sha256.BlockSize))
	outerPad = [sha256.BlockSize]byte(bytes.Repeat([]byte{0x5c}, sha256.BlockSize))
)

// hmacs counts the HMACs that a header, above all, can have us compute.
var hmacs atomic.Uint64

// HMACs returns how many HMACs this process has computed in sessions. It counts those of a derivation when it is done.
func HMACs() uint64 { return hmacs.Load() }

// hmacSHA256 is HMAC (RFC 2104) for a key of 32 bytes that is used once. Unlike crypto/hmac, which builds its state
// on the heap, it allocates only for long messages.
func hmacSHA256(key *[32]byte, message ...[]byte) [32]byte {
	hmacs.Add(1)
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

// stateSum is where a state has the eight words that the hash is made of, big endian.
const stateSum = 4

// scratch is what the key derivation works with. It holds secrets while it is in use, and none between.
type scratch struct {
	digest interface {
		hash.Hash
		encoding.BinaryAppender
		encoding.BinaryUnmarshaler
	}
	key    states
	sum    [stateSize]byte            // the state that a sum is read from
	buffer [2 * sha256.BlockSize]byte // what is hashed, and what comes out
	hmacs  uint64                     // not counted yet
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
	// Whoever reads keys from a state has to know that they are in it.
	s.hmac(&s.key, 0)
	if [32]byte(s.buffer[:]) != hmacSHA256(new([32]byte)) {
		panic(errState)
	}
	return s.key
}()

const errState = "ratchet: crypto/sha256 saves another state than it did" // a test would have shown it

// done returns a scratch, without secrets.
func (s *scratch) done() {
	hmacs.Add(s.hmacs)
	s.hmacs = 0
	s.restore(&zeroKey.inner) // overwrites the digest
	s.key = states{}
	clear(s.sum[:])
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
	s.save(state)
}

func (s *scratch) save(state *[stateSize]byte) {
	if b, err := s.digest.AppendBinary(state[:0]); err != nil || len(b) != stateSize {
		panic(errState)
	}
}

func (s *scratch) restore(state *[stateSize]byte) {
	if err := s.digest.UnmarshalBinary(state[:]); err != nil {
		panic(err) // unreachable: it was saved by the same package
	}
}

// link is the part of the states of a chain key that differs from key to key: with it the message key can be derived
// when the message has been authenticated, at the price of what is left to do.
type link struct {
	inner, outer [sha256.Size]byte
}

// link saves that of the key that is loaded.
func (s *scratch) link(l *link) {
	copy(l.inner[:], s.key.inner[stateSum:])
	copy(l.outer[:], s.key.outer[stateSum:])
}

// follow loads the key of a link. Some other one is loaded before.
func (s *scratch) follow(l *link) {
	copy(s.key.inner[stateSum:], l.inner[:])
	copy(s.key.outer[stateSum:], l.outer[:])
}

// hmac is HMAC-SHA-256 of the first n bytes of the buffer, at most 119. The result takes their place.
func (s *scratch) hmac(key *states, n int) {
	s.hmacs++
	s.finish(&key.inner, n)
	s.finish(&key.outer, sha256.Size)
}

// finish is SHA-256 of the block that led to a state and of the first n bytes of the buffer. It pads them itself (FIPS
// 180-4 section 5.1.1) and reads the sum from the state after them, which costs a quarter less than [hash.Hash.Sum].
func (s *scratch) finish(state *[stateSize]byte, n int) {
	blocks := s.buffer[:(n+8)/sha256.BlockSize*sha256.BlockSize+sha256.BlockSize]
	clear(blocks[n:])
	blocks[n] = 0x80
	binary.BigEndian.PutUint64(blocks[len(blocks)-8:], 8*uint64(sha256.BlockSize+n))
	s.restore(state)
	s.digest.Write(blocks)
	s.save(&s.sum)
	copy(s.buffer[:sha256.Size], s.sum[stateSum:])
}
