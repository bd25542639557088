package omemo_test

import (
	"errors"
	"testing"

	"example.org/omellium/omemo"
)

func TestAGroupIsServedAsFarAsItCanBe(t *testing.T) {
	versions(t, func(t *testing.T, v omemo.Version) {
		ctx := t.Context()
		w := newWorld(t)
		a, b, c := w.join(alice, omemo.Options{}), w.join(bob, omemo.Options{}), w.join(carol, omemo.Options{})
		w.meet(v)
		members := []string{bob, carol, "dave@example.org"}
		encrypt := func(r omemo.Render, bundles ...*omemo.Bundle) (*omemo.Sealed, error) {
			return a.m.EncryptGroup(ctx, both("text"), members, r, bundles...)
		}

		// Nobody, or Render does not like who is left out: nothing happens.
		before := a.store.dump()
		sealed, err := encrypt(stanzas("id", "room@example.org"))
		sealedNothing(t, sealed, err, omemo.ErrNoBundle)
		sealed, err = encrypt(func(s *omemo.Sealed) ([]omemo.Outgoing, error) {
			if len(s.Unserved) != 2 {
				t.Errorf("%d are left out", len(s.Unserved))
			}
			return nil, errHook
		}, b.small(v))
		sealedNothing(t, sealed, err, errHook)
		if a.store.dump() != before {
			t.Error("the store has changed")
		}

		sealed, err = encrypt(stanzas("id", "room@example.org"), b.small(v), c.small(v))
		a.ok(err)
		a.tapped(sealed)
		b.reads(sealed, "text")
		c.reads(sealed, "text")
		var refused *omemo.RecipientError
		if len(sealed.Unserved) != 1 || !errors.As(sealed.Unserved[0], &refused) || refused.JID != members[2] || !errors.Is(refused, omemo.ErrNoDevices) {
			t.Errorf("left out: %v", sealed.Unserved)
		}
		for jid, want := range map[string]bool{bob: true, carol: true, members[2]: false} {
			if contact, err := a.m.Contact(ctx, jid); err != nil || contact.Written != want {
				t.Errorf("%s: written to: %t, %v", jid, contact.Written, err)
			}
		}

		// Who has asked for plain text and got no answer yet is left out.
		a.ok(a.m.SetOptOut(ctx, carol, omemo.OptOutAsked))
		sealed, err = encrypt(stanzas("id", "room@example.org"))
		a.ok(err)
		if len(sealed.Unserved) != 2 || !errors.Is(sealed.Unserved[0], omemo.ErrOptedOut) {
			t.Errorf("left out: %v", sealed.Unserved)
		}
		b.reads(sealed, "text")

		// A group without members reaches our own devices, if there are any.
		sealed, err = a.m.EncryptGroup(ctx, both("text"), nil, stanzas("id", "room@example.org"))
		sealedNothing(t, sealed, err, omemo.ErrNoDevices)
	})
}
