package omemo

import (
	"context"
	"errors"
	"maps"
)

// OptOut says where an account's wish to go on in plain text stands (XEP-0384,
// section 5.9). Its values are stored: they never change.
type OptOut int

// The states of a wish. A refused one is none.
const (
	OptOutNone     OptOut = 0
	OptOutAsked    OptOut = 1 // nothing is sent to the account until the application answers
	OptOutAccepted OptOut = 2 // the application goes on in plain text
)

// ErrOptedOut: the account has asked to go on in plain text, and nobody has
// answered yet.
var ErrOptedOut = errors.New("omemo: account has opted out of encryption, and awaits an answer")

// SetOptOut records what the application has decided about an account's wish.
func (m *Manager) SetOptOut(ctx context.Context, jid string, o OptOut) error {
	return m.work(ctx, func(u *unit) error {
		if err := u.learn(ctx, jid); err != nil {
			return err
		}
		if c := u.knows(jid).contact; c.OptOut != o {
			c.OptOut = o
			u.noteContact(c)
		}
		return nil
	})
}

// Contact returns what is known about an account as a whole.
func (m *Manager) Contact(ctx context.Context, jid string) (Contact, error) {
	var contact Contact
	err := m.read(ctx, func(u *unit) error {
		if err := u.learn(ctx, jid); err != nil {
			return err
		}
		contact = u.knows(jid).contact
		contact.Lists = maps.Clone(contact.Lists)
		return nil
	})
	return contact, err
}

// heed takes a wish over that came in a verified envelope of a trusted device:
// nobody else's counts. Whoever writes encrypted again has changed his mind.
func (u *unit) heed(o *Opened) {
	if o.Sender.JID == u.own().jid || !o.Trust.Sendable() {
		return
	}
	c := u.knows(o.Sender.JID).contact
	next := c.OptOut
	switch {
	case o.Delivery.OptOut && next == OptOutNone:
		next = OptOutAsked
	case !o.Delivery.OptOut && (o.Delivery.Stanza != nil || o.Delivery.Within != nil):
		next = OptOutNone
	}
	if next != c.OptOut {
		c.OptOut = next
		u.noteContact(c)
	}
}
