package omemo_test

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"example.org/omellium/omemo"
)

func TestActiveIsUnconfirmedUntilItsFirstSuccessfulDecrypt(t *testing.T) {
	versions(t, func(t *testing.T, v omemo.Version) {
		a, b := pair(t, v)
		b.reads(a.send("one", bob), "one")
		s := a.session(b.peer(v))
		if s.Initiation() != omemo.Active || s.Confirmed() {
			t.Fatalf("%v, confirmed %t", s.Initiation(), s.Confirmed())
		}

		answer := b.send("two", alice)
		broken := a.find(answer)
		broken.Keys = slices.Clone(broken.Keys)
		broken.Keys[0].Data = slices.Clone(broken.Keys[0].Data)
		broken.Keys[0].Data[len(broken.Keys[0].Data)-1] ^= 1
		a.refuses(broken, omemo.ErrRefused)
		if a.session(b.peer(v)).Confirmed() {
			t.Fatal("a message that failed has confirmed the session")
		}

		o := a.reads(answer, "two")
		if !o.Session.Confirmed() || !a.session(b.peer(v)).Confirmed() {
			t.Error("the first message that was decrypted has not confirmed the session")
		}
		if !hasEvent(o.Events, omemo.SessionConfirmed) {
			t.Errorf("events %v", o.Events)
		}
		if s.Confirmed() {
			t.Error("a session that was handed out has changed")
		}
	})
}

func TestKeyExchangeIsRepeatedUntilConfirmedAndNotAfter(t *testing.T) {
	versions(t, func(t *testing.T, v omemo.Version) {
		a, b := pair(t, v)
		var first omemo.KeyExchange
		for i := range 4 {
			text := fmt.Sprint("before ", i)
			sealed := a.send(text, bob)
			key := b.find(sealed).Keys[0]
			if !key.Exchange || !sealed.Devices[0].Exchange {
				t.Fatalf("message %d goes without the key exchange", i)
			}
			x := a.session(b.peer(v)).KeyExchange()
			if i == 0 {
				first = x
			}
			if x != first {
				t.Fatalf("message %d has another key exchange", i)
			}
			b.reads(sealed, text)
		}
		a.reads(b.send("answer", alice), "answer")
		for i := range 3 {
			text := fmt.Sprint("after ", i)
			sealed := a.send(text, bob)
			if b.find(sealed).Keys[0].Exchange || sealed.Devices[0].Exchange {
				t.Fatalf("message %d repeats the key exchange", i)
			}
			b.reads(sealed, text)
		}
	})
}

func TestPassiveIsBuiltFromAKeyExchange(t *testing.T) {
	versions(t, func(t *testing.T, v omemo.Version) {
		a, b := pair(t, v)
		o := b.reads(a.send("one", bob), "one")
		s := b.session(a.peer(v))
		if s.Initiation() != omemo.Passive || !s.Confirmed() {
			t.Fatalf("%v, confirmed %t", s.Initiation(), s.Confirmed())
		}
		if s.KeyExchange() != a.session(b.peer(v)).KeyExchange() {
			t.Error("the two sides have different key exchanges")
		}
		f, err := a.m.Fingerprint(t.Context())
		if err != nil || s.Fingerprint() != f || o.Fingerprint != f {
			t.Errorf("fingerprint %v, %v", o.Fingerprint, err)
		}
		if !o.Exchange || !o.FirstSeen || !o.Authenticated || !hasEvent(o.Events, omemo.SessionBuilt) || !hasEvent(o.Events, omemo.NewDevice) {
			t.Errorf("exchange %t, first seen %t, authenticated %t, events %v", o.Exchange, o.FirstSeen, o.Authenticated, o.Events)
		}
		if s.Peer() != a.peer(v) || s.ReceivingChain() != 1 || s.SendingChain() != 0 {
			t.Errorf("peer %v, chains %d and %d", s.Peer(), s.ReceivingChain(), s.SendingChain())
		}
		b.send("two", alice)
		if n := b.session(a.peer(v)).SendingChain(); n != 1 {
			t.Errorf("sending chain of %d", n)
		}
	})
}

func TestTheSameExchangeDoesNotBuildTwice(t *testing.T) {
	versions(t, func(t *testing.T, v omemo.Version) {
		a, b := pair(t, v)
		first := a.send("one", bob)
		second := a.send("two", bob)
		b.reads(second, "two")
		id := b.session(a.peer(v)).ID()
		o := b.reads(first, "one") // a skipped message key
		if o.Session.ID() != id || len(b.sessions(a.peer(v))) != 1 || hasEvent(o.Events, omemo.SessionBuilt, omemo.SessionReplaced) {
			t.Errorf("%d sessions, events %v", len(b.sessions(a.peer(v))), o.Events)
		}
		b.refuses(b.find(first), omemo.ErrDuplicate)
		b.refuses(b.find(second), omemo.ErrDuplicate)

		// Nor after much has happened.
		for i := range 20 {
			text := fmt.Sprint(i)
			a.reads(b.send(text, alice), text)
			b.reads(a.send(text, bob), text)
		}
		for range 3 {
			b.refuses(b.find(first), omemo.ErrDuplicate)
		}
		if b.session(a.peer(v)).ID() != id {
			t.Error("a replay has replaced the session")
		}
	})
}

func TestANewExchangeReplaces(t *testing.T) {
	versions(t, func(t *testing.T, v omemo.Version) {
		a, b := pair(t, v)
		b.reads(a.send("one", bob), "one")
		a.reads(b.send("two", alice), "two")
		old := b.session(a.peer(v))

		sealed, err := a.m.Replace(t.Context(), b.small(v), stanzas("replace", bob))
		a.ok(err)
		a.tapped(sealed)
		o, err := b.receive(b.find(sealed))
		b.ok(err)
		if o.Plaintext != nil || !hasEvent(o.Events, omemo.SessionReplaced) {
			t.Errorf("text %q, events %v", o.Plaintext, o.Events)
		}
		list := b.sessions(a.peer(v))
		if len(list) != 2 || list[0].ID() == old.ID() || list[1].ID() != old.ID() {
			t.Fatalf("sessions %v", list)
		}
		a.reads(b.send("three", alice), "three")
		b.reads(a.send("four", bob), "four")
		if len(b.find(a.send("five", bob)).Keys) != 1 || a.session(b.peer(v)).KeyExchange() != b.session(a.peer(v)).KeyExchange() {
			t.Error("the two sides use different sessions")
		}
	})
}

func TestAChangeThatIsNotCommittedIsNotSeen(t *testing.T) {
	versions(t, func(t *testing.T, v omemo.Version) {
		a, b := pair(t, v)
		b.reads(a.send("one", bob), "one")
		a.reads(b.send("two", alice), "two")
		for _, p := range []*party{a, b} {
			p.store.fail = func(call string) error {
				if call == "Commit" {
					return errStore
				}
				return nil
			}
		}
		before := *a.session(b.peer(v))
		if _, err := a.trySend(both("lost"), bob); !errors.Is(err, errStore) {
			t.Fatal(err)
		}
		if after := *a.session(b.peer(v)); after.SendingChain() != before.SendingChain() || after.State() != before.State() {
			t.Error("a message that was not committed has moved the sending chain")
		}
		a.store.fail = nil
		sealed := a.send("three", bob)
		held := *b.session(a.peer(v))
		if _, err := b.receive(b.find(sealed)); !errors.Is(err, errStore) {
			t.Fatal(err)
		}
		if after := *b.session(a.peer(v)); after.State() != held.State() {
			t.Error("a message that was not committed has moved the receiving chain")
		}
		b.store.fail = nil
		b.reads(sealed, "three")
	})
}

func TestSeveralSessionsInMemoryOneCurrentInStorage(t *testing.T) {
	versions(t, func(t *testing.T, v omemo.Version) {
		a, b := pair(t, v)
		b.reads(a.send("one", bob), "one")
		for range 3 {
			sealed, err := a.m.Replace(t.Context(), b.small(v), stanzas("replace", bob))
			a.ok(err)
			_, err = b.receive(b.find(sealed))
			b.ok(err)
		}
		for _, list := range [][]*omemo.Session{a.sessions(b.peer(v)), b.sessions(a.peer(v))} {
			if len(list) != 4 {
				t.Fatalf("%d sessions", len(list))
			}
		}
		b.restart()
		if list := b.sessions(a.peer(v)); len(list) != 4 || list[0].KeyExchange() != a.session(b.peer(v)).KeyExchange() {
			t.Error("another session is current after a restart")
		}
	})
}

func TestSimultaneousStartsConvergeWithoutLoss(t *testing.T) {
	t.Parallel()
	versions(t, func(t *testing.T, v omemo.Version) {
		start := func(t *testing.T) (a, b *party) {
			a, b = pair(t, v)
			x, y := a.send("from a", bob), b.send("from b", alice)
			b.reads(x, "from a")
			a.reads(y, "from b")
			return a, b
		}
		exchange := func(t *testing.T, a, b *party, rounds int) {
			t.Helper()
			for i := range rounds {
				// Several on the way in both directions, in reverse.
				var x, y []*omemo.Sealed
				for range 2 {
					x, y = append(x, a.send(fmt.Sprint("a", i), bob)), append(y, b.send(fmt.Sprint("b", i), alice))
				}
				for n := range x {
					b.reads(x[len(x)-1-n], fmt.Sprint("a", i))
					a.reads(y[len(y)-1-n], fmt.Sprint("b", i))
				}
			}
			for _, s := range []*omemo.Session{a.session(b.peer(v)), b.session(a.peer(v))} {
				if !s.Confirmed() {
					t.Error("a session is never confirmed")
				}
			}
			if len(a.sessions(b.peer(v))) != 2 || len(b.sessions(a.peer(v))) != 2 {
				t.Error("sessions are multiplying")
			}
			if b.find(a.send("last", bob)).Keys[0].Exchange {
				t.Error("key exchanges do not come to an end")
			}
		}
		t.Run("one answers first", func(t *testing.T) {
			a, b := start(t)
			b.reads(a.send("answer", bob), "answer")
			a.reads(b.send("answer", alice), "answer")
			if a.session(b.peer(v)).KeyExchange() != b.session(a.peer(v)).KeyExchange() {
				t.Error("the two sides use different sessions")
			}
			exchange(t, a, b, 5)
			if a.session(b.peer(v)).KeyExchange() != b.session(a.peer(v)).KeyExchange() {
				t.Error("the two sides use different sessions again")
			}
		})
		t.Run("answers cross", func(t *testing.T) {
			a, b := start(t)
			exchange(t, a, b, 5)
		})
		t.Run("completions cross", func(t *testing.T) {
			a, b := start(t)
			if n := a.settle(); n != 2 {
				t.Errorf("%d messages to complete both exchanges, want 2", n)
			}
			exchange(t, a, b, 5)
		})
		t.Run("restart between", func(t *testing.T) {
			a, b := start(t)
			a.restart()
			b.restart()
			exchange(t, a, b, 5)
		})
	})
}

func TestArchivedSessionsOnlyDecrypt(t *testing.T) {
	t.Parallel()
	versions(t, func(t *testing.T, v omemo.Version) {
		a, b := pair(t, v)
		var read, late []*omemo.Sealed
		generations := omemo.MaxArchived + 3
		for i := range generations {
			if i > 0 {
				sealed, err := a.m.Replace(t.Context(), b.small(v), stanzas("replace", bob))
				a.ok(err)
				_, err = b.receive(b.find(sealed))
				b.ok(err)
			}
			text := fmt.Sprint("read ", i)
			read = append(read, a.send(text, bob))
			late = append(late, a.send(fmt.Sprint("late ", i), bob))
			b.reads(read[i], text)
		}
		if n := len(b.sessions(a.peer(v))); n != 1+omemo.MaxArchived {
			t.Fatalf("%d sessions, want %d", n, 1+omemo.MaxArchived)
		}
		if n := len(a.sessions(b.peer(v))); n != 1+omemo.MaxArchived {
			t.Fatalf("%d sessions, want %d", n, 1+omemo.MaxArchived)
		}
		current := b.session(a.peer(v)).ID()
		for i, sealed := range late {
			dropped := i < generations-1-omemo.MaxArchived
			if dropped {
				// Its session is gone: what was read is known again, what was not is
				// not mistaken for it, and its exchange does not begin it again.
				b.refuses(b.find(read[i]), omemo.ErrDuplicate)
				b.refuses(b.find(sealed), omemo.ErrKeyExchange)
				continue
			}
			o := b.reads(sealed, fmt.Sprint("late ", i))
			if archived := i < generations-1; o.Session.Archived() != archived {
				t.Errorf("message of generation %d: archived %t", i, o.Session.Archived())
			}
			b.refuses(b.find(read[i]), omemo.ErrDuplicate)
		}
		if b.session(a.peer(v)).ID() != current {
			t.Error("a late message has brought an archived session back")
		}
		a.reads(b.send("answer", alice), "answer")
	})
}

func TestMarksOfDroppedSessionsAreKeptForNormalMessages(t *testing.T) {
	versions(t, func(t *testing.T, v omemo.Version) {
		a, b := pair(t, v)
		b.reads(a.send("one", bob), "one")
		a.reads(b.send("two", alice), "two")
		first := a.send("three", bob) // no key exchange any more
		b.reads(first, "three")
		a.reads(b.send("four", alice), "four")
		second := a.send("five", bob) // the next chain
		b.reads(second, "five")
		for range omemo.MaxArchived + 1 {
			sealed, err := a.m.Replace(t.Context(), b.small(v), stanzas("replace", bob))
			a.ok(err)
			_, err = b.receive(b.find(sealed))
			b.ok(err)
		}
		b.refuses(b.find(first), omemo.ErrDuplicate)
		b.refuses(b.find(second), omemo.ErrDuplicate)
		b.restart()
		b.refuses(b.find(first), omemo.ErrDuplicate)
	})
}

func TestManualReplacementNeverComesBack(t *testing.T) {
	versions(t, func(t *testing.T, v omemo.Version) {
		a, b := pair(t, v)
		// The active session is unconfirmed when it is replaced by hand: the answer
		// in it confirms it, and it stays archived all the same.
		b.reads(a.send("one", bob), "one")
		late := b.send("late", alice)
		sealed, err := a.m.Replace(t.Context(), b.small(v), stanzas("replace", bob))
		a.ok(err)
		replacement := a.session(b.peer(v)).ID()
		a.restart()
		o := a.reads(late, "late")
		if !o.Session.Archived() || !o.Session.Confirmed() || a.session(b.peer(v)).ID() != replacement {
			t.Error("a session that was replaced by hand has come back")
		}
		_, err = b.receive(b.find(sealed))
		b.ok(err)
		a.reads(b.send("two", alice), "two")
	})
}

func TestLateMessagesOfAChainSurviveAShortPN(t *testing.T) {
	versions(t, func(t *testing.T, v omemo.Version) {
		a, b := pair(t, v)
		b.reads(a.send("kex", bob), "kex")
		a.reads(b.send("answer", alice), "answer")
		// The chain that began the session counts for the first announcement.
		for round := range 4 {
			text := fmt.Sprint("first of ", round)
			b.reads(a.send(text, bob), text)
			last := a.send("last", bob)
			a.reads(b.send("answer", alice), "answer")
			a.ok(a.m.CountShort(t.Context(), b.peer(v)))
			b.reads(a.send("next chain", bob), "next chain")
			b.reads(last, "last")
			b.refuses(b.find(last), omemo.ErrDuplicate)
			a.reads(b.send("answer", alice), "answer")
			a.ok(a.m.CountShort(t.Context(), b.peer(v)))
		}
	})
}

func TestRestartAtEveryPointChangesNothing(t *testing.T) {
	t.Parallel()
	versions(t, func(t *testing.T, v omemo.Version) {
		for at := range 14 {
			a, b := pair(t, v)
			var late, later *omemo.Sealed
			step := 0
			do := func(f func()) {
				if step == at {
					for _, p := range []*party{a, b} {
						before := p.store.dump()
						p.restart()
						if after := p.store.dump(); before != after {
							t.Fatalf("restart before step %d changed the store", step)
						}
					}
				}
				step++
				f()
			}
			do(func() { late = a.send("late", bob) })
			do(func() { b.reads(a.send("one", bob), "one") })
			do(func() { a.reads(b.send("two", alice), "two") })
			do(func() { later = a.send("later", bob) })
			do(func() { b.reads(a.send("three", bob), "three") })
			do(func() { a.reads(b.send("four", alice), "four") })
			do(func() { b.reads(a.send("five", bob), "five") })
			do(func() { b.reads(later, "later") })
			do(func() { b.refuses(b.find(later), omemo.ErrDuplicate) })
			do(func() { b.reads(late, "late") })
			do(func() { a.settle() })
			do(func() {
				sealed, err := b.m.Replace(t.Context(), a.small(v), stanzas("replace", alice))
				b.ok(err)
				a.spread(sealed)
			})
			do(func() { b.reads(a.send("six", bob), "six") })
			do(func() { a.reads(b.send("seven", alice), "seven") })
			if step != 14 {
				t.Fatalf("%d steps", step)
			}
		}
	})
}
