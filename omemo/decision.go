package omemo

import (
	"context"
	"fmt"
)

// Decision is what somebody has decided about a key of an account. It holds for
// both versions.
type Decision struct {
	JID         string // canonical bare JID
	Fingerprint Fingerprint
	Trust       Trust
}

// check refuses what nobody can decide.
func (d Decision) check() error {
	if d.JID == "" || d.Fingerprint.IsZero() || d.Trust < Undecided || d.Trust > Distrusted {
		return fmt.Errorf("omemo: %v cannot be decided about a key of %q", d.Trust, d.JID)
	}
	return nil
}

// SetTrust records a decision about an identity key of an account. It holds for
// both versions, whether a device with the key was seen or not.
func (m *Manager) SetTrust(ctx context.Context, jid string, f Fingerprint, t Trust) error {
	return m.Decide(ctx, Decision{jid, f, t})
}

// Decide records decisions, all of them at once or none. What a device has said
// about other keys is done when its own is verified, and forgotten when it is
// distrusted. Nobody is told; Announce does that. What waits in the outbox for a
// distrusted key must not leave any more: see Withhold.
func (m *Manager) Decide(ctx context.Context, decisions ...Decision) error {
	return m.work(ctx, func(u *unit) error { return u.decide(ctx, decisions) })
}

func (u *unit) decide(ctx context.Context, decisions []Decision) error {
	for _, d := range decisions {
		if err := d.check(); err != nil {
			return err
		}
		if err := u.learn(ctx, d.JID); err != nil {
			return err
		}
		u.noteTrust(d.JID, d.Fingerprint, d.Trust)
		if d.Trust.byPerson() {
			u.befriend(d.JID)
		}
	}
	for _, d := range decisions {
		if !d.Trust.byPerson() {
			continue
		}
		rows, err := u.release(ctx, d.JID, d.Fingerprint)
		if err != nil {
			return err
		}
		if d.Trust == Verified {
			if err := u.follow(ctx, rows); err != nil {
				return err
			}
		}
	}
	return nil
}
