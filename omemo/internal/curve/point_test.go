package curve

import (
	"bytes"
	"encoding/hex"
	"errors"
	"math/rand/v2"
	"testing"

	"filippo.io/edwards25519"
)

// smallOrder lists the u coordinates of small order, and the other encodings that X25519 reads as one of them.
var smallOrder = []string{
	"0000000000000000000000000000000000000000000000000000000000000000",
	"0100000000000000000000000000000000000000000000000000000000000000",
	"e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
	"5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
	"ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f", // p-1, on the twist
	"edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f", // p
	"eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f", // p+1
	"0000000000000000000000000000000000000000000000000000000000000080", // bit 255 is ignored
	"0100000000000000000000000000000000000000000000000000000000000080",
	"e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b880",
	"5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f11d7",
	"ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
	"edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
	"eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
}

// order8 encodes a point of order 8.
const order8 = "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"

func decode(tb testing.TB, s string) [32]byte {
	tb.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		tb.Fatal(err)
	}
	return [32]byte(b)
}

func decodePoint(tb testing.TB, b []byte) *edwards25519.Point {
	tb.Helper()
	p, err := new(edwards25519.Point).SetBytes(b)
	if err != nil {
		tb.Fatal(err)
	}
	return p
}

// draws returns a deterministic source of 32-byte strings.
func draws(seed byte) func() [32]byte {
	source := rand.NewChaCha8([32]byte{seed})
	return func() (b [32]byte) {
		_, _ = source.Read(b[:])
		return b
	}
}

func TestSmallOrder(t *testing.T) {
	private := NewPrivate(&[32]byte{1})
	id := IdentityFromSeed(&[32]byte{1})
	for _, s := range smallOrder {
		u := Montgomery(decode(t, s))
		if _, err := private.DH(u); !errors.Is(err, ErrZero) {
			t.Errorf("DH(%s) = %v", s, err)
		}
		if _, err := id.DH(u); !errors.Is(err, ErrZero) {
			t.Errorf("identity DH(%s) = %v", s, err)
		}
		for sign := range byte(2) {
			if _, err := u.Edwards(sign); !errors.Is(err, ErrPoint) {
				t.Errorf("Edwards(%s, %d) = %v", s, sign, err)
			}
		}
		if err := u.CheckIdentity(); !errors.Is(err, ErrPoint) {
			t.Errorf("CheckIdentity(%s) = %v", s, err)
		}
	}
}

// TestTorsion adds each point of order 1, 2, 4 and 8 to points of prime order.
func TestTorsion(t *testing.T) {
	torsion := decode(t, order8)
	generator := decodePoint(t, torsion[:])
	draw := draws(2)
	for range 20 {
		secret := draw()
		prime := new(edwards25519.Point).ScalarBaseMult(clamped(&secret))
		sum := new(edwards25519.Point).Set(prime)
		for multiple := range 8 {
			e, u := Edwards(sum.Bytes()), Montgomery(sum.BytesMontgomery())
			got, err := e.Montgomery()
			_, errSign := u.Edwards(e[31] >> 7)
			if multiple == 0 {
				if err != nil || got != u || errSign != nil || u.CheckIdentity() != nil {
					t.Errorf("%x is of prime order: %v, %v", e, err, errSign)
				}
			} else if err == nil || errSign == nil || u.CheckIdentity() == nil {
				t.Errorf("%x has a torsion component and is accepted", e)
			}
			sum.Add(sum, generator)
		}
		if sum.Equal(prime) != 1 {
			t.Fatal("the torsion point is not of order 8")
		}
	}
}

func TestEncodings(t *testing.T) {
	valid := IdentityFromSeed(&[32]byte{7})
	u := valid.Montgomery()
	topBit := u
	topBit[31] |= 0x80
	tests := map[string]struct {
		u    Montgomery
		sign byte
	}{
		"sign is a bit":      {u, 2},
		"sign is not a mask": {u, 0x80},
		"bit 255":            {topBit, 0},
		"twist, u = 2":       {Montgomery{2}, 0},
		"twist, u = 2 again": {Montgomery{2}, 1},
		"torsion, u = 4":     {Montgomery{4}, 0},
		"p + 9":              {Montgomery(decode(t, "f6ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f")), 0},
	}
	for name, test := range tests {
		if got, err := test.u.Edwards(test.sign); !errors.Is(err, ErrPoint) {
			t.Errorf("%s: %x, %v", name, got, err)
		}
	}
	if err := (Montgomery{9}).CheckIdentity(); err != nil {
		t.Errorf("base point: %v", err)
	}

	// All encodings that are not canonical: y from p to 2^255-1, and x = 0 with a sign.
	encodings := []Edwards{{0: 1, 31: 0x80}, decode(t, "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff")}
	for low := byte(0xed); low != 0; low++ {
		for _, high := range []byte{0x7f, 0xff} {
			e := Edwards(bytes.Repeat([]byte{0xff}, 32))
			e[0], e[31] = low, high
			encodings = append(encodings, e)
		}
	}
	if len(encodings) != 2+2*19 {
		t.Fatalf("%d encodings", len(encodings))
	}
	for _, e := range encodings {
		if got, err := e.Montgomery(); !errors.Is(err, ErrPoint) {
			t.Errorf("%x: %x, %v", e, got, err)
		}
	}
}

func TestConversionRoundTrips(t *testing.T) {
	count := 500
	if testing.Short() {
		count = 100
	}
	draw := draws(3)
	signs := [2]int{}
	for range count {
		secret := draw()
		id := IdentityFromScalar(&secret)
		e, u := id.Edwards(), id.Montgomery()
		sign := e[31] >> 7
		signs[sign]++
		if got, err := e.Montgomery(); err != nil || got != u {
			t.Fatalf("%x: Montgomery = %x, %v", e, got, err)
		}
		if got, err := u.Edwards(sign); err != nil || got != e {
			t.Fatalf("%x: Edwards = %x, %v", u, got, err)
		}
		other, err := u.Edwards(1 - sign)
		if err != nil {
			t.Fatalf("%x: %v", u, err)
		}
		if e[31] ^= 0x80; other != e {
			t.Fatalf("%x: the other sign gives %x", u, other)
		}
	}
	if signs[0] == 0 || signs[1] == 0 {
		t.Errorf("signs are not natural: %v", signs)
	}
}
