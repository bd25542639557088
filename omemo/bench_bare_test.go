package omemo

import (
	"fmt"
	"slices"
	"time"

	"example.org/omellium/omemo/internal/curve"
	"example.org/omellium/omemo/internal/ratchet"
)

// Bare is a device without a manager, for benchmarks: its steps are those that a
// manager takes for one session, with the record that it would commit.
type Bare struct {
	v    Version
	own  *account
	rows []PreKeyRow
}

// NewBare makes a device and the record of its account.
func NewBare(jid string, v Version) (b *Bare, record []byte) {
	b = &Bare{v: v}
	var rows []PreKeyRow
	b.own, rows = newAccount(jid, random, time.Now())
	for _, r := range rows {
		if r.Version == v {
			b.rows = append(b.rows, r)
		}
	}
	return b, b.own.record()
}

// Keep forgets all pre keys but the first n: a device that is only written to
// should not weigh on the heap of the one that is measured.
func (b *Bare) Keep(n int) { b.rows = slices.Clone(b.rows[:n]) }

// Peer returns the device in its version.
func (b *Bare) Peer() Peer { return Peer{b.v, Address{b.own.jid, b.own.device}} }

// Bundle returns the device's bundle with its first n pre keys.
func (b *Bare) Bundle(n int) *Bundle { return b.own.bundle(b.v, b.rows[:n], random) }

// Known returns what others know about the device once they have seen its key.
func (b *Bare) Known() Device {
	return Device{
		Peer: b.Peer(), Identity: b.own.identityKey(b.v), Fingerprint: Fingerprint(b.own.identity.Montgomery()),
		Active: true, Sent: true, FirstSeen: time.Now(),
	}
}

// Initiate verifies a bundle and begins a session with its first pre key. The
// zero Device is one that was never seen.
func (b *Bare) Initiate(bundle *Bundle, known Device) (*Session, error) {
	f, err := bundle.verify(known)
	if err != nil {
		return nil, err
	}
	return initiate(b.own, bundle, f, bundle.PreKeys[0], 1, random)
}

// Seal seals key material and returns the next session, the key and the record.
func (b *Bare) Seal(s *Session, material []byte) (*Session, Key, []byte, error) {
	next, key, err := s.seal(b.own, material, random, new(slab))
	if err != nil {
		return nil, Key{}, nil, err
	}
	return next, key, next.row(new(slab)).Record, nil
}

// Accept begins a session with the key exchange in a key and opens the key.
func (b *Bare) Accept(k Key, known Device) (s *Session, material, record []byte, err error) {
	format := b.v.profile().format
	x, err := format.ParseExchange(k.Data)
	if err != nil {
		return nil, nil, nil, err
	}
	in, err := format.ParseMessage(x.Message)
	if err != nil {
		return nil, nil, nil, err
	}
	f := known.Fingerprint
	if known.Identity != x.Identity {
		if f, err = fingerprint(b.v, x.Identity); err != nil {
			return nil, nil, nil, err
		}
	}
	if err := x.Ephemeral.CheckIdentity(); err != nil {
		return nil, nil, nil, err
	}
	preKey := b.rows[x.PreKeyID-b.rows[0].ID]
	s, err = accept(b.own, known.Peer, x, f, b.own.keys(b.v).signed.key, curve.NewPrivate(&preKey.Private), 1)
	if err != nil {
		return nil, nil, nil, err
	}
	o, err := s.open(b.own, in, new(ratchet.Budget))
	if err != nil {
		return nil, nil, nil, err
	}
	return o.session, o.material, o.session.row(new(slab)).Record, nil
}

// Open opens a key and returns the next session, what is in it, the record and
// the rows of skipped message keys.
func (b *Bare) Open(s *Session, k Key) (next *Session, material, record []byte, skipped []SkippedRow, err error) {
	in, err := b.v.profile().format.ParseMessage(k.Data)
	if err != nil {
		return nil, nil, nil, nil, err
	}
	o, err := s.open(b.own, in, new(ratchet.Budget))
	if err != nil {
		return nil, nil, nil, nil, err
	}
	if len(o.skipped) > 0 {
		skipped = make([]SkippedRow, 0, len(o.skipped))
	}
	for _, k := range o.skipped {
		skipped = append(skipped, SkippedRow{SkippedID{s.id, k.Key, k.N}, k.Seed})
	}
	if o.session.initiation == Active {
		o.session.confirmed = true
	}
	return o.session, o.material, o.session.row(new(slab)).Record, skipped, nil
}

// OpenSkipped opens a key with a skipped message key, which leaves the session
// and its record as they are.
func (b *Bare) OpenSkipped(s *Session, k Key, row *SkippedRow) (material []byte, err error) {
	in, err := b.v.profile().format.ParseMessage(k.Data)
	if err != nil {
		return nil, err
	}
	o, err := s.openSkipped(b.own, in, row)
	if err == nil && o.session != s {
		err = fmt.Errorf("the session has changed")
	}
	return o.material, err
}

// Forward moves a session on to just before a key, as if the messages before it
// had been opened.
func (b *Bare) Forward(s *Session, k Key) (*Session, error) {
	in, err := b.v.profile().format.ParseMessage(k.Data)
	if err != nil {
		return nil, err
	}
	if !s.state.Knows(in.Header.Key) {
		return nil, fmt.Errorf("another ratchet key")
	}
	next := *s
	for next.state.Receiving.Next < in.Header.N {
		h := in.Header
		h.N = min(h.N-1, next.state.Receiving.Next+ratchet.MaxSkip)
		o, err := next.state.Open(b.v.profile().ratchet, h, new(ratchet.Budget))
		if err != nil {
			return nil, err
		}
		next.state, _ = o.Keep()
	}
	return &next, nil
}
