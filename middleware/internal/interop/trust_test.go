//go:build live

package interop

import (
	"strings"
	"testing"

	"example.org/omellium/middleware"
	"example.org/omellium/middleware/internal/lab"
	"example.org/omellium/omemo"
	"example.org/omellium/omemo/memstore"
)

func newAutomatic(t *testing.T, s *lab.Server, a *lab.Account) *program {
	t.Helper()
	p := newConfigured(t, s, a, middleware.Config{
		Store: memstore.New(a.JID), AnswerStrangers: true, AutomaticTrust: true, Trust: omemo.Manual,
	}, nil)
	p.appear(t)
	return p
}

func (p *program) fingerprint(t *testing.T) omemo.Fingerprint {
	t.Helper()
	f, err := p.om.Manager().Fingerprint(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// awaitListed waits until the program has another on both device lists.
func (p *program) awaitListed(t *testing.T, other *program) {
	t.Helper()
	if p != other && !lab.Until(deadline, func() bool {
		_, devices, err := p.om.Manager().Account(t.Context(), other.Account.JID)
		listed := 0
		for _, d := range devices {
			if d.Active && uint32(d.Address.Device) == other.Device {
				listed++
			}
		}
		return err == nil && listed == 2
	}) {
		t.Fatalf("%s: waited in vain to learn of device %d of %s", p.Account.JID, other.Device, other.Account.JID)
	}
}

func (p *program) decides(t *testing.T, other *program, trust omemo.Trust) {
	t.Helper()
	results, err := p.om.Decide(t.Context(), omemo.Decision{JID: other.Account.JID, Fingerprint: other.fingerprint(t), Trust: trust})
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range results {
		if r.Err != nil {
			t.Errorf("%v was not told: %v", r.Peer, r.Err)
		}
	}
}

func (p *program) awaitTrust(t *testing.T, other *program, want omemo.Trust) {
	t.Helper()
	f, last := other.fingerprint(t), omemo.Undecided
	if !lab.Until(deadline, func() bool {
		var err error
		last, err = p.om.Manager().TrustOf(t.Context(), omemo.Address{JID: other.Account.JID}, f)
		return err == nil && last == want
	}) {
		t.Fatalf("device %d of %s: device %d of %s is %v, want %v", p.Device, p.Account.JID, other.Device, other.Account.JID, last, want)
	}
}

// TestOneScanServesAllDevices: two devices of one account have verified each other,
// and one of them a contact's. Then all of them trust all others, and what one
// distrusts, all do.
func TestOneScanServesAllDevices(t *testing.T) {
	s := lab.Prosody(t)
	one, user := s.Account(t, "one"), s.Account(t, "user")
	lab.Befriend(t, one, user)
	desk, phone, contact := newAutomatic(t, s, one), newAutomatic(t, s, one), newAutomatic(t, s, user)
	for _, p := range []*program{desk, phone, contact} {
		for _, other := range []*program{desk, phone, contact} {
			p.awaitListed(t, other)
		}
	}
	desk.decides(t, phone, omemo.Verified)
	phone.decides(t, desk, omemo.Verified)
	desk.decides(t, contact, omemo.Verified) // the one scan
	phone.awaitTrust(t, contact, omemo.Verified)
	contact.decides(t, desk, omemo.Verified) // and the contact's
	contact.awaitTrust(t, phone, omemo.Verified)

	phone.Send(t, user.JID, "from the phone")
	contact.AwaitBody(t, one.JID, "from the phone")
	for _, m := range contact.Messages(one.JID) {
		if m.Info.Trust != omemo.Verified {
			t.Errorf("%q is %v", m.Body, m.Info.Trust)
		}
	}
	desk.decides(t, contact, omemo.Distrusted)
	phone.awaitTrust(t, contact, omemo.Distrusted)
	if tap := s.Tap(t); strings.Contains(tap, "trust-message") || strings.Contains(tap, "key-owner") {
		t.Error("the server has seen a trust message")
	}
}
