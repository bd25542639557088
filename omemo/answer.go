package omemo

import (
	"context"
	"errors"
)

// invite owes the one omemo:2 envelope with empty content to a device that lists
// both versions, once content has gone both ways in legacy: that is how two
// devices which both speak omemo:2 get there.
func (u *unit) invite(a Address) {
	k := u.knows(a.JID)
	legacy, _ := k.device(Peer{Legacy, a})
	v2, _ := k.device(Peer{V2, a})
	if !legacy.Sent || !legacy.Received || !legacy.Active || !v2.Active || v2.Received || v2.Invited || !u.serves(V2) {
		return
	}
	v2.Invited = true
	u.note(v2)
	u.owe(OwedInvite, v2.Peer, 0)
}

// Answer does a piece of owed work that is a message to one device, and strikes
// it off in the same commit. Without content it sends an empty message. It fails
// with ErrNoSession, and strikes the work off as well, if the session it was owed
// in is gone, and with ErrVersion if its version is not served any more.
func (m *Manager) Answer(ctx context.Context, id OwedID, p Plaintext, r Render, bundles ...*Bundle) (*Sealed, error) {
	sealed := &Sealed{}
	var gone error
	err := m.work(ctx, func(u *unit) error {
		u.changes.DropOwed = append(u.changes.DropOwed, id)
		s, err := u.answering(ctx, id, p, bundles)
		if errors.Is(err, ErrNoSession) || errors.Is(err, ErrVersion) {
			gone = err
			return nil
		}
		if err != nil {
			return err
		}
		sealed.Devices = []DeviceResult{{Peer: s.peer, Exchange: s.initiation == Active && !s.confirmed}}
		sealed.Events = u.events
		if err := u.seal(sealed, p, u.chosen(s)); err != nil {
			return err
		}
		return u.render(sealed, r)
	})
	if err == nil {
		err = gone
	}
	return sealed.unless(err), err
}

// answering returns the session that owed work goes out in.
func (u *unit) answering(ctx context.Context, id OwedID, p Plaintext, bundles []*Bundle) (*Session, error) {
	if !u.serves(id.Version) {
		return nil, ErrVersion
	}
	if err := u.learn(ctx, id.JID); err != nil {
		return nil, err
	}
	list, err := u.held(ctx, id.Peer)
	if err != nil {
		return nil, err
	}
	if id.Session == 0 {
		one := []choice{u.choice(id.Peer)}
		result := u.serve(ctx, one, bundles, p.of(id.Version) != nil)[0]
		return one[0].session, result.Err
	}
	for _, s := range list {
		// What was replaced on purpose never sends again: after a rollback its
		// sending chain is behind what the peer has seen.
		if s.id == id.Session && !s.byHand {
			return s, nil
		}
	}
	return nil, ErrNoSession
}

// Replaceable returns the active devices of an account, each in the version that
// serves it, and in the other as well if there is a session: what Replace can be
// called for.
func (m *Manager) Replaceable(ctx context.Context, jid string) ([]Peer, error) {
	var peers []Peer
	err := m.read(ctx, func(u *unit) error {
		if err := u.learn(ctx, jid); err != nil {
			return err
		}
		for _, c := range u.versions(nil, jid) {
			for _, v := range Versions() {
				p := Peer{v, c.peer.Address}
				list, err := u.held(ctx, p)
				if err != nil {
					return err
				}
				d, _ := u.knows(jid).device(p)
				if p.Address != (Address{u.own().jid, u.own().device}) && d.Active && u.serves(v) && (p == c.peer || current(list) != nil) {
					peers = append(peers, p)
				}
			}
		}
		return nil
	})
	return peers, err
}

// Replace starts a new session with a device by hand, in place of one that does
// not work, and tells the device with an empty message.
func (m *Manager) Replace(ctx context.Context, b *Bundle, r Render) (*Sealed, error) {
	sealed := &Sealed{}
	err := m.work(ctx, func(u *unit) error {
		if !u.serves(b.Version) {
			return ErrVersion
		}
		if err := u.learn(ctx, b.Owner.JID); err != nil {
			return err
		}
		if err := u.loadSessions(ctx, []Peer{b.Peer()}); err != nil {
			return err
		}
		d, err := u.check(ctx, b)
		if err != nil {
			return err
		}
		preKey := b.PreKeys[u.below(len(b.PreKeys))]
		s, err := initiate(u.own(), b, d.Fingerprint, preKey, u.id(), u.draw)
		if err != nil {
			return err
		}
		u.event(u.builtOrReplaced(s.peer), s.peer, d.Fingerprint)
		u.install(s, true)
		sealed.Events = u.events
		sealed.Devices = []DeviceResult{{Peer: s.peer, Exchange: true}}
		if err := u.seal(sealed, Plaintext{}, u.chosen(s)); err != nil {
			return err
		}
		return u.render(sealed, r)
	})
	return sealed.unless(err), err
}
