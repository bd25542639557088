package omemo

import (
	"context"
	"errors"
	"time"
)

// Limits of what accounts can have us remember that we have never written to:
// anybody can make as many as he likes.
const (
	// MaxStrangers is how many of them are remembered. Then the one that has
	// been silent for longest is forgotten, unless a person decided about one of
	// its keys.
	MaxStrangers = 1000
	// strangersPerMinute is how many of them may begin a session. While an
	// archive is caught up with, any number may.
	strangersPerMinute = 60
	// maxDevices is how many devices of an account are remembered in a version;
	// a device list has at most half as many.
	maxDevices = 512
)

// ErrFlood: more unknown accounts or devices begin sessions than can be believed.
var ErrFlood = errors.New("omemo: too many unknown senders at once")

// census is what is known about all accounts together. It is counted when the
// first new identity key is seen, and kept current from then on.
type census struct {
	owners    map[Fingerprint]string // the account that showed a key first
	strangers map[string]time.Time   // accounts never written to, with when they were last heard of
	since     time.Time              // begin of the minute that admitted counts in
	admitted  int
}

// count takes the census, if it was not taken yet.
func (u *unit) count(ctx context.Context) (*census, error) {
	if u.census != nil {
		return u.census, nil
	}
	all, err := u.store.Accounts(ctx)
	if err != nil {
		return nil, err
	}
	c := &census{owners: make(map[Fingerprint]string), strangers: make(map[string]time.Time)}
	first := make(map[Fingerprint]time.Time)
	heard := make(map[string]time.Time)
	for _, d := range all.Devices {
		if d.LastSeen.After(heard[d.JID]) {
			heard[d.JID] = d.LastSeen
		}
		if at, known := first[d.Fingerprint]; !d.Fingerprint.IsZero() && (!known || d.FirstSeen.Before(at)) {
			first[d.Fingerprint], c.owners[d.Fingerprint] = d.FirstSeen, d.JID
		}
	}
	decided := make(map[string]bool)
	for _, t := range all.Trust {
		decided[t.JID] = decided[t.JID] || t.Trust.byPerson()
	}
	own := u.own()
	for _, contact := range all.Contacts {
		if !contact.Written && contact.JID != own.jid && !decided[contact.JID] {
			c.strangers[contact.JID] = heard[contact.JID]
		}
	}
	c.owners[Fingerprint(own.identity.Montgomery())] = own.jid
	u.census = c
	return c, nil
}

// byPerson reports whether a state is a person's decision.
func (t Trust) byPerson() bool { return t == Verified || t == Distrusted }

// shared reports whether a key was first shown by another account: whoever shows it
// as well need not have it (an unknown key share). The account keeps its trust,
// others get none without a person.
func (u *unit) shared(ctx context.Context, jid string, f Fingerprint) (bool, error) {
	c, err := u.count(ctx)
	if err != nil {
		return false, err
	}
	owner, known := c.owners[f]
	if !known {
		u.apart = true
		u.after = append(u.after, func() { c.owners[f] = jid })
	}
	return known && owner != jid, nil
}

// meet makes room for an account that is to be remembered and that we have never
// written to. begins: it begins a session, which only so many may at a time.
func (u *unit) meet(ctx context.Context, jid string, begins bool) error {
	if jid == u.own().jid || u.knows(jid).contact.Written {
		return nil
	}
	c, err := u.count(ctx)
	if err != nil {
		return err
	}
	if _, known := c.strangers[jid]; !known {
		u.apart = true
		if begins && !u.catchUp {
			if u.now.Sub(c.since).Abs() >= time.Minute {
				c.since, c.admitted = u.now, 0
			}
			if c.admitted++; c.admitted > strangersPerMinute {
				return ErrFlood
			}
		}
		if len(c.strangers) >= MaxStrangers {
			if err := u.evict(ctx, c); err != nil {
				return err
			}
		}
	}
	now := u.now
	u.after = append(u.after, func() { c.strangers[jid] = now })
	return nil
}

// evict forgets the stranger that has been silent for longest.
func (u *unit) evict(ctx context.Context, c *census) error {
	var oldest string
	for jid, at := range c.strangers {
		if before, ok := c.strangers[oldest]; !ok || at.Before(before) {
			oldest = jid
		}
	}
	if err := u.learn(ctx, oldest); err != nil {
		return err
	}
	k := u.knows(oldest)
	marks := len(u.changes.Ended)
	if err := u.forgetAccount(ctx, oldest); err != nil {
		return err
	}
	// Its messages came in key exchanges whose pre keys are gone: without marks
	// they are refused instead of recognised.
	u.changes.Ended = u.changes.Ended[:marks]
	u.after = append(u.after, func() {
		delete(c.strangers, oldest)
		for _, devices := range k.devices {
			for _, d := range devices {
				if c.owners[d.Fingerprint] == oldest {
					delete(c.owners, d.Fingerprint)
				}
			}
		}
	})
	return nil
}

// room makes room for another device of an account: one that has left the list,
// and was never more than a number on it, is forgotten for it.
func (u *unit) room(jid string, v Version) bool {
	devices := u.knows(jid).devices[v]
	if len(devices) < maxDevices {
		return true
	}
	for _, d := range devices {
		if !d.Active && d.Fingerprint.IsZero() {
			u.unnote(d.Peer)
			return true
		}
	}
	return false
}

// befriend takes an account off the strangers: we have written to it, or a person
// has decided about one of its keys.
func (u *unit) befriend(jid string) {
	if c := u.census; c != nil {
		u.after = append(u.after, func() { delete(c.strangers, jid) })
	}
}
