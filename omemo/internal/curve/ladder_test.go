package curve

import "testing"

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
