package omemo_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"example.org/omellium/omemo"
	"example.org/omellium/omemo/internal/curve"
)

// cast is who takes part in the tables of XEP-0450: our devices A1 (which
// decides) to A4, two contacts B and C.
func cast(t *testing.T) (w *world, all map[string]*party) {
	w = newWorld(t)
	all = make(map[string]*party)
	for _, name := range []string{"A1", "A2", "A3", "A4", "B1", "B2", "C1"} {
		jid := map[byte]string{'A': alice, 'B': bob, 'C': carol}[name[0]]
		all[name] = w.join(jid, omemo.Options{Policy: omemo.Manual})
	}
	w.meet(omemo.V2)
	return w, all
}

// announcement is what a trust message of the tests holds.
type announcement struct {
	to         string
	devices    []string
	statements []string // "+B1" or "-A3", sorted
}

// announce has A1 announce decisions, and returns what was sent to whom.
func announce(all map[string]*party, decisions ...omemo.Decision) ([]announcement, *omemo.Announced, error) {
	a := all["A1"]
	missing, err := a.m.Audience(a.ctx, decisions)
	if err != nil {
		return nil, nil, err
	}
	names := make(map[omemo.Statement]string)
	for name, p := range all {
		names[about(p, true)], names[about(p, false)] = "+"+name, "-"+name
	}
	var sent []announcement
	out, err := a.m.Announce(a.ctx, decisions, func(m omemo.TrustMessage) (omemo.Plaintext, omemo.Render, error) {
		x := announcement{to: m.To}
		for _, s := range m.Statements {
			x.statements = append(x.statements, names[s])
		}
		slices.Sort(x.statements)
		text, err := json.Marshal(said{m.Statements, m.Stated})
		return omemo.Plaintext{V2: text}, func(s *omemo.Sealed) ([]omemo.Outgoing, error) {
			a.tapped(s)
			for _, message := range s.Messages {
				for name, p := range all {
					if mine := p.of(message); len(mine.Keys) > 0 {
						x.devices = append(x.devices, name)
						if _, err := p.m.Decrypt(p.ctx, mine, hear); err != nil {
							return nil, fmt.Errorf("%s: %w", name, err)
						}
					}
				}
			}
			slices.Sort(x.devices)
			sent = append(sent, x)
			return stanzas(fmt.Sprint("t", len(sent)), m.To)(s)
		}, err
	}, a.fetch(missing...)...)
	slices.SortFunc(sent, func(x, y announcement) int { return strings.Compare(fmt.Sprint(x), fmt.Sprint(y)) })
	return sent, out, err
}

// TestSendingTrustMessages is XEP-0450, section 4, "Sending": A1 decides, and those
// get to know it that have to, and nobody else.
func TestSendingTrustMessages(t *testing.T) {
	for _, row := range []struct {
		section    string
		verified   string // before
		distrusted string
		decide     string
		want       []announcement
	}{
		{
			"4.1.1: a contact's key, to own endpoints and to the endpoint itself",
			"A2", "", "+B1",
			[]announcement{{alice, []string{"A2"}, []string{"+B1"}}, {bob, []string{"B1"}, []string{"+A2"}}},
		},
		{"4.1.1: nobody is verified yet", "", "", "+B1", nil},
		{
			"4.1.1: several own endpoints; other contacts' and unverified ones learn nothing",
			"A2 A3 B2 C1", "A4", "+B1",
			[]announcement{{alice, []string{"A2", "A3"}, []string{"+B1"}}, {bob, []string{"B1"}, []string{"+A2", "+A3"}}},
		},
		{
			"4.2.1: an own key, to all other endpoints, and all keys to the endpoint itself",
			"A2 B1", "", "+A3",
			[]announcement{{alice, []string{"A2"}, []string{"+A3"}}, {alice, []string{"A3"}, []string{"+A2", "+B1"}}, {bob, []string{"B1"}, []string{"+A3"}}},
		},
		{
			"4.2.1: no contacts",
			"A2", "", "+A3",
			[]announcement{{alice, []string{"A2"}, []string{"+A3"}}, {alice, []string{"A3"}, []string{"+A2"}}},
		},
		{
			"4.2.1: two contacts",
			"B1 C1", "B2", "+A2",
			[]announcement{{alice, []string{"A2"}, []string{"+B1", "+C1"}}, {bob, []string{"B1"}, []string{"+A2"}}, {carol, []string{"C1"}, []string{"+A2"}}},
		},
		{
			"4.3.1: an own key is distrusted, to all other endpoints",
			"A2 A3 B1 C1", "", "-A3",
			[]announcement{{alice, []string{"A2"}, []string{"-A3"}}, {bob, []string{"B1"}, []string{"-A3"}}, {carol, []string{"C1"}, []string{"-A3"}}},
		},
		{
			"4.4.1: a contact's key is distrusted, to own endpoints",
			"A2 B1 B2 C1", "A3", "-B1",
			[]announcement{{alice, []string{"A2"}, []string{"-B1"}}},
		},
		{"a key is undecided again: nobody is told", "A2 B1", "", "?B1", nil},
		{
			"several decisions at once",
			"A2", "", "+B1 -B2",
			[]announcement{{alice, []string{"A2"}, []string{"+B1", "-B2"}}, {bob, []string{"B1"}, []string{"+A2"}}},
		},
		{
			"two own keys at once, each told of the other",
			"", "", "+A2 +A3",
			[]announcement{{alice, []string{"A2"}, []string{"+A3", "+A3"}}, {alice, []string{"A3"}, []string{"+A2", "+A2"}}},
		},
	} {
		t.Run(row.section, func(t *testing.T) {
			_, all := cast(t)
			a := all["A1"]
			for trust, names := range map[omemo.Trust]string{ve: row.verified, di: row.distrusted} {
				for name := range strings.FieldsSeq(names) {
					a.ok(a.m.SetTrust(a.ctx, all[name].jid, all[name].fingerprint(), trust))
				}
			}
			var decisions []omemo.Decision
			for word := range strings.FieldsSeq(row.decide) {
				p := all[word[1:]]
				decisions = append(decisions, omemo.Decision{JID: p.jid, Fingerprint: p.fingerprint(), Trust: map[byte]omemo.Trust{'+': ve, '-': di, '?': un}[word[0]]})
			}
			sent, out, err := announce(all, decisions...)
			a.ok(err)
			if fmt.Sprint(sent) != fmt.Sprint(row.want) {
				t.Errorf("sent %v\nwant %v", sent, row.want)
			}
			for _, d := range out.Devices {
				if d.Err != nil || d.Trust != ve {
					t.Errorf("%v: %v, %v", d.Peer, d.Trust, d.Err)
				}
			}
			a.restart()
			rows, err := a.m.Outbox(a.ctx, 0, 100)
			a.ok(err)
			if len(rows) != len(row.want) || len(out.Outbox) != len(row.want) {
				t.Errorf("%d rows in the outbox, %d announced, want %d", len(rows), len(out.Outbox), len(row.want))
			}
			for i, d := range decisions {
				if trust, err := a.m.TrustOf(a.ctx, omemo.Address{JID: d.JID}, d.Fingerprint); err != nil || trust != d.Trust {
					t.Errorf("decision %d: %v, %v", i, trust, err)
				}
			}
		})
	}
}

// TestOneScanEach is the story of XEP-0450: n devices need n-1 mutual
// authentications, and then all of them trust all others.
func TestOneScanEach(t *testing.T) {
	w, all := cast(t)
	mutual := func(x, y string) {
		for _, pair := range [][2]string{{x, y}, {y, x}} {
			cast := map[string]*party{}
			for name, p := range all {
				cast[name] = p
			}
			cast["A1"], cast[pair[0]] = all[pair[0]], all["A1"] // announce speaks for A1
			_, _, err := announce(cast, omemo.Decision{JID: all[pair[1]].jid, Fingerprint: all[pair[1]].fingerprint(), Trust: ve})
			w.parties[0].ok(err)
		}
	}
	for _, pair := range [][2]string{{"A1", "A2"}, {"A2", "A3"}, {"A1", "B1"}, {"B1", "B2"}, {"A4", "A3"}} {
		mutual(pair[0], pair[1])
	}
	for _, x := range []string{"A1", "A2", "A3", "A4", "B1", "B2"} {
		for _, y := range []string{"A1", "A2", "A3", "A4", "B1", "B2"} {
			if x != y {
				all[x].trusts(all[y], ve)
			}
		}
		all[x].trusts(all["C1"], un)
	}
}

// TestDevicesThatCannotBeTold: the decision stands, and the result names them.
func TestDevicesThatCannotBeTold(t *testing.T) {
	w := newWorld(t)
	a, old, own, b := w.join(alice, omemo.Options{}), w.join(alice, omemo.Options{}), w.join(alice, omemo.Options{}), w.join(bob, omemo.Options{})
	w.meet(omemo.Legacy)
	a.lists(bob, omemo.V2)
	a.ok(a.m.SetList(a.ctx, alice, omemo.V2, []omemo.DeviceID{a.device, own.device})) // old speaks legacy only
	for _, p := range []*party{old, own} {
		for _, v := range omemo.Versions() {
			_, err := a.m.Compare(a.ctx, p.small(v))
			a.ok(err)
		}
		a.ok(a.m.SetTrust(a.ctx, alice, p.fingerprint(), ve))
	}
	decision := omemo.Decision{JID: bob, Fingerprint: b.fingerprint(), Trust: ve}
	missing, err := a.m.Audience(a.ctx, []omemo.Decision{decision})
	a.ok(err)
	if len(missing) != 2 || missing[0] != own.peer(omemo.V2) || missing[1] != b.peer(omemo.V2) {
		t.Errorf("bundles wanted: %v", missing)
	}
	compose := func(m omemo.TrustMessage) (omemo.Plaintext, omemo.Render, error) {
		return omemo.Plaintext{V2: []byte("x"), Legacy: []byte("x")}, stanzas("id", m.To), nil
	}
	out, err := a.m.Announce(a.ctx, []omemo.Decision{decision}, compose)
	a.ok(err)
	if len(out.Devices) != 1 || !errors.Is(out.Devices[0].Err, omemo.ErrNoBundle) || len(out.Outbox) != 0 {
		t.Errorf("%+v", out)
	}
	a.trusts(b, ve)
	// A bundle with another key is not told anything.
	swapped := b.small(omemo.V2)
	swapped.Owner = own.address()
	out, err = a.m.Announce(a.ctx, []omemo.Decision{decision}, compose, swapped)
	a.ok(err)
	if len(out.Devices) != 1 || !errors.Is(out.Devices[0].Err, omemo.ErrIdentityChanged) || len(out.Outbox) != 0 {
		t.Errorf("%+v", out)
	}
	// Once more, with the right one: it is told.
	out, err = a.m.Announce(a.ctx, []omemo.Decision{decision}, compose, own.small(omemo.V2))
	a.ok(err)
	if len(out.Devices) != 1 || out.Devices[0].Err != nil || len(out.Outbox) != 1 {
		t.Errorf("%+v", out)
	}
	// What fails leaves nothing behind.
	before := a.store.dump()
	for name, c := range map[string]omemo.Compose{
		"compose": func(omemo.TrustMessage) (omemo.Plaintext, omemo.Render, error) {
			return omemo.Plaintext{}, nil, errHook
		},
		"render": func(omemo.TrustMessage) (omemo.Plaintext, omemo.Render, error) {
			return omemo.Plaintext{V2: []byte("x")}, func(*omemo.Sealed) ([]omemo.Outgoing, error) { return nil, errHook }, nil
		},
	} {
		if out, err := a.m.Announce(a.ctx, []omemo.Decision{{JID: bob, Fingerprint: b.fingerprint(), Trust: di}}, c); !errors.Is(err, errHook) || out != nil || a.store.dump() != before {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestManyKeysAreToldInSeveralMessages: each goes on where the ratchet of the one
// before stopped.
func TestManyKeysAreToldInSeveralMessages(t *testing.T) {
	w := newWorld(t)
	a, own := w.join(alice, omemo.Options{}), w.join(alice, omemo.Options{})
	w.meet(omemo.V2)
	var verified []omemo.Decision
	for i := range 1500 {
		seed := fixed(fmt.Sprint(i))
		key := omemo.Fingerprint(curve.IdentityFromSeed(&seed).Montgomery())
		verified = append(verified, omemo.Decision{JID: fmt.Sprintf("u%d@example.org", i), Fingerprint: key, Trust: ve})
	}
	a.ok(a.m.Decide(a.ctx, verified...))
	texts := 0
	out, err := a.m.Announce(a.ctx, []omemo.Decision{{JID: alice, Fingerprint: own.fingerprint(), Trust: ve}}, func(m omemo.TrustMessage) (omemo.Plaintext, omemo.Render, error) {
		text, err := json.Marshal(said{m.Statements, m.Stated})
		return omemo.Plaintext{V2: text}, func(s *omemo.Sealed) ([]omemo.Outgoing, error) {
			a.tapped(s)
			texts += len(m.Statements)
			if _, err := own.m.Decrypt(a.ctx, own.find(s), hear); err != nil {
				return nil, err
			}
			return stanzas(fmt.Sprint(texts), m.To)(s)
		}, err
	}, own.small(omemo.V2))
	a.ok(err)
	if len(out.Outbox) != 2 || texts != 1500 {
		t.Errorf("%d messages with %d statements", len(out.Outbox), texts)
	}
	if n := len(own.waiting()); n != 1024 {
		t.Errorf("%d statements wait", n)
	}
}
