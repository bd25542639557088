package payload

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
)

// Lengths of omemo:2 in bytes.
const (
	v2Key  = 32
	v2MAC  = 16
	v2Both = v2Key + v2MAC
)

const infoPayload = "OMEMO Payload"

// keysV2 are expanded from the 32-byte key of one payload.
type keysV2 struct {
	block cipher.Block
	mac   []byte
	iv    []byte
}

// SealV2 encrypts a serialized envelope with a fresh key. The ciphertext is padded to a multiple of 16 bytes;
// the key material is the key and the 16-byte MAC of the ciphertext.
func SealV2(key *[32]byte, envelope []byte) (ciphertext []byte, material [48]byte) {
	keys := expandV2(key[:])
	padding := aes.BlockSize - len(envelope)%aes.BlockSize // PKCS #7: a whole block when aligned
	ciphertext = make([]byte, 0, len(envelope)+padding)
	ciphertext = append(ciphertext, envelope...)
	ciphertext = append(ciphertext, bytes.Repeat([]byte{byte(padding)}, padding)...)
	cipher.NewCBCEncrypter(keys.block, keys.iv).CryptBlocks(ciphertext, ciphertext)
	copy(material[:v2Key], key[:])
	copy(material[v2Key:], keys.tag(ciphertext))
	return ciphertext, material
}

// OpenV2 decrypts an omemo:2 payload with key material of 48 bytes.
func OpenV2(material, ciphertext []byte) ([]byte, error) {
	if len(material) != v2Both {
		return nil, ErrLength
	}
	keys := expandV2(material[:v2Key])
	if !hmac.Equal(keys.tag(ciphertext), material[v2Key:]) {
		return nil, ErrAuth
	}
	if len(ciphertext) == 0 || len(ciphertext)%aes.BlockSize != 0 {
		return nil, ErrAuth
	}
	envelope := make([]byte, len(ciphertext))
	cipher.NewCBCDecrypter(keys.block, keys.iv).CryptBlocks(envelope, ciphertext)
	padding := int(envelope[len(envelope)-1])
	if padding == 0 || padding > aes.BlockSize {
		return nil, ErrAuth
	}
	for _, b := range envelope[len(envelope)-padding:] {
		if int(b) != padding {
			return nil, ErrAuth
		}
	}
	return envelope[:len(envelope)-padding], nil
}

func expandV2(key []byte) keysV2 {
	b := must(hkdf.Key(sha256.New, key, make([]byte, sha256.Size), infoPayload, 80))
	return keysV2{block: must(aes.NewCipher(b[:32])), mac: b[32:64], iv: b[64:]}
}

// tag returns the first 16 bytes of HMAC-SHA-256 over the ciphertext.
func (k keysV2) tag(ciphertext []byte) []byte {
	mac := hmac.New(sha256.New, k.mac)
	mac.Write(ciphertext)
	return mac.Sum(nil)[:v2MAC]
}
