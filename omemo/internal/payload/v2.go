package payload

import (
	"crypto/aes"

	"example.org/omellium/omemo/internal/ratchet"
)

// Lengths of omemo:2 in bytes.
const (
	v2Key  = 32
	v2MAC  = 16
	v2Both = v2Key + v2MAC
)

// v2 says how a payload differs from a message of the ratchet, whose keys are derived, and which is encrypted and
// authenticated, in the same way (XEP-0384 section 4.4).
var v2 = ratchet.Params{Message: "OMEMO Payload", MACSize: v2MAC}

// SealV2 encrypts a serialized envelope with a fresh key. The ciphertext is padded to a multiple of 16 bytes;
// the key material is the key and the 16-byte MAC of the ciphertext.
func SealV2(key *[32]byte, envelope []byte) (ciphertext []byte, material [48]byte) {
	keys := ratchet.Expand(v2, key)
	ciphertext = ratchet.Encrypt(make([]byte, 0, len(envelope)+aes.BlockSize), &keys, envelope)
	tag := keys.Tag(v2, ciphertext)
	copy(material[:], key[:])
	copy(material[v2Key:], tag[:])
	return ciphertext, material
}

// OpenV2 decrypts an omemo:2 payload with key material of 48 bytes.
func OpenV2(material, ciphertext []byte) ([]byte, error) {
	if len(material) != v2Both {
		return nil, ErrLength
	}
	keys := ratchet.Expand(v2, (*[v2Key]byte)(material))
	if !keys.Verify(v2, material[v2Key:], ciphertext) {
		return nil, ErrAuth
	}
	envelope, err := ratchet.Decrypt(&keys, ciphertext)
	if err != nil {
		return nil, ErrAuth
	}
	return envelope, nil
}
