package curve

import (
	"bytes"
	"crypto/ed25519"
	"testing"

	"filippo.io/edwards25519"
)

func TestIdentity(t *testing.T) {
	seed := [32]byte{1, 2, 3}
	id := IdentityFromSeed(&seed)
	public := ed25519.NewKeyFromSeed(seed[:]).Public().(ed25519.PublicKey)
	if ed := id.Edwards(); !bytes.Equal(ed[:], public) {
		t.Errorf("Edwards = %x, want %x", ed, public)
	}
	if kind, b := id.Secret(); kind != SecretSeed || b != seed {
		t.Errorf("Secret = %d, %x", kind, b)
	}

	// An unclamped scalar is clamped before it is kept, used or hashed.
	raw := [32]byte{0xff, 31: 0xff}
	scalar := IdentityFromScalar(&raw)
	kind, b := scalar.Secret()
	if kind != SecretScalar || b != [32]byte{0xf8, 31: 0x7f} {
		t.Errorf("Secret = %d, %x", kind, b)
	}
	if again := IdentityFromScalar(&b); again.Edwards() != scalar.Edwards() || again.Montgomery() != scalar.Montgomery() {
		t.Error("the clamped scalar is another identity")
	}

	peer := NewPrivate(&[32]byte{9})
	for _, id := range []*Identity{id, scalar} {
		one, err := id.DH(peer.Public())
		if err != nil {
			t.Fatal(err)
		}
		if other, err := peer.DH(id.Montgomery()); err != nil || one != other {
			t.Errorf("DH differs: %x, %x, %v", one, other, err)
		}
	}
}

func TestSign(t *testing.T) {
	count := 50
	if testing.Short() {
		count = 10
	}
	draw := draws(5)
	for i := range count {
		secret, low, high := draw(), draw(), draw()
		msg := bytes.Repeat([]byte{byte(i)}, i)
		nonce := [64]byte(append(low[:], high[:]...))
		for _, id := range []*Identity{IdentityFromSeed(&secret), IdentityFromScalar(&secret)} {
			sig := id.Sign(msg, &nonce)
			pub := id.Edwards()
			if !Verify(pub, msg, &sig) || !ed25519.Verify(pub[:], msg, sig[:]) {
				t.Fatalf("signature of %x does not verify", secret)
			}
			if Verify(pub, append(msg, 0), &sig) {
				t.Fatalf("signature of %x verifies for another message", secret)
			}
			if sig[63]&0xe0 != 0 {
				t.Fatalf("S of %x is above 2^253", secret)
			}
		}
	}
}

func TestVerifyEveryBit(t *testing.T) {
	id := IdentityFromScalar(&[32]byte{8})
	msg := []byte("signed pre key")
	sig := id.Sign(msg, new([64]byte))
	for i := range 512 {
		flipped := sig
		flipped[i/8] ^= 1 << (i % 8)
		if Verify(id.Edwards(), msg, &flipped) {
			t.Errorf("bit %d of the signature does not count", i)
		}
	}
	for i := range 256 {
		pub := id.Edwards()
		pub[i/8] ^= 1 << (i % 8)
		if Verify(pub, msg, &sig) {
			t.Errorf("bit %d of the public key does not count", i)
		}
	}
}

// TestVerifyMalleable: the S of a signature plus the order of the base point fits in 32 bytes and is refused.
func TestVerifyMalleable(t *testing.T) {
	order := decode(t, "edd3f55c1a631258d69cf7a2def9de1400000000000000000000000000000010")
	id := IdentityFromSeed(&[32]byte{4})
	sig := id.Sign(nil, nil)
	carry := 0
	for i := range 32 {
		carry += int(sig[32+i]) + int(order[i])
		sig[32+i] = byte(carry)
		carry >>= 8
	}
	if Verify(id.Edwards(), nil, &sig) {
		t.Error("S above the order is accepted")
	}
}

// TestVerifyStrict has signatures that satisfy the equation, so that crypto/ed25519 takes them, under keys that are
// no identities.
func TestVerifyStrict(t *testing.T) {
	torsion := decode(t, order8)
	generator := decodePoint(t, torsion[:])
	a, r := clamped(&[32]byte{1}), clamped(&[32]byte{2})
	commitment := new(edwards25519.Point).ScalarBaseMult(r).Bytes()

	mixed := new(edwards25519.Point).ScalarBaseMult(a)
	mixed.Add(mixed, generator)
	neutralAgain := decode(t, "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f")
	tests := map[string]struct {
		public []byte
		a      *edwards25519.Scalar
	}{
		"mixed order":   {mixed.Bytes(), a},
		"order 8":       {torsion[:], edwards25519.NewScalar()},
		"order 4":       {make([]byte, 32), edwards25519.NewScalar()},
		"neutral":       {edwards25519.NewIdentityPoint().Bytes(), edwards25519.NewScalar()},
		"not canonical": {neutralAgain[:], edwards25519.NewScalar()},
	}
	for name, test := range tests {
		// The torsion part vanishes where the hash is a multiple of 8: one message in eight.
		accepted := 0
		for i := range 200 {
			msg := []byte{byte(i)}
			h := hashToScalar(commitment, test.public, msg)
			s := new(edwards25519.Scalar).MultiplyAdd(h, test.a, r)
			sig := [64]byte(append(bytes.Clone(commitment), s.Bytes()...))
			if ed25519.Verify(test.public, msg, sig[:]) {
				accepted++
			}
			if Verify(Edwards(test.public), msg, &sig) {
				t.Errorf("%s: accepted", name)
			}
		}
		if accepted == 0 {
			t.Errorf("%s: the test shows nothing, crypto/ed25519 refuses it as well", name)
		}
	}
}

func FuzzVerify(f *testing.F) {
	id := IdentityFromScalar(&[32]byte{3})
	pub, msg := id.Edwards(), []byte("message")
	sig := id.Sign(msg, new([64]byte))
	f.Add(pub[:], msg, sig[:])
	f.Add(make([]byte, 32), []byte{}, make([]byte, 64))
	f.Fuzz(func(t *testing.T, pub, msg, sig []byte) {
		if len(pub) != 32 || len(sig) != 64 {
			return
		}
		e := Edwards(pub)
		u, err := e.Montgomery()
		if Verify(e, msg, (*[64]byte)(sig)) != (err == nil && ed25519.Verify(pub, msg, sig)) {
			t.Fatal("Verify is not the strict form of Ed25519")
		}
		if err != nil {
			return
		}
		if back, err := u.Edwards(e[31] >> 7); err != nil || back != e {
			t.Fatalf("%x comes back as %x, %v", e, back, err)
		}
	})
}
