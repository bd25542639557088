package front

import (
	"sync"
	"time"
)

// deadline wakes those who wait on a condition when its time has come. It is
// guarded by the lock of the condition.
type deadline struct {
	at    time.Time
	timer *time.Timer
}

// set moves the deadline; the zero time removes it.
func (d *deadline) set(t time.Time, changed *sync.Cond) {
	d.at = t
	if d.timer != nil {
		d.timer.Stop()
		d.timer = nil
	}
	if !t.IsZero() {
		d.timer = time.AfterFunc(time.Until(t), func() {
			changed.L.Lock()
			defer changed.L.Unlock()
			changed.Broadcast()
		})
	}
}

func (d *deadline) passed() bool { return !d.at.IsZero() && !time.Now().Before(d.at) }
