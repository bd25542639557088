package curve

import (
	"slices"

	"filippo.io/edwards25519"
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
	point, err := e.point()
	if err != nil {
		return Montgomery{}, err
	}
	return Montgomery(point.BytesMontgomery()), nil
}

// Edwards converts an identity key to Ed25519 form. The Curve25519 form has no sign, so it has to be known from
// elsewhere: 0 or 1. Edwards returns [ErrPoint] unless the key is canonical and both forms name points of prime order.
func (u Montgomery) Edwards(sign byte) (Edwards, error) {
	element := must(new(field.Element).SetBytes(u[:]))
	if sign > 1 || !slices.Equal(element.Bytes(), u[:]) {
		return Edwards{}, ErrPoint
	}

	// y = (u-1)/(u+1). Invert maps 0 to 0, so u = p-1 would pass for y = 0, a point of order 4; like every other
	// point of small order it is refused below. So are the points of the twist, which have no x.
	one := new(field.Element).One()
	numerator := new(field.Element).Subtract(element, one)
	denominator := new(field.Element).Add(element, one)
	e := Edwards(numerator.Multiply(numerator, denominator.Invert(denominator)).Bytes())
	e[31] |= sign << 7
	if _, err := e.point(); err != nil {
		return Edwards{}, err
	}
	return e, nil
}

// CheckIdentity returns [ErrPoint] unless u can be an identity key: canonical, on the curve, of prime order.
// It costs about as much as a key agreement.
func (u Montgomery) CheckIdentity() error {
	_, err := u.Edwards(0)
	return err
}

// minusOne is L-1, where L is the order of the base point.
var minusOne = func() *edwards25519.Scalar {
	one := must(new(edwards25519.Scalar).SetCanonicalBytes(append([]byte{1}, make([]byte, 31)...)))
	return one.Negate(one)
}()

// point decodes e strictly. Public keys are no secret: the check runs in variable time.
func (e Edwards) point() (*edwards25519.Point, error) {
	point, err := new(edwards25519.Point).SetBytes(e[:])
	if err != nil || !slices.Equal(point.Bytes(), e[:]) {
		return nil, ErrPoint
	}
	if point.Equal(edwards25519.NewIdentityPoint()) == 1 {
		return nil, ErrPoint
	}
	// The order of a point divides L if and only if L-1 times the point is its negative.
	product := new(edwards25519.Point).VarTimeDoubleScalarBaseMult(minusOne, point, edwards25519.NewScalar())
	if product.Equal(new(edwards25519.Point).Negate(point)) != 1 {
		return nil, ErrPoint
	}
	return point, nil
}
