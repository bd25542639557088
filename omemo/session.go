package omemo

import (
	"bytes"
	"fmt"

	"example.org/omellium/omemo/internal/curve"
	"example.org/omellium/omemo/internal/ratchet"
	"example.org/omellium/omemo/internal/wire"
	"example.org/omellium/omemo/internal/x3dh"
)

// Initiation says who started a session.
type Initiation int

// An active session was started by us with a bundle, a passive one by the other
// device with a key exchange.
const (
	Active  Initiation = 1
	Passive Initiation = 2
)

// String returns "active" or "passive".
func (i Initiation) String() string {
	switch i {
	case Active:
		return "active"
	case Passive:
		return "passive"
	}
	return fmt.Sprintf("initiation(%d)", int(i))
}

// KeyExchange is what the initiator of a session sends along until the session
// is confirmed: which keys of the other side it chose, and its own.
type KeyExchange struct {
	SignedPreKeyID uint32
	PreKeyID       uint32
	// HasPreKey is false only in legacy, when the initiator found no pre key.
	HasPreKey bool
	// Identity is the initiator's identity key in the form of the version.
	Identity [32]byte
	// Ephemeral is the initiator's key made for this session, Curve25519. It
	// names the session: the same one twice is the same session.
	Ephemeral [32]byte
}

// Session is a Double Ratchet session with one device in one version. It is a
// value: sealing and opening return another one and leave it as it was. Which of
// several sessions of a device is current is decided by what is committed.
type Session struct {
	id         uint64
	peer       Peer
	identity   [32]byte // the peer's, in the form of the version
	initiation Initiation
	confirmed  bool
	exchange   KeyExchange
	state      ratchet.State
	archived   uint64 // 0: current
	byHand     bool   // was replaced on purpose: never becomes current again
	heartbeat  bool   // the current receiving chain has been answered by a heartbeat
}

// Peer returns whom the session is held with.
func (s *Session) Peer() Peer { return s.peer }

// Initiation returns who started the session.
func (s *Session) Initiation() Initiation { return s.initiation }

// Confirmed reports whether the other side is known to have the session: an
// active session is confirmed by the first message received and decrypted in it,
// a passive one by its nature.
func (s *Session) Confirmed() bool { return s.confirmed }

// KeyExchange returns the key exchange that the session was built from: received
// (passive) or created (active), and then sent along until confirmed.
func (s *Session) KeyExchange() KeyExchange { return s.exchange }

// Archived reports whether the session was replaced and is kept for receiving
// only.
func (s *Session) Archived() bool { return s.archived != 0 }

// SendingChain returns the number of messages sent in the current sending chain.
func (s *Session) SendingChain() int {
	if !s.state.CanSend {
		return 0
	}
	return int(s.state.Sent)
}

// ReceivingChain returns the number of the next message expected in the current
// receiving chain.
func (s *Session) ReceivingChain() int {
	if !s.state.CanReceive {
		return 0
	}
	return int(s.state.Receiving.Next)
}

// Fingerprint returns the identity key of the peer in this session.
func (s *Session) Fingerprint() Fingerprint {
	if s.peer.Version.profile().edwards {
		return Fingerprint(curve.Edwards(s.identity).CheckedMontgomery())
	}
	return Fingerprint(s.identity)
}

// initiate builds an active session from a verified bundle, the fingerprint of its
// identity key, and one of its pre keys.
func initiate(own *account, b *Bundle, u Fingerprint, preKey PublicPreKey, id uint64, draw func() [32]byte) (*Session, error) {
	p := b.Version.profile()
	ephemeral, ratchetKey := newPrivate(draw), newPrivate(draw)
	curve.Derive(ephemeral, ratchetKey)
	one := curve.Montgomery(preKey.Key)
	secret, err := x3dh.Initiate(p.x3dh, own.identity, ephemeral, curve.Montgomery(u), curve.Montgomery(b.SignedPreKey), &one)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrBundle, err)
	}
	defer clear(secret[:])
	state, err := ratchet.Initiate(p.ratchet, secret, ratchetKey, curve.Montgomery(b.SignedPreKey))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrBundle, err)
	}
	return &Session{
		id: id, peer: b.Peer(), identity: b.IdentityKey, initiation: Active, state: state,
		exchange: KeyExchange{
			SignedPreKeyID: b.SignedPreKeyID, PreKeyID: preKey.ID, HasPreKey: true,
			Identity: own.identityKey(b.Version), Ephemeral: ephemeral.Public(),
		},
	}, nil
}

// accept builds a passive session from a key exchange. preKey is nil if the
// exchange names none. The identity key has been checked by the caller.
func accept(own *account, peer Peer, x wire.Exchange, u Fingerprint, signedPreKey, preKey *curve.Private, id uint64) (*Session, error) {
	p := peer.Version.profile()
	secret, err := x3dh.Accept(p.x3dh, own.identity, signedPreKey, preKey, curve.Montgomery(u), x.Ephemeral)
	if err != nil {
		return nil, ErrRefused
	}
	defer clear(secret[:])
	return &Session{
		id: id, peer: peer, identity: x.Identity, initiation: Passive, confirmed: true,
		state: ratchet.Accept(p.ratchet, secret, signedPreKey),
		exchange: KeyExchange{
			SignedPreKeyID: x.SignedPreKeyID, PreKeyID: x.PreKeyID, HasPreKey: x.HasPreKey,
			Identity: x.Identity, Ephemeral: x.Ephemeral,
		},
	}, nil
}

// associatedData appends what the MAC of a message covers before the message:
// both identity keys, ordered by role (omemo:2) or by direction (legacy).
func (s *Session) associatedData(b []byte, own *account, sending bool) []byte {
	p := s.peer.Version.profile()
	first, second := own.identityKey(s.peer.Version), s.identity
	if p.byRole && s.initiation == Passive || !p.byRole && !sending {
		first, second = second, first
	}
	b = append(append(b, p.prefix...), first[:]...)
	return append(append(b, p.prefix...), second[:]...)
}

// seal encrypts key material. It returns the next state and the content of the
// <key/> element, of the slab: a key exchange while the session is active and
// unconfirmed.
func (s *Session) seal(own *account, material []byte, draw func() [32]byte, data *slab) (*Session, Key, error) {
	p := s.peer.Version.profile()
	next := *s
	header, seed, err := next.state.Seal(p.ratchet, func() *curve.Private { return newPrivate(draw) })
	if err != nil {
		return nil, Key{}, err
	}
	var ad [66]byte
	var ciphertext [64]byte // longer material takes memory of its own
	var message [160]byte
	keys := ratchet.Expand(p.ratchet, &seed)
	clear(seed[:])
	signed := p.format.AppendSigned(message[:0], header, ratchet.Encrypt(ciphertext[:0], &keys, material))
	tag := keys.Tag(p.ratchet, s.associatedData(ad[:0], own, true), signed)
	sealed := p.format.AppendMessage(data.take(len(signed)+32), signed, tag[:p.ratchet.MACSize])

	k := Key{Address: s.peer.Address, Data: sealed}
	if s.initiation == Active && !s.confirmed {
		x := s.exchange
		k.Exchange = true
		k.Data = p.format.AppendExchange(nil, wire.Exchange{
			SignedPreKeyID: x.SignedPreKeyID, PreKeyID: x.PreKeyID, HasPreKey: x.HasPreKey,
			Identity: x.Identity, Ephemeral: x.Ephemeral, Message: sealed,
		})
	}
	return &next, k, nil
}

// opened is the outcome of opening one key in a session.
type opened struct {
	session  *Session // the next state; the same session if its state is the same
	material []byte
	skipped  []ratchet.Skipped // to be stored
	used     *SkippedID        // to be removed
	ended    *ratchet.Chain    // a receiving chain that the step has closed for good
}

// open decrypts key material. The session is not changed; the error is
// ratchet.ErrDuplicate or ErrRefused. What it costs before the message is
// authenticated comes out of the budget.
func (s *Session) open(own *account, m wire.Message, b *ratchet.Budget) (opened, error) {
	p := s.peer.Version.profile()
	opening, err := s.state.Open(p.ratchet, m.Header, b)
	if err == ratchet.ErrDuplicate {
		return opened{}, err
	}
	if err != nil {
		return opened{}, ErrRefused
	}
	material, err := s.unlock(own, &m, &opening.Key)
	if err != nil {
		return opened{}, err
	}
	next := *s
	o := opened{session: &next, material: material}
	next.state, o.skipped = opening.Keep()
	if next.state.Receiving.Remote != s.state.Receiving.Remote {
		next.heartbeat = false
		if s.state.HasPrevious {
			o.ended = &s.state.Previous
		}
	}
	return o, nil
}

// openSkipped decrypts key material with a skipped message key. The session is
// the same after it.
func (s *Session) openSkipped(own *account, m wire.Message, row *SkippedRow) (opened, error) {
	seed := row.Key
	material, err := s.unlock(own, &m, &seed)
	if err != nil {
		return opened{}, err
	}
	return opened{session: s, material: material, used: &row.SkippedID}, nil
}

// unlock verifies the MAC over the received bytes and decrypts.
func (s *Session) unlock(own *account, m *wire.Message, seed *[32]byte) ([]byte, error) {
	p := s.peer.Version.profile()
	keys := ratchet.Expand(p.ratchet, seed)
	clear(seed[:])
	var ad [66]byte
	if !keys.Verify(p.ratchet, m.MAC, s.associatedData(ad[:0], own, false), m.Signed) {
		return nil, ErrRefused
	}
	material, err := ratchet.Decrypt(&keys, m.Ciphertext)
	if err != nil {
		return nil, ErrRefused
	}
	return material, nil
}

// builtFrom reports whether the session was built from this key exchange.
func (s *Session) builtFrom(x wire.Exchange) bool {
	return s.initiation == Passive && s.exchange.Ephemeral == x.Ephemeral && bytes.Equal(s.identity[:], x.Identity[:])
}
