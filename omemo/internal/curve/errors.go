package curve

import "errors"

var (
	// ErrPoint says that a public key is not the canonical encoding of a point of prime order.
	ErrPoint = errors.New("curve: public key is not a canonical point of prime order")

	// ErrZero says that an X25519 result is all zero: the peer sent a point of small order (RFC 7748 section 6.1).
	ErrZero = errors.New("curve: shared secret is zero")
)
