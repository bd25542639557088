package sqlstore

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"log/slog"
	"os"

	"golang.org/x/crypto/argon2"
	"golang.org/x/crypto/chacha20poly1305"
)

// dataKeySize is the length of the key that an account is sealed with.
const dataKeySize = 32

// KeyProvider guards the data key of a sealed account: it wraps the key when
// the account is created, and unwraps it when it is opened. The wrapped form
// stands in the database. Store is the random id of the account's state, which
// the wrapped key should be bound to. A key management service fits behind it
// as well as the providers of this package.
type KeyProvider interface {
	// Wrap seals a data key of 32 bytes.
	Wrap(ctx context.Context, store, key []byte) (wrapped []byte, err error)
	// Unwrap is the inverse of Wrap. It fails with ErrWrongKey if what was
	// wrapped is not its own.
	Unwrap(ctx context.Context, store, wrapped []byte) (key []byte, err error)
}

// The formats of a wrapped key: a byte that names the format, its parameters,
// the nonce, the ciphertext and the tag.
const (
	wrappedByPassphrase = 1 // passes (4 bytes), memory in KiB (4), threads (1), salt (16)
	wrappedByKey        = 2 // no parameters
)

// Cost of a passphrase: the second choice of RFC 9106, section 4. What a
// database asks for is bounded, because it is computed before anything is
// authenticated.
const (
	argonPasses     = 3
	argonMemory     = 64 << 10 // KiB
	argonThreads    = 4
	argonSalt       = 16
	argonMostPasses = 64
	argonMostMemory = 2 << 20 // KiB
)

type passphrase struct{ phrase []byte }

// Passphrase derives the key from a passphrase by argon2id (3 passes over 64
// MiB), which takes about a tenth of a second at each opening.
func Passphrase(phrase string) KeyProvider { return passphrase{[]byte(phrase)} }

// Format keeps the passphrase out of whatever is printed.
func (passphrase) Format(f fmt.State, _ rune) { io.WriteString(f, "redacted") }

// LogValue keeps the passphrase out of logs.
func (passphrase) LogValue() slog.Value { return slog.StringValue("redacted") }

func (p passphrase) Wrap(_ context.Context, store, key []byte) ([]byte, error) {
	head := []byte{wrappedByPassphrase}
	head = binary.BigEndian.AppendUint32(head, argonPasses)
	head = binary.BigEndian.AppendUint32(head, argonMemory)
	head = append(head, argonThreads)
	salt := make([]byte, argonSalt)
	rand.Read(salt)
	head = append(head, salt...)
	return wrap(p.derive(head), head, store, key)
}

func (p passphrase) Unwrap(_ context.Context, store, wrapped []byte) ([]byte, error) {
	const size = 1 + 4 + 4 + 1 + argonSalt
	if len(wrapped) < size || wrapped[0] != wrappedByPassphrase {
		return nil, ErrWrongKey
	}
	head := wrapped[:size]
	passes, memory, threads := binary.BigEndian.Uint32(head[1:]), binary.BigEndian.Uint32(head[5:]), head[9]
	if passes == 0 || passes > argonMostPasses || memory > argonMostMemory || threads == 0 {
		return nil, ErrWrongKey
	}
	return unwrap(p.derive(head), head, store, wrapped[size:])
}

// derive computes the key from the parameters in the head of a wrapped key.
func (p passphrase) derive(head []byte) []byte {
	return argon2.IDKey(p.phrase, head[10:], binary.BigEndian.Uint32(head[1:]), binary.BigEndian.Uint32(head[5:]), head[9], chacha20poly1305.KeySize)
}

// KeyFunc is a KeyProvider that asks for a key of 32 bytes whenever it is
// needed: from the environment, a terminal, a vault.
type KeyFunc func(ctx context.Context) ([]byte, error)

// Wrap implements KeyProvider.
func (f KeyFunc) Wrap(ctx context.Context, store, key []byte) ([]byte, error) {
	k, err := f(ctx)
	if err != nil {
		return nil, err
	}
	return wrap(k, []byte{wrappedByKey}, store, key)
}

// Unwrap implements KeyProvider.
func (f KeyFunc) Unwrap(ctx context.Context, store, wrapped []byte) ([]byte, error) {
	if len(wrapped) < 1 || wrapped[0] != wrappedByKey {
		return nil, ErrWrongKey
	}
	k, err := f(ctx)
	if err != nil {
		return nil, err
	}
	return unwrap(k, wrapped[:1], store, wrapped[1:])
}

// KeyFile reads the key from a file: 32 bytes, or 64 hexadecimal digits. The
// file must be readable by its owner only, and should not stand beside the
// database.
func KeyFile(path string) KeyProvider {
	return KeyFunc(func(context.Context) ([]byte, error) {
		f, err := os.Open(path)
		if err != nil {
			return nil, fmt.Errorf("sqlstore: key file: %w", err)
		}
		defer f.Close()
		info, err := f.Stat()
		if err != nil {
			return nil, fmt.Errorf("sqlstore: key file: %w", err)
		}
		if !info.Mode().IsRegular() || !private(info) {
			return nil, fmt.Errorf("sqlstore: key file %s must be a file that its owner alone can read", path)
		}
		b, err := io.ReadAll(io.LimitReader(f, 128))
		if err != nil {
			return nil, fmt.Errorf("sqlstore: key file: %w", err)
		}
		if len(b) == chacha20poly1305.KeySize {
			return b, nil
		}
		key, err := hex.DecodeString(string(bytes.TrimSpace(b)))
		if err != nil || len(key) != chacha20poly1305.KeySize {
			return nil, fmt.Errorf("sqlstore: key file %s holds neither 32 bytes nor 64 hexadecimal digits", path)
		}
		return key, nil
	})
}

func wrap(kek, head, store, key []byte) ([]byte, error) {
	aead, err := chacha20poly1305.NewX(kek)
	if err != nil {
		return nil, fmt.Errorf("sqlstore: a key has 32 bytes: %w", err)
	}
	nonce := make([]byte, aead.NonceSize())
	rand.Read(nonce)
	wrapped := append(bytes.Clone(head), nonce...)
	return aead.Seal(wrapped, nonce, key, append(bytes.Clone(head), store...)), nil
}

func unwrap(kek, head, store, box []byte) ([]byte, error) {
	aead, err := chacha20poly1305.NewX(kek)
	if err != nil {
		return nil, fmt.Errorf("sqlstore: a key has 32 bytes: %w", err)
	}
	if len(box) < aead.NonceSize() {
		return nil, ErrWrongKey
	}
	key, err := aead.Open(nil, box[:aead.NonceSize()], box[aead.NonceSize():], append(bytes.Clone(head), store...))
	if err != nil {
		return nil, ErrWrongKey
	}
	return key, nil
}
