package omemo

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"example.org/omellium/omemo/internal/curve"
	"example.org/omellium/omemo/internal/payload"
	"example.org/omellium/omemo/internal/ratchet"
	"example.org/omellium/omemo/internal/wire"
)

// heartbeatAt is the number of a message in its chain that a heartbeat answers
// (XEP-0384, section 5.5.3).
const heartbeatAt = 53

// completionPause is how often the repetition of one key exchange is answered.
const completionPause = time.Minute

// Decrypt opens a message and commits everything that it does to the store at
// once. The keys of the message are those for this device only.
//
// If it fails, nothing has changed. The errors are ErrNotForUs, ErrOwnMessage,
// ErrDuplicate, ErrNoSession, ErrKeyExchange, ErrIdentityChanged, ErrRefused, ErrVerify,
// or one of the store.
func (m *Manager) Decrypt(ctx context.Context, msg *Message, v Verify) (*Opened, error) {
	var out *Opened
	err := m.work(ctx, func(u *unit) error {
		var err error
		out, err = u.open(ctx, msg, v)
		return err
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// open decrypts a message, has it verified and puts into the changes what it
// does.
func (u *unit) open(ctx context.Context, msg *Message, v Verify) (*Opened, error) {
	before := len(u.events)
	o, err := u.decrypt(ctx, msg)
	if err != nil {
		return nil, err
	}
	if o.Plaintext != nil {
		if o.Delivery, err = v(o); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrVerify, err)
		}
		u.received(o)
		u.heed(o)
		if err := u.believe(ctx, o); err != nil {
			return nil, err
		}
		u.from = o.Session.peer
		u.deliver(o.Event, &o.Delivery) // last: what runs within the commit begins here
	}
	if msg.Journal != 0 {
		u.changes.DropJournal = append(u.changes.DropJournal, msg.Journal)
	}
	o.Owed = len(u.changes.Owed) > 0
	o.Events = u.events[before:]
	return o, nil
}

func (u *unit) decrypt(ctx context.Context, msg *Message) (*Opened, error) {
	own := u.own()
	if msg.Sender == (Address{own.jid, own.device}) {
		return nil, ErrOwnMessage
	}
	if !msg.Version.Valid() || len(msg.Keys) == 0 {
		return nil, ErrNotForUs
	}
	if len(msg.Keys) > MaxCandidates {
		return nil, ErrRefused
	}
	peer := Peer{msg.Version, msg.Sender}
	if err := u.learn(ctx, peer.JID); err != nil {
		return nil, err
	}
	if _, err := u.held(ctx, peer); err != nil {
		return nil, err
	}
	// In rooms Profanity writes two keys for each device. One that was used before
	// tells a copy of a message; keys of other accounts' devices are only refused.
	var c *candidate
	var reason error
	var budget ratchet.Budget
	keys := u.inOrder(peer, msg.Keys)
	for _, key := range keys {
		opens, err := u.unseal(ctx, peer, key, &budget)
		switch {
		case err == nil && c == nil:
			c = opens
		case err == nil:
		case !isRefusal(err): // the store failed: nothing is known about the message
			return nil, err
		case errors.Is(err, ErrDuplicate):
			return nil, err
		case reason == nil || reason == ErrRefused:
			reason = err
		}
	}
	if c == nil {
		return nil, reason
	}
	text, authenticated, err := u.content(msg, c.material)
	if err != nil {
		return nil, err
	}
	o := &Opened{
		Version: msg.Version, Sender: msg.Sender, Plaintext: text, Authenticated: authenticated,
		Exchange: c.exchange, Built: c.built, Event: eventID(peer, c.header),
	}
	if err := u.apply(ctx, o, c); err != nil || len(keys) == 1 {
		return o, err
	}
	return o, u.spend(ctx, o, keys, c.material, &budget)
}

// IsVerdict tells an error of Decrypt that says something about the message from
// one that does not: the store has failed, and the message may be opened later.
func IsVerdict(err error) bool {
	return isRefusal(err) || isOneOf(err, ErrNotForUs, ErrOwnMessage, ErrVerify, ErrFlood, ErrCorrupt)
}

// isRefusal tells a verdict about the message from a failure of the store.
func isRefusal(err error) bool {
	for _, verdict := range []error{ErrRefused, ErrDuplicate, ErrNoSession, ErrKeyExchange, ErrIdentityChanged} {
		if errors.Is(err, verdict) {
			return true
		}
	}
	return false
}

// unseal opens one key, in a session that is held or in one that its key
// exchange builds.
func (u *unit) unseal(ctx context.Context, peer Peer, key Key, b *ratchet.Budget) (*candidate, error) {
	x, in, err := key.parse(peer.Version)
	if err != nil {
		return nil, ErrRefused
	}
	if key.Exchange {
		return u.openExchange(ctx, peer, x, in, b)
	}
	if len(u.list(peer)) == 0 {
		return nil, u.unlessEnded(ctx, peer, in.Header, ErrNoSession)
	}
	o, err := u.openHeld(ctx, peer, in, b)
	if err != nil {
		return nil, err
	}
	return &candidate{opened: o, header: in.Header}, nil
}

// openHeld opens a message in one of the sessions that are held with its sender:
// in the one that knows its ratchet key; with a skipped message key; or with a
// ratchet step, in the current session or else in an archived one.
//
// All that is tried shares the budget of the stanza, so that a forged one costs no
// more than an honest one. An honest message can only miss what the budget had if
// it brings a new ratchet key and is not the first try: in the session with the
// number k in the list, if more than 1,000/k messages of its new chain are missing
// before it (of 166 it opens in any of six); and after another key of the stanza
// was tried in vain, which takes a device of another account with our id.
func (u *unit) openHeld(ctx context.Context, peer Peer, in wire.Message, b *ratchet.Budget) (opened, error) {
	list := u.list(peer)
	ids := make([]SkippedID, 0, len(list))
	for _, s := range list {
		if s.state.Knows(in.Header.Key) {
			o, err := s.open(u.own(), in, b)
			if err != ratchet.ErrDuplicate {
				return o, err
			}
		}
		ids = append(ids, SkippedID{s.id, in.Header.Key, in.Header.N})
	}
	rows, err := u.skipped(ctx, ids)
	if err != nil {
		return opened{}, err
	}
	for i := range rows {
		for _, s := range list {
			if s.id != rows[i].Session {
				continue
			}
			if o, err := s.openSkipped(u.own(), in, &rows[i]); err == nil {
				return o, nil
			}
		}
	}
	for _, s := range list {
		if s.state.Knows(in.Header.Key) {
			if len(rows) > 0 {
				return opened{}, ErrRefused // its key is there, the message is not the one it was made for
			}
			return opened{}, ErrDuplicate
		}
	}
	for _, s := range list {
		if o, err := s.open(u.own(), in, b); err == nil {
			return o, nil
		}
	}
	return opened{}, u.unlessEnded(ctx, peer, in.Header, ErrRefused)
}

// unlessEnded returns ErrDuplicate for a message of a receiving chain that has
// ended and in which it was received, and reason for any other.
func (u *unit) unlessEnded(ctx context.Context, peer Peer, h ratchet.Header, reason error) error {
	marks, err := u.ended(ctx, ChainID{peer, h.Key})
	if err != nil {
		return err
	}
	if len(marks) > 0 && h.N < marks[0].Next {
		return ErrDuplicate
	}
	return reason
}

// openExchange opens a message that came in a key exchange: in the session that
// was built from the same exchange before, else in a new one, which exists only
// in memory until everything about the message has been verified.
func (u *unit) openExchange(ctx context.Context, peer Peer, x wire.Exchange, in wire.Message, b *ratchet.Budget) (*candidate, error) {
	for _, s := range u.list(peer) {
		if s.builtFrom(x) {
			o, err := u.openHeld(ctx, peer, in, b)
			if err != nil {
				return nil, err
			}
			return &candidate{opened: o, header: in.Header, exchange: true}, nil
		}
	}
	// An exchange whose session is gone must not begin it again: its pre key may
	// still be there while an archive is caught up with, or it named none.
	marks, err := u.ended(ctx, ChainID{peer, in.Header.Key})
	if err != nil {
		return nil, err
	}
	if len(marks) > 0 {
		if in.Header.N < marks[0].Next {
			return nil, ErrDuplicate
		}
		return nil, ErrKeyExchange
	}
	// One that names no pre key consumes none: only the marks of its chains keep it
	// from being read again, and those of strangers are not kept.
	if !x.HasPreKey && peer.JID != u.own().jid && !u.knows(peer.JID).contact.Written {
		return nil, ErrKeyExchange
	}
	d, known := u.knows(peer.JID).device(peer)
	f := d.Fingerprint
	if !known || f.IsZero() || d.Identity != x.Identity {
		// Checking a point costs half a DH: known ones were checked once.
		var err error
		if f, err = fingerprint(peer.Version, x.Identity); err != nil {
			return nil, ErrRefused
		}
		if known && !d.Fingerprint.IsZero() && d.Fingerprint != f {
			return nil, ErrIdentityChanged
		}
	}
	// Clamped scalars give the same secret with every point that differs by one of
	// small order. The ephemeral key names the session: one alone may do so.
	if x.Ephemeral.CheckIdentity() != nil {
		return nil, ErrRefused
	}
	signed := u.own().keys(peer.Version).find(x.SignedPreKeyID)
	if signed == nil {
		return nil, ErrKeyExchange
	}
	var row *PreKeyRow
	var preKey *curve.Private
	if x.HasPreKey {
		rows, err := u.preKeys(ctx, peer.Version, x.PreKeyID)
		if err != nil {
			return nil, err
		}
		if len(rows) == 0 {
			return nil, ErrKeyExchange
		}
		row = &rows[0]
		preKey = curve.NewPrivate(&row.Private)
	}
	s, err := accept(u.own(), peer, x, f, signed, preKey, u.id())
	if err != nil {
		return nil, ErrRefused
	}
	o, err := s.open(u.own(), in, b)
	if err != nil {
		return nil, ErrRefused
	}
	return &candidate{opened: o, header: in.Header, exchange: true, built: true, preKey: row}, nil
}

// content decrypts the body of a message; nil for an empty one.
func (u *unit) content(msg *Message, material []byte) (text []byte, authenticated bool, err error) {
	switch {
	case msg.Payload == nil:
		return nil, true, nil
	case msg.Version == V2:
		text, err = payload.OpenV2(material, msg.Payload)
	case len(material) == 16 && u.options.AllowUnauthenticatedLegacy:
		text, err = payload.OpenLegacyUnauthenticated(material, msg.IV, msg.Payload)
		return notNil(text), false, refused(err)
	default:
		text, err = payload.OpenLegacy(material, msg.IV, msg.Payload)
	}
	return notNil(text), true, refused(err)
}

func refused(err error) error {
	if err != nil {
		return ErrRefused
	}
	return nil
}

// notNil keeps a text of no bytes apart from no text.
func notNil(b []byte) []byte {
	if b == nil {
		return []byte{}
	}
	return b
}

// echoEvent names an own message that a room has sent back.
func echoEvent(hash [32]byte) string { return base64.RawURLEncoding.EncodeToString(hash[:16]) }

// eventID names a message by what makes it unique: sender, ratchet key, number.
func eventID(p Peer, h ratchet.Header) string {
	b := fmt.Appendf(nil, "%d/%d/%s/", p.Version, p.Address.Device, p.JID)
	b = append(b, h.Key[:]...)
	b = binary.BigEndian.AppendUint32(b, h.N)
	sum := sha256.Sum256(b)
	return base64.RawURLEncoding.EncodeToString(sum[:16])
}
