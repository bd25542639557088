package media

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"testing"
	"testing/iotest"
)

// whole is AES-GCM by the standard library, ciphertext and tag.
func whole(t testing.TB, key, iv, plain []byte) []byte {
	t.Helper()
	block, err := aes.NewCipher(key)
	if err != nil {
		t.Fatal(err)
	}
	aead, err := cipher.NewGCMWithNonceSize(block, len(iv))
	if err != nil {
		t.Fatal(err)
	}
	return aead.Seal(nil, iv, plain, nil)
}

// pieces is the same in pieces.
func pieces(t testing.TB, key, iv, plain []byte) []byte {
	t.Helper()
	g, err := newGCM(key, iv)
	if err != nil {
		t.Fatal(err)
	}
	out := bytes.Clone(plain)
	for rest := out; len(rest) > 0; {
		piece := rest[:min(pieceSize, len(rest))]
		g.xor(piece)
		g.authenticate(piece)
		rest = rest[len(piece):]
	}
	tag := g.sum()
	return append(out, tag[:]...)
}

func random(n int) []byte {
	b := make([]byte, n)
	rand.Read(b)
	return b
}

// sizes around the borders of blocks and pieces.
var sizes = []int{
	0, 1, 15, 16, 17, 31, 32, 33, 255, 4096, pieceSize - 17, pieceSize - 16, pieceSize - 1, pieceSize, pieceSize + 1, pieceSize + 15,
	pieceSize + 16, pieceSize + 17, 2*pieceSize - 1, 2 * pieceSize, 2*pieceSize + 1, 3*pieceSize + 12345,
}

// TestPieces: what comes of pieces is what the standard library makes of the whole.
func TestPieces(t *testing.T) {
	for _, size := range sizes {
		for _, keySize := range []int{16, 32} {
			for _, ivSize := range []int{12, 16} {
				key, iv, plain := random(keySize), random(ivSize), random(size)
				if !bytes.Equal(pieces(t, key, iv, plain), whole(t, key, iv, plain)) {
					t.Errorf("%d bytes, key of %d, IV of %d", size, keySize, ivSize)
				}
			}
		}
	}
}

// inverse is x^(2^128-2).
func (x field) inverse() field {
	z := field{hi: 1 << 63}
	for range 127 {
		x = x.times(x)
		z = z.times(x)
	}
	return z
}

// TestCounterWraps: with an IV of 16 bytes the counter starts anywhere. It has 32
// bits; IVs are made for which it overflows within the message.
func TestCounterWraps(t *testing.T) {
	key := random(32)
	block, err := aes.NewCipher(key)
	if err != nil {
		t.Fatal(err)
	}
	var b [blockSize]byte
	block.Encrypt(b[:], b[:])
	h := fieldOf(&b)
	if h.times(h.inverse()) != (field{hi: 1 << 63}) {
		t.Fatal("no inverse")
	}
	for _, before := range []uint32{1, 2, 3, 7, 100, 4095, 4096, 4097, 4098, 5000} {
		want := [blockSize]byte(random(blockSize))
		binary.BigEndian.PutUint32(want[12:], -before)
		iv := fieldOf(&want).times(h.inverse()).plus(lengths(0, blockSize)).times(h.inverse()).bytes()
		for _, size := range []int{16, 40, pieceSize - 3, pieceSize, pieceSize + 1, 2*pieceSize + 77} {
			plain := random(size)
			if !bytes.Equal(pieces(t, key, iv[:], plain), whole(t, key, iv[:], plain)) {
				t.Errorf("%d blocks before it wraps, %d bytes", before, size)
			}
		}
	}
}

func TestField(t *testing.T) {
	one := field{hi: 1 << 63}
	for range 100 {
		x, y, z := fieldOf((*[16]byte)(random(16))), fieldOf((*[16]byte)(random(16))), fieldOf((*[16]byte)(random(16)))
		if x.times(y) != y.times(x) || x.times(y).times(z) != x.times(y.times(z)) || x.times(y.plus(z)) != x.times(y).plus(x.times(z)) {
			t.Fatal("not a field")
		}
		if x.times(one) != x || x.power(0) != one || x.power(5) != x.times(x).times(x).times(x).times(x) || x.times(x.inverse()) != one {
			t.Fatal("not one")
		}
	}
}

// TestWycheproof: the vectors of Project Wycheproof for AES-GCM with the sizes that
// occur and without additional data.
func TestWycheproof(t *testing.T) {
	raw, err := os.ReadFile("testdata/wycheproof_aes_gcm.json")
	if err != nil {
		t.Fatal(err)
	}
	var vectors []struct {
		ID                    int `json:"tcId"`
		Comment, Result       string
		Key, IV, Msg, CT, Tag string
	}
	if err := json.Unmarshal(raw, &vectors); err != nil {
		t.Fatal(err)
	}
	octets := func(s string) []byte {
		b, err := hex.DecodeString(s)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	valid, invalid := 0, 0
	for _, v := range vectors {
		c := AES256GCM
		if len(v.Key) == 32 {
			c = AES128GCM
		}
		k, err := keyOf(c, octets(v.Key), octets(v.IV))
		if err != nil {
			t.Fatal(err)
		}
		var plain bytes.Buffer
		err = k.decrypt(&plain, bytes.NewReader(octets(v.CT+v.Tag)))
		switch v.Result {
		case "valid":
			valid++
			if err != nil || !bytes.Equal(plain.Bytes(), octets(v.Msg)) {
				t.Errorf("%d (%s): %v", v.ID, v.Comment, err)
			}
			if !bytes.Equal(pieces(t, octets(v.Key), octets(v.IV), octets(v.Msg)), octets(v.CT+v.Tag)) {
				t.Errorf("%d (%s): encrypted differently", v.ID, v.Comment)
			}
		case "invalid":
			invalid++
			if !errors.Is(err, ErrForged) || plain.Len() != 0 {
				t.Errorf("%d (%s): %v, and %d bytes", v.ID, v.Comment, err, plain.Len())
			}
		default:
			t.Errorf("%d: %s", v.ID, v.Result)
		}
	}
	t.Logf("%d valid, %d invalid", valid, invalid)
	if valid != 81 || invalid != 54 {
		t.Errorf("%d valid, %d invalid", valid, invalid)
	}
}

// encrypted reads a file through an Encrypter.
func encrypted(t testing.TB, plain []byte) (*Encrypter, []byte) {
	t.Helper()
	e, err := Encrypt(bytes.NewReader(plain), int64(len(plain)))
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(e)
	if err != nil {
		t.Fatal(err)
	}
	if int64(len(b)) != e.Size() {
		t.Fatalf("%d bytes, %d were promised", len(b), e.Size())
	}
	return e, b
}

func TestEncryptDecrypt(t *testing.T) {
	for _, size := range sizes {
		plain := random(size)
		e, b := encrypted(t, plain)
		key := e.Key()
		if !bytes.Equal(b, whole(t, key.secret(), key.vector(), plain)) {
			t.Errorf("%d bytes: not AES-256-GCM", size)
		}
		for name, src := range map[string]io.Reader{
			"whole": bytes.NewReader(b), "halves": iotest.HalfReader(bytes.NewReader(b)), "with the end": iotest.DataErrReader(bytes.NewReader(b)),
		} {
			var out bytes.Buffer
			if err := key.decrypt(&out, src); err != nil || !bytes.Equal(out.Bytes(), plain) {
				t.Errorf("%d bytes, %s: %v", size, name, err)
			}
		}
	}
	e, _ := encrypted(t, nil)
	other, _ := encrypted(t, nil)
	if e.Key() == other.Key() || e.Key().Cipher() != AES256GCM {
		t.Error("the same key twice")
	}
}

// TestFileOfAnotherSize: a file that grows or shrinks while it is read has no tag.
func TestFileOfAnotherSize(t *testing.T) {
	for _, size := range sizes {
		for _, said := range []int{0, size - 1, size + 1, size + pieceSize, size - pieceSize} {
			if said < 0 || said == size {
				continue
			}
			e, err := Encrypt(bytes.NewReader(random(size)), int64(said))
			if err != nil {
				t.Fatal(err)
			}
			b, err := io.ReadAll(e)
			if !errors.Is(err, ErrSize) || len(b) > said {
				t.Errorf("%d bytes for %d: %d, %v", size, said, len(b), err)
			}
		}
	}
	for _, size := range []int64{-1, maxGCM + 1} {
		if _, err := Encrypt(nil, size); !errors.Is(err, ErrSize) {
			t.Errorf("%d: %v", size, err)
		}
	}
	broken := errors.New("disk")
	e, err := Encrypt(iotest.ErrReader(broken), 1)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(e); !errors.Is(err, broken) {
		t.Error(err)
	}
}

// TestAltered: no bit of a file can be changed, nothing taken away, added or moved.
func TestAltered(t *testing.T) {
	for _, size := range []int{0, 1, 16, 100, pieceSize, 2*pieceSize + 5} {
		e, b := encrypted(t, random(size))
		key := e.Key()
		refused := func(what string, altered []byte) {
			t.Helper()
			if err := key.decrypt(io.Discard, bytes.NewReader(altered)); !errors.Is(err, ErrForged) {
				t.Errorf("%d bytes, %s: %v", size, what, err)
			}
		}
		step := max(1, len(b)/50)
		for i := 0; i < len(b); i += step {
			altered := bytes.Clone(b)
			altered[i] ^= 1 << (i % 8)
			refused(fmt.Sprint("byte ", i), altered)
			refused(fmt.Sprint("cut at ", i), b[:i])
		}
		refused("one more", append(bytes.Clone(b), 0))
		if size > 2*pieceSize {
			moved := bytes.Clone(b)
			copy(moved, b[pieceSize:2*pieceSize])
			copy(moved[pieceSize:], b[:pieceSize])
			refused("pieces changed places", moved)
		}
	}
}

func TestCBC(t *testing.T) {
	key, iv := random(32), random(16)
	k, err := keyOf(AES256CBC, key, iv)
	if err != nil {
		t.Fatal(err)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		t.Fatal(err)
	}
	seal := func(padded []byte) []byte {
		out := make([]byte, len(padded))
		cipher.NewCBCEncrypter(block, iv).CryptBlocks(out, padded)
		return out
	}
	for _, size := range sizes {
		plain := random(size)
		n := blockSize - size%blockSize
		b := seal(append(bytes.Clone(plain), bytes.Repeat([]byte{byte(n)}, n)...))
		for name, src := range map[string]io.Reader{"whole": bytes.NewReader(b), "halves": iotest.HalfReader(bytes.NewReader(b))} {
			var out bytes.Buffer
			if err := k.decrypt(&out, src); err != nil || !bytes.Equal(out.Bytes(), plain) {
				t.Errorf("%d bytes, %s: %v", size, name, err)
			}
		}
		if err := k.decrypt(io.Discard, bytes.NewReader(b[:len(b)-1])); !errors.Is(err, ErrForged) {
			t.Errorf("%d bytes, cut short: %v", size, err)
		}
	}
	for name, last := range map[string]string{
		"zero": "0123456789abcde\x00", "seventeen": "0123456789abcde\x11", "uneven": "0123456789abc\x02\x03\x03", "large": "0123456789abcde\xff",
	} {
		if err := k.decrypt(io.Discard, bytes.NewReader(seal([]byte(last)))); !errors.Is(err, ErrForged) {
			t.Errorf("padding %s: %v", name, err)
		}
	}
	if err := k.decrypt(io.Discard, bytes.NewReader(nil)); !errors.Is(err, ErrForged) {
		t.Error(err)
	}
}

func TestKeys(t *testing.T) {
	for _, c := range []struct {
		cipher  Cipher
		key, iv int
		ok      bool
	}{
		{AES256GCM, 32, 12, true}, {AES256GCM, 32, 16, true}, {AES128GCM, 16, 12, true}, {AES256CBC, 32, 16, true},
		{AES256GCM, 16, 12, false}, {AES256GCM, 32, 13, false}, {AES256GCM, 32, 0, false}, {AES256GCM, 0, 12, false}, {AES128GCM, 32, 12, false},
		{AES256CBC, 32, 12, false}, {AES256CBC, 16, 16, false}, {"urn:xmpp:ciphers:aes-512:0", 64, 16, false}, {"", 0, 0, false},
	} {
		if _, err := keyOf(c.cipher, random(c.key), random(c.iv)); (err == nil) != c.ok {
			t.Errorf("%s, %d, %d: %v", c.cipher, c.key, c.iv, err)
		}
	}
}

func BenchmarkEncrypt(b *testing.B) {
	const size = 16 << 20
	plain := random(size)
	b.SetBytes(size)
	for b.Loop() {
		e, err := Encrypt(bytes.NewReader(plain), size)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, e); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkDecrypt(b *testing.B) {
	e, sealed := encrypted(b, random(16<<20))
	key := e.Key()
	b.SetBytes(16 << 20)
	for b.Loop() {
		if err := key.decrypt(io.Discard, bytes.NewReader(sealed)); err != nil {
			b.Fatal(err)
		}
	}
}
