package ratchet

import (
	"bytes"
	"crypto/sha256"
	"crypto/subtle"
)

// kdfRoot is KDF_RK of the specification: HKDF-SHA-256 with the root key as salt.
func kdfRoot(label string, root, secret *[32]byte) (nextRoot, chain [32]byte) {
	var out [64]byte
	expand(out[:], hmacSHA256(root, secret[:]), label)
	return [32]byte(out[:32]), [32]byte(out[32:])
}

// kdfChain is KDF_CK of the specification: HMAC-SHA-256 of one byte.
func kdfChain(chain *[32]byte) (next, message [32]byte) {
	return hmacSHA256(chain, []byte{2}), hmacSHA256(chain, []byte{1})
}

// expand is HKDF-Expand (RFC 5869 section 2.3). The output is at most 255 times 32 bytes long.
func expand(out []byte, prk [32]byte, info string) {
	var block [32]byte
	previous := block[:0]
	for counter := byte(1); len(out) > 0; counter++ {
		block = hmacSHA256(&prk, previous, []byte(info), []byte{counter})
		out = out[copy(out, block[:]):]
		previous = block[:]
	}
}

// The two paddings of HMAC (RFC 2104 section 2).
var (
	innerPad = [sha256.BlockSize]byte(bytes.Repeat([]byte{0x36}, sha256.BlockSize))
	outerPad = [sha256.BlockSize]byte(bytes.Repeat([]byte{0x5c}, sha256.BlockSize))
)

// hmacSHA256 is HMAC (RFC 2104) for keys of 32 bytes. A message costs seven of them, most over a few bytes: unlike
// crypto/hmac, which builds its state on the heap, this one allocates only for long messages.
func hmacSHA256(key *[32]byte, message ...[]byte) [32]byte {
	inner := make([]byte, sha256.BlockSize, 256)
	subtle.XORBytes(inner, innerPad[:], key[:])
	copy(inner[len(key):], innerPad[len(key):])
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
