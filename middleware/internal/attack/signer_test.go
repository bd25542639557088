package attack

import (
	"crypto/ed25519"
	"crypto/rand"

	"example.org/omellium/omemo"
	"filippo.io/edwards25519"
)

// signer is an identity of the attacker's, made without any code of the project,
// that signs whatever it likes.
type signer struct{ key ed25519.PrivateKey }

func newSigner() *signer {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		panic(err)
	}
	return &signer{key}
}

// sign makes the bundle the signer's and returns a genuine signature of a signed
// pre key.
func (s *signer) sign(b *omemo.Bundle, signedPreKey [32]byte) (signature [64]byte) {
	public := s.key.Public().(ed25519.PublicKey)
	signed := signedPreKey[:]
	b.IdentityKey = [32]byte(public)
	if b.Version == omemo.Legacy {
		signed = append([]byte{5}, signed...)
		p, err := new(edwards25519.Point).SetBytes(public)
		if err != nil {
			panic(err)
		}
		b.IdentityKey = [32]byte(p.BytesMontgomery())
	}
	copy(signature[:], ed25519.Sign(s.key, signed))
	if b.Version == omemo.Legacy {
		signature[63] |= public[31] & 0x80
	}
	return signature
}
