package omemo

import (
	"context"
	"crypto/subtle"
	"maps"
	"slices"

	"example.org/omellium/omemo/internal/ratchet"
)

// apply puts into the changes what an opened key does: to the session, to what
// is known about the device, to our own pre keys, and what is owed for it.
func (u *unit) apply(ctx context.Context, o *Opened, c *candidate) error {
	s := c.session
	peer := s.peer
	before, _ := u.knows(peer.JID).device(peer)
	f := before.Fingerprint
	if f.IsZero() || before.Identity != s.identity {
		f = s.Fingerprint()
	}
	if err := u.meet(ctx, peer.JID, c.built); err != nil {
		return err
	}
	d, err := u.seen(ctx, peer, s.identity, f)
	if err != nil {
		return err
	}
	if u.now.Sub(d.LastSeen) >= seenResolution {
		d.LastSeen = u.now
		u.note(d)
	}
	u.setStale(peer, false)
	o.FirstSeen = before.Fingerprint.IsZero()
	if o.FirstSeen {
		u.owe(OwedDevices, peer, 0)
	}
	o.Fingerprint = f
	o.Trust = u.trust(peer.Address, f)

	switch {
	case c.built:
		u.event(u.builtOrReplaced(peer), peer, f)
		u.install(s, false)
	case s.initiation == Active && !s.confirmed:
		next := *s
		next.confirmed = true
		s, c.session = &next, &next
		u.event(SessionConfirmed, peer, f)
		if s.archived != 0 && !s.byHand {
			// Both sides had started at once: this is the session that the other
			// side has made its own.
			u.install(s, false)
			break
		}
		u.save(s)
	case c.used == nil:
		u.save(s)
	}
	u.keys(c)
	u.consume(c)
	u.settle(c)
	o.Session = s
	return nil
}

// spend consumes the other keys of a message that hold its key material: no
// copy of it, whichever keys were taken out, can be opened again. Those that an
// honest sender makes have consecutive numbers: in the order of the numbers they
// need nothing of the budget, which forged ones may have used up.
func (u *unit) spend(ctx context.Context, o *Opened, keys []Key, material []byte, b *ratchet.Budget) error {
	for _, key := range keys {
		c, err := u.unseal(ctx, o.Session.peer, key, b)
		if err != nil && !isRefusal(err) {
			return err
		}
		if err != nil || subtle.ConstantTimeCompare(c.material, material) == 0 {
			continue
		}
		var other Opened
		if err := u.apply(ctx, &other, c); err != nil {
			return err
		}
		o.Session = other.Session
	}
	return nil
}

func (u *unit) builtOrReplaced(p Peer) EventKind {
	if current(u.list(p)) != nil {
		return SessionReplaced
	}
	return SessionBuilt
}

// keys stores and removes skipped message keys, and marks a closed chain.
func (u *unit) keys(c *candidate) {
	s := c.session
	if c.used != nil {
		u.dropSkipped(*c.used)
	}
	for _, k := range c.skipped {
		u.changes.Skipped = append(u.changes.Skipped, SkippedRow{SkippedID{s.id, k.Key, k.N}, k.Seed})
	}
	if len(c.skipped) > 0 {
		u.changes.TrimSkipped = append(u.changes.TrimSkipped, Trim{s.id, ratchet.MaxSkip})
	}
	if c.ended != nil {
		u.end(s.peer, c.ended.Remote, c.ended.Next)
	}
}

// consume removes the pre key that built a session, or only marks it while the
// archive is caught up with, and refills the bundle.
func (u *unit) consume(c *candidate) {
	if c.preKey == nil {
		return
	}
	v := c.preKey.Version
	if u.catchUp {
		if !c.preKey.Used.IsZero() {
			return
		}
		used := *c.preKey
		used.Used = u.now
		u.changes.PreKeys = append(u.changes.PreKeys, used)
	} else {
		u.changes.DropPreKeys = append(u.changes.DropPreKeys, PreKeyID{v, c.preKey.ID})
	}
	if c.preKey.Used.IsZero() {
		u.changes.PreKeys = append(u.changes.PreKeys, u.change().keys(v).refill(v, 1, u.draw)...)
		u.owe(OwedBundle, Peer{Version: v}, 0)
	}
}

// settle owes the answers that the message calls for, in the session that
// received it.
func (u *unit) settle(c *candidate) {
	s := c.session
	if c.exchange && u.now.Sub(u.answered[s.id]) >= completionPause {
		u.owe(OwedCompletion, s.peer, s.id)
		id, now := s.id, u.now
		u.after = append(u.after, func() { u.Manager.answered[id] = now })
	}
}

// received records that a device has sent authenticated content, which shows
// that it speaks the version, and owes a heartbeat for a long chain. Empty
// messages do neither: two devices would answer each other for ever.
func (u *unit) received(o *Opened) {
	s := o.Session
	d, _ := u.knows(s.peer.JID).device(s.peer)
	if !d.Received {
		d.Received = true
		u.note(d)
		u.invite(d.Address)
	}
	if !s.heartbeat && s.state.CanReceive && s.state.Receiving.Next > heartbeatAt {
		next := *s
		next.heartbeat = true
		u.save(&next)
		o.Session = &next
		u.owe(OwedHeartbeat, s.peer, s.id)
	}
}

// deliver puts a message into the inbox.
func (u *unit) deliver(event string, d *Delivery) {
	if d.Stanza != nil && d.Within == nil {
		u.inbox++
		d.Seq = u.inbox
		u.changes.Inbox = append(u.changes.Inbox, InboxRow{
			Seq: d.Seq, Event: event, Stanza: d.Stanza, Received: u.now,
		})
	}
	if d.Within != nil {
		u.within(d.Within)
	}
}

// within has a function run inside the commit, which may seal answers. The store
// may try the commit more than once: each time begins where the message was
// opened, so that what was sealed in an attempt that failed never happened.
func (u *unit) within(f func(ctx context.Context, tx any, seal Sealer) error) {
	lists, known, events, after := u.lists(), maps.Clone(u.known), len(u.events), len(u.after)
	u.changes.Within = func(ctx context.Context, tx any, c *Changes) error {
		lists()
		u.known = maps.Clone(known)
		u.events, u.after = u.events[:events], u.after[:after]
		u.changes = *c
		// Rows of these are replaced in place.
		u.changes.Sessions, u.changes.Devices = slices.Clone(c.Sessions), slices.Clone(c.Devices)
		u.changes.Contacts, u.changes.Trust = slices.Clone(c.Contacts), slices.Clone(c.Trust)
		with := func(encrypt func(context.Context, Plaintext, []string, []*Bundle) (*Sealed, error)) SealFunc {
			return func(p Plaintext, to []string, r Render, bundles ...*Bundle) (*Sealed, error) {
				sealed, err := encrypt(ctx, p, to, bundles)
				if err == nil {
					err = u.render(sealed, r)
				}
				return sealed.unless(err), err
			}
		}
		err := f(ctx, tx, Sealer{with(u.encrypt), with(u.encryptGroup)})
		*c = u.changes
		return err
	}
}
