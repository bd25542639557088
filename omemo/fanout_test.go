package omemo_test

import (
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
