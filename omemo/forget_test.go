package omemo_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"example.org/omellium/omemo"
)

func TestForgetRemovesAnAccount(t *testing.T) {
	versions(t, func(t *testing.T, v omemo.Version) {
		ctx := t.Context()
		a, b := pair(t, v)
		c := a.join(carol, omemo.Options{})
		a.lists(carol, v)
		c.reads(a.send("to carol", carol), "to carol")
		first := b.send("one", alice)
		a.reads(first, "one")
		b.reads(a.send("two", bob), "two")
		a.ok(a.m.SetTrust(ctx, bob, b.fingerprint(), omemo.Verified))
		if _, err := a.m.Keep(ctx, b.address(), "test", []byte("kept")); err != nil {
			t.Fatal(err)
		}
		a.ok(a.m.Forget(ctx, bob))
		if err := a.m.Forget(ctx, alice); err == nil {
			t.Error("our own account was forgotten")
		}
		a.restart()
		inbox, _ := a.m.Inbox(ctx, 0, 10)
		for line := range strings.SplitSeq(a.store.rows(), "\n") {
			if strings.Contains(line, bob) && !strings.HasPrefix(line, "ended") {
				t.Errorf("still there: %.60s", line)
			}
		}
		if contact, devices, err := a.m.Account(ctx, bob); err != nil || contact.Seen || contact.Written || len(devices) != 0 {
			t.Errorf("%+v, %v, %v", contact, devices, err)
		}
		if len(inbox) != 1 || len(a.sessions(c.peer(v))) != 1 {
			t.Error("what was received, or another account, is gone as well")
		}
		a.refuses(a.find(first), omemo.ErrDuplicate)
		if _, err := a.trySend(both("three"), bob); !errors.Is(err, omemo.ErrNoDevices) {
			t.Error(err)
		}
		a.lists(bob, v)
		b.reads(a.send("four", bob), "four")
	})
}

func TestForgetSessions(t *testing.T) {
	versions(t, func(t *testing.T, v omemo.Version) {
		a, b := pair(t, v)
		b.reads(a.send("one", bob), "one")
		a.reads(b.send("two", alice), "two")
		late := b.send("late", alice)
		a.ok(a.m.ForgetSessions(t.Context(), b.peer(v)))
		a.restart()
		a.refuses(a.find(late), omemo.ErrNoSession)
		sealed := a.send("three", bob)
		if !sealed.Devices[0].Exchange {
			t.Error("no new session")
		}
		b.reads(sealed, "three")
	})
}

func TestResetLeavesNothing(t *testing.T) {
	ctx := t.Context()
	w := newWorld(t)
	a, b := w.join(alice, omemo.Options{}), w.join(bob, omemo.Options{})
	w.meet(omemo.Versions()...)
	late := a.send("late", bob)
	b.reads(a.send("one", bob), "one")
	a.reads(b.send("two", alice), "two")
	b.reads(a.send("three", bob), "three")
	b.ok(b.m.SetTrust(ctx, alice, a.fingerprint(), omemo.Verified))
	_, err := b.m.Keep(ctx, a.address(), "test", []byte("kept"))
	b.ok(err)
	old, device, keys := b.fingerprint(), b.device, b.bundle(omemo.V2)
	b.ok(b.m.Reset(ctx))
	for _, when := range []string{"at once", "after a restart"} {
		for line := range strings.SplitSeq(b.store.rows(), "\n") {
			if strings.Contains(line, "example.org") && !strings.HasPrefix(line, "owed") {
				t.Errorf("%s: still there: %.60s", when, line)
			}
		}
		if b.fingerprint() == old || b.device != device && when == "at once" {
			t.Errorf("%s: the same device", when)
		}
		if len(b.owed(omemo.OwedBundle)) != 2 || b.bundle(omemo.V2).SameKeys(keys) || len(b.bundle(omemo.V2).PreKeys) != omemo.PreKeyCount {
			t.Errorf("%s: the old bundle", when)
		}
		b.restart()
	}
	if b.device == device {
		t.Error("the same device id")
	}
	stale := a.formerly(late, device)
	b.refuses(stale, nil)
	w.meet(omemo.Versions()...)
	b.reads(a.send("four", bob), "four")
}

// formerly returns the message with the key for a device that is no more.
func (p *party) formerly(sealed *omemo.Sealed, device omemo.DeviceID) *omemo.Message {
	p.Helper()
	for _, message := range sealed.Messages {
		for _, k := range message.Keys {
			if k.Device == device {
				mine := *message
				mine.Keys = []omemo.Key{k}
				return &mine
			}
		}
	}
	p.Fatalf("no key for device %d", device)
	return nil
}

func TestTheJournalHasLimits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		a := newWorld(t).join(alice, omemo.Options{})
		keep := func(from omemo.Address, stanza string, want bool) {
			t.Helper()
			if kept, err := a.m.Keep(ctx, from, "no session", []byte(stanza)); err != nil || kept != want {
				t.Fatalf("kept %t, %v, want %t", kept, err, want)
			}
		}
		from := omemo.Address{JID: bob, Device: 1}
		for i := range omemo.JournalPerDevice {
			keep(from, fmt.Sprint(i), true)
		}
		keep(from, "too many of a device", false)
		other := omemo.Address{JID: bob, Device: 2}
		keep(other, strings.Repeat("x", omemo.JournalBytes+1), false)
		keep(other, "other", true)
		rows, err := a.m.Kept(ctx, from)
		a.ok(err)
		if len(rows) != omemo.JournalPerDevice || string(rows[7].Stanza) != "7" || rows[7].Reason != "no session" {
			t.Errorf("%d rows", len(rows))
		}
		time.Sleep(omemo.JournalAge + time.Second)
		keep(from, "a week later", true)
		rows, err = a.m.Kept(ctx, omemo.Address{})
		a.ok(err)
		if len(rows) != 1 || string(rows[0].Stanza) != "a week later" {
			t.Errorf("%d rows", len(rows))
		}
		// Half of it is for those that we have written to.
		written := func(jid string) {
			t.Helper()
			a.ok(a.store.Commit(ctx, &omemo.Changes{Contacts: []omemo.Contact{{JID: jid, Written: true}}}))
			a.restart()
		}
		fill := func(jid string, devices int) {
			t.Helper()
			for d := range omemo.DeviceID(devices) {
				for i := range omemo.JournalPerDevice {
					keep(omemo.Address{JID: jid, Device: d + 1}, fmt.Sprint(i), true)
				}
			}
		}
		const half = omemo.JournalRows / omemo.JournalPerDevice / 2
		for i := range omemo.JournalPerDevice - 1 {
			keep(from, fmt.Sprint(i), true)
		}
		fill(carol, half-1)
		keep(omemo.Address{JID: carol, Device: 1000}, "too many of strangers", false)
		written(carol)
		for d := range omemo.DeviceID(half) {
			for i := range omemo.JournalPerDevice {
				keep(omemo.Address{JID: carol, Device: 100 + d}, fmt.Sprint(i), true)
			}
		}
		keep(omemo.Address{JID: carol, Device: 1000}, "too many", false)
		time.Sleep(omemo.JournalAge + time.Second)
		large := strings.Repeat("x", omemo.JournalBytes)
		for i := range omemo.JournalTotal / omemo.JournalBytes / 2 {
			keep(omemo.Address{JID: bob, Device: omemo.DeviceID(i + 1)}, large, true)
		}
		keep(omemo.Address{JID: bob, Device: 1000}, "x", false)
		for i := range omemo.JournalTotal / omemo.JournalBytes / 2 {
			keep(omemo.Address{JID: carol, Device: omemo.DeviceID(i + 1)}, large, true)
		}
		keep(omemo.Address{JID: carol, Device: 1000}, "x", false)
	})
}

func TestAJournalledMessageLeavesTheJournalWithItsCommit(t *testing.T) {
	versions(t, func(t *testing.T, v omemo.Version) {
		ctx := t.Context()
		a, b := pair(t, v)
		message := b.find(a.send("one", bob))
		_, err := b.m.Keep(ctx, a.address(), "waits", []byte("stanza"))
		b.ok(err)
		rows, err := b.m.Kept(ctx, a.address())
		b.ok(err)
		message.Journal = rows[0].ID
		if _, err := b.m.Decrypt(ctx, message, func(*omemo.Opened) (omemo.Delivery, error) { return omemo.Delivery{}, errHook }); !errors.Is(err, errHook) {
			t.Fatal(err)
		}
		if rows, _ := b.m.Kept(ctx, a.address()); len(rows) != 1 {
			t.Fatal("a message that failed has left the journal")
		}
		_, err = b.receive(message)
		b.ok(err)
		if rows, _ := b.m.Kept(ctx, a.address()); len(rows) != 0 {
			t.Error("still in the journal")
		}
	})
}

// stranger has a device of a new account send its first message to p.
func (p *party) stranger(n int, v omemo.Version) (*omemo.Opened, error) {
	p.Helper()
	w := newWorld(p.tb)
	s := w.join(fmt.Sprintf("stranger%d@example.org", n), omemo.Options{})
	s.ok(s.m.SetList(p.ctx, p.jid, v, []omemo.DeviceID{p.device}))
	sealed, err := s.m.Encrypt(p.ctx, both("hello"), []string{p.jid}, stanzas("id", p.jid), p.small(v))
	s.ok(err)
	return p.receive(p.find(sealed))
}

func TestAFloodOfStrangersIsRefused(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, friend := w.join(alice, omemo.Options{}), w.join(bob, omemo.Options{})
		w.meet(omemo.V2)
		friend.reads(a.send("hello", bob), "hello")
		admitted := 0
		for n := range 70 {
			before := a.store.dump()
			_, err := a.stranger(n, omemo.V2)
			switch {
			case err == nil:
				admitted++
			case !errors.Is(err, omemo.ErrFlood):
				t.Fatal(err)
			case a.store.dump() != before:
				t.Fatal("a stranger who was refused has changed the store")
			}
		}
		if admitted != 60 {
			t.Errorf("%d strangers in a minute", admitted)
		}
		a.reads(friend.send("hello", alice), "hello") // whom we have written to is none
		time.Sleep(time.Minute)
		if _, err := a.stranger(100, omemo.V2); err != nil {
			t.Errorf("a minute later: %v", err)
		}
		a.ok(a.m.CatchUp(t.Context(), true))
		for n := range 70 {
			if _, err := a.stranger(200+n, omemo.V2); err != nil {
				t.Fatalf("from the archive: %v", err)
			}
		}
	})
}

func TestStrangersAreForgottenSilentOnesFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		a := newWorld(t).join(alice, omemo.Options{})
		list := func(jid string) {
			t.Helper()
			a.ok(a.m.SetList(ctx, jid, omemo.V2, []omemo.DeviceID{1}))
		}
		seen := func(jid string) bool {
			contact, err := a.m.Contact(ctx, jid)
			a.ok(err)
			return contact.Seen
		}
		known := func(n int) string { return fmt.Sprintf("n%d@example.org", n) }
		if _, err := a.stranger(1, omemo.V2); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour)
		list("trusted@example.org")
		a.ok(a.m.SetTrust(ctx, "trusted@example.org", omemo.Fingerprint{7}, omemo.Verified))
		for n := range omemo.MaxStrangers - 1 {
			list(known(n))
		}
		if !seen("stranger1@example.org") {
			t.Fatal("forgotten early")
		}
		time.Sleep(time.Hour)
		list("one.more@example.org")
		if seen("stranger1@example.org") || !seen("trusted@example.org") || !seen(known(0)) {
			t.Error("the wrong one was forgotten")
		}
		a.restart()
		list("another@example.org")
		gone := 0
		for n := range omemo.MaxStrangers - 1 {
			if !seen(known(n)) {
				gone++
			}
		}
		if gone != 1 || !seen("trusted@example.org") {
			t.Errorf("after a restart, %d are gone", gone)
		}
	})
}

func TestDevicesOfAnAccountAreLimited(t *testing.T) {
	ctx := t.Context()
	a, b := pair(t, omemo.V2)
	b.reads(a.send("one", bob), "one")
	var ids []omemo.DeviceID
	for id := range omemo.DeviceID(511) {
		ids = append(ids, id+1)
	}
	a.ok(a.m.SetList(ctx, bob, omemo.V2, ids))
	count := func() int {
		_, devices, err := a.m.Account(ctx, bob)
		a.ok(err)
		return len(devices)
	}
	if count() != 512 {
		t.Fatalf("%d devices", count())
	}
	a.ok(a.m.SetList(ctx, bob, omemo.V2, append(ids, 1000, 1001)))
	if count() != 512 {
		t.Fatalf("%d devices", count())
	}
	// A key exchange of one more is refused, and changes nothing.
	other := newWorld(t).join(bob, omemo.Options{})
	other.ok(other.m.SetList(ctx, alice, omemo.V2, []omemo.DeviceID{a.device}))
	sealed, err := other.m.Encrypt(ctx, both("two"), []string{alice}, stanzas("id", alice), a.small(omemo.V2))
	a.ok(err)
	a.refuses(a.find(sealed), omemo.ErrFlood)
	// Numbers that have left the list make room.
	a.ok(a.m.SetList(ctx, bob, omemo.V2, ids[:10]))
	if _, err := a.receive(a.find(sealed)); err != nil {
		t.Error(err)
	}
	if count() != 512 || a.knows(b) != b.fingerprint() {
		t.Errorf("%d devices", count())
	}
}

// TestAKeyOfAnotherAccount has somebody present a key that is not his.
func TestAKeyOfAnotherAccount(t *testing.T) {
	versions(t, func(t *testing.T, v omemo.Version) {
		ctx := t.Context()
		a, b := pair(t, v)
		b.reads(a.send("one", bob), "one")
		a.restart()
		borrowed := b.small(v)
		borrowed.Owner = omemo.Address{JID: carol, Device: 3}
		a.ok(a.m.SetList(ctx, carol, v, []omemo.DeviceID{3}))
		events, err := a.m.Compare(ctx, borrowed)
		a.ok(err)
		if !hasEvent(events, omemo.IdentityShared) {
			t.Errorf("events %v", events)
		}
		if trust, err := a.m.TrustOf(ctx, borrowed.Owner, b.fingerprint()); err != nil || trust.Sendable() {
			t.Errorf("trust %v, %v", trust, err)
		}
		sealed, err := a.m.Encrypt(ctx, both("two"), []string{carol}, stanzas("id", carol), borrowed)
		sealedNothing(t, sealed, err, omemo.ErrUntrusted)
		a.trusts(b, omemo.TrustedBlindly)
		b.reads(a.send("three", bob), "three")
		own := a.small(v)
		own.Owner = omemo.Address{JID: carol, Device: 4}
		if events, err := a.m.Compare(ctx, own); err != nil || !hasEvent(events, omemo.IdentityShared) {
			t.Errorf("our own key: events %v, %v", events, err)
		}
	})
}

// TestAKeyOfAnotherAccountIsAccepted: in place of another, too, it is nothing that
// may be trusted blindly.
func TestAKeyOfAnotherAccountIsAccepted(t *testing.T) {
	versions(t, func(t *testing.T, v omemo.Version) {
		ctx := t.Context()
		a, b := pair(t, v)
		b.reads(a.send("one", bob), "one")
		at := omemo.Peer{Version: v, Address: omemo.Address{JID: carol, Device: 3}}
		first, borrowed := newWorld(t).join(carol, omemo.Options{}).small(v), b.small(v)
		first.Owner, borrowed.Owner = at.Address, at.Address
		a.ok(a.m.SetList(ctx, carol, v, []omemo.DeviceID{3}))
		_, err := a.m.Compare(ctx, first)
		a.ok(err)
		_, err = a.m.Compare(ctx, borrowed)
		a.ok(err)
		a.ok(a.m.AcceptIdentity(ctx, at, b.fingerprint()))
		a.restart()
		if trust, err := a.m.TrustOf(ctx, at.Address, b.fingerprint()); err != nil || trust != omemo.Undecided {
			t.Errorf("trust %v, %v", trust, err)
		}
		sealed, err := a.m.Encrypt(ctx, both("two"), []string{carol}, stanzas("id", carol), borrowed)
		sealedNothing(t, sealed, err, omemo.ErrUntrusted)
		a.trusts(b, omemo.TrustedBlindly)
	})
}

func TestHeard(t *testing.T) {
	ctx := t.Context()
	a := newWorld(t).join(alice, omemo.Options{})
	for range 2 {
		a.ok(a.m.Heard(ctx, bob))
	}
	commits := a.store.commits
	a.ok(a.m.Heard(ctx, bob))
	contact, err := a.m.Contact(ctx, bob)
	a.ok(err)
	if !contact.Seen || a.store.commits != commits {
		t.Errorf("%+v, %d commits", contact, a.store.commits-commits)
	}
	a.store.failAt(0)
	if err := a.m.Heard(ctx, carol); !errors.Is(err, errStore) {
		t.Error(err)
	}
}
