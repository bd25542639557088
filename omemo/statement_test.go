package omemo_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"example.org/omellium/omemo"
)

// said is a trust message as the tests write it.
type said struct {
	Statements []omemo.Statement
	Stated     time.Time
}

// hear is a Verify that reads a trust message.
func hear(o *omemo.Opened) (omemo.Delivery, error) {
	var s said
	err := json.Unmarshal(o.Plaintext, &s)
	return omemo.Delivery{Statements: s.Statements, Stated: s.Stated}, err
}

// about returns a statement about the key of a device.
func about(p *party, trusted bool) omemo.Statement {
	p.Helper()
	return omemo.Statement{Owner: p.jid, KeyID: p.small(omemo.V2).IdentityKey, Trusted: trusted}
}

// says sends a trust message to one device, which reads it.
func (p *party) says(to *party, at time.Time, statements ...omemo.Statement) *omemo.Opened {
	p.Helper()
	text, err := json.Marshal(said{statements, at})
	p.ok(err)
	sealed, err := p.trySend(omemo.Plaintext{V2: text}, to.jid)
	p.ok(err)
	o, err := to.m.Decrypt(p.ctx, to.find(sealed), hear)
	p.ok(err)
	return o
}

func (p *party) waiting() []omemo.StatementRow {
	p.Helper()
	rows, err := p.store.Statements(p.ctx)
	p.ok(err)
	return rows
}

// TestReceivingStatements is XEP-0450, section 4, "Receiving", for every sender
// and every key: what is done at once if the sender's key is verified, and as soon
// as it is if not.
func TestReceivingStatements(t *testing.T) {
	// Us, two more of our devices, two of a contact, one of another contact.
	cast := func(t *testing.T) map[string]*party {
		w := newWorld(t)
		all := map[string]*party{"us": w.join(alice, omemo.Options{Policy: omemo.Manual})}
		for name, jid := range map[string]string{"own": alice, "own key": alice, "contact": bob, "contact's key": bob, "another": carol} {
			all[name] = w.join(jid, omemo.Options{})
		}
		w.meet(omemo.V2)
		return all
	}
	for _, row := range []struct {
		from, key string
		done      bool
		section   string
	}{
		{"own", "contact's key", true, "4.1.2.1 and 4.4.2.2: a contact's key, from an own endpoint"},
		{"contact", "contact's key", true, "4.1.2.2 and 4.4.2.1: a contact's key, from another endpoint of that contact"},
		{"own", "own key", true, "4.2.2 and 4.3.2: an own key, from an own endpoint"},
		{"contact", "own key", false, "an own key, from a contact"},
		{"contact", "another", false, "a contact's key, from another contact"},
		{"own", "us", false, "our own key"},
		{"contact", "contact", true, "the endpoint's own key"},
	} {
		for _, trusted := range []bool{true, false} {
			for _, state := range []omemo.Trust{ve, un, bl, di} {
				t.Run(fmt.Sprintf("%s/trusted=%t/sender %v", row.section, trusted, state), func(t *testing.T) {
					all := cast(t)
					us, from, key := all["us"], all[row.from], all[row.key]
					before, err := us.m.TrustOf(us.ctx, key.address(), key.fingerprint())
					us.ok(err)
					us.ok(us.m.SetTrust(us.ctx, from.jid, from.fingerprint(), state))
					if from == key {
						before = state
					}
					o := from.says(us, time.Now().Add(time.Second), about(key, trusted))
					want := di
					if trusted {
						want = ve
					}
					if !row.done {
						want = before
					}
					if state == ve {
						us.trusts(key, want)
						checkKinds(t, o.Events, row.done && want != before, trusted)
					} else {
						us.trusts(key, before)
						checkKinds(t, o.Events, false, trusted)
					}
					us.restart()
					waits := (row.done || row.key == "us") && (state == un || state == bl)
					if n := len(us.waiting()); waits != (n == 1) || n > 1 {
						t.Errorf("%d statements wait", n)
					}
					us.ok(us.m.SetTrust(us.ctx, from.jid, from.fingerprint(), omemo.Verified))
					switch {
					case from == key && !trusted && state == ve:
						// A person has verified it once more, later.
						want = ve
					case state == di && from == key:
						want = ve
					case state == di:
						want = before // what a distrusted device says is lost
					}
					us.trusts(key, want)
					if n := len(us.waiting()); n != 0 {
						t.Errorf("%d statements wait", n)
					}
				})
			}
		}
	}
}

func checkKinds(t *testing.T, events []omemo.Event, want, trusted bool) {
	t.Helper()
	if got := hasEvent(events, omemo.KeyVerified); got != (want && trusted) {
		t.Errorf("told that a key is verified: %t", got)
	}
	if got := hasEvent(events, omemo.KeyDistrusted); got != (want && !trusted) {
		t.Errorf("told that a key is distrusted: %t", got)
	}
}

// TestStatementsInWhateverOrder: the newest counts, and within a second the one
// that distrusts.
func TestStatementsInWhateverOrder(t *testing.T) {
	type step struct {
		at      int // seconds from now; 0: a person, here
		trusted bool
	}
	for name, row := range map[string]struct {
		steps []step
		want  omemo.Trust
	}{
		"in order":                            {[]step{{-20, true}, {-10, false}}, di},
		"in order, the other way":             {[]step{{-20, false}, {-10, true}}, ve},
		"the older comes late":                {[]step{{-10, true}, {-20, false}}, ve},
		"the older comes late, other way":     {[]step{{-10, false}, {-20, true}}, di},
		"the same again, then one between":    {[]step{{-30, true}, {-10, true}, {-20, false}}, ve},
		"an older one does not put it back":   {[]step{{-10, true}, {-30, true}, {-20, false}}, ve},
		"within one second":                   {[]step{{-10, true}, {-10, false}}, di},
		"within one second, the other way":    {[]step{{-10, false}, {-10, true}}, di},
		"older than a person's decision":      {[]step{{0, false}, {-10, true}}, di},
		"newer than a person's decision":      {[]step{{0, false}, {10, true}}, di}, // the future does not count
		"a person after what came before":     {[]step{{-10, true}, {0, false}}, di},
		"from far ahead, then now":            {[]step{{1 << 30, true}, {0, false}}, di},
		"from far ahead, then a newer device": {[]step{{1 << 30, true}, {1 << 30, false}}, di},
	} {
		for _, waits := range []bool{false, true} {
			synctested(t, fmt.Sprintf("%s/waits=%t", name, waits), func(t *testing.T) {
				w := newWorld(t)
				us, own, key := w.join(alice, omemo.Options{}), w.join(alice, omemo.Options{}), w.join(bob, omemo.Options{})
				w.meet(omemo.V2)
				if !waits {
					us.ok(us.m.SetTrust(us.ctx, own.jid, own.fingerprint(), omemo.Verified))
				}
				now := time.Now().Truncate(time.Second)
				for _, s := range row.steps {
					if s.at != 0 {
						own.says(us, now.Add(time.Duration(s.at)*time.Second), about(key, s.trusted))
						continue
					}
					trust := di
					if s.trusted {
						trust = ve
					}
					us.ok(us.m.SetTrust(us.ctx, key.jid, key.fingerprint(), trust))
				}
				us.ok(us.m.SetTrust(us.ctx, own.jid, own.fingerprint(), omemo.Verified))
				us.trusts(key, row.want)
			})
		}
	}
}

// synctested is t.Run on a clock that stands still.
func synctested(t *testing.T, name string, test func(t *testing.T)) {
	t.Run(name, func(t *testing.T) { synctest.Test(t, test) })
}

// TestVerifiedOnesReleaseWhatTheirsHaveSaid: one decision carries along a chain,
// each link of which has waited for the one before.
func TestVerifiedOnesReleaseWhatTheirsHaveSaid(t *testing.T) {
	w := newWorld(t)
	us := w.join(alice, omemo.Options{Policy: omemo.Manual})
	var chain []*party
	for range 4 {
		chain = append(chain, w.join(bob, omemo.Options{}))
	}
	w.meet(omemo.V2)
	for i, p := range chain[:3] {
		p.says(us, time.Now(), about(chain[i+1], true), about(chain[0], true)) // and in a circle
	}
	us.restart()
	us.trusts(chain[3], un)
	us.ok(us.m.SetTrust(us.ctx, bob, chain[0].fingerprint(), omemo.Verified))
	us.restart()
	for _, p := range chain {
		us.trusts(p, ve)
	}
	rows, err := us.store.Accounts(us.ctx, bob)
	us.ok(err)
	for _, r := range rows.Trust {
		i := slices.IndexFunc(chain, func(p *party) bool { return p.fingerprint() == r.Fingerprint })
		if i > 0 && r.By != chain[i-1].fingerprint() || i == 0 && r.By != (omemo.Fingerprint{}) {
			t.Errorf("key %d is verified by %v", i, r.By)
		}
	}
	if n := len(us.waiting()); n != 0 {
		t.Errorf("%d statements wait", n)
	}
}

func TestKeysThatWereNotSeenYet(t *testing.T) {
	w := newWorld(t)
	us, own := w.join(alice, omemo.Options{Policy: omemo.Manual}), w.join(alice, omemo.Options{})
	w.meet(omemo.V2)
	good, bad := w.join(bob, omemo.Options{}), w.join(bob, omemo.Options{})
	us.ok(us.m.SetTrust(us.ctx, alice, own.fingerprint(), omemo.Verified))
	own.says(us, time.Now(), about(good, true), about(bad, false))
	us.restart()
	w.meet(omemo.V2)
	us.served(map[*party]error{own: nil, good: nil, bad: omemo.ErrUntrusted}, bob)
}

// TestAnothersKeyAsOnesOwn: a verified contact says that the key of another
// account is his, before and after that key was seen.
func TestAnothersKeyAsOnesOwn(t *testing.T) {
	w := newWorld(t)
	us, b, c := w.join(alice, omemo.Options{}), w.join(bob, omemo.Options{}), w.join(carol, omemo.Options{})
	w.meet(omemo.V2)
	us.ok(us.m.SetTrust(us.ctx, bob, b.fingerprint(), omemo.Verified))
	stolen := about(c, true)
	stolen.Owner = bob
	at := func(jid string) omemo.Trust {
		trust, err := us.m.TrustOf(us.ctx, omemo.Address{JID: jid, Device: 9}, c.fingerprint())
		us.ok(err)
		return trust
	}
	us.reads(c.send("hello", alice), "hello") // its owner has shown it first
	b.says(us, time.Now(), stolen)
	if at(bob) != un {
		t.Errorf("%v for an account that it does not belong to", at(bob))
	}
	// Nobody has shown it: it is believed, until its owner does.
	d := w.join("dave@example.org", omemo.Options{})
	w.meet(omemo.V2)
	stolen = about(d, true)
	stolen.Owner = bob
	b.says(us, time.Now(), stolen)
	us.reads(d.send("hello", alice), "hello")
	bundle := d.small(omemo.V2)
	bundle.Owner = omemo.Address{JID: bob, Device: 77}
	events, err := us.m.Compare(us.ctx, bundle)
	us.ok(err)
	if !hasEvent(events, omemo.IdentityShared) {
		t.Errorf("events %v", events)
	}
	us.trusts(d, bl)
	if trust, err := us.m.TrustOf(us.ctx, bundle.Owner, d.fingerprint()); err != nil || trust != un {
		t.Errorf("%v, %v: another's key is trusted for %s", trust, err, bob)
	}
}

// TestStatementsAreBounded: whoever is not verified can have little remembered, and
// not at the expense of others.
func TestStatementsAreBounded(t *testing.T) {
	random := func(owner string, n int) (all []omemo.Statement) {
		w := newWorld(t)
		for range n {
			s := about(w.join("x@example.org", omemo.Options{}), true)
			s.Owner = owner
			all = append(all, s)
		}
		return all
	}
	w := newWorld(t)
	us := w.join(alice, omemo.Options{})
	modest, loud := w.join(bob, omemo.Options{}), w.join(bob, omemo.Options{})
	w.meet(omemo.V2)
	honest := random(bob, 3)
	modest.says(us, time.Now().Add(-time.Hour), honest...)
	for range 3 {
		loud.says(us, time.Now(), random(bob, 40)...)
	}
	of := make(map[omemo.Fingerprint]int)
	for _, row := range us.waiting() {
		of[row.Fingerprint]++
	}
	if of[modest.fingerprint()] != len(honest) || of[loud.fingerprint()] != 64-len(honest) {
		t.Errorf("waiting: %d of the modest, %d of the loud device", of[modest.fingerprint()], of[loud.fingerprint()])
	}
	// Broken keys are no keys.
	before := len(us.waiting())
	modest.says(us, time.Now(), omemo.Statement{Owner: bob}, omemo.Statement{Owner: bob, KeyID: [32]byte{1}}, omemo.Statement{Owner: bob, KeyID: [32]byte{31: 0xff}})
	if n := len(us.waiting()); n != before {
		t.Errorf("%d statements wait, before there were %d", n, before)
	}
	// What is forgotten takes its statements along.
	us.ok(us.m.Forget(us.ctx, bob))
	if n := len(us.waiting()); n != 0 {
		t.Errorf("%d statements of a forgotten contact", n)
	}
}

// TestStatementsOfOnePage: what one message of a page has said is known to the
// next, before anything is committed.
func TestStatementsOfOnePage(t *testing.T) {
	w := newWorld(t)
	us, own, key := w.join(alice, omemo.Options{}), w.join(alice, omemo.Options{}), w.join(bob, omemo.Options{})
	w.meet(omemo.V2)
	var items []omemo.PageItem
	now := time.Now()
	for i, s := range []said{
		{[]omemo.Statement{about(key, false)}, now.Add(-10 * time.Second)},
		{[]omemo.Statement{about(key, true)}, now.Add(-20 * time.Second)},
	} {
		text, err := json.Marshal(s)
		own.ok(err)
		sealed, err := own.trySend(omemo.Plaintext{V2: text}, alice)
		own.ok(err)
		items = append(items, omemo.PageItem{Message: us.find(sealed), Verify: hear, Cursor: omemo.Cursor{Archive: alice, Position: fmt.Sprint(i)}})
	}
	results, err := us.m.DecryptPage(us.ctx, items)
	us.ok(err)
	for _, r := range results {
		us.ok(r.Err)
	}
	if rows := us.waiting(); len(rows) != 1 || rows[0].Trusted {
		t.Errorf("waiting: %+v", rows)
	}
	us.ok(us.m.SetTrust(us.ctx, alice, own.fingerprint(), omemo.Verified))
	us.trusts(key, di)
}
