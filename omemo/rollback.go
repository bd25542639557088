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

// blindStep is more keys than anybody has used since a copy was made.
const blindStep = 1 << 16

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

// AnchorMissing reports whether the store, when it was opened, could not find
// what tells it whether it was rolled back: on another machine than before, or
// after a directory was cleared. Only the server tells then.
func (m *Manager) AnchorMissing() bool { return m.anchorMissing }

// Quarantine gives the sending state up after a rollback: going on with it would
// use message keys a second time. The identity stays. Every session is kept for
// receiving only, so that the next message to a device begins a new one; signed
// pre keys and pre keys are made anew, with ids above those of the bundles that
// the server has, or far above our own where it could not be asked; what waits in
// the outbox is dropped and returned.
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
	asked := false
	for _, b := range published {
		if b != nil && b.Version == v {
			signed, preKey := b.highest()
			k.nextSigned, k.nextPreKey = max(k.nextSigned, signed+1), max(k.nextPreKey, preKey+1)
			asked = true
		}
	}
	if !asked && max(k.nextSigned, k.nextPreKey) < highestID-blindStep {
		k.nextSigned, k.nextPreKey = k.nextSigned+blindStep, k.nextPreKey+blindStep
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
		committed := u.Manager.sessions[p]
		again := committed.by == u
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
		u.put(committed, shelved)
	}
	return nil
}

// Behind reports whether a key of a message of our own, as an archive or the copy
// of it shows it, is one that our sessions with the device have yet to make: it
// stands in the sending chain of the current one, further on; or it begins a
// session that this store has never had. The store is then older than it was,
// or another program runs on a copy of it. Whoever shows us the message can have
// made it up: see Quarantine.
//
// sent is when the message was sent, as far as the network tells. A key exchange
// of before the last Quarantine shows nothing: what it began was given up; nor does
// one of more than 89 days ago: dropped sessions are not remembered for longer, and
// signed pre keys, which are changed more often, show by then what it could: see
// Ahead.
func (m *Manager) Behind(ctx context.Context, to Peer, k Key, sent time.Time) (bool, error) {
	behind := false
	err := m.read(ctx, func(u *unit) error {
		list, err := u.held(ctx, to)
		if err != nil || len(list) == 0 {
			return err // there is no key that could be used twice
		}
		format := to.Version.profile().format
		data := k.Data
		if k.Exchange {
			x, err := format.ParseExchange(data)
			if err != nil {
				return nil // nothing that we have made
			}
			if behind, err = u.neverBegun(ctx, to, x.Ephemeral, list); err != nil {
				return err
			}
			behind = behind && sent.After(u.own().quarantined) && u.now.Sub(sent) < pruneAfter-prunePause
			data = x.Message
		}
		in, err := format.ParseMessage(data)
		if err != nil {
			behind = false
			return nil
		}
		if s := current(list); s != nil && s.state.CanSend && s.state.Own.Public() == in.Header.Key {
			behind = in.Header.N >= s.state.Sent
		}
		return nil
	})
	return behind, err
}

// neverBegun reports whether no session was begun here with an ephemeral key:
// neither one of those that are held, nor one that was dropped.
func (u *unit) neverBegun(ctx context.Context, to Peer, ephemeral [32]byte, held []*Session) (bool, error) {
	for _, s := range held {
		if s.initiation == Active && s.exchange.Ephemeral == ephemeral {
			return false, nil
		}
	}
	marks, err := u.ended(ctx, ChainID{to, ephemeral})
	return len(marks) == 0, err
}
