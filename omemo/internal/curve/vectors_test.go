package curve

import (
	"bytes"
	"crypto/ed25519"
	"encoding/hex"
	"encoding/json"
	"strings"
	"testing"

	"filippo.io/edwards25519"

	"example.org/omellium/omemo/internal/recorded"
)

// octets is a byte string, in hexadecimal digits in the vector files.
type octets []byte

func (o *octets) UnmarshalText(text []byte) (err error) {
	*o, err = hex.DecodeString(string(text))
	return err
}

type vectors struct {
	Conversions []struct {
		Seed       octets `json:"seed"`
		Priv       octets `json:"priv"`
		Ed         octets `json:"ed25519_pub"`
		Curve      octets `json:"curve25519_pub"`
		Sign       byte   `json:"sign_bit"`
		EdSign0    octets `json:"curve_to_ed_sign0"`
		EdSign1    octets `json:"curve_to_ed_sign1"`
		FromEd     octets `json:"ed_to_curve"`
		ForceSign0 octets `json:"priv_force_sign0"`
		ForceSign1 octets `json:"priv_force_sign1"`
	} `json:"conversions"`
	Signatures []struct {
		Seed   octets `json:"seed"`
		Priv   octets `json:"priv"`
		Ed     octets `json:"ed25519_pub"`
		Curve  octets `json:"curve25519_pub"`
		Msg    octets `json:"msg"`
		Nonce  octets `json:"nonce"`
		Priv1  octets `json:"sig_priv_sign"`
		RFC    octets `json:"sig_seed_sign_rfc8032"`
		Forced *struct {
			Sig octets `json:"sig"`
			Ed  octets `json:"ed25519_pub"`
		} `json:"sig_xeddsa_forced_sign0"`
		Legacy octets `json:"sig_legacy_wire"`
		Verify []struct {
			Sig octets `json:"sig"`
			Pub octets `json:"pub"`
			OK  bool   `json:"ok"`
		} `json:"verify"`
	} `json:"signatures"`
	X25519 []struct {
		Priv   octets `json:"priv"`
		Pub    octets `json:"pub"`
		Shared octets `json:"shared"`
	} `json:"x25519"`
	Edge []struct {
		Op     string `json:"op"`
		Priv   octets `json:"priv"`
		Pub    octets `json:"pub"`
		Result string `json:"result"`
	} `json:"edge"`
}

func load(t *testing.T) (v vectors) {
	t.Helper()
	if err := json.Unmarshal(recorded.File(t, "xeddsa.json"), &v); err != nil {
		t.Fatal(err)
	}
	if len(v.Conversions) == 0 || len(v.Signatures) == 0 || len(v.X25519) == 0 || len(v.Edge) == 0 {
		t.Fatal("a part of the vectors is empty")
	}
	return v
}

func identity(seed, priv octets) *Identity {
	if seed != nil {
		return IdentityFromSeed((*[32]byte)(seed))
	}
	return IdentityFromScalar((*[32]byte)(priv))
}

// forced returns the scalar whose Ed25519 form has the sign, as the XEdDSA specification chooses it.
func forced(priv octets, sign byte) []byte {
	id := IdentityFromScalar((*[32]byte)(priv))
	_, b := id.Secret()
	if id.Edwards()[31]>>7 == sign {
		return b[:]
	}
	return new(edwards25519.Scalar).Negate(clamped(&b)).Bytes()
}

func TestVectorsConversions(t *testing.T) {
	for i, v := range load(t).Conversions {
		id := identity(v.Seed, v.Priv)
		ed, u := Edwards(v.Ed), Montgomery(v.Curve)
		if id.Edwards() != ed || id.Montgomery() != u {
			t.Errorf("%d: public keys of the identity differ", i)
		}
		if got := NewPrivate((*[32]byte)(v.Priv)).Public(); got != u {
			t.Errorf("%d: Public = %x, want %x", i, got, u)
		}
		if got, err := ed.Montgomery(); err != nil || got != u {
			t.Errorf("%d: Montgomery = %x, %v", i, got, err)
		}
		if got, err := u.Edwards(v.Sign); err != nil || got != ed {
			t.Errorf("%d: Edwards(%d) = %x, %v", i, v.Sign, got, err)
		}
		if err := u.CheckIdentity(); err != nil {
			t.Errorf("%d: CheckIdentity: %v", i, err)
		}
		for sign, want := range []octets{v.ForceSign0, v.ForceSign1} {
			if got := forced(v.Priv, byte(sign)); !bytes.Equal(got, want) {
				t.Errorf("%d: scalar of sign %d = %x, want %x", i, sign, got, want)
			}
		}
		if v.Seed == nil {
			continue // the other conversions are given for seeds only
		}
		for sign, want := range []octets{v.EdSign0, v.EdSign1} {
			if got, err := u.Edwards(byte(sign)); err != nil || !bytes.Equal(got[:], want) {
				t.Errorf("%d: Edwards(%d) = %x, %v", i, sign, got, err)
			}
		}
		if !bytes.Equal(v.FromEd, v.Curve) {
			t.Errorf("%d: vector contradicts itself", i)
		}
	}
}

func TestVectorsSignatures(t *testing.T) {
	for i, v := range load(t).Signatures {
		nonce := (*[64]byte)(v.Nonce)
		scalar := IdentityFromScalar((*[32]byte)(v.Priv))
		if sig := scalar.Sign(v.Msg, nonce); !bytes.Equal(sig[:], v.Priv1) {
			t.Errorf("%d: XEdDSA = %x", i, sig)
		}
		if v.Seed != nil {
			if sig := identity(v.Seed, nil).Sign(v.Msg, nil); !bytes.Equal(sig[:], v.RFC) {
				t.Errorf("%d: Ed25519 = %x", i, sig)
			}
		}
		if v.Forced != nil {
			key := [32]byte(forced(v.Priv, 0))
			a, err := new(edwards25519.Scalar).SetBytesWithClamping(key[:])
			if key != [32]byte(v.Priv) {
				a, err = new(edwards25519.Scalar).SetCanonicalBytes(key[:])
			}
			if err != nil {
				t.Fatal(err)
			}
			if sig := signXEdDSA(a, &key, Edwards(v.Forced.Ed), v.Msg, nonce); !bytes.Equal(sig[:], v.Forced.Sig) {
				t.Errorf("%d: XEdDSA with sign 0 = %x", i, sig)
			}
			if !Verify(Edwards(v.Forced.Ed), v.Msg, (*[64]byte)(v.Forced.Sig)) {
				t.Errorf("%d: XEdDSA with sign 0 does not verify", i)
			}
		}

		// The wire form of legacy bundles carries the sign in the top bit (WIRE 1.1).
		ed := scalar.Edwards()
		wire := [64]byte(v.Priv1)
		wire[63] |= ed[31] & 0x80
		if !bytes.Equal(wire[:], v.Legacy) {
			t.Errorf("%d: legacy wire form = %x", i, wire)
		}
		pub, err := Montgomery(v.Curve).Edwards(wire[63] >> 7)
		wire[63] &= 0x7f
		if err != nil || !Verify(pub, v.Msg, &wire) {
			t.Errorf("%d: legacy wire form does not verify: %v", i, err)
		}

		for j, w := range v.Verify {
			if Verify(Edwards(w.Pub), v.Msg, (*[64]byte)(w.Sig)) != w.OK {
				t.Errorf("%d/%d: Verify = %v", i, j, !w.OK)
			}
			if ed25519.Verify(ed25519.PublicKey(w.Pub), v.Msg, w.Sig) != w.OK {
				t.Errorf("%d/%d: crypto/ed25519 disagrees", i, j)
			}
		}
	}
}

func TestVectorsX25519(t *testing.T) {
	for i, v := range load(t).X25519 {
		got, err := NewPrivate((*[32]byte)(v.Priv)).DH(Montgomery(v.Pub))
		if err != nil || !bytes.Equal(got[:], v.Shared) {
			t.Errorf("%d: DH = %x, %v", i, got, err)
		}
	}
}

func TestVectorsEdge(t *testing.T) {
	for i, v := range load(t).Edge {
		if !strings.HasPrefix(v.Result, "rejected") {
			t.Fatalf("%d: unknown result %q", i, v.Result)
		}
		switch v.Op {
		case "x25519":
			if got, err := NewPrivate((*[32]byte)(v.Priv)).DH(Montgomery(v.Pub)); err != ErrZero {
				t.Errorf("%d: DH = %x, %v", i, got, err)
			}
			if err := Montgomery(v.Pub).CheckIdentity(); err != ErrPoint {
				t.Errorf("%d: CheckIdentity = %v", i, err)
			}
		case "ed_to_curve":
			if got, err := Edwards(v.Pub).Montgomery(); err != ErrPoint {
				t.Errorf("%d: Montgomery = %x, %v", i, got, err)
			}
		default:
			t.Fatalf("%d: unknown operation %q", i, v.Op)
		}
	}
}
