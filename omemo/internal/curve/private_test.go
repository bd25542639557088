package curve

import (
	"crypto/ecdh"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
)

// TestRFC7748 has the vectors of RFC 7748 section 5.2.
func TestRFC7748(t *testing.T) {
	tests := []struct{ scalar, u, want string }{
		{
			"a546e36bf0527c9d3b16154b82465edd62144c0ac1fc5a18506a2244ba449ac4",
			"e6db6867583030db3594c1a424b15f7c726624ec26b3353b10a903a6d0ab1c4c",
			"c3da55379de9c6908e94ea4df28d084f32eccf03491c71f754b4075577a28552",
		}, {
			"4b66e9d4d1b4673c5ad22691957d6af5c11b6421e0ea01d42ca4169e7918ba0d",
			"e5210f12786811d3f4b7959d0538ae2c31dbe7106fc03c3efc4cd549c715a493",
			"95cbde9476e8907d7aade45cb4b873f88b595a68799fa152e6f8f7647aac7957",
		},
	}
	for _, test := range tests {
		scalar, u := decode(t, test.scalar), Montgomery(decode(t, test.u))
		got, err := NewPrivate(&scalar).DH(u)
		if err != nil {
			t.Fatal(err)
		}
		if got != decode(t, test.want) {
			t.Errorf("DH = %x, want %s", got, test.want)
		}
	}

	k, u := [32]byte{9}, Montgomery{9}
	for i := range 1000 {
		next, err := NewPrivate(&k).DH(u)
		if err != nil {
			t.Fatal(err)
		}
		k, u = next, k
		if i == 0 && k != decode(t, "422c8e7a6227d7bca1350b3e2bb7279f7897b87bb6854b783c60e80311ae3079") {
			t.Errorf("after one iteration: %x", k)
		}
	}
	if k != decode(t, "684cf59ba83309552800ef566f2f4d3c1c3887c49360e3875f2eb94d99532c51") {
		t.Errorf("after 1,000 iterations: %x", k)
	}
}

// TestPublic compares both ways to a public key, before and after an agreement, with crypto/ecdh.
func TestPublic(t *testing.T) {
	draw := draws(4)
	for range 100 {
		scalar := draw()
		key, err := ecdh.X25519().NewPrivateKey(scalar[:])
		if err != nil {
			t.Fatal(err)
		}
		want := Montgomery(key.PublicKey().Bytes())

		first := NewPrivate(&scalar)
		for range 2 {
			if got := first.Public(); got != want {
				t.Fatalf("%x: Public = %x, want %x", scalar, got, want)
			}
		}
		second := NewPrivate(&scalar)
		one, err := second.DH(want)
		if err != nil {
			t.Fatal(err)
		}
		if second.Public() != want {
			t.Fatalf("%x: Public differs after DH", scalar)
		}
		if other, err := first.DH(want); err != nil || other != one {
			t.Fatalf("%x: DH differs: %v", scalar, err)
		}
		if first.Bytes() != scalar {
			t.Fatalf("%x: Bytes = %x", scalar, first.Bytes())
		}
	}
}

func TestPrivateConcurrent(t *testing.T) {
	p := NewPrivate(&[32]byte{5})
	peer := NewPrivate(&[32]byte{6}).Public()
	want := NewPrivate(&[32]byte{5}).Public()
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if p.Public() != want {
				t.Error("Public differs")
			}
			if _, err := p.DH(peer); err != nil {
				t.Error(err)
			}
			if p.Public() != want {
				t.Error("Public differs after DH")
			}
		})
	}
	wg.Wait()
}

func TestRedacted(t *testing.T) {
	canary := [32]byte{0xca, 0xfe, 0xca, 0xfe}
	id := IdentityFromSeed(&canary)
	secrets := map[string]any{
		"private":           NewPrivate(&canary),
		"identity":          id,
		"identity by value": *id,
		"scalar":            IdentityFromScalar(&canary),
		"in a struct": struct {
			P *Private
			I Identity
		}{NewPrivate(&canary), *id},
	}
	for name, secret := range secrets {
		var out strings.Builder
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%t", "%b"} {
			fmt.Fprintf(&out, verb+"\n", secret)
		}
		slog.New(slog.NewTextHandler(&out, nil)).Info("key", "key", secret)
		slog.New(slog.NewJSONHandler(&out, nil)).Info("key", "key", secret)
		if err := json.NewEncoder(&out).Encode(secret); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		printed := strings.ToLower(out.String())
		for _, leak := range []string{"cafe", "202 254", "202,254", "0xca", "11001010"} {
			if strings.Contains(printed, leak) {
				t.Errorf("%s leaks: %s", name, printed)
			}
		}
		if strings.Count(printed, redacted) < 13 {
			t.Errorf("%s: %s", name, printed)
		}
	}
	if s := NewPrivate(&canary).GoString() + id.GoString(); s != redacted+redacted {
		t.Errorf("GoString = %s", s)
	}
}
