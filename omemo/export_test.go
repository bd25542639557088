package omemo

import (
	"context"
	"errors"
	"slices"
	"time"

	"example.org/omellium/omemo/internal/curve"
	"example.org/omellium/omemo/internal/ratchet"
	"example.org/omellium/omemo/internal/x3dh"
)

// What the tests of package omemo_test see of the inside.

// SetDraw replaces the source of randomness of a manager; nil is the real one.
func (m *Manager) SetDraw(draw func() [32]byte) {
	if draw == nil {
		draw = random
	}
	m.draw = draw
}

// Keys are the keys of a device as recordings hold them.
type Keys struct {
	JID      string
	Device   DeviceID
	Seed     *[32]byte // of the identity, or
	Scalar   *[32]byte
	Version  Version // of the keys below
	SignedID uint32
	Signed   [32]byte
	PreKeys  map[uint32][32]byte
}

// Changes returns the commit that makes an account of the keys.
func (k *Keys) Changes() *Changes {
	a := &account{jid: k.JID, device: k.Device}
	if k.Seed != nil {
		a.identity = curve.IdentityFromSeed(k.Seed)
	} else {
		a.identity = curve.IdentityFromScalar(k.Scalar)
	}
	now := time.Now()
	for _, v := range Versions() {
		own := a.keys(v)
		own.nextSigned, own.nextPreKey = 1, 1
		own.rotate(random, now)
	}
	own := a.keys(k.Version)
	own.signed = signedPreKey{id: k.SignedID, key: curve.NewPrivate(&k.Signed), created: now}
	own.nextSigned = k.SignedID + 1
	c := &Changes{Account: a.record()}
	for id, private := range k.PreKeys {
		c.PreKeys = append(c.PreKeys, PreKeyRow{Version: k.Version, ID: id, Private: private})
	}
	own.nextPreKey = 1 << 20
	c.Account = a.record()
	return c
}

// RotateTo replaces the signed pre key of a version by a given one and returns
// its id.
func (m *Manager) RotateTo(ctx context.Context, v Version, key [32]byte) (id uint32, err error) {
	err = m.work(ctx, func(u *unit) error {
		k := u.change().keys(v)
		k.rotate(func() [32]byte { return key }, u.now)
		id = k.signed.id
		return nil
	})
	return id, err
}

// SignedPreKeys returns the ids of the signed pre keys that can be used.
func (m *Manager) SignedPreKeys(v Version) (current, previous uint32) {
	k := m.account.keys(v)
	return k.signed.id, k.previous.id
}

// Start begins a session with given keys in place of the current one.
func (m *Manager) Start(ctx context.Context, b *Bundle, ephemeral, ratchetKey [32]byte) error {
	return m.work(ctx, func(u *unit) error {
		if err := u.learn(ctx, b.Owner.JID); err != nil {
			return err
		}
		if _, err := u.held(ctx, b.Peer()); err != nil {
			return err
		}
		d, err := u.check(ctx, b)
		if err != nil {
			return err
		}
		s, err := initiate(u.own(), b, d.Fingerprint, b.PreKeys[0], u.id(), queue(ephemeral, ratchetKey))
		if err == nil {
			u.install(s, true)
		}
		return err
	})
}

func queue(keys ...[32]byte) func() [32]byte {
	return func() [32]byte {
		key := keys[0]
		keys = keys[1:]
		return key
	}
}

var errDry = errors.New("dry run")

// SealIn seals key material in the session with a given place in the list. It
// commits unless dry.
func (m *Manager) SealIn(ctx context.Context, p Peer, index int, material []byte, ratchetKey [32]byte, dry bool) (k Key, err error) {
	err = m.work(ctx, func(u *unit) error {
		list, err := u.held(ctx, p)
		if err != nil {
			return err
		}
		var next *Session
		if next, k, err = list[index].seal(u.own(), material, func() [32]byte { return ratchetKey }, new(slab)); err != nil {
			return err
		}
		u.save(next)
		if dry {
			return errDry
		}
		return nil
	})
	if err == errDry {
		err = nil
	}
	return k, err
}

// Material opens the keys of a message and returns what they hold. Nothing is
// committed.
func (m *Manager) Material(ctx context.Context, msg *Message) (material []byte, err error) {
	err = m.read(ctx, func(u *unit) error {
		peer := Peer{msg.Version, msg.Sender}
		if err := u.learn(ctx, peer.JID); err != nil {
			return err
		}
		if _, err := u.held(ctx, peer); err != nil {
			return err
		}
		for _, k := range msg.Keys {
			c, err := u.unseal(ctx, peer, k, new(ratchet.Budget))
			if err != nil {
				return err
			}
			material = c.material
		}
		return nil
	})
	return material, err
}

// ID returns the number of the session in the store.
func (s *Session) ID() uint64 { return s.id }

// State returns the ratchet state of a session.
func (s *Session) State() ratchet.State { return s.state }

// Ahead returns the state after another message was sent, with the key that a
// new sending chain would begin with.
func (s *Session) Ahead(ratchetKey [32]byte) (ratchet.State, error) {
	next := s.state
	_, _, err := next.Seal(s.peer.Version.profile().ratchet, func() *curve.Private { return curve.NewPrivate(&ratchetKey) })
	return next, err
}

// AssociatedData returns the associated data of messages from the active side
// to the passive one.
func (m *Manager) AssociatedData(s *Session) []byte {
	return s.associatedData(nil, m.account, s.initiation == Active)
}

// Bare returns the message without the key exchange around it.
func (k Key) Bare(v Version) Key {
	if k.Exchange {
		x, err := v.profile().format.ParseExchange(k.Data)
		if err == nil {
			k.Exchange, k.Data = false, x.Message
		}
	}
	return k
}

// Header returns what the key element of a message says about itself: the
// ratchet key and the number in its chain.
func (k Key) Header(v Version) (ratchet.Header, error) {
	m, err := v.profile().format.ParseMessage(k.Bare(v).Data)
	return m.Header, err
}

// CountShort makes the next sending chain announce one message too few for the
// chain before it, as clients of the libsignal family do.
func (m *Manager) CountShort(ctx context.Context, p Peer) error {
	return m.work(ctx, func(u *unit) error {
		list, err := u.held(ctx, p)
		if err != nil {
			return err
		}
		next := *list[0]
		next.state.PreviousSent--
		u.save(&next)
		return nil
	})
}

// Age makes the signed pre key of a version older, or younger.
func (m *Manager) Age(ctx context.Context, v Version, d time.Duration) error {
	return m.work(ctx, func(u *unit) error {
		k := u.change().keys(v)
		k.signed.created = k.signed.created.Add(-d)
		return nil
	})
}

// SmallBundle returns our own bundle with one of the published pre keys only.
func (m *Manager) SmallBundle(ctx context.Context, v Version, nth int) (b *Bundle, err error) {
	err = m.read(ctx, func(u *unit) error {
		rows, err := u.store.PreKeys(ctx, v)
		if err != nil {
			return err
		}
		rows = slices.DeleteFunc(rows, func(r PreKeyRow) bool { return !r.Used.IsZero() })
		nth %= len(rows)
		b = u.own().bundle(v, rows[nth:nth+1], u.draw)
		return nil
	})
	return b, err
}

// WithoutPreKey returns an empty legacy message of a session that was begun
// without a pre key, as others may do. It is not kept.
func (m *Manager) WithoutPreKey(ctx context.Context, b *Bundle) (message *Message, err error) {
	err = m.read(ctx, func(u *unit) error {
		p := b.Version.profile()
		ephemeral := newPrivate(u.draw)
		secret, err := x3dh.Initiate(p.x3dh, u.own().identity, ephemeral, b.IdentityKey, b.SignedPreKey, nil)
		if err != nil {
			return err
		}
		state, err := ratchet.Initiate(p.ratchet, secret, newPrivate(u.draw), b.SignedPreKey)
		if err != nil {
			return err
		}
		s := &Session{
			id: 1, peer: b.Peer(), identity: b.IdentityKey, initiation: Active, state: state,
			exchange: KeyExchange{SignedPreKeyID: b.SignedPreKeyID, Identity: u.own().identityKey(b.Version), Ephemeral: ephemeral.Public()},
		}
		_, key, err := s.seal(u.own(), make([]byte, 32), u.draw, new(slab))
		message = &Message{Version: b.Version, Keys: []Key{key}, IV: make([]byte, 12)}
		return err
	})
	return message, err
}

// Sign signs anything with the identity key.
func (m *Manager) Sign(text []byte) [64]byte { return m.account.identity.Sign(text, new([64]byte)) }

// ForgeLabel signs a text that SignLabel refuses.
func (m *Manager) ForgeLabel(text string) Label {
	var nonce [64]byte
	return Label{Device: m.account.device, Text: text, Signature: m.account.identity.Sign([]byte(text), &nonce)}
}

// CacheLimit is how many accounts and devices are kept in memory.
const CacheLimit = cacheLimit

// Cached returns how many accounts and devices are.
func (m *Manager) Cached() (accounts, devices int) { return len(m.known), len(m.sessions) }
