package curve

import (
	"slices"

	"filippo.io/edwards25519/field"
)

// Montgomery is a public key in Curve25519 form: the u coordinate, 32 bytes little endian.
type Montgomery [32]byte

// Edwards is a public key in Ed25519 form: the y coordinate, 32 bytes little endian, with the sign of x in the
// highest bit (RFC 8032 section 5.1.2).
type Edwards [32]byte

// Montgomery converts an identity key to Curve25519 form, which drops the sign. It returns [ErrPoint] unless the
// key is the canonical encoding of a point of prime order.
func (e Edwards) Montgomery() (Montgomery, error) {
	u, canonical := e.convert()
	// x is 0 only in points of small order: every other point has both signs. A point of the twist has no x, here and
	// there.
	if !canonical || !primeOrder(u) {
		return Montgomery{}, ErrPoint
	}
	return Montgomery(u.Bytes()), nil
}

// CheckedMontgomery is [Edwards.Montgomery] for a key that was checked before.
func (e Edwards) CheckedMontgomery() Montgomery {
	u, _ := e.convert()
	return Montgomery(u.Bytes())
}

// convert returns u = (1+y)/(1-y), which is 0 for y = 1, and whether y is canonical.
func (e Edwards) convert() (*field.Element, bool) {
	e[31] &= 0x7f
	y := must(new(field.Element).SetBytes(e[:]))
	denominator := new(field.Element).Subtract(one, y)
	u := new(field.Element).Add(one, y)
	return u.Multiply(u, denominator.Invert(denominator)), slices.Equal(y.Bytes(), e[:])
}

// Edwards converts an identity key to Ed25519 form. The Curve25519 form has no sign, so it has to be known from
// elsewhere: 0 or 1. Edwards returns [ErrPoint] unless the key is canonical and both forms name points of prime order.
func (u Montgomery) Edwards(sign byte) (Edwards, error) {
	if sign > 1 {
		return Edwards{}, ErrPoint
	}
	if err := u.CheckIdentity(); err != nil {
		return Edwards{}, err
	}
	return u.CheckedEdwards(sign), nil
}

// CheckedEdwards is [Montgomery.Edwards] for a key that was checked before, and a sign of 0 or 1.
func (u Montgomery) CheckedEdwards(sign byte) Edwards {
	// y = (u-1)/(u+1). u = p-1 is of order 4.
	element := must(new(field.Element).SetBytes(u[:]))
	numerator := new(field.Element).Subtract(element, one)
	denominator := new(field.Element).Add(element, one)
	e := Edwards(numerator.Multiply(numerator, denominator.Invert(denominator)).Bytes())
	e[31] |= sign << 7
	return e
}

// CheckIdentity returns [ErrPoint] unless u can be an identity key: canonical, on the curve, of prime order.
// It costs about half as much as a key agreement.
func (u Montgomery) CheckIdentity() error {
	element := must(new(field.Element).SetBytes(u[:]))
	if !slices.Equal(element.Bytes(), u[:]) || !primeOrder(element) {
		return ErrPoint
	}
	return nil
}
