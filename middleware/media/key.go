package media

import (
	"crypto/rand"
	"fmt"
	"io"
	"log/slog"
)

// Cipher is what a file is encrypted with, by its name in XEP-0448, section 4.
type Cipher string

// The ciphers of XEP-0448. Files are encrypted with AES256GCM; all can be read.
// With GCM, the tag of 16 bytes follows the ciphertext.
const (
	AES256GCM Cipher = "urn:xmpp:ciphers:aes-256-gcm-nopadding:0"
	AES128GCM Cipher = "urn:xmpp:ciphers:aes-128-gcm-nopadding:0"
	// AES256CBC authenticates nothing: such files are read only if a hash of their
	// content came with the message.
	AES256CBC Cipher = "urn:xmpp:ciphers:aes-256-cbc-pkcs7:0"
)

// keySize returns the length of a key in bytes, 0 for a cipher that is unknown.
func (c Cipher) keySize() int {
	switch c {
	case AES256GCM, AES256CBC:
		return 32
	case AES128GCM:
		return 16
	}
	return 0
}

// ivFits reports whether an IV can be n bytes long. The IVs of GCM once had 16.
func (c Cipher) ivFits(n int) bool { return n == 16 || n == 12 && c != AES256CBC }

// Key is what one file is encrypted with: a cipher, a key and an IV. It can be
// compared, and is not printed.
type Key struct {
	cipher Cipher
	key    [32]byte // the first 16 or all
	iv     [16]byte // the first 12 or all
	ivSize int
}

// newKey draws a key for a file of our own.
func newKey() Key {
	k := Key{cipher: AES256GCM, ivSize: 12}
	rand.Read(k.key[:])
	rand.Read(k.iv[:k.ivSize])
	return k
}

// keyOf returns a key that was received.
func keyOf(c Cipher, key, iv []byte) (Key, error) {
	if n := c.keySize(); n == 0 || len(key) != n || !c.ivFits(len(iv)) {
		return Key{}, fmt.Errorf("media: a key of %d and an IV of %d bytes for a cipher of another kind", len(key), len(iv))
	}
	k := Key{cipher: c, ivSize: len(iv)}
	copy(k.key[:], key)
	copy(k.iv[:], iv)
	return k, nil
}

// Cipher returns the cipher that the key is for.
func (k Key) Cipher() Cipher { return k.cipher }

func (k *Key) secret() []byte { return k.key[:k.cipher.keySize()] }
func (k *Key) vector() []byte { return k.iv[:k.ivSize] }

const redacted = "redacted"

// String hides the key.
func (Key) String() string { return redacted }

// Format hides the key, whatever the verb.
func (Key) Format(s fmt.State, _ rune) { _, _ = io.WriteString(s, redacted) }

// LogValue hides the key.
func (Key) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalText hides the key from encoders.
func (Key) MarshalText() ([]byte, error) { return []byte(redacted), nil }
