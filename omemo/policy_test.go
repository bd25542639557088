package omemo_test

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"example.org/omellium/omemo"
)

// The words of the tables below.
const (
	un = omemo.Undecided
	bl = omemo.TrustedBlindly
	ve = omemo.Verified
	di = omemo.Distrusted
)

// policyRows say what a key is worth that nobody has decided about: of a contact,
// before and after another key of it was verified; of our own account, likewise.
// never: the key was not used yet. blind: it was trusted blindly before.
var policyRows = []struct {
	name         string
	policy       func(key omemo.Fingerprint) omemo.TrustPolicy
	never, blind [4]omemo.Trust
}{
	{"default", nil, [4]omemo.Trust{bl, un, bl, un}, [4]omemo.Trust{bl, bl, bl, bl}},
	{"blind", always(omemo.Blind), [4]omemo.Trust{bl, bl, bl, bl}, [4]omemo.Trust{bl, bl, bl, bl}},
	{"blind before verification", always(omemo.BlindBeforeVerification), [4]omemo.Trust{bl, un, bl, un}, [4]omemo.Trust{bl, bl, bl, bl}},
	{"TOAKAFA", always(omemo.TOAKAFA), [4]omemo.Trust{bl, un, bl, un}, [4]omemo.Trust{bl, un, bl, un}},
	{"manual", always(omemo.Manual), [4]omemo.Trust{un, un, un, un}, [4]omemo.Trust{bl, bl, bl, bl}},
	{"manual for own", always(omemo.ManualOwn(omemo.Blind)), [4]omemo.Trust{bl, bl, un, un}, [4]omemo.Trust{bl, bl, bl, bl}},
	{"allowed accounts", list(alice, bob), [4]omemo.Trust{bl, bl, bl, bl}, [4]omemo.Trust{bl, bl, bl, bl}},
	{"allowed key", func(key omemo.Fingerprint) omemo.TrustPolicy {
		return omemo.AllowList(map[string][]omemo.Fingerprint{alice: {{1}, key}, bob: {key}})
	}, [4]omemo.Trust{ve, ve, ve, ve}, [4]omemo.Trust{ve, ve, ve, ve}},
	{"another key is allowed", func(omemo.Fingerprint) omemo.TrustPolicy {
		return omemo.AllowList(map[string][]omemo.Fingerprint{alice: {{1}}, bob: {{1}}})
	}, [4]omemo.Trust{di, di, di, di}, [4]omemo.Trust{di, di, di, di}},
	{"not on the list", list(carol), [4]omemo.Trust{di, di, di, di}, [4]omemo.Trust{di, di, di, di}},
	{"custom", always(func(q omemo.TrustQuery) omemo.Trust {
		if q.Own || q.AnyVerified {
			return omemo.Distrusted
		}
		return omemo.Verified
	}), [4]omemo.Trust{ve, di, di, di}, [4]omemo.Trust{ve, di, di, di}},
}

func always(p omemo.TrustPolicy) func(omemo.Fingerprint) omemo.TrustPolicy {
	return func(omemo.Fingerprint) omemo.TrustPolicy { return p }
}

func list(jids ...string) func(omemo.Fingerprint) omemo.TrustPolicy {
	allowed := make(map[string][]omemo.Fingerprint)
	for _, jid := range jids {
		allowed[jid] = nil
	}
	return always(omemo.AllowList(allowed))
}

// TestEveryPolicyInEveryState sends to and receives from one device under every
// policy, in every recorded state, before and after another key of its account
// was verified, in both versions.
func TestEveryPolicyInEveryState(t *testing.T) {
	versions(t, everyPolicyInEveryState)
}

func everyPolicyInEveryState(t *testing.T, v omemo.Version) {
	for _, row := range policyRows {
		for column := range 4 {
			own, after := column >= 2, column%2 == 1
			for recorded, want := range map[string]omemo.Trust{
				"never": row.never[column], "blind": row.blind[column], "undecided": un, "verified": ve, "distrusted": di,
			} {
				t.Run(fmt.Sprintf("%s/own=%t/after=%t/%s", row.name, own, after, recorded), func(t *testing.T) {
					checkPolicy(t, v, row.policy, own, after, recorded, want)
				})
			}
		}
	}
}

func checkPolicy(t *testing.T, v omemo.Version, policy func(omemo.Fingerprint) omemo.TrustPolicy, own, after bool, recorded string, want omemo.Trust) {
	ctx := t.Context()
	w := newWorld(t)
	account := bob
	if own {
		account = alice
	}
	device := w.join(account, omemo.Options{})
	o := omemo.Options{}
	if policy != nil {
		o.Policy = policy(device.fingerprint())
	}
	a := w.join(alice, o)
	w.meet(v)
	states := map[string]omemo.Trust{"blind": bl, "undecided": un, "verified": ve, "distrusted": di}
	if trust, ok := states[recorded]; ok {
		a.ok(a.m.SetTrust(ctx, account, device.fingerprint(), trust))
	}
	if after {
		a.ok(a.m.SetTrust(ctx, account, omemo.Fingerprint{9}, omemo.Verified))
	}
	a.restart()
	a.trusts(device, want)

	// The way out: to the account itself, where the device is the only one.
	served := want == bl || want == ve
	sealed, err := a.trySend(both("out"), account)
	switch {
	case !served && !errors.Is(err, omemo.ErrUntrusted), served && err != nil:
		t.Fatalf("%v is sent to: %v", want, err)
	case served:
		if o := device.reads(sealed, "out"); o.Event == "" {
			t.Error("no event")
		}
	case len(sealed.Messages) != 0 || len(sealed.Devices) != 1 || sealed.Devices[0].Trust != want:
		t.Fatalf("%+v", sealed)
	}
	// The way in: it is read, and marked, whatever the key is worth. What is handed to
	// a program is a matter of its middleware (TestAttack/D14_trust_shown).
	if opened := a.reads(device.send("in", alice), "in"); opened.Trust != want {
		t.Errorf("its message is %v, want %v", opened.Trust, want)
	}
}

func TestWhatIsTakenOffTheListIsNotTrusted(t *testing.T) {
	w := newWorld(t)
	a, b := w.join(alice, omemo.Options{Policy: list(alice, bob)(omemo.Fingerprint{})}), w.join(bob, omemo.Options{})
	w.meet(omemo.V2)
	b.reads(a.send("one", bob), "one")
	a.options.Policy = list(alice, carol)(omemo.Fingerprint{})
	a.restart()
	if _, err := a.trySend(both("two"), bob); !errors.Is(err, omemo.ErrUntrusted) {
		t.Errorf("sent to an account that was taken off: %v", err)
	}
}

// TestTrustMessagesAddNothingToTheList: whoever says so, a key that is not on the
// list is not served, and what its device says about others is not heeded.
func TestTrustMessagesAddNothingToTheList(t *testing.T) {
	w := newWorld(t)
	own, listed, other, third := w.join(alice, omemo.Options{}), w.join(bob, omemo.Options{}), w.join(bob, omemo.Options{}), w.join(bob, omemo.Options{})
	stranger := w.join(carol, omemo.Options{})
	us := w.join(alice, omemo.Options{Policy: omemo.AllowList(map[string][]omemo.Fingerprint{
		alice: {own.fingerprint()}, bob: {listed.fingerprint()},
	})})
	w.meet(omemo.V2)
	other.says(us, time.Now(), about(third, true))
	for _, o := range []*omemo.Opened{
		listed.says(us, time.Now(), about(other, true)),
		own.says(us, time.Now(), about(third, true), about(stranger, true)),
		other.says(us, time.Now(), about(third, true)),
	} {
		checkKinds(t, o.Events, false, true)
	}
	for range 2 {
		for _, p := range []*party{other, third, stranger} {
			us.trusts(p, di)
		}
		us.served(map[*party]error{own: nil, listed: nil, other: omemo.ErrUntrusted, third: omemo.ErrUntrusted}, bob)
		us.served(map[*party]error{own: nil, stranger: omemo.ErrUntrusted}, carol)
		us.restart()
	}
	// What takes trust away is heeded, and a person can decide otherwise.
	own.says(us, time.Now(), about(listed, false))
	us.trusts(listed, di)
	us.ok(us.m.SetTrust(us.ctx, bob, other.fingerprint(), omemo.Verified))
	us.trusts(other, ve)
	us.trusts(third, di)
}

// TestWhatIsTakenOffTheListIsNotTrustedWhoeverSaysSo: a trust message has verified
// it while any key of its account would do.
func TestWhatIsTakenOffTheListIsNotTrustedWhoeverSaysSo(t *testing.T) {
	w := newWorld(t)
	own, fresh := w.join(alice, omemo.Options{}), w.join(alice, omemo.Options{})
	listed, other := w.join(bob, omemo.Options{}), w.join(bob, omemo.Options{})
	us := w.join(alice, omemo.Options{Policy: omemo.AllowList(map[string][]omemo.Fingerprint{alice: nil, bob: nil})})
	w.meet(omemo.V2)
	for _, p := range []*party{own, listed} {
		us.ok(us.m.SetTrust(us.ctx, p.jid, p.fingerprint(), omemo.Verified))
	}
	o := listed.says(us, time.Now(), about(other, true))
	checkKinds(t, o.Events, true, true)
	us.trusts(other, ve)
	us.options.Policy = omemo.AllowList(map[string][]omemo.Fingerprint{alice: nil, bob: {listed.fingerprint()}})
	us.restart()
	us.trusts(other, di)
	us.served(map[*party]error{own: nil, fresh: nil, listed: nil, other: omemo.ErrUntrusted}, bob)
	// Nor is another told that it is trusted.
	sent, _, err := announce(
		map[string]*party{"A1": us, "A2": own, "A3": fresh, "B1": listed, "B2": other},
		omemo.Decision{JID: alice, Fingerprint: fresh.fingerprint(), Trust: omemo.Verified},
	)
	us.ok(err)
	i := slices.IndexFunc(sent, func(a announcement) bool { return slices.Equal(a.devices, []string{"A3"}) })
	if i < 0 || !slices.Equal(sent[i].statements, []string{"+A2", "+B1"}) {
		t.Errorf("sent: %v", sent)
	}
}

// TestPoliciesThatLookAtOtherKeys: a policy that distrusts what comes after the first
// verified key does not undo what a trust message says about it.
func TestPoliciesThatLookAtOtherKeys(t *testing.T) {
	w := newWorld(t)
	first, second := w.join(bob, omemo.Options{}), w.join(bob, omemo.Options{})
	us := w.join(alice, omemo.Options{Policy: func(q omemo.TrustQuery) omemo.Trust {
		if q.AnyVerified {
			return omemo.Distrusted
		}
		return omemo.Undecided
	}})
	w.meet(omemo.V2)
	us.ok(us.m.SetTrust(us.ctx, bob, first.fingerprint(), omemo.Verified))
	us.trusts(second, di)
	first.says(us, time.Now(), about(second, true))
	us.trusts(second, ve)
}

func TestDecisionsAreTakenTogetherOrNotAtAll(t *testing.T) {
	w := newWorld(t)
	a, b := w.join(alice, omemo.Options{}), w.join(bob, omemo.Options{})
	before := a.store.dump()
	good := omemo.Decision{JID: bob, Fingerprint: b.fingerprint(), Trust: omemo.Verified}
	for _, bad := range []omemo.Decision{{}, {JID: bob}, {Fingerprint: omemo.Fingerprint{1}}, {JID: bob, Fingerprint: omemo.Fingerprint{1}, Trust: 9}, {JID: bob, Fingerprint: omemo.Fingerprint{1}, Trust: -1}} {
		if err := a.m.Decide(t.Context(), good, bad); err == nil || a.store.dump() != before {
			t.Errorf("%+v: %v", bad, err)
		}
	}
	a.ok(a.m.Decide(t.Context(), good, omemo.Decision{JID: carol, Fingerprint: omemo.Fingerprint{1}, Trust: omemo.Distrusted}))
	a.restart()
	a.trusts(b, omemo.Verified)
}

// believer is what a device that decides believes of another, worked out beside the
// code: what was recorded, and the policy's rule.
type believer struct {
	rule    int               // index of policyRows
	key     omemo.Fingerprint // the one that the policy is made with
	decided map[omemo.Fingerprint]omemo.Trust
	blind   map[omemo.Fingerprint]bool
}

// verdict says what a device is worth.
func (j *believer) verdict(p *party, all []*party) omemo.Trust {
	if t, ok := j.decided[p.fingerprint()]; ok {
		return t
	}
	if policyRows[j.rule].name == "allowed key" && p.fingerprint() != j.key {
		return di
	}
	column := 0
	if p.jid == alice {
		column = 2
	}
	if slices.ContainsFunc(all, func(other *party) bool { return other.jid == p.jid && j.decided[other.fingerprint()] == ve }) {
		column++
	}
	if j.blind[p.fingerprint()] {
		return policyRows[j.rule].blind[column]
	}
	return policyRows[j.rule].never[column]
}

// TestNoPayloadKeyWithoutTrust sends, decides and adds devices in any order under
// every policy, and searches all that has left for keys of devices that were not
// trusted at that moment.
func TestNoPayloadKeyWithoutTrust(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		j := &believer{decided: make(map[omemo.Fingerprint]omemo.Trust), blind: make(map[omemo.Fingerprint]bool)}
		j.rule = rapid.IntRange(0, len(policyRows)-1).Draw(r, "policy")
		w := newWorld(r)
		first := w.join(bob, omemo.Options{})
		j.key = first.fingerprint()
		o := omemo.Options{}
		if policy := policyRows[j.rule].policy; policy != nil {
			o.Policy = policy(j.key)
		}
		a := w.join(alice, o)
		v := rapid.SampledFrom(omemo.Versions()).Draw(r, "version")
		others := func() []*party {
			return slices.DeleteFunc(slices.Clone(w.parties), func(p *party) bool { return p == a })
		}
		w.meet(v)
		for range rapid.IntRange(3, 12).Draw(r, "steps") {
			switch rapid.IntRange(0, 3).Draw(r, "step") {
			case 0:
				if len(w.parties) < 6 {
					w.join(rapid.SampledFrom([]string{alice, bob}).Draw(r, "account"), omemo.Options{})
					w.meet(v)
				}
			case 1:
				p := rapid.SampledFrom(others()).Draw(r, "device")
				trust := rapid.SampledFrom([]omemo.Trust{un, ve, di}).Draw(r, "trust")
				a.ok(a.m.SetTrust(a.ctx, p.jid, p.fingerprint(), trust))
				j.decided[p.fingerprint()] = trust
			case 2:
				a.restart()
			default:
				checkCapture(r, a, j, others())
			}
		}
		checkCapture(r, a, j, others())
	})
}

func checkCapture(r *rapid.T, a *party, j *believer, others []*party) {
	allowed := make(map[omemo.Address]bool)
	reachable := false
	for _, p := range others {
		trust := j.verdict(p, others)
		allowed[p.address()] = trust == bl || trust == ve
		reachable = reachable || p.jid == bob && allowed[p.address()]
	}
	sealed, err := a.trySend(both("text"), bob)
	if reachable != (err == nil) || err != nil && !errors.Is(err, omemo.ErrUntrusted) {
		r.Fatalf("%v; a device that may be sent to: %t", err, reachable)
	}
	got := make(map[omemo.Address]bool)
	for _, message := range sealed.Messages {
		for _, k := range message.Keys {
			if !allowed[k.Address] {
				r.Fatalf("%v got a key", k.Address)
			}
			got[k.Address] = true
		}
	}
	for _, p := range others {
		if err == nil && j.verdict(p, others) == bl {
			defer func() { j.blind[p.fingerprint()] = true }() // recorded with the message
		}
		if err == nil && allowed[p.address()] && !got[p.address()] {
			r.Fatalf("%v got no key", p.address())
		}
	}
	for _, row := range sealed.Outbox {
		for _, p := range row.Devices {
			if !allowed[p.Address] {
				r.Fatalf("%v stands in the outbox", p)
			}
		}
	}
}
