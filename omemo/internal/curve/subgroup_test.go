package curve

import (
	"slices"
	"testing"

	"filippo.io/edwards25519"
	"filippo.io/edwards25519/field"
)

// minusOne is L-1, where L is the order of the base point.
var minusOne = func() *edwards25519.Scalar {
	one := must(new(edwards25519.Scalar).SetCanonicalBytes(append([]byte{1}, make([]byte, 31)...)))
	return one.Negate(one)
}()

// multiplied decides by definition whether an Ed25519 key is the canonical encoding of a point of prime order.
func multiplied(e Edwards) bool {
	point, err := new(edwards25519.Point).SetBytes(e[:])
	if err != nil || !slices.Equal(point.Bytes(), e[:]) || point.Equal(edwards25519.NewIdentityPoint()) == 1 {
		return false
	}
	// The order of a point divides L if and only if L-1 times the point is its negative.
	product := new(edwards25519.Point).VarTimeDoubleScalarBaseMult(minusOne, point, edwards25519.NewScalar())
	return product.Equal(new(edwards25519.Point).Negate(point)) == 1
}

// TestPrimeOrder compares the check with a multiplication by the order, for any coordinates and for points with every
// torsion component.
func TestPrimeOrder(t *testing.T) {
	count := 2000
	if testing.Short() {
		count = 200
	}
	torsion := decode(t, order8)
	generator := decodePoint(t, torsion[:])
	draw := draws(9)
	accepted := 0
	compare := func(e Edwards) {
		t.Helper()
		want := multiplied(e)
		if _, err := e.Montgomery(); (err == nil) != want {
			t.Errorf("Ed25519 form %x: %v, want %t", e, err, want)
		}
		if want {
			accepted++
		}
	}
	for range count {
		e := Edwards(draw())
		compare(e)
		// The same for a u coordinate, whose Ed25519 form may be that of no point.
		u := Montgomery(e)
		u[31] &= 0x7f
		y := u.CheckedEdwards(0)
		if want := multiplied(y) && slices.Equal(must(new(field.Element).SetBytes(u[:])).Bytes(), u[:]); (u.CheckIdentity() == nil) != want {
			t.Errorf("Curve25519 form %x: want %t", u, want)
		}

		scalar := draw()
		point := new(edwards25519.Point).ScalarBaseMult(clamped(&scalar))
		for range 8 {
			compare(Edwards(point.Bytes()))
			point.Add(point, generator)
		}
	}
	if accepted < count || accepted > count+count/4 {
		t.Errorf("%d of %d points accepted", accepted, 9*count)
	}
	for low := range 256 {
		for _, high := range []byte{0, 0x7f, 0x80, 0xff} {
			e := Edwards{}
			if high&0x7f != 0 {
				for i := range e {
					e[i] = 0xff
				}
			}
			e[0], e[31] = byte(low), high
			compare(e)
		}
	}
}
