package middleware

import (
	"sync"
	"time"

	"example.org/omellium/omemo"
)

// Automatic answers (completions and heartbeats) to one device: far more than
// the protocol asks for, and few enough that nobody can have us write for ever.
const (
	answerBurst  = 20
	answerPause  = 30 * time.Second // one more
	maxBuckets   = 4096
	bucketRefill = answerBurst * answerPause
)

// buckets limit the answers of each device.
type buckets struct {
	mu   sync.Mutex
	full map[omemo.Address]time.Time // when a bucket will be full again
}

// allow takes a token of a device's bucket, if there is one.
func (b *buckets) allow(a omemo.Address) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := time.Now()
	if len(b.full) >= maxBuckets {
		for other, at := range b.full {
			if !at.After(now) {
				delete(b.full, other)
			}
		}
	}
	full, known := b.full[a]
	if full.Before(now) {
		full = now
	}
	if full.Sub(now) > bucketRefill-answerPause || !known && len(b.full) >= maxBuckets {
		return false
	}
	if b.full == nil {
		b.full = make(map[omemo.Address]time.Time)
	}
	b.full[a] = full.Add(answerPause)
	return true
}
