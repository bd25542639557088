package ratchet

import (
	"testing"

	"example.org/omellium/omemo/internal/curve"
)

// established returns two states of one session, the initiator's chain in use.
func established(tb testing.TB) (active, passive State) {
	tb.Helper()
	draw := drawer(1)
	signedPreKey := draw()
	active, err := Initiate(legacy, [32]byte{1}, draw(), signedPreKey.Public())
	if err != nil {
		tb.Fatal(err)
	}
	passive = Accept(legacy, [32]byte{1}, signedPreKey)
	h, _, err := active.Seal(legacy, draw)
	if err != nil {
		tb.Fatal(err)
	}
	if passive, _, _, err = opened(&passive, legacy, h); err != nil {
		tb.Fatal(err)
	}
	return active, passive
}

func BenchmarkSeal(b *testing.B) {
	active, _ := established(b)
	plaintext, ad := make([]byte, 32), make([]byte, 66)
	b.ReportAllocs()
	for b.Loop() {
		_, key, err := active.Seal(legacy, nil)
		if err != nil {
			b.Fatal(err)
		}
		keys := Expand(legacy, &key)
		keys.Tag(legacy, ad, Encrypt(nil, &keys, plaintext))
	}
}

func BenchmarkOpen(b *testing.B) {
	_, passive := established(b)
	h := Header{Key: passive.Remote, N: 1}
	sealing := passive
	_, key, _, err := opened(&sealing, legacy, h)
	if err != nil {
		b.Fatal(err)
	}
	keys, ad := Expand(legacy, &key), make([]byte, 66)
	ciphertext := Encrypt(nil, &keys, make([]byte, 32))
	tag := keys.Tag(legacy, ad, ciphertext)
	b.ReportAllocs()
	for b.Loop() {
		o, err := passive.Open(legacy, h, new(Budget))
		if err != nil {
			b.Fatal(err)
		}
		keys := Expand(legacy, &o.Key)
		if !keys.Verify(legacy, tag[:8], ad, ciphertext) {
			b.Fatal("MAC does not hold")
		}
		if _, err := Decrypt(&keys, ciphertext); err != nil {
			b.Fatal(err)
		}
		o.Keep()
	}
}

// BenchmarkStep is one message there and one back, each with a ratchet step.
func BenchmarkStep(b *testing.B) {
	one, other := established(b)
	draw := drawer(2)
	b.ReportAllocs()
	for b.Loop() {
		next := other
		h, _, err := next.Seal(legacy, draw)
		if err != nil {
			b.Fatal(err)
		}
		if one, _, _, err = opened(&one, legacy, h); err != nil {
			b.Fatal(err)
		}
		one, other = next, one
	}
}

func BenchmarkSkip1000(b *testing.B) {
	_, passive := established(b)
	h := Header{Key: passive.Remote, N: 1 + MaxSkip}
	b.ReportAllocs()
	for b.Loop() {
		if _, _, _, err := opened(&passive, legacy, h); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkForged1000 is the part of BenchmarkSkip1000 that a forged message has us do.
func BenchmarkForged1000(b *testing.B) {
	_, passive := established(b)
	h := Header{Key: passive.Remote, N: 1 + MaxSkip}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := passive.Open(legacy, h, new(Budget)); err != nil {
			b.Fatal(err)
		}
	}
}

func drawer(seed byte) func() *curve.Private {
	var scalar [32]byte
	scalar[31] = seed
	return func() *curve.Private {
		scalar[1]++
		if scalar[1] == 0 {
			scalar[2]++
		}
		return curve.NewPrivate(&scalar)
	}
}

var legacy = Params{Root: "WhisperRatchet", Message: "WhisperMessageKeys", MACSize: 8}
