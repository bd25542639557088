package curve

import (
	"crypto/ed25519"
	"crypto/sha512"

	"filippo.io/edwards25519"
)

// hash1 is the domain of the nonce hash, 2^256-2 in little endian (XEdDSA section 2.5, hash_i with i = 1).
var hash1 = [32]byte{
	0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
	0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
}

// signXEdDSA is xeddsa_sign of the XEdDSA specification, section 2.4, without the step that forces the sign of the
// public key to 0: a is the scalar, key its 32 bytes, public its Ed25519 form, whatever the sign.
func signXEdDSA(a *edwards25519.Scalar, key *[32]byte, public Edwards, msg []byte, nonce *[64]byte) [64]byte {
	r := hashToScalar(hash1[:], key[:], msg, nonce[:])
	commitment := new(edwards25519.Point).ScalarBaseMult(r).Bytes()
	h := hashToScalar(commitment, public[:], msg)
	s := new(edwards25519.Scalar).MultiplyAdd(h, a, r)
	return [64]byte(append(commitment, s.Bytes()...))
}

// hashToScalar returns SHA-512 of the parts, modulo the order of the base point.
func hashToScalar(parts ...[]byte) *edwards25519.Scalar {
	h := sha512.New()
	for _, part := range parts {
		h.Write(part)
	}
	return must(new(edwards25519.Scalar).SetUniformBytes(h.Sum(nil)))
}

// Verify reports whether sig is a signature of msg by the identity pub: Ed25519 (RFC 8032 section 5.1.7, without
// cofactor), where pub has to be the canonical encoding of a point of prime order. The equation then leaves no room
// for an R that is not canonical or has another order. Legacy signatures carry the sign of the identity key in the
// highest bit: it has to be taken out before.
func Verify(pub Edwards, msg []byte, sig *[64]byte) bool {
	if _, err := pub.Montgomery(); err != nil {
		return false
	}
	return VerifyChecked(pub, msg, sig)
}

// VerifyChecked is [Verify] for an identity key that was checked before.
func VerifyChecked(pub Edwards, msg []byte, sig *[64]byte) bool {
	return ed25519.Verify(pub[:], msg, sig[:])
}
