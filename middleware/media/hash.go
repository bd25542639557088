package media

import (
	"bytes"
	"crypto/sha256"
	"crypto/sha3"
	"crypto/sha512"
	"fmt"
	"hash"
	"io"

	"example.org/omellium/stanza"
)

// NSHash is the namespace of <hash/> (XEP-0300).
const NSHash = "urn:xmpp:hashes:2"

// algorithms are the hash functions of XEP-0300 that are checked. All others,
// SHA-1 among them, are evidence of nothing.
var algorithms = map[string]func() hash.Hash{
	"sha-256":  sha256.New,
	"sha-512":  sha512.New,
	"sha3-256": func() hash.Hash { return sha3.New256() },
	"sha3-512": func() hash.Hash { return sha3.New512() },
}

// Hash is the hash of a file's content.
type Hash struct {
	Algorithm string // as XEP-0300 names it: "sha-256", "sha-512", "sha3-256", "sha3-512"
	Sum       []byte // 32 or 64 bytes
}

func (h Hash) element() *stanza.Element {
	return stanza.NewText(NSHash, "hash", encode(h.Sum)).SetAttribute("algo", h.Algorithm)
}

// parseHashes returns the hashes among the children of an element that can be
// checked. Two of one kind would contradict each other.
func parseHashes(e *stanza.Element) ([]Hash, error) {
	var hashes []Hash
	for c := range e.Elements() {
		if !c.Is(NSHash, "hash") {
			continue
		}
		name, _ := c.Attribute("algo")
		algorithm := algorithms[name]
		if algorithm == nil {
			continue
		}
		for _, h := range hashes {
			if h.Algorithm == name {
				return nil, fmt.Errorf("%w: hash given twice", ErrSharing)
			}
		}
		size := algorithm().Size()
		sum, err := decode(c.Text(), size)
		if err != nil || len(sum) != size {
			return nil, fmt.Errorf("%w: hash", ErrSharing)
		}
		hashes = append(hashes, Hash{name, sum})
	}
	return hashes, nil
}

// check is a Writer for the content of a file on its way to dst. It lets pass as much
// as the file is said to have, and hashes it; what goes beyond is padding (XEP-0448,
// section 3.2).
type check struct {
	dst    io.Writer
	size   int64 // -1 if it is not known
	passed int64
	hashes []Hash
	sums   []hash.Hash
}

func (f *File) check(dst io.Writer) *check {
	c := &check{dst: dst, size: f.Size, hashes: f.Hashes}
	for _, h := range f.Hashes {
		if algorithm := algorithms[h.Algorithm]; algorithm != nil {
			c.sums = append(c.sums, algorithm())
		}
	}
	return c
}

func (c *check) Write(p []byte) (int, error) {
	keep := p
	if c.size >= 0 {
		keep = p[:min(int64(len(p)), c.size-c.passed)]
	}
	for _, sum := range c.sums {
		sum.Write(keep)
	}
	c.passed += int64(len(keep))
	if n, err := c.dst.Write(keep); err != nil {
		return n, err
	}
	return len(p), nil
}

// done says whether what was written is the file.
func (c *check) done() error {
	if c.size >= 0 && c.passed != c.size {
		return ErrForged
	}
	for i, sum := range c.sums {
		if !bytes.Equal(sum.Sum(nil), c.hashes[i].Sum) {
			return ErrForged
		}
	}
	return nil
}
