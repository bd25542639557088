package omemo_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"example.org/omellium/omemo"
)

const day = 24 * time.Hour

func TestSignedPreKeyPeriodIsOneToFourWeeks(t *testing.T) {
	for _, c := range []struct {
		period time.Duration
		ok     bool
	}{{0, true}, {7 * day, true}, {28 * day, true}, {7*day - 1, false}, {28*day + 1, false}, {-day, false}} {
		w := newWorld(t)
		p := w.join(alice, omemo.Options{})
		_, err := omemo.NewManager(t.Context(), p.store, omemo.Options{SignedPreKeyPeriod: c.period})
		if (err == nil) != c.ok {
			t.Errorf("%v: %v", c.period, err)
		}
	}
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		p := w.join(alice, omemo.Options{SignedPreKeyPeriod: 28 * day})
		before := p.bundle(omemo.V2).SignedPreKeyID
		for _, c := range []struct {
			after   time.Duration
			rotated uint32
		}{{28*day - time.Second, 0}, {time.Second, 1}, {27 * day, 1}, {day, 2}} {
			time.Sleep(c.after)
			_, err := p.m.Upkeep(t.Context())
			p.ok(err)
			if id := p.bundle(omemo.V2).SignedPreKeyID; id != before+c.rotated {
				t.Errorf("after %v more: id %d, was %d", c.after, id, before)
			}
		}
	})
}

// A label that a device has signed itself may still try to deceive.
func TestLabelIsMadeSafeToShow(t *testing.T) {
	w := newWorld(t)
	a, b := w.join(alice, omemo.Options{}), w.join(bob, omemo.Options{})
	_, err := a.m.Compare(t.Context(), b.bundle(omemo.V2))
	a.ok(err)
	for text, want := range map[string]string{
		"a\u202eb":                "ab",
		"a\u200bb\u2066c":         "abc",
		"two\nlines\r\tand\u2028": "two lines and",
		"  wide   space  ":        "wide space",
		"\x1b[31mred":             "[31mred",
		"日本 é 🌹":                  "日本 é 🌹",
		strings.Repeat("x", 54):   "",
		"\u202e":                  "",
	} {
		l := b.m.ForgeLabel(text)
		a.ok(a.m.SetList(t.Context(), bob, omemo.V2, []omemo.DeviceID{b.device}, l))
		_, devices, err := a.m.Account(t.Context(), bob)
		a.ok(err)
		if got := devices[0].VerifiedLabel(); got != want {
			t.Errorf("%q is shown as %q, want %q", text, got, want)
		}
	}
}

func TestStaleNeedsBothTimeAndMessages(t *testing.T) {
	for _, c := range []struct {
		name     string
		options  omemo.Options
		messages int
		after    time.Duration
		stale    bool
	}{
		{"long", omemo.Options{}, omemo.StaleMessages - 1, 10 * omemo.DefaultStaleAfter, false},
		{"many", omemo.Options{}, omemo.StaleMessages + 1, omemo.DefaultStaleAfter - time.Second, false},
		{"both", omemo.Options{}, omemo.StaleMessages, omemo.DefaultStaleAfter, true},
		{"never", omemo.Options{StaleAfter: -1}, omemo.StaleMessages, 10 * omemo.DefaultStaleAfter, false},
		{"soon", omemo.Options{StaleAfter: day}, omemo.StaleMessages, day, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				a, silent := w.join(alice, c.options), w.join(bob, omemo.Options{})
				w.meet(omemo.V2)
				for range c.messages {
					a.send("text", bob)
				}
				time.Sleep(c.after)
				w.join(bob, omemo.Options{})
				w.meet(omemo.V2)
				for _, d := range a.send("text", bob).Devices {
					if stale := d.Err == omemo.ErrStale; d.Peer.Address == silent.address() && stale != c.stale {
						t.Errorf("stale: %t", stale)
					}
				}
			})
		})
	}
}

func fingerprintOf(p *party) omemo.Fingerprint {
	p.Helper()
	f, err := p.m.Fingerprint(p.ctx)
	p.ok(err)
	return f
}

func TestForgetAContact(t *testing.T) {
	ctx := t.Context()
	w := newWorld(t)
	a, b, c := w.join(alice, omemo.Options{}), w.join(bob, omemo.Options{}), w.join(carol, omemo.Options{})
	w.meet(omemo.V2, omemo.Legacy)
	old := b.find(a.send("one", bob))
	b.reads(a.send("two", bob), "two")
	first := b.send("three", alice)
	a.reads(first, "three")
	c.reads(a.send("four", carol), "four")
	a.ok(a.m.SetTrust(ctx, bob, fingerprintOf(b), omemo.Verified))
	if err := a.m.Forget(ctx, alice); err == nil {
		t.Error("our own account was forgotten")
	}
	a.ok(a.m.Forget(ctx, bob))
	all, err := a.store.Accounts(ctx, bob)
	a.ok(err)
	if len(all.Contacts)+len(all.Devices)+len(all.Trust) != 0 {
		t.Errorf("left: %+v", all)
	}
	for _, v := range omemo.Versions() {
		if len(a.sessions(b.peer(v))) != 0 {
			t.Errorf("%v: sessions are left", v)
		}
	}
	outbox, err := a.m.Outbox(ctx, 0, 100)
	a.ok(err)
	for _, row := range outbox {
		if row.Chat == bob {
			t.Error("outbox is left")
		}
	}
	a.restart()
	if _, err := a.trySend(both("five"), bob); !errors.Is(err, omemo.ErrNoDevices) {
		t.Errorf("sending to a forgotten contact: %v", err)
	}
	a.refuses(a.find(first), omemo.ErrDuplicate)
	// It begins anew; the other side reads it, and what was under way as well.
	w.meet(omemo.V2, omemo.Legacy)
	b.reads(a.send("six", bob), "six")
	_, err = b.receive(old)
	b.ok(err)
	c.reads(a.send("seven", carol), "seven")
}

func TestReset(t *testing.T) {
	ctx := t.Context()
	w := newWorld(t)
	a, b := w.join(alice, omemo.Options{}), w.join(bob, omemo.Options{})
	w.meet(omemo.V2, omemo.Legacy)
	b.reads(a.send("one", bob), "one")
	late := b.send("two", alice)
	a.reads(b.send("three", alice), "three")
	before, device := fingerprintOf(a), a.device
	gone := b.dumpIDs(a)
	a.ok(a.store.Commit(ctx, &omemo.Changes{Cursors: []omemo.Cursor{{Archive: alice, Position: "1"}, {Archive: "room@example.org", Position: "2"}}}))
	a.ok(a.m.Reset(ctx))
	a.restart()
	if cursors, err := a.store.Cursors(ctx); err != nil || len(cursors) != 0 {
		t.Errorf("left: %v, %v", cursors, err)
	}
	if fingerprintOf(a) == before || a.device == device {
		t.Error("the device is the same")
	}
	if all, err := a.store.Accounts(ctx); err != nil || len(all.Contacts)+len(all.Devices)+len(all.Trust) != 0 {
		t.Errorf("left: %+v, %v", all, err)
	}
	if rows := a.owed(omemo.OwedBundle); len(rows) != 2 {
		t.Errorf("owed: %v", rows)
	}
	for _, v := range omemo.Versions() {
		rows, err := a.store.PreKeys(ctx, v)
		a.ok(err)
		if len(rows) != omemo.PreKeyCount {
			t.Errorf("%v: %d pre keys", v, len(rows))
		}
		for _, row := range rows {
			if gone[row.Private] {
				t.Errorf("%v: pre key %d is an old one", v, row.ID)
			}
		}
		if len(a.sessions(b.peer(v))) != 0 {
			t.Errorf("%v: sessions are left", v)
		}
	}
	if inbox, err := a.m.Inbox(ctx, 0, 10); err != nil || len(inbox) != 0 {
		t.Errorf("inbox: %v, %v", inbox, err)
	}
	for _, message := range late.Messages {
		message.Keys[0].Address = a.address()
		if _, err := a.receive(message); err == nil {
			t.Error("a message for the old device was read")
		}
	}
}

// dumpIDs returns the private pre keys of a.
func (p *party) dumpIDs(a *party) map[[32]byte]bool {
	p.Helper()
	all := make(map[[32]byte]bool)
	for _, v := range omemo.Versions() {
		rows, err := a.store.PreKeys(p.ctx, v)
		p.ok(err)
		for _, row := range rows {
			all[row.Private] = true
		}
	}
	return all
}

func TestForgetAVersion(t *testing.T) {
	ctx := t.Context()
	a, b := pair(t, omemo.V2)
	b.reads(a.send("one", bob), "one")
	a.reads(b.send("two", alice), "two")
	a.ok(a.m.ForgetVersion(ctx, omemo.Legacy))
	b.reads(a.send("three", bob), "three")
	a.ok(a.m.ForgetVersion(ctx, omemo.V2))
	if len(a.sessions(b.peer(omemo.V2))) != 0 {
		t.Error("sessions are left")
	}
	if _, err := a.trySend(both("no version is left"), bob); !errors.Is(err, omemo.ErrVersion) {
		t.Errorf("sent: %v", err)
	}
	a.restart() // it holds as long as the Manager
	b.reads(a.send("four", bob), "four")
}

// TestAYear: one device with 20 contacts, over a year of virtual time.
func TestAYear(t *testing.T) {
	t.Parallel()
	versions(t, func(t *testing.T, v omemo.Version) {
		synctest.Test(t, func(t *testing.T) {
			ctx := t.Context()
			r := rand.New(rand.NewPCG(1, uint64(v)))
			w := newWorld(t)
			hub := w.join(alice, omemo.Options{})
			var contacts []*party
			for i := range 20 {
				contacts = append(contacts, w.join(fmt.Sprintf("contact%d@example.com", i), omemo.Options{}))
			}
			w.meet(v)
			ever := make(map[uint32][32]byte)    // pre keys
			signed := make(map[uint32][32]byte)  // signed pre keys
			heartbeats := make(map[[32]byte]int) // by the ratchet key they answer
			chain := make(map[string][32]byte)   // contact → its ratchet key
			published := hub.bundle(v)
			since, rotations := time.Now(), 0
			publish := func() {
				t.Helper()
				b := hub.bundle(v)
				if len(b.PreKeys) < 25 {
					t.Fatalf("%d pre keys", len(b.PreKeys))
				}
				for _, k := range b.PreKeys {
					if known, ok := ever[k.ID]; ok && known != k.Key {
						t.Fatalf("pre key id %d names two keys", k.ID)
					}
					ever[k.ID] = k.Key
				}
				if known, ok := signed[b.SignedPreKeyID]; ok && known != b.SignedPreKey {
					t.Fatalf("signed pre key id %d names two keys", b.SignedPreKeyID)
				}
				signed[b.SignedPreKeyID] = b.SignedPreKey
				if b.SignedPreKeyID != published.SignedPreKeyID {
					if age := time.Since(since); age < omemo.SignedPreKeyPeriod || age > omemo.SignedPreKeyPeriod+day {
						t.Fatalf("signed pre key rotated at the age of %v", age)
					}
					since = time.Now()
					rotations++
				}
				published = b
				hub.ok(hub.m.Strike(ctx, omemo.OwedID{Kind: omemo.OwedBundle, Peer: omemo.Peer{Version: v}}))
			}
			work := func() {
				t.Helper()
				f, err := hub.m.Upkeep(ctx)
				hub.ok(err)
				for _, row := range f.Owed {
					switch row.Kind {
					case omemo.OwedBundle, omemo.OwedDevices:
						hub.ok(hub.m.Strike(ctx, row.OwedID))
						continue
					case omemo.OwedHeartbeat:
						if heartbeats[chain[row.JID]]++; heartbeats[chain[row.JID]] > 1 {
							t.Fatalf("two heartbeats for one ratchet key of %s", row.JID)
						}
					}
					sealed, err := hub.answer(row)
					if errors.Is(err, omemo.ErrNoSession) {
						continue
					}
					hub.ok(err)
					w.spread(sealed)
				}
				publish()
			}
			send := func(c *party) {
				t.Helper()
				var sealed *omemo.Sealed
				if c.session(hub.peer(v)) == nil {
					publish() // a used pre key is taken out of the bundle at once
					var err error
					sealed, err = c.m.Encrypt(ctx, both("text"), []string{alice}, stanzas("id", alice), published)
					c.ok(err)
				} else {
					sealed = c.send("text", alice)
				}
				key := hub.find(sealed)
				h, err := key.Keys[0].Header(v)
				c.ok(err)
				chain[c.jid] = h.Key
				hub.reads(sealed, "text")
			}
			for d := range 365 {
				for range 1 + r.IntN(3) {
					send(contacts[r.IntN(len(contacts))])
				}
				send(contacts[0]) // one that writes every day
				switch c := contacts[1+r.IntN(len(contacts)-1)]; r.IntN(10) {
				case 0: // it has lost its session, and begins another
					publish()
					sealed, err := c.m.Replace(ctx, published, stanzas("id", alice))
					c.ok(err)
					w.spread(sealed)
				case 1:
					if hub.session(c.peer(v)) != nil {
						c.reads(hub.send("answer", c.jid), "answer")
					}
				case 2:
					hub.restart()
				}
				if d%3 != 0 {
					work()
				}
				time.Sleep(day)
			}
			work()
			if rotations < 365/8-1 || rotations > 365/7 {
				t.Errorf("%d rotations in a year", rotations)
			}
			if len(heartbeats) == 0 {
				t.Error("no heartbeat in a year")
			}
			if n := w.settle(); n > 3*len(contacts) {
				t.Errorf("%d messages until all was quiet", n)
			}
		})
	})
}
