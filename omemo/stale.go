package omemo

import (
	"errors"
	"slices"
	"time"
)

// A device is stale if it has not been heard of for Options.StaleAfter, and
// StaleMessages were sent to it since. The number is well above that which every
// omemo:2 device answers by itself (heartbeatAt), and below that which a device
// can catch up with at once.
const (
	StaleMessages     = 200
	DefaultStaleAfter = 60 * 24 * time.Hour
)

// ErrStale: the device has not been heard of for long and is not sent to, since
// the account has others.
var ErrStale = errors.New("omemo: device has not been heard of for long")

// isStale reports whether nothing is to be sent to a device until it shows a
// sign of life.
func (u *unit) isStale(c *choice) bool {
	d := c.device
	if u.options.StaleAfter < 0 {
		return false
	}
	if d.Stale {
		return true
	}
	heard := d.FirstSeen
	if d.LastSeen.After(heard) {
		heard = d.LastSeen
	}
	return c.session != nil && c.session.SendingChain() >= StaleMessages && u.now.Sub(heard) >= u.options.StaleAfter
}

// leaveStale takes stale devices out of the choices. An account that has no
// other is served all the same: its only device may have been off for long.
func (u *unit) leaveStale(choices []choice, to []string) {
	var stale []*choice
	for i := range choices {
		if c := &choices[i]; c.err == nil && u.isStale(c) {
			stale = append(stale, c)
		}
	}
	if len(stale) == 0 {
		return
	}
	alive := make(map[string]bool)
	for i := range choices {
		if c := &choices[i]; c.err == nil && !u.isStale(c) {
			alive[c.peer.JID] = true
		}
	}
	for _, c := range stale {
		if alive[c.peer.JID] || !slices.Contains(to, c.peer.JID) {
			c.err = ErrStale
		}
	}
}

// setStale records that a device has become stale, or that it has shown a sign
// of life.
func (u *unit) setStale(p Peer, stale bool) {
	d, ok := u.knows(p.JID).device(p)
	if !ok || d.Stale == stale {
		return
	}
	d.Stale = stale
	u.note(d)
	kind := DeviceReturned
	if stale {
		kind = DeviceStale
	}
	u.event(kind, p, d.Fingerprint)
}
