package curve

import "testing"

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

// BenchmarkFirstDH is an agreement with a key that was not used before.
func BenchmarkFirstDH(b *testing.B) {
	u := NewPrivate(&[32]byte{2}).Public()
	for b.Loop() {
		_, _ = NewPrivate(&[32]byte{1}).DH(u)
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
