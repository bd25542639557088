package x3dh

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"slices"
	"testing"

	"example.org/omellium/omemo/internal/curve"
	"example.org/omellium/omemo/internal/recorded"
)

// octets is a byte string, in hexadecimal digits in the vector files.
type octets []byte

func (o *octets) UnmarshalText(text []byte) (err error) {
	*o, err = hex.DecodeString(string(text))
	return err
}

type keyPair struct {
	Priv  octets `json:"priv"`
	Pub   octets `json:"pub"`
	Curve octets `json:"curve25519_pub"`
	Seed  octets `json:"seed"`
	Ed    octets `json:"ed25519_pub"`
}

func (k *keyPair) private() *curve.Private { return curve.NewPrivate((*[32]byte)(k.Priv)) }

type vectors struct {
	Info  string `json:"info"`
	Cases []struct {
		With         bool     `json:"with_one_time_pre_key"`
		Alice        keyPair  `json:"alice_identity"`
		Bob          keyPair  `json:"bob_identity"`
		SignedPreKey keyPair  `json:"bob_signed_pre_key"`
		PreKey       *keyPair `json:"bob_one_time_pre_key"`
		Ephemeral    keyPair  `json:"alice_ephemeral"`
		DH           []octets `json:"dh"`
		Secret       octets   `json:"shared_secret"`
	} `json:"cases"`
}

func TestVectors(t *testing.T) {
	for _, file := range []string{"oldmemo_x3dh.json", "twomemo_x3dh.json"} {
		b := recorded.File(t, file)
		var v vectors
		if err := json.Unmarshal(b, &v); err != nil {
			t.Fatal(err)
		}
		if len(v.Cases) == 0 {
			t.Fatal("no cases")
		}
		for i, c := range v.Cases {
			alice := curve.IdentityFromScalar((*[32]byte)(c.Alice.Priv))
			bob := curve.IdentityFromScalar((*[32]byte)(c.Bob.Priv))
			if alice.Montgomery() != curve.Montgomery(c.Alice.Curve) || bob.Montgomery() != curve.Montgomery(c.Bob.Curve) {
				t.Errorf("%s %d: identities differ", file, i)
			}
			for _, k := range []keyPair{c.Alice, c.Bob} {
				if k.Seed == nil {
					continue
				}
				if id := curve.IdentityFromSeed((*[32]byte)(k.Seed)); id.Edwards() != curve.Edwards(k.Ed) || id.Montgomery() != curve.Montgomery(k.Curve) {
					t.Errorf("%s %d: the seed is of another identity", file, i)
				}
			}
			var preKey *curve.Private
			var preKeyPublic *curve.Montgomery
			if c.With {
				preKey = c.PreKey.private()
				public := preKey.Public()
				preKeyPublic = &public
			}
			want := [32]byte(c.Secret)
			got, err := Initiate(v.Info, alice, c.Ephemeral.private(), bob.Montgomery(), curve.Montgomery(c.SignedPreKey.Pub), preKeyPublic)
			if err != nil || got != want {
				t.Errorf("%s %d: Initiate = %x, %v", file, i, got, err)
			}
			got, err = Accept(v.Info, bob, c.SignedPreKey.private(), preKey, alice.Montgomery(), curve.Montgomery(c.Ephemeral.Pub))
			if err != nil || got != want {
				t.Errorf("%s %d: Accept = %x, %v", file, i, got, err)
			}

			// The single agreements, in their order.
			own := []func(curve.Montgomery) ([32]byte, error){alice.DH, c.Ephemeral.private().DH, c.Ephemeral.private().DH, c.Ephemeral.private().DH}
			peer := []octets{c.SignedPreKey.Pub, c.Bob.Curve, c.SignedPreKey.Pub}
			if c.With {
				peer = append(peer, c.PreKey.Pub)
			}
			if len(c.DH) != len(peer) {
				t.Fatalf("%s %d: %d agreements", file, i, len(c.DH))
			}
			for j, u := range peer {
				secret, err := own[j](curve.Montgomery(u))
				if err != nil || !slices.Equal(secret[:], c.DH[j]) {
					t.Errorf("%s %d: DH%d = %x, %v", file, i, j+1, secret, err)
				}
			}
		}
	}
}

// TestZero puts a point of small order in every place.
func TestZero(t *testing.T) {
	id := curve.IdentityFromSeed(&[32]byte{1})
	private := curve.NewPrivate(&[32]byte{2})
	good := curve.NewPrivate(&[32]byte{3}).Public()
	for _, bad := range []curve.Montgomery{{}, {1}, {31: 0x80}} {
		tests := []struct {
			name string
			run  func() ([32]byte, error)
		}{
			{"initiate, identity", func() ([32]byte, error) { return Initiate("", id, private, bad, good, &good) }},
			{"initiate, signed pre key", func() ([32]byte, error) { return Initiate("", id, private, good, bad, &good) }},
			{"initiate, pre key", func() ([32]byte, error) { return Initiate("", id, private, good, good, &bad) }},
			{"accept, identity", func() ([32]byte, error) { return Accept("", id, private, private, bad, good) }},
			{"accept, ephemeral", func() ([32]byte, error) { return Accept("", id, private, private, good, bad) }},
		}
		for _, test := range tests {
			secret, err := test.run()
			if !errors.Is(err, curve.ErrZero) || secret != [32]byte{} {
				t.Errorf("%s: %x, %v", test.name, secret, err)
			}
		}
	}
}

// TestInfo: the version is part of the secret, and so is the presence of a pre key.
func TestInfo(t *testing.T) {
	id := curve.IdentityFromSeed(&[32]byte{1})
	private := curve.NewPrivate(&[32]byte{2})
	peer := curve.NewPrivate(&[32]byte{3}).Public()
	seen := map[[32]byte]bool{}
	for _, info := range []string{"WhisperText", "OMEMO X3DH"} {
		for _, preKey := range []*curve.Montgomery{nil, &peer} {
			secret, err := Initiate(info, id, private, peer, peer, preKey)
			if err != nil {
				t.Fatal(err)
			}
			seen[secret] = true
		}
	}
	if len(seen) != 4 {
		t.Errorf("%d different secrets, want 4", len(seen))
	}
}

func BenchmarkAccept(b *testing.B) {
	id := curve.IdentityFromSeed(&[32]byte{1})
	signedPreKey, peer := curve.NewPrivate(&[32]byte{2}), curve.NewPrivate(&[32]byte{3}).Public()
	for b.Loop() {
		_, _ = Accept("", id, signedPreKey, curve.NewPrivate(&[32]byte{4}), peer, peer)
	}
}

func BenchmarkInitiate(b *testing.B) {
	id := curve.IdentityFromSeed(&[32]byte{1})
	peer := curve.NewPrivate(&[32]byte{3}).Public()
	for b.Loop() {
		_, _ = Initiate("", id, curve.NewPrivate(&[32]byte{4}), peer, peer, &peer)
	}
}
