package omemo

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"
)

// SignedPreKeyPeriod is how long a signed pre key is published, unless
// Options.SignedPreKeyPeriod says longer. The one before it is kept for as long
// again (XEP-0384, section 5.3.2: one week to one month).
const (
	SignedPreKeyPeriod    = 7 * 24 * time.Hour
	MaxSignedPreKeyPeriod = 4 * SignedPreKeyPeriod
)

// pruneAfter is how long marks of ended receiving chains are kept, prunePause how
// often they are looked through.
const (
	pruneAfter = 90 * 24 * time.Hour
	prunePause = 24 * time.Hour
)

// introducePause is how often a session is begun with a device whose messages
// find none.
const introducePause = 24 * time.Hour

// FollowUp is what is owed to the network.
type FollowUp struct {
	Owed []OwedRow
	// Again is when Upkeep has something to do by itself next.
	Again time.Time
}

// Upkeep does what is due by the clock (it rotates signed pre keys) and returns
// all work that is owed, oldest first. Whoever calls it does the work: Answer
// for messages, Bundle and Published for bundles, SetList and Compare for
// devices. What was owed before a crash is still owed after it.
func (m *Manager) Upkeep(ctx context.Context) (FollowUp, error) {
	var f FollowUp
	err := m.work(ctx, func(u *unit) error {
		for _, v := range Versions() {
			if u.due(u.own().keys(v)) {
				u.change().keys(v).rotate(u.draw, u.now)
				u.owe(OwedBundle, Peer{Version: v}, 0)
			}
			again := u.own().keys(v).signed.created.Add(u.options.SignedPreKeyPeriod)
			if f.Again.IsZero() || again.Before(f.Again) {
				f.Again = again
			}
		}
		if u.now.Sub(u.pruned).Abs() >= prunePause {
			u.changes.PruneEnded = u.now.Add(-pruneAfter)
			if err := u.pruneRooms(ctx); err != nil {
				return err
			}
			u.after = append(u.after, func() { u.Manager.pruned = u.now })
		}
		return nil
	})
	if err != nil {
		return f, err
	}
	f.Owed, err = m.Owed(ctx)
	return f, err
}

// due reports whether a signed pre key is to be rotated. A clock that was set
// back must not keep one for ever, nor rotate it at every look.
func (u *unit) due(k *ownKeys) bool {
	age := u.now.Sub(k.signed.created)
	return age >= u.options.SignedPreKeyPeriod || age < -u.options.SignedPreKeyPeriod
}

// SignedPreKeyDue returns when the signed pre key of a version is to be rotated, by
// Options.SignedPreKeyPeriod.
func (m *Manager) SignedPreKeyDue(ctx context.Context, v Version) (time.Time, error) {
	var due time.Time
	err := m.read(ctx, func(u *unit) error {
		k := u.own().keys(v)
		if due = k.signed.created.Add(u.options.SignedPreKeyPeriod); u.due(k) && due.After(u.now) {
			due = u.now // it was made by a clock that was far ahead
		}
		return nil
	})
	return due, err
}

// Rotate makes new signed pre keys before it is time, and owes the bundles.
func (m *Manager) Rotate(ctx context.Context) error {
	return m.work(ctx, func(u *unit) error {
		for _, v := range Versions() {
			u.change().keys(v).rotate(u.draw, u.now)
			u.owe(OwedBundle, Peer{Version: v}, 0)
		}
		return nil
	})
}

// Owed returns the work that is owed, oldest first.
func (m *Manager) Owed(ctx context.Context) ([]OwedRow, error) {
	var rows []OwedRow
	err := m.read(ctx, func(u *unit) error {
		var err error
		rows, err = u.store.Owed(ctx)
		return err
	})
	return rows, err
}

// Owe writes a piece of work down.
func (m *Manager) Owe(ctx context.Context, id OwedID) error {
	return m.work(ctx, func(u *unit) error {
		u.owe(id.Kind, id.Peer, id.Session)
		return nil
	})
}

// Strike strikes owed work off without doing it.
func (m *Manager) Strike(ctx context.Context, ids ...OwedID) error {
	return m.work(ctx, func(u *unit) error {
		u.changes.DropOwed = append(u.changes.DropOwed, ids...)
		return nil
	})
}

// Renumber draws a new device id for an account that was never published, if the
// one it has is taken.
func (m *Manager) Renumber(ctx context.Context, taken func(DeviceID) bool) error {
	return m.work(ctx, func(u *unit) error {
		for taken(u.own().device) {
			u.change().device = newDeviceID(u.draw)
		}
		return nil
	})
}

// Account returns what is known about an account: the contact, and its devices
// in both versions, ordered by version and id.
func (m *Manager) Account(ctx context.Context, jid string) (Contact, []Device, error) {
	var contact Contact
	var devices []Device
	err := m.read(ctx, func(u *unit) error {
		if err := u.learn(ctx, jid); err != nil {
			return err
		}
		k := u.knows(jid)
		contact = k.contact
		contact.Lists = maps.Clone(contact.Lists)
		for _, v := range Versions() {
			for _, id := range slices.Sorted(maps.Keys(k.devices[v])) {
				devices = append(devices, *k.devices[v][id])
			}
		}
		return nil
	})
	return contact, devices, err
}

// SetList takes over a device list. Devices that are no longer on it become
// inactive; they are not forgotten. An empty list is a list without devices. The
// labels are those of the list, whether their signatures hold or not.
func (m *Manager) SetList(ctx context.Context, jid string, v Version, list []DeviceID, labels ...Label) error {
	return m.work(ctx, func(u *unit) error {
		if err := u.learn(ctx, jid); err != nil {
			return err
		}
		if err := u.meet(ctx, jid, false); err != nil {
			return err
		}
		for id, d := range u.knows(jid).devices[v] {
			if listed := slices.Contains(list, id); d.Active != listed {
				changed := *d
				changed.Active = listed
				u.note(changed)
			}
		}
		for _, id := range list {
			if _, known := u.knows(jid).devices[v][id]; !known {
				if !u.room(jid, v) {
					continue
				}
				u.note(Device{Peer: Peer{v, Address{jid, id}}, Active: true, FirstSeen: u.now})
			}
			u.label(*u.knows(jid).devices[v][id], labels)
			u.invite(Address{jid, id})
		}
		c := u.knows(jid).contact
		c.Lists = maps.Clone(c.Lists)
		if c.Lists == nil {
			c.Lists = make(map[Version]time.Time)
		}
		c.Lists[v] = u.now
		c.Seen = c.Seen || len(list) > 0
		u.noteContact(c)
		return nil
	})
}

// Compare checks the bundle of a device against what is known about it. The
// events tell of an identity key that differs; the known one stays.
func (m *Manager) Compare(ctx context.Context, b *Bundle) ([]Event, error) {
	var events []Event
	err := m.work(ctx, func(u *unit) error {
		if err := u.learn(ctx, b.Owner.JID); err != nil {
			return err
		}
		_, err := u.check(ctx, b)
		events = u.events
		if errors.Is(err, ErrIdentityChanged) {
			return nil // the conflict is worth keeping
		}
		return err
	})
	return events, err
}

// BundleFailed records that bundles of devices could not be had: they are asked
// for again only after a while.
func (m *Manager) BundleFailed(ctx context.Context, peers ...Peer) error {
	return m.work(ctx, func(u *unit) error {
		for _, p := range peers {
			if err := u.learn(ctx, p.JID); err != nil {
				return err
			}
			if d, ok := u.knows(p.JID).device(p); ok {
				d.BundleFailures++
				d.BundleTried = u.now
				u.note(d)
			}
		}
		return nil
	})
}

// Introduce owes an empty message that begins a session with a device whose live
// message found none: omemo:2 only, active devices only, once a day, and not if
// there is a session by now (XEP-0384, section 5.5.3). It reports whether
// anything is owed.
func (m *Manager) Introduce(ctx context.Context, p Peer) (bool, error) {
	owed := false
	err := m.work(ctx, func(u *unit) error {
		if err := u.learn(ctx, p.JID); err != nil {
			return err
		}
		list, err := u.held(ctx, p)
		if err != nil {
			return err
		}
		d, _ := u.knows(p.JID).device(p)
		if p.Version != V2 || !u.serves(V2) || len(list) > 0 || !d.Active || u.now.Sub(d.Introduced).Abs() < introducePause {
			return nil
		}
		d.Introduced = u.now
		u.note(d)
		u.owe(OwedSession, p, 0)
		owed = true
		return nil
	})
	return owed, err
}

// TrustOf returns what a key of an account is worth at this moment.
func (m *Manager) TrustOf(ctx context.Context, a Address, f Fingerprint) (Trust, error) {
	var t Trust
	err := m.read(ctx, func(u *unit) error {
		if err := u.learn(ctx, a.JID); err != nil {
			return err
		}
		t = u.trust(a, f)
		return nil
	})
	return t, err
}

// AcceptIdentity takes over the other identity key that a device has presented.
// Its sessions are dropped: they were held with the key before. The key begins as
// any that is first seen: what it is worth, the policy and decisions about it say,
// and it is undecided if another account has shown it.
func (m *Manager) AcceptIdentity(ctx context.Context, p Peer, f Fingerprint) error {
	return m.work(ctx, func(u *unit) error {
		if err := u.learn(ctx, p.JID); err != nil {
			return err
		}
		list, err := u.held(ctx, p)
		if err != nil {
			return err
		}
		d, ok := u.knows(p.JID).device(p)
		if !ok || d.Conflict != f || f.IsZero() {
			return ErrIdentityChanged
		}
		if err := u.noteShared(ctx, p, f); err != nil {
			return err
		}
		for _, s := range list {
			u.drop(s)
		}
		u.put(u.Manager.sessions[p], nil)
		// The form of the version is learnt from the next bundle or exchange.
		d.Identity, d.Fingerprint, d.Conflict = [32]byte{}, f, Fingerprint{}
		u.note(d)
		return nil
	})
}

// Inbox returns messages on their way to the application.
func (m *Manager) Inbox(ctx context.Context, after uint64, limit int) ([]InboxRow, error) {
	var rows []InboxRow
	err := m.read(ctx, func(u *unit) error {
		var err error
		rows, err = u.store.Inbox(ctx, after, limit)
		return err
	})
	return rows, err
}

// Outbox returns stanzas on their way to the server.
func (m *Manager) Outbox(ctx context.Context, after uint64, limit int) ([]OutboxRow, error) {
	var rows []OutboxRow
	err := m.read(ctx, func(u *unit) error {
		var err error
		rows, err = u.store.Outbox(ctx, after, limit)
		return err
	})
	return rows, err
}

// Attempt records that a message of the inbox is handed over once more, or that
// it was handed over too often.
func (m *Manager) Attempt(ctx context.Context, row InboxRow) error {
	return m.work(ctx, func(u *unit) error {
		u.changes.Inbox = append(u.changes.Inbox, row)
		return nil
	})
}

// CatchUp says whether an archive is being caught up with. Until it has ended,
// used pre keys are kept, because another message of the archive may name the
// same one; then they are deleted.
func (m *Manager) CatchUp(ctx context.Context, on bool) error {
	err := m.work(ctx, func(u *unit) error {
		if on {
			return nil
		}
		for _, v := range Versions() {
			rows, err := u.store.PreKeys(ctx, v)
			if err != nil {
				return err
			}
			for _, r := range rows {
				if !r.Used.IsZero() {
					u.changes.DropPreKeys = append(u.changes.DropPreKeys, PreKeyID{v, r.ID})
				}
			}
		}
		return nil
	})
	if err == nil {
		err = m.lock(ctx)
	}
	if err != nil {
		return err
	}
	defer m.unlock()
	m.catchUp = on
	return nil
}
