package omemo

import (
	"context"
	"time"
)

// quarantinePause is how often the sending state is given up at most because of
// what the network says: whoever can make us believe in a rollback must not keep
// us from ever settling.
const quarantinePause = 24 * time.Hour

// outboxAll is more rows than an outbox ever has.
const outboxAll = 1 << 20

// Ahead reports whether a bundle of our own, as the server has it, names keys
// that this store has not made: yet, because ids rise for ever, or under an id
// that it has given to another key. The store is then older than it was when
// that bundle was published: a copy or an export was restored, or two programs
// run on copies of one store.
func (m *Manager) Ahead(ctx context.Context, b *Bundle) (bool, error) {
	ahead := false
	err := m.read(ctx, func(u *unit) error {
		a := u.own()
		if b.IdentityKey != a.identityKey(b.Version) {
			return nil // not ours
		}
		signed, preKey := b.highest()
		k := a.keys(b.Version)
		ahead = signed >= k.nextSigned || preKey >= k.nextPreKey ||
			b.SignedPreKeyID == k.signed.id && b.SignedPreKey != k.signed.key.Public()
		return nil
	})
	return ahead, err
}

// highestID is the highest id of a key that may stand in a bundle (XEP-0384,
// section 5.3.2). We never get there; a server that writes higher ones must not
// make ours wrap around.
const highestID = 1<<31 - 1

// highest returns the highest ids that a bundle names.
func (b *Bundle) highest() (signed, preKey uint32) {
	if b.SignedPreKeyID <= highestID {
		signed = b.SignedPreKeyID
	}
	for _, k := range b.PreKeys {
		if k.ID <= highestID {
			preKey = max(preKey, k.ID)
		}
	}
	return signed, preKey
}

// RolledBack reports whether the store was found older than it once was when it
// was opened, and has not been put right since.
func (m *Manager) RolledBack(ctx context.Context) (bool, error) {
	rolledBack := false
	err := m.read(ctx, func(u *unit) error {
		rolledBack = u.rolledBack
		return nil
	})
	return rolledBack, err
}

// Quarantine gives the sending state up after a rollback: going on with it would
// use message keys a second time. The identity stays. Every session is kept for
// receiving only, so that the next message to a device begins a new one; signed
// pre keys and pre keys are made anew, with ids above those of the bundles that
// the server has; what waits in the outbox is dropped and returned.
//
// It does so at most once a day, unless it is the store itself that says so; ok
// tells whether it did.
func (m *Manager) Quarantine(ctx context.Context, published ...*Bundle) (dropped []OutboxRow, ok bool, err error) {
	err = m.work(ctx, func(u *unit) error {
		if age := u.now.Sub(u.own().quarantined); !u.rolledBack && age >= 0 && age < quarantinePause {
			return nil
		}
		u.changes.Renewed = true
		a := u.change()
		a.quarantined = u.now
		for _, v := range Versions() {
			if err := u.renew(ctx, a.keys(v), v, published); err != nil {
				return err
			}
		}
		if err := u.shelve(ctx); err != nil {
			return err
		}
		if dropped, err = u.store.Outbox(ctx, 0, outboxAll); err != nil {
			return err
		}
		for _, row := range dropped {
			u.changes.DropOutbox = append(u.changes.DropOutbox, row.Seq)
		}
		u.after = append(u.after, func() { u.Manager.rolledBack = false })
		ok = true
		return nil
	})
	if err != nil {
		return nil, false, err
	}
	return dropped, ok, nil
}

// renew replaces all keys of a version by new ones, with ids never used.
func (u *unit) renew(ctx context.Context, k *ownKeys, v Version, published []*Bundle) error {
	for _, b := range published {
		if b != nil && b.Version == v {
			signed, preKey := b.highest()
			k.nextSigned, k.nextPreKey = max(k.nextSigned, signed+1), max(k.nextPreKey, preKey+1)
		}
	}
	rows, err := u.store.PreKeys(ctx, v)
	if err != nil {
		return err
	}
	for _, r := range rows {
		u.changes.DropPreKeys = append(u.changes.DropPreKeys, PreKeyID{v, r.ID})
	}
	k.rotate(u.draw, u.now)
	u.changes.PreKeys = append(u.changes.PreKeys, k.refill(v, PreKeyCount, u.draw)...)
	u.owe(OwedBundle, Peer{Version: v}, 0)
	return nil
}

// shelve archives every session for good.
func (u *unit) shelve(ctx context.Context) error {
	all, err := u.store.Accounts(ctx)
	if err != nil {
		return err
	}
	peers := make([]Peer, len(all.Devices))
	for i, d := range all.Devices {
		peers[i] = d.Peer
	}
	if err := u.loadSessions(ctx, peers); err != nil {
		return err
	}
	for _, p := range peers {
		list := u.list(p)
		_, again := u.sessions[p]
		shelved := make([]*Session, len(list))
		for i, s := range list {
			next := *s
			next.byHand = true
			if next.archived == 0 {
				next.archived = 1
				if len(list) > 1 {
					next.archived = list[1].archived + 1
				}
			}
			shelved[i] = &next
			u.write(&next, again)
		}
		u.sessions[p] = shelved
	}
	return nil
}
