package media

import "encoding/binary"

// field is an element of GF(2^128) as GCM writes it (NIST SP 800-38D, section
// 6.3): the first bit of the first byte is the constant term.
type field struct{ hi, lo uint64 }

func fieldOf(b *[blockSize]byte) field {
	return field{binary.BigEndian.Uint64(b[:8]), binary.BigEndian.Uint64(b[8:])}
}

func (x field) bytes() (b [blockSize]byte) {
	binary.BigEndian.PutUint64(b[:8], x.hi)
	binary.BigEndian.PutUint64(b[8:], x.lo)
	return b
}

func (x field) plus(y field) field { return field{x.hi ^ y.hi, x.lo ^ y.lo} }

// times multiplies, in constant time. It is bit by bit, and so slow: it is used
// once for a piece of many blocks.
func (x field) times(y field) (z field) {
	for i := range 128 {
		word := x.hi
		if i >= 64 {
			word = x.lo
		}
		take := -(word >> (63 - i%64) & 1) // all ones if the coefficient is 1
		z.hi ^= y.hi & take
		z.lo ^= y.lo & take
		carry := -(y.lo & 1)
		y.lo = y.lo>>1 | y.hi<<63
		y.hi = y.hi>>1 ^ 0xe1<<56&carry
	}
	return z
}

// power raises to a power that is not secret.
func (x field) power(n int) field {
	z := field{hi: 1 << 63}
	for ; n > 0; n >>= 1 {
		if n&1 == 1 {
			z = z.times(x)
		}
		x = x.times(x)
	}
	return z
}

// lengths is the block that ends the input of GHASH: the lengths of additional
// data and of ciphertext, in bits.
func lengths(additional, ciphertext int64) field {
	return field{uint64(additional) * 8, uint64(ciphertext) * 8}
}
