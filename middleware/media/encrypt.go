package media

import (
	"crypto/sha256"
	"fmt"
	"hash"
	"io"
)

// Encrypter is a file while it is encrypted: reading from it yields the ciphertext
// and, behind it, the tag of 16 bytes (AES-256-GCM). Each Encrypter has a key of its
// own, so that none is ever used twice.
type Encrypter struct {
	src   io.Reader
	key   Key
	gcm   *gcm
	hash  hash.Hash
	size  int64 // of the file
	read  int64 // so far
	piece []byte
	out   []byte // of piece, not yet handed out
	err   error  // once all of it is handed out
}

// Encrypt returns the encrypted form of a file. size is its length in bytes, which
// must be known before: src must end after that many.
func Encrypt(src io.Reader, size int64) (*Encrypter, error) {
	if size < 0 || size > maxGCM {
		return nil, fmt.Errorf("%w: %d bytes", ErrSize, size)
	}
	key := newKey()
	g, err := newGCM(key.secret(), key.vector())
	if err != nil {
		return nil, err
	}
	return &Encrypter{src: src, key: key, gcm: g, hash: sha256.New(), size: size, piece: make([]byte, pieceSize+tagSize)}, nil
}

// Key returns what the file can be decrypted with.
func (e *Encrypter) Key() Key { return e.key }

// Size returns the length of the encrypted form in bytes.
func (e *Encrypter) Size() int64 { return e.size + tagSize }

// Hash returns the SHA-256 of the file itself. It is known once Read has returned
// io.EOF.
func (e *Encrypter) Hash() (sum [sha256.Size]byte) {
	e.hash.Sum(sum[:0])
	return sum
}

// Read implements io.Reader. It fails with ErrSize if the file is not as long as
// was said; then the end of what was read is missing, and with it the tag.
func (e *Encrypter) Read(p []byte) (int, error) {
	for len(e.out) == 0 {
		if e.err != nil {
			return 0, e.err
		}
		e.out, e.err = e.next()
	}
	n := copy(p, e.out)
	e.out = e.out[n:]
	return n, nil
}

// next encrypts a piece. With the last comes the tag, and io.EOF.
func (e *Encrypter) next() ([]byte, error) {
	n, err := io.ReadFull(e.src, e.piece[:pieceSize])
	e.read += int64(n)
	switch err {
	case nil, io.EOF, io.ErrUnexpectedEOF:
	default:
		return nil, fmt.Errorf("media: reading a file: %w", err)
	}
	if e.read > e.size || err != nil && e.read < e.size {
		return nil, fmt.Errorf("%w: the file is not of %d bytes", ErrSize, e.size)
	}
	out := e.piece[:n]
	e.hash.Write(out)
	e.gcm.xor(out)
	e.gcm.authenticate(out)
	if err == nil {
		return out, nil
	}
	tag := e.gcm.sum()
	return append(out, tag[:]...), io.EOF
}
