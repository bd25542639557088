package curve

import (
	"crypto/ecdh"
	"testing"
)

func BenchmarkPublic(b *testing.B) {
	for b.Loop() {
		NewPrivate(&[32]byte{1}).Public()
	}
}

func BenchmarkDH(b *testing.B) {
	p, u := NewPrivate(&[32]byte{1}), NewPrivate(&[32]byte{2}).Public()
	for b.Loop() {
		_, _ = p.DH(u)
	}
}

// BenchmarkStandardDH is what crypto/ecdh needs for a key that was not used before.
func BenchmarkStandardDH(b *testing.B) {
	u, err := ecdh.X25519().NewPublicKey(append([]byte{9}, make([]byte, 31)...))
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		p, err := ecdh.X25519().NewPrivateKey(make([]byte, 32))
		if err == nil {
			_, err = p.ECDH(u)
		}
		if err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkAgree is the agreements of a new session.
func BenchmarkAgree(b *testing.B) {
	p, u := NewPrivate(&[32]byte{1}), NewPrivate(&[32]byte{2}).Public()
	secrets := make([][32]byte, 4)
	for b.Loop() {
		_ = Agree(secrets, Agreement{p, u}, Agreement{p, u}, Agreement{p, u}, Agreement{p, u})
	}
}

// BenchmarkDerive is the public keys of a bundle.
func BenchmarkDerive(b *testing.B) {
	for b.Loop() {
		keys := make([]*Private, 100)
		for i := range keys {
			keys[i] = NewPrivate(&[32]byte{byte(i)})
		}
		Derive(keys...)
	}
}

func BenchmarkCheckIdentity(b *testing.B) {
	u := NewPrivate(&[32]byte{2}).Public()
	for b.Loop() {
		_ = u.CheckIdentity()
	}
}

func BenchmarkSign(b *testing.B) {
	for name, id := range map[string]*Identity{"seed": IdentityFromSeed(&[32]byte{1}), "scalar": IdentityFromScalar(&[32]byte{1})} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				id.Sign([]byte("signed pre key"), new([64]byte))
			}
		})
	}
}

func BenchmarkVerify(b *testing.B) {
	id := IdentityFromSeed(&[32]byte{1})
	sig := id.Sign([]byte("signed pre key"), nil)
	for b.Loop() {
		Verify(id.Edwards(), []byte("signed pre key"), &sig)
	}
}
