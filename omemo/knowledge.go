package omemo

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"time"
)

// knowledge is what is known about an account. It is a value: a unit of work
// changes its own copy.
type knowledge struct {
	contact Contact
	devices map[Version]map[DeviceID]*Device // replaced, never changed
	trust   map[Fingerprint]TrustRecord
	// verified: one of the keys was verified.
	verified bool
	ends     []endpoint // what endpoints returns, in the same memory; nil: to be made
}

// endpoint is a device of an account in both versions.
type endpoint struct {
	id         DeviceID
	legacy, v2 face
}

// face is a device in one version.
type face struct {
	device *Device // nil: unknown
	slot   *slot   // its sessions; nil: not looked for
}

// endpoints returns the devices of an account in the order of their ids.
func (k *knowledge) endpoints() []endpoint {
	if k.ends != nil || len(k.devices[Legacy])+len(k.devices[V2]) == 0 {
		return k.ends
	}
	inLegacy, inV2 := k.devices[Legacy], k.devices[V2]
	for id, d := range inLegacy {
		k.ends = append(k.ends, endpoint{id, face{device: d}, face{device: inV2[id]}})
	}
	for id, d := range inV2 {
		if inLegacy[id] == nil {
			k.ends = append(k.ends, endpoint{id: id, v2: face{device: d}})
		}
	}
	slices.SortFunc(k.ends, func(a, b endpoint) int { return cmp.Compare(a.id, b.id) })
	return k.ends
}

// seenResolution is how exactly LastSeen is kept: finer would write a device row
// with every message.
const seenResolution = time.Hour

// learn reads what is known about accounts and is not cached, in one call.
func (u *unit) learn(ctx context.Context, jids ...string) error {
	var missing []string
	for _, jid := range jids {
		if _, ok := u.Manager.known[jid]; !ok {
			missing = append(missing, jid)
		}
	}
	missing = distinct(missing)
	if len(missing) == 0 {
		return nil
	}
	rows, err := u.store.Accounts(ctx, missing...)
	if err != nil {
		return err
	}
	for jid, k := range group(rows, missing) {
		u.Manager.known[jid] = k
	}
	return nil
}

// distinct returns JIDs once each, in their order.
func distinct(jids []string) []string {
	if len(jids) < 2 || len(jids) == 2 && jids[0] != jids[1] {
		return jids
	}
	seen := make(map[string]bool, len(jids))
	return slices.DeleteFunc(jids, func(jid string) bool {
		again := seen[jid]
		seen[jid] = true
		return again
	})
}

// group sorts rows by account. Each of the JIDs gets an entry, known or not.
func group(rows Accounts, jids []string) map[string]*knowledge {
	all := make(map[string]*knowledge)
	entry := func(jid string) *knowledge {
		k := all[jid]
		if k == nil {
			k = &knowledge{
				contact: Contact{JID: jid},
				devices: map[Version]map[DeviceID]*Device{Legacy: {}, V2: {}},
				trust:   make(map[Fingerprint]TrustRecord),
			}
			all[jid] = k
		}
		return k
	}
	for _, jid := range jids {
		entry(jid)
	}
	for _, c := range rows.Contacts {
		entry(c.JID).contact = c
	}
	for _, d := range rows.Devices {
		if d.Version.Valid() {
			entry(d.JID).devices[d.Version][d.Address.Device] = &d
		}
	}
	for _, t := range rows.Trust {
		entry(t.JID).trust[t.Fingerprint] = t
		entry(t.JID).verified = entry(t.JID).verified || t.Trust == Verified
	}
	return all
}

// knows returns what is known about an account that was learnt before. It is not to
// be changed.
func (u *unit) knows(jid string) *knowledge {
	if k, ok := u.known[jid]; ok {
		return k
	}
	return u.Manager.known[jid]
}

// learnt changes what is known about an account.
func (u *unit) learnt(jid string, k knowledge) {
	if u.known == nil {
		u.known = make(map[string]*knowledge)
	}
	u.known[jid] = &k
}

// device returns what is known about a device; ok is false if nothing is.
func (k *knowledge) device(p Peer) (d Device, ok bool) {
	if known := k.devices[p.Version][p.Address.Device]; known != nil {
		return *known, true
	}
	return Device{}, false
}

// note changes what is known about a device.
func (u *unit) note(d Device) {
	k := *u.knows(d.JID)
	if k.devices[d.Version][d.Address.Device] != u.Manager.known[d.JID].devices[d.Version][d.Address.Device] { // changed before in this unit
		u.changes.Devices = slices.DeleteFunc(u.changes.Devices, func(old Device) bool { return old.Peer == d.Peer })
	}
	k.devices, k.ends = maps.Clone(k.devices), nil
	k.devices[d.Version] = maps.Clone(k.devices[d.Version])
	k.devices[d.Version][d.Address.Device] = &d
	u.learnt(d.JID, k)
	u.changes.Devices = append(u.changes.Devices, d)
}

// unnote forgets a device.
func (u *unit) unnote(p Peer) {
	k := *u.knows(p.JID)
	k.devices, k.ends = maps.Clone(k.devices), nil
	k.devices[p.Version] = maps.Clone(k.devices[p.Version])
	delete(k.devices[p.Version], p.Address.Device)
	u.learnt(p.JID, k)
	u.changes.Devices = slices.DeleteFunc(u.changes.Devices, func(old Device) bool { return old.Peer == p })
	u.changes.DropDevices = append(u.changes.DropDevices, p)
}

// noteContact changes what is known about an account.
func (u *unit) noteContact(c Contact) {
	k := *u.knows(c.JID)
	k.contact = c
	u.learnt(c.JID, k)
	u.changes.Contacts = slices.DeleteFunc(u.changes.Contacts, func(old Contact) bool { return old.JID == c.JID })
	u.changes.Contacts = append(u.changes.Contacts, c)
}

// noteTrust records a decision about a key that was taken here.
func (u *unit) noteTrust(jid string, f Fingerprint, t Trust) {
	u.noteRecord(TrustRecord{JID: jid, Fingerprint: f, Trust: t, Since: u.now})
}

// noteRecord records a decision about a key.
func (u *unit) noteRecord(record TrustRecord) {
	jid, f := record.JID, record.Fingerprint
	k := *u.knows(jid)
	if k.trust[f] != u.Manager.known[jid].trust[f] { // changed before in this unit
		u.changes.Trust = slices.DeleteFunc(u.changes.Trust, func(old TrustRecord) bool {
			return old.JID == jid && old.Fingerprint == f
		})
	}
	k.trust = maps.Clone(k.trust)
	k.trust[f] = record
	k.verified = false
	for _, t := range k.trust {
		k.verified = k.verified || t.Trust == Verified
	}
	u.learnt(jid, k)
	u.changes.Trust = append(u.changes.Trust, record)
}

// trust returns what a key is worth: the recorded decision, else the policy's.
// Blind trust is recorded when it is first used, so that a later verification
// of another key of the account need not take it back; a policy may.
func (u *unit) trust(a Address, f Fingerprint) Trust {
	k := u.knows(a.JID)
	recorded, decided := k.trust[f]
	switch {
	case recorded.Trust == Verified && !recorded.By.IsZero() && u.bars(a, f):
		return Distrusted
	case decided && recorded.Trust != TrustedBlindly:
		return recorded.Trust
	}
	q := TrustQuery{JID: a.JID, Device: a.Device, Fingerprint: f, Own: a.JID == u.own().jid, Blind: decided, AnyVerified: k.verified}
	t := u.options.Policy(q)
	if t == TrustedBlindly && !decided {
		u.noteTrust(a.JID, f, t)
	}
	return t
}

// bars reports whether the policy distrusts a key whatever is known about its
// account: then no trust message makes it trusted.
func (u *unit) bars(a Address, f Fingerprint) bool {
	return u.options.Policy(TrustQuery{JID: a.JID, Device: a.Device, Fingerprint: f, Own: a.JID == u.own().jid}) == Distrusted
}

// seen makes sure that a device and its identity key are known, and returns it.
// It fails with ErrIdentityChanged if another key is known; the known one stays.
func (u *unit) seen(ctx context.Context, p Peer, identity [32]byte, f Fingerprint) (Device, error) {
	d, ok := u.knows(p.JID).device(p)
	if !ok {
		if !u.room(p.JID, p.Version) {
			return d, ErrFlood
		}
		d = Device{Peer: p, FirstSeen: u.now}
	}
	if d.Fingerprint.IsZero() {
		if err := u.noteShared(ctx, p, f); err != nil {
			return d, err
		}
		u.event(NewDevice, p, f)
		d.Fingerprint = f
		u.haveSeen(p.JID)
	}
	if d.Fingerprint != f {
		return d, ErrIdentityChanged
	}
	if d.Identity == [32]byte{} {
		d.Identity = identity
		u.note(d)
	}
	return d, nil
}

// noteShared makes a key that a device begins with undecided if it is another
// account's, unless a person has decided here.
func (u *unit) noteShared(ctx context.Context, p Peer, f Fingerprint) error {
	shared, err := u.shared(ctx, p.JID, f)
	if err != nil {
		return err
	}
	if t, decided := u.knows(p.JID).trust[f]; shared && (!decided || !t.By.IsZero()) {
		u.noteTrust(p.JID, f, Undecided)
		u.event(IdentityShared, p, f)
	}
	return nil
}

// haveSeen records, for ever, that the account has used OMEMO.
func (u *unit) haveSeen(jid string) {
	if c := u.knows(jid).contact; !c.Seen {
		c.Seen = true
		u.noteContact(c)
	}
}

// Heard records, for ever, that an account uses OMEMO, though what it has sent
// may not have been for us.
func (m *Manager) Heard(ctx context.Context, jid string) error {
	seen := false
	err := m.read(ctx, func(u *unit) error {
		err := u.learn(ctx, jid)
		seen = err == nil && u.knows(jid).contact.Seen
		return err
	})
	if err != nil || seen {
		return err
	}
	return m.work(ctx, func(u *unit) error {
		if err := u.learn(ctx, jid); err != nil {
			return err
		}
		if err := u.meet(ctx, jid, false); err != nil {
			return err
		}
		u.haveSeen(jid)
		return nil
	})
}
