package curve

import (
	"crypto/ed25519"
	"crypto/sha512"

	"filippo.io/edwards25519"
)

// The forms in which an identity is kept, see [Identity.Secret].
const (
	SecretSeed   byte = iota // an Ed25519 seed
	SecretScalar             // a clamped Curve25519 scalar
)

// Identity is the long-term key pair of a device: one scalar, used on both curves. It is immutable and safe for
// concurrent use.
type Identity struct {
	kind    byte
	secret  [32]byte
	private *Private
	edwards Edwards
}

// IdentityFromSeed returns the identity of an Ed25519 seed (RFC 8032 section 5.1.5).
func IdentityFromSeed(seed *[32]byte) *Identity {
	digest := sha512.Sum512(seed[:])
	return newIdentity(SecretSeed, seed, (*[32]byte)(digest[:32]))
}

// IdentityFromScalar returns the identity of a Curve25519 private key, which is clamped first: the nonce of a
// signature is hashed from the clamped bytes.
func IdentityFromScalar(scalar *[32]byte) *Identity {
	s := *scalar
	s[0] &= 248
	s[31] = s[31]&127 | 64
	return newIdentity(SecretScalar, &s, &s)
}

func newIdentity(kind byte, secret, scalar *[32]byte) *Identity {
	point := new(edwards25519.Point).ScalarBaseMult(clamped(scalar))
	public := Montgomery(point.BytesMontgomery())
	id := &Identity{kind: kind, secret: *secret, private: NewPrivate(scalar), edwards: Edwards(point.Bytes())}
	id.private.public.Store(&public)
	return id
}

// Edwards returns the public key in Ed25519 form, with the sign that the scalar gives it.
func (id *Identity) Edwards() Edwards { return id.edwards }

// Montgomery returns the public key in Curve25519 form.
func (id *Identity) Montgomery() Montgomery { return id.private.Public() }

// Private returns the identity as an X25519 key pair.
func (id *Identity) Private() *Private { return id.private }

// DH returns the X25519 shared secret with any public key, or [ErrZero].
func (id *Identity) DH(u Montgomery) ([32]byte, error) { return id.private.DH(u) }

// Secret returns the form in which the identity was created, [SecretSeed] or [SecretScalar], and its 32 bytes.
func (id *Identity) Secret() (kind byte, b [32]byte) { return id.kind, id.secret }

// Sign returns an Ed25519 signature that [Verify] accepts for [Identity.Edwards]. An identity from a seed signs as
// in RFC 8032 and ignores the nonce; one from a scalar signs as in XEdDSA with the nonce, 64 fresh random bytes.
func (id *Identity) Sign(msg []byte, nonce *[64]byte) [64]byte {
	if id.kind == SecretSeed {
		return [64]byte(ed25519.Sign(ed25519.NewKeyFromSeed(id.secret[:]), msg))
	}
	return signXEdDSA(clamped(&id.secret), &id.secret, id.edwards, msg, nonce)
}
