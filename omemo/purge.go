package omemo

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"
)

// Forget removes all that is known about another account: sessions, devices,
// decisions about keys, and what waits to be sent to it. It is then an account
// that was never heard of. Marks of received messages stay for their time, so
// that none of them can be delivered again.
func (m *Manager) Forget(ctx context.Context, jid string) error {
	return m.work(ctx, func(u *unit) error {
		if jid == u.own().jid {
			return fmt.Errorf("omemo: %s is our own account", jid)
		}
		if err := u.learn(ctx, jid); err != nil {
			return err
		}
		u.befriend(jid) // no stranger either: nothing is remembered
		return u.forgetAccount(ctx, jid)
	})
}

// forgetAccount removes all that is known about an account that was learnt
// before.
func (u *unit) forgetAccount(ctx context.Context, jid string) error {
	for _, v := range Versions() {
		for _, d := range u.knows(jid).devices[v] {
			if err := u.dropSessions(ctx, d.Peer); err != nil {
				return err
			}
			u.changes.DropDevices = append(u.changes.DropDevices, d.Peer)
		}
	}
	u.changes.DropContacts = append(u.changes.DropContacts, jid)
	u.changes.Devices = slices.DeleteFunc(u.changes.Devices, func(d Device) bool { return d.JID == jid })
	u.changes.Contacts = slices.DeleteFunc(u.changes.Contacts, func(c Contact) bool { return c.JID == jid })
	u.changes.Trust = slices.DeleteFunc(u.changes.Trust, func(t TrustRecord) bool { return t.JID == jid })
	u.learnt(jid, *group(Accounts{}, []string{jid})[jid])
	return u.dropQueued(ctx, func(other string) bool { return other == jid })
}

// ForgetSessions drops the sessions of a device in a version: what it sends in
// them cannot be read any more.
func (m *Manager) ForgetSessions(ctx context.Context, peers ...Peer) error {
	return m.work(ctx, func(u *unit) error {
		for _, p := range peers {
			if err := u.dropSessions(ctx, p); err != nil {
				return err
			}
		}
		return nil
	})
}

// ForgetVersion drops all sessions of a version, and ends to send anything in it
// as long as this Manager lives.
func (m *Manager) ForgetVersion(ctx context.Context, v Version) error {
	return m.work(ctx, func(u *unit) error {
		all, err := u.store.Accounts(ctx)
		if err != nil {
			return err
		}
		for _, d := range all.Devices {
			if d.Version != v {
				continue
			}
			if err := u.dropSessions(ctx, d.Peer); err != nil {
				return err
			}
		}
		u.after = append(u.after, func() { u.leave(v) })
		return nil
	})
}

func (u *unit) dropSessions(ctx context.Context, p Peer) error {
	list, err := u.held(ctx, p)
	if err != nil {
		return err
	}
	for _, s := range list {
		u.drop(s)
	}
	u.put(u.Manager.sessions[p], nil)
	return nil
}

// dropQueued removes work, journal and outbox of accounts, and their nicks. Decrypted messages
// are not removed: they have not been read yet.
func (u *unit) dropQueued(ctx context.Context, of func(jid string) bool) error {
	owed, err := u.store.Owed(ctx)
	if err != nil {
		return err
	}
	for _, row := range owed {
		if of(row.JID) {
			u.changes.DropOwed = append(u.changes.DropOwed, row.OwedID)
		}
	}
	journal, err := u.store.Journal(ctx, Address{})
	if err != nil {
		return err
	}
	for _, row := range journal {
		if of(row.From.JID) {
			u.changes.DropJournal = append(u.changes.DropJournal, row.ID)
		}
	}
	outbox, err := u.store.Outbox(ctx, 0, outboxAll)
	if err != nil {
		return err
	}
	for _, row := range outbox {
		if of(row.Chat) {
			u.changes.DropOutbox = append(u.changes.DropOutbox, row.Seq)
		}
	}
	occupants, err := u.store.Occupants(ctx)
	for _, row := range occupants {
		if of(row.Account) {
			u.changes.DropOccupants = append(u.changes.DropOccupants, row.OccupantID)
		}
	}
	return err
}

// Reset gives this device up for good and makes another one in its place, with
// another identity and device id, that was never published: nothing of what was
// secret is left in the store, and nothing of what was known about others. What
// the server has of the old device has to be removed before, see Bundle and
// Device.
func (m *Manager) Reset(ctx context.Context) error {
	return m.work(ctx, func(u *unit) error {
		all, err := u.store.Accounts(ctx)
		if err != nil {
			return err
		}
		for _, d := range all.Devices {
			u.changes.DropDevices = append(u.changes.DropDevices, d.Peer)
			if err := u.dropSessions(ctx, d.Peer); err != nil {
				return err
			}
		}
		jids := make(map[string]bool)
		for _, c := range all.Contacts {
			jids[c.JID] = true
		}
		for _, t := range all.Trust {
			jids[t.JID] = true
		}
		statements, err := u.store.Statements(ctx)
		if err != nil {
			return err
		}
		for _, s := range statements {
			jids[s.JID] = true
		}
		for jid := range maps.Keys(jids) {
			u.changes.DropContacts = append(u.changes.DropContacts, jid)
		}
		for _, v := range Versions() {
			rows, err := u.store.PreKeys(ctx, v)
			if err != nil {
				return err
			}
			for _, r := range rows {
				u.changes.DropPreKeys = append(u.changes.DropPreKeys, PreKeyID{v, r.ID})
			}
		}
		if err := u.dropQueued(ctx, func(string) bool { return true }); err != nil {
			return err
		}
		inbox, err := u.store.Inbox(ctx, 0, outboxAll)
		if err != nil {
			return err
		}
		for _, row := range inbox {
			u.changes.DropInbox = append(u.changes.DropInbox, row.Seq)
		}
		cursors, err := u.store.Cursors(ctx)
		if err != nil {
			return err
		}
		for _, row := range cursors {
			u.changes.DropCursors = append(u.changes.DropCursors, row.Archive)
		}
		echoes, err := u.store.Echoes(ctx)
		if err != nil {
			return err
		}
		for _, row := range echoes {
			u.changes.DropEchoes = append(u.changes.DropEchoes, row.Hash)
		}
		// The marks of the old sessions are of no use to another identity.
		u.changes.Ended = nil
		u.changes.PruneEnded = u.now.Add(time.Second)
		var rows []PreKeyRow
		u.account, rows = newAccount(u.own().jid, u.draw, u.now)
		u.changes.PreKeys = rows
		for _, v := range Versions() {
			u.owe(OwedBundle, Peer{Version: v}, 0)
		}
		u.after = append(u.after, u.Manager.forget)
		return nil
	})
}
