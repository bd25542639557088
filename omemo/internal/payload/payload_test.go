package payload

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"testing"

	"example.org/omellium/omemo/internal/recorded"
)

// octets is a byte string, in hexadecimal digits in the vector files.
type octets []byte

func (o *octets) UnmarshalText(text []byte) (err error) {
	*o, err = hex.DecodeString(string(text))
	return err
}

type vector struct {
	Plaintext octets `json:"plaintext"`
	Key       octets `json:"key"`
	Tag       octets `json:"tag"`
	Payload   octets `json:"payload"`
	IV        octets `json:"iv"`
}

func load(t *testing.T, file string) []vector {
	t.Helper()
	b := recorded.File(t, file)
	var v struct {
		Payloads []vector `json:"payloads"`
	}
	if err := json.Unmarshal(b, &v); err != nil {
		t.Fatal(err)
	}
	if len(v.Payloads) == 0 {
		t.Fatal("no payloads")
	}
	return v.Payloads
}

func TestVectorsLegacy(t *testing.T) {
	for i, v := range load(t, "oldmemo_kdf.json") {
		ciphertext, material := SealLegacy((*[16]byte)(v.Key), (*[12]byte)(v.IV), v.Plaintext)
		if want := append(bytes.Clone(v.Key), v.Tag...); !bytes.Equal(ciphertext, v.Payload) || !bytes.Equal(material[:], want) {
			t.Errorf("%d: SealLegacy = %x, %x", i, ciphertext, material)
		}
		if text, err := OpenLegacy(material[:], v.IV, v.Payload); err != nil || !bytes.Equal(text, v.Plaintext) {
			t.Errorf("%d: OpenLegacy = %x, %v", i, text, err)
		}
		text, err := OpenLegacyUnauthenticated(v.Key, v.IV, append(bytes.Clone(v.Payload), v.Tag...))
		if err != nil || !bytes.Equal(text, v.Plaintext) {
			t.Errorf("%d: OpenLegacyUnauthenticated = %x, %v", i, text, err)
		}
	}
}

func TestVectorsV2(t *testing.T) {
	for i, v := range load(t, "twomemo_kdf.json") {
		ciphertext, material := SealV2((*[32]byte)(v.Key), v.Plaintext)
		if want := append(bytes.Clone(v.Key), v.Tag...); !bytes.Equal(ciphertext, v.Payload) || !bytes.Equal(material[:], want) {
			t.Errorf("%d: SealV2 = %x, %x", i, ciphertext, material)
		}
		if envelope, err := OpenV2(material[:], v.Payload); err != nil || !bytes.Equal(envelope, v.Plaintext) {
			t.Errorf("%d: OpenV2 = %x, %v", i, envelope, err)
		}
	}
}

// TestLengths is attack C12: only exact lengths are read.
func TestLengths(t *testing.T) {
	legacy, legacyMaterial := SealLegacy(new([16]byte), new([12]byte), []byte("text"))
	v2, v2Material := SealV2(new([32]byte), []byte("text"))
	long := make([]byte, 80)
	for n := range 65 {
		copy(long, legacyMaterial[:])
		if _, err := OpenLegacy(long[:n], make([]byte, 12), legacy); errors.Is(err, ErrLength) != (n != 32) {
			t.Errorf("legacy material of %d bytes: %v", n, err)
		}
		if _, err := OpenLegacyUnauthenticated(long[:n], make([]byte, 12), append(legacy, long[16:32]...)); errors.Is(err, ErrLength) != (n != 16) {
			t.Errorf("legacy key of %d bytes: %v", n, err)
		}
		if _, err := OpenLegacy(legacyMaterial[:], make([]byte, n), legacy); errors.Is(err, ErrLength) != (n != 12 && n != 16) {
			t.Errorf("IV of %d bytes: %v", n, err)
		}
		if _, err := OpenLegacyUnauthenticated(long[:16], make([]byte, 12), long[:n]); errors.Is(err, ErrLength) != (n < 16) {
			t.Errorf("payload of %d bytes: %v", n, err)
		}
		copy(long, v2Material[:])
		if _, err := OpenV2(long[:n], v2); errors.Is(err, ErrLength) != (n != 48) {
			t.Errorf("material of %d bytes: %v", n, err)
		}
	}
}

// TestEveryBit flips each bit of material, IV and ciphertext.
func TestEveryBit(t *testing.T) {
	text := []byte("a text of some length")
	iv := [12]byte{1}
	ciphertext, material := SealLegacy(&[16]byte{2}, &iv, text)
	parts := [][]byte{material[:], iv[:], ciphertext}
	flip(parts, func(i, bit int) {
		if got, err := OpenLegacy(material[:], iv[:], ciphertext); got != nil || err != ErrAuth {
			t.Errorf("legacy, part %d, bit %d: %x, %v", i, bit, got, err)
		}
		payload := append(bytes.Clone(ciphertext), material[16:]...)
		if got, err := OpenLegacyUnauthenticated(material[:16], iv[:], payload); got != nil || err != ErrAuth {
			t.Errorf("legacy with tag at the end, part %d, bit %d: %x, %v", i, bit, got, err)
		}
	})
	if got, err := OpenLegacy(material[:], iv[:], ciphertext); err != nil || !bytes.Equal(got, text) {
		t.Errorf("unchanged: %x, %v", got, err)
	}

	v2, v2Material := SealV2(&[32]byte{3}, text)
	flip([][]byte{v2Material[:], v2}, func(i, bit int) {
		if got, err := OpenV2(v2Material[:], v2); got != nil || err != ErrAuth {
			t.Errorf("omemo:2, part %d, bit %d: %x, %v", i, bit, got, err)
		}
	})
}

// flip calls try with each bit of the parts inverted in turn.
func flip(parts [][]byte, try func(part, bit int)) {
	for i, part := range parts {
		for bit := range 8 * len(part) {
			part[bit/8] ^= 1 << (bit % 8)
			try(i, bit)
			part[bit/8] ^= 1 << (bit % 8)
		}
	}
}

// TestV2Padding: a sender whose MAC holds but whose padding does not gets the answer of a MAC that does not hold.
func TestV2Padding(t *testing.T) {
	key := [32]byte{1}
	derived := keysOf(t, key[:])
	block := func(last ...byte) []byte {
		return append(make([]byte, 16-len(last)), last...)
	}
	tests := map[string]struct {
		plain []byte
		raw   bool // not encrypted: of a length that CBC cannot have
		ok    bool
	}{
		"empty":            {plain: nil, raw: true},
		"not aligned":      {plain: make([]byte, 17), raw: true},
		"0":                {plain: block(0)},
		"17":               {plain: block(17)},
		"255":              {plain: block(255)},
		"differs":          {plain: block(3, 2, 3)},
		"longer than last": {plain: append(block(2), block(2)...)},
		"1":                {plain: block(1), ok: true},
		"2":                {plain: block(2, 2), ok: true},
		"a block":          {plain: bytes.Repeat([]byte{16}, 16), ok: true},
	}
	for name, test := range tests {
		ciphertext := bytes.Clone(test.plain)
		if !test.raw {
			block, err := aes.NewCipher(derived[:32])
			if err != nil {
				t.Fatal(err)
			}
			cipher.NewCBCEncrypter(block, derived[64:]).CryptBlocks(ciphertext, ciphertext)
		}
		mac := hmac.New(sha256.New, derived[32:64])
		mac.Write(ciphertext)
		material := append(bytes.Clone(key[:]), mac.Sum(nil)[:16]...)
		if _, err := OpenV2(material, ciphertext); (err == nil) != test.ok || err != nil && err != ErrAuth {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// keysOf is HKDF written out with HMAC: 80 bytes for a payload key.
func keysOf(t *testing.T, key []byte) (out []byte) {
	t.Helper()
	sum := func(key []byte, parts ...[]byte) []byte {
		mac := hmac.New(sha256.New, key)
		for _, part := range parts {
			mac.Write(part)
		}
		return mac.Sum(nil)
	}
	prk := sum(make([]byte, 32), key)
	var previous []byte
	for i := byte(1); len(out) < 80; i++ {
		previous = sum(prk, previous, []byte("OMEMO Payload"), []byte{i})
		out = append(out, previous...)
	}
	return out[:80]
}

// TestLongIV: clients of before 2020 wrote IVs of 16 bytes.
func TestLongIV(t *testing.T) {
	key, iv, text := make([]byte, 16), bytes.Repeat([]byte{7}, 16), []byte("old")
	block, err := aes.NewCipher(key)
	if err != nil {
		t.Fatal(err)
	}
	aead, err := cipher.NewGCMWithNonceSize(block, 16)
	if err != nil {
		t.Fatal(err)
	}
	sealed := aead.Seal(nil, iv, text, nil)
	material := append(bytes.Clone(key), sealed[len(text):]...)
	if got, err := OpenLegacy(material, iv, sealed[:len(text)]); err != nil || !bytes.Equal(got, text) {
		t.Errorf("OpenLegacy = %x, %v", got, err)
	}
	if got, err := OpenLegacyUnauthenticated(key, iv, sealed); err != nil || !bytes.Equal(got, text) {
		t.Errorf("OpenLegacyUnauthenticated = %x, %v", got, err)
	}
}

// TestArguments: what is handed in stays as it is, and what comes out shares no memory with it.
func TestArguments(t *testing.T) {
	text := append(make([]byte, 0, 100), "text"...)
	legacy, material := SealLegacy(new([16]byte), new([12]byte), text)
	if string(text) != "text" || !bytes.Equal(text[:100][4:], make([]byte, 96)) {
		t.Error("SealLegacy wrote into the text")
	}
	if cap(legacy) != len(legacy) {
		t.Error("the tag lies behind the ciphertext")
	}
	spare := append(make([]byte, 0, 100), legacy...)
	if _, err := OpenLegacy(material[:], make([]byte, 12), spare); err != nil || !bytes.Equal(spare[:100][len(spare):], make([]byte, 96)) {
		t.Errorf("OpenLegacy wrote behind the ciphertext: %v", err)
	}
	v2, v2Material := SealV2(new([32]byte), text)
	before := bytes.Clone(v2)
	if _, err := OpenV2(v2Material[:], v2); err != nil || !bytes.Equal(v2, before) {
		t.Errorf("OpenV2 changed the ciphertext: %v", err)
	}
}

func FuzzOpen(f *testing.F) {
	legacy, material := SealLegacy(new([16]byte), new([12]byte), []byte("text"))
	f.Add(material[:], make([]byte, 12), legacy)
	v2, v2Material := SealV2(new([32]byte), []byte("text"))
	f.Add(v2Material[:], []byte{}, v2)
	f.Fuzz(func(t *testing.T, material, iv, ciphertext []byte) {
		if text, err := OpenLegacy(material, iv, ciphertext); err == nil && len(iv) == 12 {
			again, m := SealLegacy((*[16]byte)(material[:16]), (*[12]byte)(iv), text)
			if !bytes.Equal(again, ciphertext) || !bytes.Equal(m[:], material) {
				t.Error("legacy: another ciphertext for the same text")
			}
		}
		if envelope, err := OpenV2(material, ciphertext); err == nil {
			again, m := SealV2((*[32]byte)(material[:32]), envelope)
			if !bytes.Equal(again, ciphertext) || !bytes.Equal(m[:], material) {
				t.Error("omemo:2: another ciphertext for the same envelope")
			}
		}
		_, _ = OpenLegacyUnauthenticated(material, iv, ciphertext)
	})
}

func BenchmarkSealLegacy(b *testing.B) {
	text := make([]byte, 1024)
	b.SetBytes(1024)
	for b.Loop() {
		SealLegacy(new([16]byte), new([12]byte), text)
	}
}

func BenchmarkSealV2(b *testing.B) {
	text := make([]byte, 1024)
	b.SetBytes(1024)
	for b.Loop() {
		SealV2(new([32]byte), text)
	}
}
