package omemo_test

import (
	"context"
	"errors"
	"testing"

	"example.org/omellium/omemo"
)

// transacting is a store that runs Within, as one on a database does. The first
// attempts of a commit fail after it and are repeated.
type transacting struct {
	*tap
	failures int
}

func (s *transacting) Commit(ctx context.Context, c *omemo.Changes) error {
	if c.Within == nil {
		return s.tap.Commit(ctx, c)
	}
	for {
		attempt := *c
		if err := c.Within(ctx, "transaction", &attempt); err != nil {
			return err
		}
		attempt.Within = nil
		if s.failures > 0 {
			s.failures--
			continue
		}
		return s.tap.Commit(ctx, &attempt)
	}
}

// within returns a Verify that has a function run inside the commit.
func within(f func(ctx context.Context, tx any, seal omemo.Sealer) error) omemo.Verify {
	return func(o *omemo.Opened) (omemo.Delivery, error) {
		return omemo.Delivery{Stanza: o.Plaintext, Within: f}, nil
	}
}

func TestAnswersAreSealedInsideTheCommit(t *testing.T) {
	versions(t, func(t *testing.T, v omemo.Version) {
		ctx := t.Context()
		a, b := pair(t, v)
		b.lists(alice, v)
		store := &transacting{tap: b.store, failures: 2}
		m, err := omemo.NewManager(ctx, store, omemo.Options{})
		b.ok(err)
		b.m = m

		first := a.send("question", bob)
		var answers []*omemo.Sealed
		runs := 0
		commits := b.store.commits
		_, err = b.m.Decrypt(ctx, b.find(first), within(func(_ context.Context, tx any, seal omemo.Sealer) error {
			runs++
			answers = nil
			if tx != "transaction" {
				t.Errorf("transaction %v", tx)
			}
			for _, text := range []string{"one", "two"} {
				sealed, err := seal.Encrypt(both(text), []string{alice}, stanzas(text, alice))
				if err != nil {
					return err
				}
				answers = append(answers, sealed)
			}
			// Nobody to send to: nothing is handed out.
			sealed, err := seal.Encrypt(both("text"), []string{carol}, stanzas("id", carol))
			sealedNothing(t, sealed, err, omemo.ErrNoDevices)
			return nil
		}))
		b.ok(err)
		if runs != 3 || b.store.commits != commits+1 {
			t.Errorf("%d runs, %d commits", runs, b.store.commits-commits)
		}
		for i, text := range []string{"one", "two"} {
			a.tapped(answers[i])
			a.reads(answers[i], text)
		}
		// What an attempt that failed has sealed was never there: it would use the
		// same message keys.
		out, err := b.m.Outbox(ctx, 0, 10)
		b.ok(err)
		in, err := b.m.Inbox(ctx, 0, 10)
		b.ok(err)
		if len(out) != 2 || out[0].ID != "one" || len(in) != 0 {
			t.Errorf("%d stanzas go out, %d are kept for the application", len(out), len(in))
		}

		// What the message does besides is not lost when the attempt is repeated.
		b.ok(b.m.SetOptOut(ctx, alice, omemo.OptOutAccepted))
		store.failures = 1
		third := b.find(a.send("I have changed my mind", bob))
		_, err = b.m.Decrypt(ctx, third, within(func(context.Context, any, omemo.Sealer) error { return nil }))
		b.ok(err)
		if contact, err := b.m.Contact(ctx, alice); err != nil || contact.OptOut != omemo.OptOutNone {
			t.Errorf("opt-out %d, %v", contact.OptOut, err)
		}

		// A function that fails undoes everything, what it has sealed included.
		second := b.find(a.send("another question", bob))
		before := b.store.dump()
		_, err = b.m.Decrypt(ctx, second, within(func(_ context.Context, _ any, seal omemo.Sealer) error {
			if _, err := seal.Encrypt(both("lost"), []string{alice}, stanzas("lost", alice)); err != nil {
				t.Error(err)
			}
			return errHook
		}))
		if !errors.Is(err, errHook) || b.store.dump() != before {
			t.Errorf("%v, or the store has changed", err)
		}
		_, err = b.receive(second)
		b.ok(err)
		a.reads(b.send("three", alice), "three")
	})
}

// A message may come from somebody of whom no device list was seen: its answer
// goes to the device that has sent it.
func TestStrangersAreAnsweredInsideTheCommit(t *testing.T) {
	versions(t, func(t *testing.T, v omemo.Version) {
		ctx := t.Context()
		w := newWorld(t)
		a, b := w.join(alice, omemo.Options{}), w.join(bob, omemo.Options{})
		a.lists(bob, v)
		m, err := omemo.NewManager(ctx, &transacting{tap: b.store}, omemo.Options{})
		b.ok(err)
		b.m = m
		var answer *omemo.Sealed
		_, err = b.m.Decrypt(ctx, b.find(a.send("question", bob)), within(func(_ context.Context, _ any, seal omemo.Sealer) error {
			var err error
			answer, err = seal.Encrypt(both("answer"), []string{alice}, stanzas("answer", alice))
			return err
		}))
		b.ok(err)
		a.reads(answer, "answer")
	})
}
