//go:build !race

package omemo_test

import (
	"testing"

	"example.org/omellium/omemo"
	"example.org/omellium/omemo/memstore"
)

// TestAllocations holds the hot path to what it may allocate. The race detector
// allocates by itself: the test is not built for it.
func TestAllocations(t *testing.T) {
	versions(t, func(t *testing.T, v omemo.Version) {
		check := func(name string, most float64, f func()) {
			t.Helper()
			f()
			if n := testing.AllocsPerRun(100, f); n > most {
				t.Errorf("%s: %.2f allocations, at most %.0f", name, n, most)
			}
		}
		p := newBenchPair(t, v)
		key := p.chain(1)[0]
		check("seal", 6, func() {
			_, _, _, err := p.active.Seal(p.sending, p.material)
			p.must(err)
		})
		check("open", 6, func() {
			_, _, _, _, err := p.passive.Open(p.receiving, key)
			p.must(err)
		})
		passive := false
		check("seal and open with steps", 16, func() {
			passive = !passive
			p.step(passive)
		})

		const devices = 200
		c, err := newBenchCrowd(v, memstore.New(alice), devices+1)
		p.must(err)
		to := c.recipients(devices)
		check("each of many devices", 5*devices, func() {
			_, err := c.send(c.m, to)
			p.must(err)
		})
	})
}
