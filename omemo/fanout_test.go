package omemo_test

import (
	"crypto/sha256"
	"errors"
	"reflect"
	"runtime"
	"testing"

	"example.org/omellium/omemo"
	"example.org/omellium/omemo/memstore"
)

// TestFanOut sends messages to so many devices that they are sealed in parallel:
// first with key exchanges, then with a ratchet step, then without.
func TestFanOut(t *testing.T) {
	versions(t, func(t *testing.T, v omemo.Version) {
		const devices = 150
		c, err := newBenchCrowd(v, memstore.New(alice), devices)
		if err != nil {
			t.Fatal(err)
		}
		for range 3 {
			sealed, err := c.send(c.m, c.accounts(0, devices))
			if err != nil {
				t.Fatal(err)
			}
			if err := c.read(sealed, devices); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// TestFanOutNew begins so many sessions at once that they are built in parallel,
// among them with bundles that cannot be used: those alone are not served, and
// what leaves is the same as when one is built after the other.
func TestFanOutNew(t *testing.T) {
	versions(t, func(t *testing.T, v omemo.Version) {
		const devices = 40
		store := memstore.New(carol)
		m, err := omemo.NewManager(t.Context(), store, omemo.Options{})
		if err != nil {
			t.Fatal(err)
		}
		known := &omemo.Changes{}
		var bundles []*omemo.Bundle
		for i := range devices {
			d, _ := omemo.NewBare(benchAccount(i+1), v)
			known.Devices = append(known.Devices, d.Known())
			bundles = append(bundles, d.Bundle(1))
		}
		bundles[3].Signature[0] ^= 1
		bundles[17].PreKeys[0].Key = [32]byte{} // the agreement is zero
		bundles[18] = nil
		bundles[39].PreKeys = nil
		refused := map[int]error{3: omemo.ErrBundle, 17: omemo.ErrBundle, 18: omemo.ErrNoBundle, 39: omemo.ErrBundle}
		if err := store.Commit(t.Context(), known); err != nil {
			t.Fatal(err)
		}
		var to []string
		for i := 0; i < devices; i += benchDevices {
			to = append(to, benchAccount(i+1))
		}
		stop := errors.New("nothing is committed")
		encrypt := func(procs int) (keys []omemo.Key) {
			defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(procs))
			drawn := byte(0)
			m.SetDraw(func() [32]byte {
				drawn++
				return sha256.Sum256([]byte{drawn})
			})
			sealed, err := m.Encrypt(t.Context(), omemo.Plaintext{Legacy: []byte("text"), V2: []byte("text")}, to, func(s *omemo.Sealed) ([]omemo.Outgoing, error) {
				keys = s.Messages[0].Keys
				return nil, stop
			}, bundles...)
			if !errors.Is(err, stop) {
				t.Fatal(err)
			}
			results := make(map[omemo.Peer]error)
			for _, d := range sealed.Devices {
				results[d.Peer] = d.Err
			}
			for i, d := range known.Devices {
				if got := results[d.Peer]; !errors.Is(got, refused[i]) || len(results) != devices {
					t.Errorf("device %d: %v, want %v", i, got, refused[i])
				}
			}
			return keys
		}
		one, several := encrypt(1), encrypt(4)
		if len(one) != devices-len(refused) || !reflect.DeepEqual(one, several) {
			t.Errorf("%d keys one after the other, %d in parallel, or others", len(one), len(several))
		}
	})
}
