package omemo

import (
	"context"
	"slices"
)

// EncryptGroup is Encrypt for the members of a group: one of whom no device can
// be served does not keep the message from the others. Sealed.Unserved lists
// them, and Render sees the list: it fails where that is not good enough, and
// nothing has happened then. A group of which no member can be served is an
// error, a *RecipientError.
func (m *Manager) EncryptGroup(ctx context.Context, p Plaintext, members []string, r Render, bundles ...*Bundle) (*Sealed, error) {
	var out *Sealed
	err := m.work(ctx, func(u *unit) error {
		sealed, err := u.encryptGroup(ctx, p, members, bundles)
		out = sealed
		if err != nil {
			return err
		}
		sealed.Owed = len(u.changes.Owed) > 0
		return u.render(sealed, r)
	})
	return out.unless(err), err
}

func (u *unit) encryptGroup(ctx context.Context, p Plaintext, members []string, bundles []*Bundle) (*Sealed, error) {
	choices, err := u.choose(ctx, p, members)
	if err != nil {
		return nil, err
	}
	for i, c := range choices {
		if c.err == nil && u.knows(c.peer.JID).contact.OptOut == OptOutAsked {
			choices[i].err = ErrOptedOut
		}
	}
	sealed, ready, first := u.serveContent(ctx, choices, bundles)
	sealed.Unserved = sealed.refusals(members)
	unserved := make(map[string]bool, len(sealed.Unserved))
	for _, refusal := range sealed.Unserved {
		unserved[refusal.JID] = true
	}
	served := slices.DeleteFunc(slices.Clone(members), func(jid string) bool { return unserved[jid] })
	switch {
	case len(sealed.Unserved) > 0 && len(served) == 0:
		return sealed, sealed.Unserved[0]
	case len(ready) == 0:
		return sealed, &RecipientError{u.own().jid, ErrNoDevices}
	}
	return sealed, u.sealFor(sealed, p, served, ready, first)
}
