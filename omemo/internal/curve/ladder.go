package curve

import (
	"crypto/subtle"
	"sync/atomic"

	"filippo.io/edwards25519/field"
)

// ladder returns X25519 of a scalar and a u coordinate as a fraction (RFC 7748 section 5). It runs in constant time:
// the sequence of operations and the memory that is touched depend on neither.
//
// crypto/ecdh would do, but runs a second ladder, for the public key, whenever a key is loaded.
func ladder(scalar *[32]byte, u *Montgomery) fraction {
	k := *scalar
	k[0] &= 248
	k[31] = k[31]&127 | 64
	defer clear(k[:])

	var x1, x2, z2, x3, z3, a, aa, b, bb, c, d, e field.Element
	must(x1.SetBytes(u[:])) // ignores bit 255 and takes values from p on, as it has to
	x2.One()
	x3.Set(&x1)
	z3.One()
	swap := 0
	for t := 254; t >= 0; t-- {
		bit := int(k[t/8]>>(t%8)) & 1
		swap ^= bit
		x2.Swap(&x3, swap)
		z2.Swap(&z3, swap)
		swap = bit

		a.Add(&x2, &z2)
		aa.Square(&a)
		b.Subtract(&x2, &z2)
		bb.Square(&b)
		e.Subtract(&aa, &bb)
		c.Add(&x3, &z3)
		d.Subtract(&x3, &z3)
		d.Multiply(&d, &a) // DA
		c.Multiply(&c, &b) // CB
		x3.Add(&d, &c)
		x3.Square(&x3)
		z3.Subtract(&d, &c)
		z3.Square(&z3)
		z3.Multiply(&z3, &x1)
		x2.Multiply(&aa, &bb)
		// AA + 121665·E is BB + 121666·E.
		aa.Mult32(&e, 121666)
		aa.Add(&aa, &bb)
		z2.Multiply(&e, &aa)
	}
	x2.Swap(&x3, swap)
	z2.Swap(&z3, swap)
	return fraction{numerator: x2, denominator: z2}
}

// fraction is a value that has not been divided yet.
type fraction struct {
	numerator, denominator field.Element
	product                field.Element // of the denominators before
}

// divide writes the values of fractions, with one inversion for all of them. If a denominator is zero, all values are.
func divide(values [][32]byte, fractions []fraction) {
	var product, inverse, value field.Element
	product.One()
	for i := range fractions {
		fractions[i].product.Set(&product)
		product.Multiply(&product, &fractions[i].denominator)
	}
	inverse.Invert(&product) // of zero: zero
	for i := len(fractions) - 1; i >= 0; i-- {
		value.Multiply(&inverse, &fractions[i].product)
		inverse.Multiply(&inverse, &fractions[i].denominator)
		value.Multiply(&value, &fractions[i].numerator)
		copy(values[i][:], value.Bytes())
	}
}

// Agreement is a key agreement that is yet to be made.
type Agreement struct {
	Own  *Private
	Peer Montgomery
}

// Agree writes the X25519 shared secrets of several agreements, which costs less than one after the other. It returns
// [ErrZero] if one of them is zero, and then all are.
func Agree(secrets [][32]byte, agreements ...Agreement) error {
	var few [4]fraction
	fractions := few[:0]
	defer clear(few[:])
	for _, a := range agreements {
		fractions = append(fractions, ladder(&a.Own.scalar, &a.Peer))
	}
	divide(secrets, fractions)
	counted.Add(uint64(len(agreements)))
	for i := range agreements {
		if subtle.ConstantTimeCompare(secrets[i][:], zero[:]) == 1 {
			clear(secrets)
			return ErrZero
		}
	}
	return nil
}

var zero [32]byte

// counted counts, so that tests can hold every message to the work it may
// cause.
var counted atomic.Uint64

// Agreements returns how many key agreements this process has begun.
func Agreements() uint64 { return counted.Load() }
