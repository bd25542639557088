package attack

import (
	"testing"

	"example.org/omellium/omemo"
	"example.org/omellium/stanza"
)

// BenchmarkLargest measures how long the largest stanzas take that are read at
// all, up to the point where they are dropped.
func BenchmarkLargest(b *testing.B) {
	for _, v := range omemo.Versions() {
		s := &stage{v: v, romeo: &device{Address: omemo.Address{JID: romeo, Device: 1}}, victim: omemo.Address{JID: juliet, Device: 2}}
		for name, raw := range largest(s, v) {
			b.Run(v.String()+"/"+name, func(b *testing.B) {
				b.SetBytes(int64(len(raw)))
				b.ReportAllocs()
				for b.Loop() {
					e, err := stanza.ParseElement([]byte(raw), stanza.DefaultLimits)
					if err != nil {
						continue
					}
					found, err := stanza.Find(e)
					if err != nil {
						continue
					}
					for _, x := range found {
						_, _ = stanza.ParseEncrypted(x, stanza.OwnKey{JID: juliet, Device: 2})
					}
				}
			})
		}
	}
}
