package media

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/subtle"
	"encoding/binary"
	"fmt"
)

const (
	blockSize = aes.BlockSize
	tagSize   = 16
	// maxGCM is the longest message of GCM, in bytes: 2^39-256 bits.
	maxGCM = 1<<36 - 32
	// pieceSize is how much of a file is worked on at a time. A multiple of
	// blockSize.
	pieceSize = 64 << 10
)

// gcm encrypts or decrypts one message in pieces (NIST SP 800-38D, section 7) that
// are all of pieceSize, except the last. crypto/cipher takes messages only as a
// whole, but it has fast and constant-time parts to make this of: CTR, and GHASH in
// the form of tags over additional data.
//
// Let Y be GHASH's state after the blocks so far, and H its key. This keeps Y·H.
// The tag over a piece of m blocks as additional data, without the mask that GCM
// adds, is (Y' + L)·H, where Y' is GHASH's state after that piece alone and L the
// block with its length. Hence the next Y·H is (Y·H)·H^m + (Y' + L)·H + L·H.
type gcm struct {
	block   cipher.Block
	aead    cipher.AEAD
	nonce   [12]byte // of the tags over pieces, which nobody sees: always zero
	mask    field    // that GCM adds to those
	key     field    // H
	whole   shift    // of a piece of pieceSize
	state   field    // Y·H
	size    int64    // bytes so far
	first   field    // E(J0), which is added to the tag
	counter [blockSize]byte
	stream  cipher.Stream
	left    uint64 // blocks until the counter's last 32 bits are zero
	scratch [tagSize]byte
}

// shift is what a piece of n bytes does to the state.
type shift struct {
	n      int
	power  field // H^m
	length field // L·H
}

// newGCM starts a message. The IV has 12 or 16 bytes.
func newGCM(key, iv []byte) (*gcm, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, fmt.Errorf("media: %w", err)
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		return nil, fmt.Errorf("media: %w", err)
	}
	g := &gcm{block: block, aead: aead}
	var b [blockSize]byte
	block.Encrypt(b[:], b[:])
	g.key = fieldOf(&b)
	g.mask = g.tag(nil)
	g.whole = g.shift(pieceSize)
	switch len(iv) {
	case 12:
		copy(g.counter[:], iv)
		g.counter[15] = 1
	case blockSize:
		// Section 7.1: GHASH of the IV and its length.
		j := fieldOf((*[blockSize]byte)(iv)).times(g.key).plus(lengths(0, blockSize)).times(g.key)
		g.counter = j.bytes()
	default:
		return nil, fmt.Errorf("media: an IV of %d bytes", len(iv))
	}
	block.Encrypt(b[:], g.counter[:])
	g.first = fieldOf(&b)
	g.count(1)
	return g, nil
}

// count moves the counter on by n, in its last 32 bits only (section 6.2), and
// makes a stream that starts there. That of crypto/cipher counts in all 128 bits.
func (g *gcm) count(n uint32) {
	last := binary.BigEndian.Uint32(g.counter[12:]) + n
	binary.BigEndian.PutUint32(g.counter[12:], last)
	g.stream = cipher.NewCTR(g.block, g.counter[:])
	g.left = 1<<32 - uint64(last)
}

// xor encrypts or decrypts a piece in place.
func (g *gcm) xor(piece []byte) {
	blocks := uint64(len(piece)+blockSize-1) / blockSize
	if blocks > g.left {
		n := int(g.left) * blockSize
		g.stream.XORKeyStream(piece[:n], piece[:n])
		clear(g.counter[12:])
		g.count(0)
		piece, blocks = piece[n:], blocks-uint64(n/blockSize)
	}
	g.stream.XORKeyStream(piece, piece)
	g.left -= blocks
}

// tag is what GHASH makes of additional data.
func (g *gcm) tag(data []byte) field {
	g.aead.Seal(g.scratch[:0], g.nonce[:], nil, data)
	return fieldOf(&g.scratch).plus(g.mask)
}

func (g *gcm) shift(n int) shift {
	return shift{n, g.key.power((n + blockSize - 1) / blockSize), lengths(int64(n), 0).times(g.key)}
}

// authenticate adds a piece of ciphertext.
func (g *gcm) authenticate(piece []byte) {
	s := g.whole
	if len(piece) != s.n {
		s = g.shift(len(piece))
	}
	g.state = g.state.times(s.power).plus(g.tag(piece)).plus(s.length)
	g.size += int64(len(piece))
}

// sum returns the tag of the message.
func (g *gcm) sum() [tagSize]byte {
	return g.state.plus(lengths(0, g.size).times(g.key)).plus(g.first).bytes()
}

// verify compares the tag of the message with the one that came with it.
func (g *gcm) verify(tag []byte) error {
	sum := g.sum()
	if subtle.ConstantTimeCompare(sum[:], tag) != 1 {
		return ErrForged
	}
	return nil
}
