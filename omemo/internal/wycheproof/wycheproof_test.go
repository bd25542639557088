package wycheproof

import (
	"bytes"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"errors"
	"testing"

	"example.org/omellium/omemo/internal/curve"
	"example.org/omellium/omemo/internal/payload"
	"example.org/omellium/omemo/internal/ratchet"
)

// TestX25519: a secret of zeros is refused, every other is as it should be,
// whatever the encoding of the point.
func TestX25519(t *testing.T) {
	var n tally
	for _, g := range read(t, "x25519_test.json") {
		for _, v := range g.Tests {
			if len(v.Public) != 32 || len(v.Private) != 32 {
				continue
			}
			secret, err := curve.NewPrivate((*[32]byte)(v.Private)).DH(curve.Montgomery(v.Public))
			if bytes.Equal(v.Shared, make([]byte, 32)) {
				n.zero++
				if !errors.Is(err, curve.ErrZero) {
					t.Errorf("%d (%s): a secret of zeros: %v", v.ID, v.Comment, err)
				}
				continue
			}
			v.Result = "valid" // "acceptable": points of the twist and other encodings, which X25519 takes
			n.judge(t, &v, err == nil && bytes.Equal(secret[:], v.Shared))
		}
	}
	n.check(t, 487, 0)
	if n.zero < 31 {
		t.Errorf("%d secrets of zeros", n.zero)
	}
	t.Logf("%d secrets of zeros", n.zero)
}

func TestEd25519(t *testing.T) {
	var n tally
	for _, g := range read(t, "ed25519_test.json") {
		for _, v := range g.Tests {
			accepted := len(v.Sig) == 64 && len(g.PublicKey.PK) == 32 &&
				curve.Verify(curve.Edwards(g.PublicKey.PK), v.Msg, (*[64]byte)(v.Sig))
			n.judge(t, &v, accepted)
		}
	}
	n.check(t, 88, 63)
}

// TestAESGCM takes the vectors that a legacy message could be: keys of 16 bytes,
// tags of 16 bytes, nothing but text.
func TestAESGCM(t *testing.T) {
	var n tally
	for _, g := range read(t, "aes_gcm_test.json") {
		if g.KeySize != 128 || g.TagSize != 128 {
			continue
		}
		for _, v := range g.Tests {
			if len(v.AAD) > 0 {
				continue
			}
			text, err := payload.OpenLegacy(append(bytes.Clone(v.Key), v.Tag...), v.IV, v.CT)
			if len(v.IV) != 12 && len(v.IV) != 16 {
				v.Result = "invalid" // lengths that no client has ever sent
			}
			n.judge(t, &v, err == nil && bytes.Equal(text, v.Msg))
		}
	}
	n.check(t, 41, 47)
}

// TestAESCBC takes the vectors with keys of 32 bytes, as in messages of the
// ratchet of both versions.
func TestAESCBC(t *testing.T) {
	var n tally
	for _, g := range read(t, "aes_cbc_pkcs5_test.json") {
		if g.KeySize != 256 || g.IVSize != 128 {
			continue
		}
		for _, v := range g.Tests {
			k := ratchet.Keys{Cipher: [32]byte(v.Key), IV: [16]byte(v.IV)}
			text, err := ratchet.Decrypt(&k, bytes.Clone(v.CT))
			n.judge(t, &v, err == nil && bytes.Equal(text, v.Msg))
			if v.Result == "valid" && !bytes.Equal(ratchet.Encrypt(nil, &k, v.Msg), v.CT) {
				t.Errorf("%d (%s): encrypted otherwise", v.ID, v.Comment)
			}
		}
	}
	n.check(t, 24, 48)
}

// TestHMAC takes the vectors with keys of 32 bytes and tags of 16, as in
// omemo:2, and of 32.
func TestHMAC(t *testing.T) {
	var n tally
	for _, g := range read(t, "hmac_sha256_test.json") {
		if g.KeySize != 256 {
			continue
		}
		for _, v := range g.Tests {
			k := ratchet.Keys{MAC: [32]byte(v.Key)}
			n.judge(t, &v, k.Verify(ratchet.Params{MACSize: g.TagSize / 8}, v.Tag, v.Msg))
		}
	}
	n.check(t, 54, 108)
}

// TestHKDF is about the standard library, as the sessions and payloads use it.
func TestHKDF(t *testing.T) {
	var n tally
	for _, g := range read(t, "hkdf_sha256_test.json") {
		for _, v := range g.Tests {
			okm, err := hkdf.Key(sha256.New, v.IKM, v.Salt, string(v.Info), v.Size)
			n.judge(t, &v, err == nil && hmac.Equal(okm, v.OKM))
		}
	}
	n.check(t, 83, 3)
}
