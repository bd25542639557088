package media

import (
	"fmt"
	"io"
)

// decrypt writes the plain text of src to dst. It is not authentic before decrypt
// has returned nil; after an error all of it has to be thrown away. With CBC it is
// not authentic at all.
func (k *Key) decrypt(dst io.Writer, src io.Reader) error {
	if k.cipher == AES256CBC {
		return k.decryptCBC(dst, src)
	}
	g, err := newGCM(k.secret(), k.vector())
	if err != nil {
		return err
	}
	// The last bytes may be the tag, and so are held back.
	buffer := make([]byte, pieceSize+tagSize)
	held := 0
	for {
		n, err := io.ReadFull(src, buffer[held:])
		held += n
		if err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
			return fmt.Errorf("%w: %w", ErrFetch, err)
		}
		last := err != nil
		if held < tagSize || g.size+int64(held) > maxGCM+tagSize {
			return ErrForged
		}
		piece, tag := buffer[:held-tagSize], buffer[held-tagSize:held]
		g.authenticate(piece)
		if last {
			// Before the last piece is decrypted, not after.
			if err := g.verify(tag); err != nil {
				return err
			}
		}
		g.xor(piece)
		if _, err := dst.Write(piece); err != nil {
			return fmt.Errorf("media: %w", err)
		}
		if last {
			return nil
		}
		held = copy(buffer, tag)
	}
}
