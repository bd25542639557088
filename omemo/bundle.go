package omemo

import (
	"fmt"

	"example.org/omellium/omemo/internal/curve"
)

// PublicPreKey is the public half of a pre key: 32 bytes, Curve25519.
type PublicPreKey struct {
	ID  uint32
	Key [32]byte
}

// Bundle is a device's public keys in one version (XEP-0384, section 5.3.2).
// Keys are plain 32-byte values: the 0x05 that legacy puts before them is a
// matter of the codec.
type Bundle struct {
	Version Version
	Owner   Address
	// IdentityKey is the Curve25519 form in legacy, the Ed25519 form in omemo:2.
	IdentityKey    [32]byte
	SignedPreKeyID uint32
	SignedPreKey   [32]byte
	// Signature is as it travels: in legacy, bit 7 of its last byte carries the
	// sign of the identity key.
	Signature [64]byte
	PreKeys   []PublicPreKey
}

// Peer returns the device that the bundle belongs to.
func (b *Bundle) Peer() Peer { return Peer{b.Version, b.Owner} }

// Fingerprint returns the identity key in the form both versions share. It
// fails with ErrBundle if the key is not a sound point.
func (b *Bundle) Fingerprint() (Fingerprint, error) {
	return fingerprint(b.Version, b.IdentityKey)
}

// Verify checks the identity key, the signature and that there is a pre key.
// Nothing may use a bundle's keys before it returned nil. The error is
// ErrBundle.
func (b *Bundle) Verify() error {
	_, err := b.verify(Device{})
	return err
}

// verify is Verify where something is known about the device, and returns its
// fingerprint: checking a point costs half a DH, and the identity key of a
// known device was checked once.
func (b *Bundle) verify(known Device) (Fingerprint, error) {
	p := b.Version.profile()
	if !b.Version.Valid() || len(b.PreKeys) == 0 {
		return Fingerprint{}, fmt.Errorf("%w: no pre key", ErrBundle)
	}
	f := known.Fingerprint
	if f.IsZero() || known.Identity != b.IdentityKey {
		var err error
		if f, err = b.Fingerprint(); err != nil {
			return Fingerprint{}, err
		}
	}
	signature := b.Signature
	identity := curve.Edwards(b.IdentityKey)
	if !p.edwards {
		// The sign that Curve25519 loses stands in the top bit of the signature,
		// free there because S is below 2^253 (WIRE: legacy bundles).
		identity = curve.Montgomery(b.IdentityKey).CheckedEdwards(signature[63] >> 7)
		signature[63] &= 0x7f
	}
	if !curve.VerifyChecked(identity, p.signedBytes(b.SignedPreKey), &signature) {
		return Fingerprint{}, fmt.Errorf("%w: signature", ErrBundle)
	}
	return f, nil
}

// signedBytes returns what the signature of a signed pre key covers: 33 bytes
// in legacy, 32 in omemo:2.
func (p *profile) signedBytes(key [32]byte) []byte {
	return append(append(make([]byte, 0, 33), p.prefix...), key[:]...)
}

// fingerprint converts an identity key from the form of a version, checking the
// point strictly.
func fingerprint(v Version, key [32]byte) (Fingerprint, error) {
	if v.profile().edwards {
		u, err := curve.Edwards(key).Montgomery()
		if err != nil {
			return Fingerprint{}, fmt.Errorf("%w: identity key", ErrBundle)
		}
		return Fingerprint(u), nil
	}
	if err := curve.Montgomery(key).CheckIdentity(); err != nil {
		return Fingerprint{}, fmt.Errorf("%w: identity key", ErrBundle)
	}
	return Fingerprint(key), nil
}
