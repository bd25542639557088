package curve

import (
	"sync/atomic"

	"filippo.io/edwards25519"
)

// Private is an X25519 key pair. It is immutable, safe for concurrent use and shared by pointer.
type Private struct {
	scalar [32]byte
	// Derived from the scalar on first use. Goroutines that race for it store equal values.
	public atomic.Pointer[Montgomery]
}

// NewPrivate returns the key pair of a scalar: 32 bytes little endian, clamped at use (RFC 7748 section 5).
func NewPrivate(scalar *[32]byte) *Private { return &Private{scalar: *scalar} }

// Bytes returns the scalar as it was given to [NewPrivate].
func (p *Private) Bytes() [32]byte { return p.scalar }

// Public returns the public key.
func (p *Private) Public() Montgomery {
	if public := p.public.Load(); public != nil {
		return *public
	}
	Derive(p)
	return *p.public.Load()
}

// Derive computes the public keys of key pairs, which costs less than one after the other.
func Derive(keys ...*Private) {
	fractions := make([]fraction, len(keys))
	publics := make([][32]byte, len(keys))
	for i, p := range keys {
		fractions[i] = base(&p.scalar)
	}
	divide(publics, fractions)
	for i, u := range publics {
		keys[i].public.Store((*Montgomery)(&u))
	}
}

// base returns the u coordinate of a multiple of the base point, by the table of the Edwards curve: that is more than
// twice as fast as the ladder. With y = Y/Z, u = (1+y)/(1-y) is (Z+Y)/(Z-Y). No multiple with a clamped scalar is the
// neutral element, where Y is Z.
func base(scalar *[32]byte) fraction {
	_, y, z, _ := new(edwards25519.Point).ScalarBaseMult(clamped(scalar)).ExtendedCoordinates()
	var f fraction
	f.numerator.Add(z, y)
	f.denominator.Subtract(z, y)
	return f
}

// DH returns the X25519 shared secret with any public key, or [ErrZero].
func (p *Private) DH(u Montgomery) ([32]byte, error) {
	var secret [1][32]byte
	err := Agree(secret[:], Agreement{p, u})
	return secret[0], err
}

// clamped returns the scalar that X25519 and Ed25519 multiply with.
func clamped(scalar *[32]byte) *edwards25519.Scalar {
	return must(new(edwards25519.Scalar).SetBytesWithClamping(scalar[:]))
}

// must returns the value of a setter whose only errors are about lengths or values that are fixed here.
func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}
