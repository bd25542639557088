package ratchet

import (
	"bytes"
	"crypto/cipher"
	"encoding/json"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"

	"example.org/omellium/omemo/internal/curve"
)

func TestEncrypt(t *testing.T) {
	keys := Expand(v2, &[32]byte{1})
	for n := range 70 {
		plaintext := append(make([]byte, 0, 100), bytes.Repeat([]byte{byte(n)}, n)...)
		ciphertext := Encrypt(nil, &keys, plaintext)
		if want := n/16*16 + 16; len(ciphertext) != want {
			t.Errorf("%d bytes become %d, want %d", n, len(ciphertext), want)
		}
		before := bytes.Clone(ciphertext)
		got, err := Decrypt(&keys, ciphertext)
		if err != nil || !bytes.Equal(got, plaintext) || !bytes.Equal(ciphertext, before) {
			t.Errorf("%d bytes come back as %x, %v", n, got, err)
		}
		if !bytes.Equal(plaintext[:100][n:], make([]byte, 100-n)) {
			t.Errorf("%d: Encrypt wrote behind the plaintext", n)
		}
	}
}

func TestDecryptPadding(t *testing.T) {
	keys := Expand(legacy, &[32]byte{1})
	for name, plain := range map[string][]byte{
		"empty":   {},
		"short":   make([]byte, 15),
		"long":    make([]byte, 17),
		"0":       make([]byte, 16),
		"17":      append(make([]byte, 15), 17),
		"255":     append(make([]byte, 31), 255),
		"differs": append(make([]byte, 13), 3, 2, 3),
	} {
		ciphertext := bytes.Clone(plain)
		if len(plain) > 0 && len(plain)%16 == 0 {
			cipher.NewCBCEncrypter(keys.block(), keys.IV[:]).CryptBlocks(ciphertext, plain)
		}
		if got, err := Decrypt(&keys, ciphertext); err != ErrPadding || got != nil {
			t.Errorf("%s: %x, %v", name, got, err)
		}
	}
}

func TestTag(t *testing.T) {
	keys := Expand(v2, &[32]byte{1})
	for _, p := range []Params{legacy, v2} {
		tag := keys.Tag(p, []byte("associated"), []byte("data"))
		if tag != keys.Tag(p, []byte("associateddata")) {
			t.Error("the parts are not joined")
		}
		if !bytes.Equal(tag[p.MACSize:], make([]byte, 32-p.MACSize)) {
			t.Errorf("%x is longer than %d bytes", tag, p.MACSize)
		}
		for n := range 33 {
			if keys.Verify(p, tag[:n], []byte("associateddata")) != (n == p.MACSize) {
				t.Errorf("a MAC of %d bytes, want %d", n, p.MACSize)
			}
		}
		for bit := range 8 * p.MACSize {
			flipped := tag
			flipped[bit/8] ^= 1 << (bit % 8)
			if keys.Verify(p, flipped[:p.MACSize], []byte("associateddata")) {
				t.Errorf("bit %d does not count", bit)
			}
		}
		if keys.Verify(p, tag[:p.MACSize], []byte("associated")) {
			t.Error("a MAC holds for other bytes")
		}
	}
}

func TestRedacted(t *testing.T) {
	canary := [32]byte(bytes.Repeat([]byte{0xca, 0xfe}, 16))
	chain := Chain{Key: canary}
	secrets := []any{
		State{Root: canary, Own: curve.NewPrivate(&canary), Sending: canary, Receiving: chain, Previous: chain},
		&State{Root: canary}, chain, &chain, Skipped{Seed: canary}, []Skipped{{Seed: canary}}, Keys{MAC: canary}, &Keys{Cipher: canary},
	}
	for _, secret := range secrets {
		var out strings.Builder
		verbs := []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d"}
		for _, verb := range verbs {
			fmt.Fprintf(&out, verb+"\n", secret)
		}
		slog.New(slog.NewTextHandler(&out, nil)).Info("secret", "secret", secret)
		slog.New(slog.NewJSONHandler(&out, nil)).Info("secret", "secret", secret)
		if err := json.NewEncoder(&out).Encode(secret); err != nil {
			t.Errorf("%T: %v", secret, err)
		}
		printed := strings.ToLower(out.String())
		leaks := []string{"cafe", "202 254", "202,254", "0xca"}
		if slices.ContainsFunc(leaks, func(leak string) bool { return strings.Contains(printed, leak) }) {
			t.Errorf("%T leaks: %s", secret, printed)
		}
		if strings.Count(printed, redacted) < len(verbs)+3 {
			t.Errorf("%T: %s", secret, printed)
		}
	}
}
