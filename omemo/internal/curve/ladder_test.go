package curve

import (
	"crypto/ecdh"
	"testing"
)

// TestLadder compares agreements with those of crypto/ecdh, for public keys that are any 32 bytes: points of the curve
// and of its twist, and values that are not canonical.
func TestLadder(t *testing.T) {
	count := 2000
	if testing.Short() {
		count = 200
	}
	draw := draws(10)
	for i := range count {
		scalar, u := draw(), Montgomery(draw())
		if i%8 == 0 { // from p on, with bit 255 or without
			for j := 1; j < 31; j++ {
				u[j] = 0xff
			}
			u[0], u[31] = 0xed+u[0]%19, 0x7f|u[31]&0x80
		}
		private, err := ecdh.X25519().NewPrivateKey(scalar[:])
		if err != nil {
			t.Fatal(err)
		}
		public, err := ecdh.X25519().NewPublicKey(u[:])
		if err != nil {
			t.Fatal(err)
		}
		want, wantErr := private.ECDH(public)
		got, err := NewPrivate(&scalar).DH(u)
		if (err != nil) != (wantErr != nil) || err == nil && got != [32]byte(want) {
			t.Fatalf("%x with %x: %x, %v; want %x, %v", scalar, u, got, err, want, wantErr)
		}
	}
}

// TestAgree compares agreements that are made together with those made alone.
func TestAgree(t *testing.T) {
	draw := draws(11)
	for count := range 7 {
		var agreements []Agreement
		for range count {
			scalar := draw()
			agreements = append(agreements, Agreement{NewPrivate(&scalar), Montgomery(draw())})
		}
		secrets := make([][32]byte, count)
		if err := Agree(secrets, agreements...); err != nil {
			t.Fatal(err)
		}
		for i, a := range agreements {
			if want, err := a.Own.DH(a.Peer); err != nil || secrets[i] != want {
				t.Errorf("agreement %d of %d: %v", i, count, err)
			}
		}
		for i := range agreements {
			peer := agreements[i].Peer
			agreements[i].Peer = decode(t, smallOrder[i])
			if err := Agree(secrets, agreements...); err != ErrZero {
				t.Errorf("agreement %d of %d is zero: %v", i, count, err)
			}
			for _, s := range secrets {
				if s != [32]byte{} {
					t.Error("a secret is left")
				}
			}
			agreements[i].Peer = peer
		}
	}
}

// TestDerive compares public keys that are computed together with those computed alone.
func TestDerive(t *testing.T) {
	draw := draws(12)
	for _, count := range []int{0, 1, 2, 100} {
		together := make([]*Private, count)
		for i := range together {
			scalar := draw()
			together[i] = NewPrivate(&scalar)
		}
		Derive(together...)
		for i, p := range together {
			scalar := p.Bytes()
			if NewPrivate(&scalar).Public() != p.Public() {
				t.Errorf("key %d of %d", i, count)
			}
		}
	}
}
