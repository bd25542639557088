package sqlstore

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"slices"

	"golang.org/x/crypto/chacha20poly1305"
)

// storeIDSize is the length of the random id of an account's state.
const storeIDSize = 16

// sealer seals the secrets of an account with XChaCha20-Poly1305. A sealed
// secret is the nonce, the ciphertext and the tag: 40 bytes more than the
// secret. It is bound to the account, its table, and the other columns of its
// row, so that secrets cannot be moved to where they do not belong.
type sealer struct {
	store []byte // id of the account's state
	key   []byte // data key
	aead  cipher.AEAD
	// For the digest.
	prf    cipher.Block
	macKey []byte
}

func newSealer(store, key []byte) (*sealer, error) {
	sealing, err := hkdf.Key(sha256.New, key, store, "omellium sqlstore seal", chacha20poly1305.KeySize)
	if err != nil {
		return nil, fmt.Errorf("sqlstore: derive keys: %w", err)
	}
	digesting, err := hkdf.Key(sha256.New, key, store, "omellium sqlstore digest", 32)
	if err != nil {
		return nil, fmt.Errorf("sqlstore: derive keys: %w", err)
	}
	marking, err := hkdf.Key(sha256.New, key, store, "omellium sqlstore marks", sha256.Size)
	if err != nil {
		return nil, fmt.Errorf("sqlstore: derive keys: %w", err)
	}
	s := &sealer{store: store, key: key, macKey: marking}
	if s.aead, err = chacha20poly1305.NewX(sealing); err != nil {
		return nil, fmt.Errorf("sqlstore: derive keys: %w", err)
	}
	if s.prf, err = aes.NewCipher(digesting); err != nil {
		return nil, fmt.Errorf("sqlstore: derive keys: %w", err)
	}
	return s, nil
}

// bound appends what a secret is bound to.
func (s *sealer) bound(b []byte, table string, columns []any) []byte {
	b = appendSized(b, table)
	b = appendSized(b, s.store)
	for _, c := range columns {
		b = appendValue(b, c)
	}
	return b
}

// seal appends a sealed secret that is bound to other columns of its row.
func (s *sealer) seal(b []byte, bound, secret []byte) []byte {
	n := len(b)
	b = slices.Grow(b, chacha20poly1305.NonceSizeX+len(secret)+chacha20poly1305.Overhead)
	b = b[:n+chacha20poly1305.NonceSizeX]
	rand.Read(b[n:])
	return s.aead.Seal(b, b[n:], secret, bound)
}

// open is the inverse of seal.
func (s *sealer) open(table string, columns []any, sealed []byte) ([]byte, error) {
	if len(sealed) < chacha20poly1305.NonceSizeX+chacha20poly1305.Overhead {
		return nil, ErrTampered
	}
	nonce, box := sealed[:chacha20poly1305.NonceSizeX], sealed[chacha20poly1305.NonceSizeX:]
	secret, err := s.aead.Open([]byte{}, nonce, box, s.bound(make([]byte, 0, 256), table, columns))
	if err != nil {
		return nil, ErrTampered
	}
	return secret, nil
}

// newDataKey makes the data key of a new account. It returns the wrapped key
// and the sealed digest over no sessions, or nothing if there is no key.
func newDataKey(ctx context.Context, key KeyProvider, store []byte) (wrapped, sum []byte, err error) {
	if key == nil {
		return nil, nil, nil
	}
	data := make([]byte, dataKeySize)
	rand.Read(data)
	s, err := newSealer(store, data)
	if err != nil {
		return nil, nil, err
	}
	if wrapped, err = key.Wrap(ctx, store, data); err != nil {
		return nil, nil, fmt.Errorf("sqlstore: wrap the data key: %w", err)
	}
	return wrapped, s.seal(nil, s.bound(nil, digestTable, []any{int64(0)}), make([]byte, aes.BlockSize)), nil
}

// openDataKey returns the sealer of an account, nil if it is not sealed.
func openDataKey(ctx context.Context, key KeyProvider, store, wrapped []byte) (*sealer, error) {
	switch {
	case wrapped == nil && key == nil:
		return nil, nil
	case wrapped == nil:
		return nil, ErrNotSealed
	case key == nil:
		return nil, ErrSealed
	}
	data, err := key.Unwrap(ctx, store, wrapped)
	if err != nil {
		return nil, fmt.Errorf("sqlstore: unwrap the data key: %w", err)
	}
	if len(data) != dataKeySize {
		return nil, ErrWrongKey
	}
	return newSealer(store, data)
}
