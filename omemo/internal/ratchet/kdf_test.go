package ratchet

import (
	"bytes"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"testing"

	"pgregory.net/rapid"

	"example.org/omellium/omemo/internal/recorded"
)

// octets is a byte string, in hexadecimal digits in the vector files.
type octets []byte

func (o *octets) UnmarshalText(text []byte) (err error) {
	*o, err = hex.DecodeString(string(text))
	return err
}

type vectors struct {
	Root []struct {
		Root  octets `json:"root_key"`
		DH    octets `json:"dh_out"`
		Next  octets `json:"next_root_key"`
		Chain octets `json:"chain_key"`
	} `json:"root"`
	Chain []struct {
		Chain octets `json:"chain_key"`
		Next  octets `json:"next_chain_key"`
		Key   octets `json:"message_key"`
	} `json:"chain"`
	Keys []struct {
		Key    octets `json:"message_key"`
		Info   string `json:"info"`
		Cipher octets `json:"enc_key"`
		MAC    octets `json:"mac_key"`
		IV     octets `json:"iv"`
	} `json:"message_keys"`
	RootInfo string `json:"root_info"`
}

func TestVectors(t *testing.T) {
	for file, p := range map[string]Params{"oldmemo_kdf.json": legacy, "twomemo_kdf.json": v2} {
		b := recorded.File(t, file)
		var v vectors
		if err := json.Unmarshal(b, &v); err != nil {
			t.Fatal(err)
		}
		if len(v.Root) == 0 || len(v.Chain) == 0 || len(v.Keys) == 0 || v.RootInfo != p.Root {
			t.Fatalf("%s: a part of the vectors is empty", file)
		}
		for i, v := range v.Root {
			next, chain := kdfRoot(p.Root, (*[32]byte)(v.Root), (*[32]byte)(v.DH))
			if !bytes.Equal(next[:], v.Next) || !bytes.Equal(chain[:], v.Chain) {
				t.Errorf("%s: root %d: %x, %x", file, i, next, chain)
			}
		}
		for i, v := range v.Chain {
			next, key := kdfChain((*[32]byte)(v.Chain))
			if !bytes.Equal(next[:], v.Next) || !bytes.Equal(key[:], v.Key) {
				t.Errorf("%s: chain %d: %x, %x", file, i, next, key)
			}
		}
		for i, v := range v.Keys {
			if v.Info != p.Message {
				t.Fatalf("%s: keys %d: info %q", file, i, v.Info)
			}
			keys := Expand(p, (*[32]byte)(v.Key))
			if !bytes.Equal(keys.Cipher[:], v.Cipher) || !bytes.Equal(keys.MAC[:], v.MAC) || !bytes.Equal(keys.IV[:], v.IV) {
				t.Errorf("%s: keys %d: %x", file, i, keys.Cipher)
			}
		}
	}
}

// TestAgainstStandardLibrary compares our HMAC and HKDF with crypto/hmac and crypto/hkdf.
func TestAgainstStandardLibrary(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		key := [32]byte(rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(t, "key"))
		parts := rapid.SliceOfN(rapid.SliceOfN(rapid.Byte(), 0, 300), 0, 4).Draw(t, "parts")
		mac := hmac.New(sha256.New, key[:])
		for _, part := range parts {
			mac.Write(part)
		}
		if got := hmacSHA256(&key, parts...); !bytes.Equal(got[:], mac.Sum(nil)) {
			t.Fatalf("HMAC = %x", got)
		}

		info := rapid.StringN(0, 40, 40).Draw(t, "info")
		n := rapid.IntRange(0, 200).Draw(t, "length")
		want, err := hkdf.Expand(sha256.New, key[:], info, n)
		if err != nil {
			t.Fatal(err)
		}
		out := make([]byte, n)
		if expand(out, &key, info); !bytes.Equal(out, want) {
			t.Fatalf("HKDF = %x, want %x", out, want)
		}
	})
}

// TestScratch compares every length that a scratch has room for with crypto/hmac: the padding has one block or two.
func TestScratch(t *testing.T) {
	key := [32]byte([]byte("a key of thirty-two bytes, no mo"))
	message := bytes.Repeat([]byte("message "), 15)
	for n := range 2*sha256.BlockSize - 8 {
		mac := hmac.New(sha256.New, key[:])
		mac.Write(message[:n])
		s := scratches.Get().(*scratch)
		s.load(&key)
		copy(s.buffer[:], message[:n])
		s.hmac(&s.key, n)
		if !bytes.Equal(s.buffer[:sha256.Size], mac.Sum(nil)) {
			t.Errorf("%d bytes: %x, want %x", n, s.buffer[:sha256.Size], mac.Sum(nil))
		}
		s.done()
	}
}
