package ratchet

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/subtle"
	"sync"
)

// Keys are what one message is encrypted and authenticated with.
type Keys struct {
	Cipher [32]byte
	MAC    [32]byte
	IV     [16]byte
}

// Expand derives the keys of a message from its 32-byte message key (HKDF-SHA-256, the salt 32 zero bytes).
func Expand(p Params, key *[32]byte) Keys {
	var out [80]byte
	derive(out[:], key, p.Message)
	return Keys{Cipher: [32]byte(out[:32]), MAC: [32]byte(out[32:64]), IV: [16]byte(out[64:])}
}

// Encrypt appends the plaintext, encrypted with AES-256-CBC and PKCS #7 padding: that is 1 to 16 bytes longer.
func Encrypt(dst []byte, k *Keys, plaintext []byte) []byte {
	block, chain := k.block(), blocks.Get().(*[aes.BlockSize]byte)
	defer blocks.Put(chain)
	*chain = k.IV
	for {
		n := subtle.XORBytes(chain[:], chain[:], plaintext)
		if plaintext = plaintext[n:]; n < aes.BlockSize {
			for i := n; i < aes.BlockSize; i++ {
				chain[i] ^= byte(aes.BlockSize - n)
			}
		}
		block.Encrypt(chain[:], chain[:])
		dst = append(dst, chain[:]...)
		if n < aes.BlockSize {
			return dst
		}
	}
}

// blocks are what a chain of blocks goes through, so that the ends of it need not be on the heap.
var blocks = sync.Pool{New: func() any { return new([aes.BlockSize]byte) }}

// Decrypt reverses [Encrypt]. It returns [ErrPadding] for what cannot come from it, and is to be called only after
// the MAC held.
func Decrypt(k *Keys, ciphertext []byte) ([]byte, error) {
	if len(ciphertext) == 0 || len(ciphertext)%aes.BlockSize != 0 {
		return nil, ErrPadding
	}
	plaintext := make([]byte, len(ciphertext))
	block, before := k.block(), k.IV[:]
	for i := 0; i < len(ciphertext); i += aes.BlockSize {
		block.Decrypt(plaintext[i:], ciphertext[i:])
		subtle.XORBytes(plaintext[i:], plaintext[i:], before)
		before = ciphertext[i : i+aes.BlockSize]
	}
	padding := int(plaintext[len(plaintext)-1])
	if padding == 0 || padding > aes.BlockSize {
		return nil, ErrPadding
	}
	for _, b := range plaintext[len(plaintext)-padding:] {
		if int(b) != padding {
			return nil, ErrPadding
		}
	}
	return plaintext[:len(plaintext)-padding], nil
}

func (k *Keys) block() cipher.Block {
	block, err := aes.NewCipher(k.Cipher[:])
	if err != nil {
		panic(err) // unreachable: the length is right
	}
	return block
}

// Tag returns the MAC of the parts, one after the other: HMAC-SHA-256, of which the first p.MACSize bytes count.
// The others are zero.
func (k *Keys) Tag(p Params, parts ...[]byte) [32]byte {
	tag := hmacSHA256(&k.MAC, parts...)
	clear(tag[p.MACSize:])
	return tag
}

// Verify reports in constant time whether mac is the MAC of the parts. It has to be p.MACSize bytes long.
func (k *Keys) Verify(p Params, mac []byte, parts ...[]byte) bool {
	tag := k.Tag(p, parts...)
	return hmac.Equal(tag[:p.MACSize], mac)
}
