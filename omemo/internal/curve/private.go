package curve

import (
	"crypto/ecdh"
	"fmt"
	"sync/atomic"

	"filippo.io/edwards25519"
)

// Private is an X25519 key pair. It is immutable, safe for concurrent use and shared by pointer.
type Private struct {
	scalar [32]byte

	// Derived from the scalar on first use. Goroutines that race for it store equal values.
	public atomic.Pointer[Montgomery]
	key    atomic.Pointer[ecdh.PrivateKey]
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
	var public Montgomery
	if key := p.key.Load(); key != nil {
		public = Montgomery(key.PublicKey().Bytes())
	} else {
		// The base point table of the Edwards curve is more than twice as fast as the Montgomery ladder.
		public = Montgomery(new(edwards25519.Point).ScalarBaseMult(clamped(&p.scalar)).BytesMontgomery())
	}
	p.public.Store(&public)
	return public
}

// DH returns the X25519 shared secret with any public key, or [ErrZero].
func (p *Private) DH(u Montgomery) ([32]byte, error) {
	agreements.Add(1)
	key := p.key.Load()
	if key == nil {
		var err error
		// crypto/ecdh runs a ladder here for the public key: once per key pair, not once per agreement.
		if key, err = ecdh.X25519().NewPrivateKey(p.scalar[:]); err != nil {
			return [32]byte{}, fmt.Errorf("curve: %w", err)
		}
		p.key.Store(key)
	}
	peer, err := ecdh.X25519().NewPublicKey(u[:])
	if err != nil {
		return [32]byte{}, fmt.Errorf("curve: %w", err)
	}
	secret, err := key.ECDH(peer)
	if err != nil { // the only reason left: the result is all zero
		return [32]byte{}, ErrZero
	}
	return [32]byte(secret), nil
}

// agreements counts, so that tests can hold every message to the work it may
// cause.
var agreements atomic.Uint64

// Agreements returns how many key agreements this process has begun.
func Agreements() uint64 { return agreements.Load() }

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
