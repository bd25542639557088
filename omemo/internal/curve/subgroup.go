package curve

import "filippo.io/edwards25519/field"

// Constants of the curve y² = x³+Ax²+x.
var (
	one    = new(field.Element).One()
	curveA = new(field.Element).Mult32(one, 486662)
	// lambda is the y coordinate of a point of order 4, whose x is 1: λ² = A+2.
	lambda, _ = new(field.Element).SqrtRatio(new(field.Element).Mult32(one, 486664), one)
)

// primeOrder reports whether x is the coordinate of a point of the curve, not of its twist, that has prime order L.
//
// The curve has 8L points, and those whose order divides 8 are a cyclic group. So a point is of order L, or neutral,
// if and only if it is 8 times another point.
//
// A point P with x ≠ 0 is twice another if and only if x and x²+Ax+1, whose product is y², are squares: (0, 0) is the
// one point of order 2. Let s² = x and r² = x²+Ax+1. By the doubling formula, a half Q of P has (w²-4) = 4x(w+A),
// where w = x_Q+1/x_Q: w is 2(x±r), with the sign that makes w+A a square t². (The product of both is A²-4, which is
// none.) Then x_Q = w/2+st, and y_Q = (x_Q²-1)/2s.
//
// Q is 4 times another point if and only if its Tate pairing with T = (1, λ), a point of order 4, is trivial. The
// tangent in T is y = λx and passes through (0, 0): the function with four zeros in T is (y-λx)²/x, and it has to be
// a fourth power in Q. The other half of P is Q+(0, 0), and (0, 0) is itself 4 times another point: it makes no
// difference which half is taken.
//
// That is four or five exponentiations, a third of what it costs to multiply with L. Public keys are no secret: it
// runs in variable time.
func primeOrder(x *field.Element) bool {
	var s, r, t, w, rest field.Element
	if x.Equal(new(field.Element)) == 1 {
		return false
	}
	if _, square := s.SqrtRatio(x, one); square == 0 {
		return false
	}
	rest.Add(x, curveA)
	rest.Multiply(&rest, x)
	rest.Add(&rest, one)
	if _, square := r.SqrtRatio(&rest, one); square == 0 {
		return false
	}
	w.Add(x, &r)
	w.Add(&w, &w)
	if _, square := t.SqrtRatio(rest.Add(&w, curveA), one); square == 0 {
		w.Subtract(x, &r)
		w.Add(&w, &w)
		if _, square := t.SqrtRatio(rest.Add(&w, curveA), one); square == 0 {
			return false // cannot be
		}
	}

	// 2x_Q is w+2st. The fraction (y_Q-λx_Q)²/x_Q is (x_Q²-1-2sλx_Q)²/4xx_Q, and differs by a fourth power from that
	// square times (4xx_Q)³. Without the halves, with X = 2x_Q: (X²-4-4sλX)²·(2xX)³/16, and 16 is a fourth power.
	var half, value, factor field.Element
	half.Multiply(&s, &t)
	half.Add(&half, &half)
	half.Add(&half, &w)
	value.Multiply(&s, lambda)
	value.Mult32(&value, 4)
	value.Subtract(&half, &value)
	value.Multiply(&value, &half)
	value.Subtract(&value, rest.Mult32(one, 4))
	value.Square(&value)
	factor.Multiply(x, &half)
	factor.Add(&factor, &factor)
	value.Multiply(&value, &factor)
	factor.Square(&factor)
	value.Multiply(&value, &factor)

	// Fourth powers are those whose (p-1)/4th power is 1, and (p-1)/4 is 2(p-5)/8+1.
	var power field.Element
	power.Pow22523(&value)
	power.Square(&power)
	power.Multiply(&power, &value)
	return power.Equal(one) == 1
}
