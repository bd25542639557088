package payload

import (
	"crypto/aes"
	"crypto/cipher"
)

// Lengths of the legacy version in bytes.
const (
	legacyKey  = 16
	legacyTag  = 16
	legacyIV   = 12
	longIV     = 16 // clients of before 2020
	legacyBoth = legacyKey + legacyTag
)

// SealLegacy encrypts the text of a message with a fresh key and IV. The ciphertext is as long as the text;
// the key material is the key and the 16-byte tag.
func SealLegacy(key *[16]byte, iv *[12]byte, text []byte) (ciphertext []byte, material [32]byte) {
	sealed := newGCM(key[:], legacyIV).Seal(nil, iv[:], text, nil)
	copy(material[:legacyKey], key[:])
	copy(material[legacyKey:], sealed[len(text):])
	return sealed[:len(text):len(text)], material
}

// OpenLegacy decrypts a legacy payload with key material of 32 bytes and an IV of 12 or 16.
func OpenLegacy(material, iv, ciphertext []byte) ([]byte, error) {
	if len(material) != legacyBoth {
		return nil, ErrLength
	}
	sealed := make([]byte, 0, len(ciphertext)+legacyTag)
	sealed = append(append(sealed, ciphertext...), material[legacyKey:]...)
	return openGCM(material[:legacyKey], iv, sealed)
}

// OpenLegacyUnauthenticated decrypts a payload whose tag is not part of the key material, as very old clients sent
// it: the material is the key of 16 bytes, the tag ends the payload. The tag then proves nothing about the sender:
// every recipient device knows the key and can write another payload for the same message.
func OpenLegacyUnauthenticated(material, iv, payload []byte) ([]byte, error) {
	if len(material) != legacyKey || len(payload) < legacyTag {
		return nil, ErrLength
	}
	return openGCM(material, iv, payload)
}

func openGCM(key, iv, sealed []byte) ([]byte, error) {
	if len(iv) != legacyIV && len(iv) != longIV {
		return nil, ErrLength
	}
	text, err := newGCM(key, len(iv)).Open(nil, iv, sealed, nil)
	if err != nil {
		return nil, ErrAuth
	}
	return text, nil
}

// newGCM returns the cipher for a key of 16 bytes and IVs of 12 or 16.
func newGCM(key []byte, ivSize int) cipher.AEAD {
	return must(cipher.NewGCMWithNonceSize(must(aes.NewCipher(key)), ivSize))
}
