package media

import (
	"crypto/aes"
	"crypto/cipher"
	"fmt"
	"io"
)

// decryptCBC is decrypt for AES-256-CBC with padding (PKCS #7). Who can alter the
// file must not learn from errors what is in it: bad padding is the same error as a
// wrong hash.
func (k *Key) decryptCBC(dst io.Writer, src io.Reader) error {
	block, err := aes.NewCipher(k.secret())
	if err != nil {
		return fmt.Errorf("media: %w", err)
	}
	mode := cipher.NewCBCDecrypter(block, k.vector())
	// The last block holds the padding, and so is held back.
	buffer := make([]byte, pieceSize+blockSize)
	held := 0
	for {
		n, err := io.ReadFull(src, buffer[held:])
		held += n
		if err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
			return fmt.Errorf("%w: %w", ErrFetch, err)
		}
		last := err != nil
		if held < blockSize || held%blockSize != 0 {
			return ErrForged
		}
		piece := buffer[:held-blockSize]
		if last {
			piece = buffer[:held]
		}
		mode.CryptBlocks(piece, piece)
		if last {
			if piece, err = unpad(piece); err != nil {
				return err
			}
		}
		if _, err := dst.Write(piece); err != nil {
			return fmt.Errorf("media: %w", err)
		}
		if last {
			return nil
		}
		held = copy(buffer, buffer[held-blockSize:held])
	}
}

// unpad takes the padding away (RFC 5652, section 6.3).
func unpad(b []byte) ([]byte, error) {
	n := int(b[len(b)-1])
	if n == 0 || n > blockSize || n > len(b) {
		return nil, ErrForged
	}
	for _, c := range b[len(b)-n:] {
		if int(c) != n {
			return nil, ErrForged
		}
	}
	return b[:len(b)-n], nil
}
