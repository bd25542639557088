package middleware_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"example.org/omellium/middleware"
	"example.org/omellium/omemo"
	"example.org/omellium/omemo/verify"
	"example.org/omellium/stanza"
	"mellium.im/xmpp/crypto"
)

// automatic returns the configuration of a program that manages trust by itself,
// and leaves undecided what it is not told about.
func automatic() middleware.Config {
	c := chat(omemo.V2)
	c.Trust, c.AutomaticTrust = omemo.Manual, true
	return c
}

func fingerprintOf(t *testing.T, p *program) omemo.Fingerprint {
	t.Helper()
	f, err := p.om.Manager().Fingerprint(t.Context())
	ok(t, err)
	return f
}

// verifies has a program decide that the key of another is verified.
func (p *program) verifies(other *program, account string) []omemo.DeviceResult {
	p.t.Helper()
	results, err := p.om.Decide(p.t.Context(), omemo.Decision{JID: account, Fingerprint: fingerprintOf(p.t, other), Trust: omemo.Verified})
	ok(p.t, err)
	return results
}

func (p *program) awaitTrust(other *program, account string, want omemo.Trust) {
	p.t.Helper()
	f := fingerprintOf(p.t, other)
	address := omemo.Address{JID: account, Device: deviceOf(p.t, other)}
	until(p.t, fmt.Sprintf("key of %v is %v", address, want), func() bool {
		trust, err := p.om.Manager().TrustOf(p.t.Context(), address, f)
		return err == nil && trust == want
	})
}

// TestOneScanServesAllDevices: three devices of two accounts, one mutual
// verification on each side of each link, and all trust all.
func TestOneScanServesAllDevices(t *testing.T) {
	const juliet, romeo = "juliet@example.net", "romeo@example.net"
	srv := network(t, juliet, romeo)
	desk, _ := second(t, srv, juliet+"/desk", automatic())
	phone, phoneReads := second(t, srv, juliet+"/phone", automatic())
	other, otherReads := second(t, srv, romeo+"/garden", automatic())
	desk.verifies(phone, juliet)
	phone.verifies(desk, juliet)
	results := desk.verifies(other, romeo)
	if len(results) != 2 {
		t.Errorf("told %+v", results)
	}
	for _, r := range results {
		if r.Err != nil {
			t.Errorf("%v: %v", r.Peer, r.Err)
		}
	}
	phone.awaitTrust(other, romeo, omemo.Verified)
	e := phone.awaitEvent(middleware.KeyVerified)
	if e.Account != romeo || e.Fingerprint != fingerprintOf(t, other) {
		t.Errorf("%+v", e)
	}
	other.awaitTrust(phone, juliet, omemo.Undecided) // it has not verified the desk
	until(t, "the statement waits", func() bool {
		rows, err := other.store.Statements(t.Context())
		return err == nil && len(rows) == 1
	})
	other.verifies(desk, juliet)
	other.awaitTrust(phone, juliet, omemo.Verified)

	// And back: what is distrusted is distrusted everywhere.
	_, err := desk.om.Decide(t.Context(), omemo.Decision{JID: romeo, Fingerprint: fingerprintOf(t, other), Trust: omemo.Distrusted})
	ok(t, err)
	phone.awaitTrust(other, romeo, omemo.Distrusted)
	phone.awaitEvent(middleware.KeyDistrusted)
	for name, r := range map[string]*reader{"phone": phoneReads, "contact": otherReads} {
		if e := r.find(crypto.NSTrust); e != nil {
			t.Errorf("%s was shown a trust message: %s", name, e.AppendXML(nil))
		}
	}
	noLeak(t, srv, "trust-message", "key-owner")
}

// TestDecisionsWithoutAWire are told after the next Wrap.
func TestDecisionsWithoutAWire(t *testing.T) {
	const juliet, romeo = "juliet@example.net", "romeo@example.net"
	srv := network(t, juliet, romeo)
	desk := connected(t, srv, juliet+"/desk", automatic())
	phone, _ := second(t, srv, juliet+"/phone", automatic())
	other, _ := second(t, srv, romeo+"/garden", automatic())
	phone.verifies(desk, juliet)
	desk.verifies(phone, juliet) // makes the session
	desk.session.Conn().Close()
	<-desk.done
	results := desk.verifies(other, romeo)
	if len(results) != 1 || results[0].Err != nil {
		t.Errorf("told %+v", results)
	}
	desk.attach(login(t, srv, juliet+"/desk"), nil)
	phone.awaitTrust(other, romeo, omemo.Verified)
}

// TestTrustMessagesThatAreNotHeeded: each is dropped, with or without an event, and
// what stands beside it is read.
func TestTrustMessagesThatAreNotHeeded(t *testing.T) {
	const juliet, romeo = "juliet@example.net", "romeo@example.net"
	key := strings.Repeat("A", 43) + "="
	good := `<key-owner jid='romeo@example.net'><trust>KEY</trust></key-owner>`
	wrap := func(attributes, inner string) string {
		return `<trust-message xmlns='urn:xmpp:tm:1' ` + attributes + `>` + inner + `</trust-message>`
	}
	const ours = `usage='urn:xmpp:atm:1' encryption='urn:xmpp:omemo:2'`
	for name, row := range map[string]struct {
		xml    string
		heeded bool
		told   bool
	}{
		"as it should be":   {wrap(ours, good), true, false},
		"another usage":     {wrap(`usage='urn:example:1' encryption='urn:xmpp:omemo:2'`, good), false, false},
		"another cipher":    {wrap(`usage='urn:xmpp:atm:1' encryption='urn:xmpp:openpgp:0'`, good), false, false},
		"two of them":       {wrap(ours, good) + wrap(ours, good), false, true},
		"short key":         {wrap(ours, strings.ReplaceAll(good, "KEY", "AAAA")), false, true},
		"not base64":        {wrap(ours, strings.ReplaceAll(good, "KEY", "%%%")), false, true},
		"no key":            {wrap(ours, `<key-owner jid='romeo@example.net'><trust/></key-owner>`), false, true},
		"no address":        {wrap(ours, strings.ReplaceAll(good, "romeo@example.net", "@")), false, true},
		"a server as owner": {wrap(ours, strings.ReplaceAll(good, "romeo@example.net", "example.net")), false, true},
		"another element":   {wrap(ours, strings.ReplaceAll(good, "<trust>", "<x/><trust>")), false, true},
		"no such key":       {strings.ReplaceAll(wrap(ours, good), "KEY", key), false, false},
		"empty":             {wrap(ours, ""), false, false},
	} {
		t.Run(name, func(t *testing.T) {
			srv := network(t, juliet, romeo)
			c := chat(omemo.V2)
			c.AutomaticTrust = true
			us, reads := second(t, srv, juliet+"/desk", c)
			them := connected(t, srv, romeo+"/garden", chat(omemo.V2))
			ok(t, us.om.Manager().SetTrust(t.Context(), romeo, fingerprintOf(t, them), omemo.Verified))
			another := load(t, romeo, chat(omemo.V2)) // whose key it is about
			b, err := another.om.Manager().Bundle(t.Context(), omemo.V2)
			ok(t, err)
			x := strings.ReplaceAll(row.xml, "KEY", stanza.EncodeBase64(b.IdentityKey[:]))
			_, err = them.om.Send(t.Context(), to(juliet), children("<body>beside</body>"+x))
			ok(t, err)
			m := reads.await(t, "beside", func(m *stanza.Element) bool { return shown(m) == "beside" })
			if m.Child(crypto.NSTrust, "trust-message") != nil {
				t.Errorf("%s", m.AppendXML(nil))
			}
			all, err := us.store.Accounts(t.Context(), romeo)
			ok(t, err)
			heeded := false
			for _, r := range all.Trust {
				heeded = heeded || r.Fingerprint == fingerprintOf(t, another) && r.Trust == omemo.Verified
			}
			if heeded != row.heeded || len(all.Trust) > 1 && !row.heeded {
				t.Errorf("heeded: %t; %+v", heeded, all.Trust)
			}
			if n := us.count(middleware.Refused); (n == 1) != row.told {
				t.Errorf("told %d times", n)
			}
		})
	}
}

// TestTrustMessagesAreContentWithoutAutomaticTrust: nobody takes them out, and
// deciding tells nobody.
func TestTrustMessagesAreContentWithoutAutomaticTrust(t *testing.T) {
	srv := network(t, "juliet@example.net", "romeo@example.net")
	plain, reads := second(t, srv, "juliet@example.net/desk", chat(omemo.V2))
	them := connected(t, srv, "romeo@example.net/garden", chat(omemo.V2))
	_, err := them.om.Send(t.Context(), to("juliet@example.net"), children(`<body>shown</body><trust-message xmlns='urn:xmpp:tm:1' usage='urn:xmpp:atm:1' encryption='urn:xmpp:omemo:2'/>`))
	ok(t, err)
	m := reads.await(t, "shown", func(m *stanza.Element) bool { return shown(m) == "shown" })
	if m.Child(crypto.NSTrust, "trust-message") == nil {
		t.Errorf("%s", m.AppendXML(nil))
	}
	if results, err := plain.om.Decide(t.Context(), omemo.Decision{JID: "romeo@example.net", Fingerprint: fingerprintOf(t, them), Trust: omemo.Verified}); err != nil || results != nil {
		t.Errorf("%v, %v", results, err)
	}
	if _, err := plain.om.Decide(t.Context(), omemo.Decision{}); err == nil {
		t.Error("nothing was decided")
	}
}

// TestARevokedDeviceIsDistrustedEverywhere.
func TestARevokedDeviceIsDistrustedEverywhere(t *testing.T) {
	const juliet = "juliet@example.net"
	srv := network(t, juliet)
	desk, _ := second(t, srv, juliet+"/desk", automatic())
	phone, _ := second(t, srv, juliet+"/phone", automatic())
	lost, _ := second(t, srv, juliet+"/lost", automatic())
	desk.verifies(phone, juliet)
	phone.verifies(desk, juliet)
	desk.verifies(lost, juliet)
	phone.awaitTrust(lost, juliet, omemo.Verified)
	ok(t, desk.om.Revoke(t.Context(), deviceOf(t, lost)))
	phone.awaitTrust(lost, juliet, omemo.Distrusted)
}

// TestAScannedURIMarksWhatItNames, and nothing else.
func TestAScannedURIMarksWhatItNames(t *testing.T) {
	const juliet, romeo = "juliet@example.net", "romeo@example.net"
	srv := network(t, juliet, romeo)
	desk := connected(t, srv, juliet+"/desk", automatic())
	first, _ := second(t, srv, romeo+"/1", automatic())
	other, _ := second(t, srv, romeo+"/2", automatic())
	ok(t, desk.om.Prepare(t.Context(), to(romeo).To))
	u, err := first.om.OwnURI(t.Context())
	ok(t, err)
	if len(u.Devices) != 1 {
		t.Errorf("%v names devices that are not verified", u)
	}
	_, err = desk.om.VerifyURI(t.Context(), u.String())
	ok(t, err)
	desk.awaitTrust(first, romeo, omemo.Verified)
	desk.awaitTrust(other, romeo, omemo.Undecided)

	first.verifies(other, romeo)
	u, err = first.om.OwnURI(t.Context())
	ok(t, err)
	if len(u.Devices) != 2 || u.Devices[1].Fingerprint != fingerprintOf(t, other) {
		t.Errorf("%v", u)
	}
	// Somebody in between: the device is known with another key than is shown.
	before, err := desk.store.Accounts(t.Context(), romeo)
	ok(t, err)
	u.Devices[0].Fingerprint, u.Devices[1].Fingerprint = u.Devices[1].Fingerprint, u.Devices[0].Fingerprint
	var device *omemo.DeviceError
	if _, err := desk.om.VerifyURI(t.Context(), u.String()); !errors.Is(err, middleware.ErrMismatch) || !errors.As(err, &device) || device.Peer.JID != romeo {
		t.Errorf("%v", err)
	}
	if after, err := desk.store.Accounts(t.Context(), romeo); err != nil || len(after.Trust) != len(before.Trust) {
		t.Errorf("decided: %+v, %v", after.Trust, err)
	}
	// Our own key as another account's, and our own device with another key.
	mine := verify.Device{ID: deviceOf(t, desk), Fingerprint: fingerprintOf(t, desk)}
	for name, u := range map[string]verify.URI{
		"our key":    {Account: to(romeo).To, Devices: []verify.Device{{ID: 1, Fingerprint: mine.Fingerprint}}},
		"our device": {Account: to(juliet).To, Devices: []verify.Device{{ID: mine.ID, Fingerprint: fingerprintOf(t, other)}}},
	} {
		if _, err := desk.om.VerifyURI(t.Context(), u.String()); !errors.Is(err, middleware.ErrMismatch) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, bad := range []string{"", "xmpp:romeo@example.net", "xmpp:romeo@example.net?omemo-sid-1=ab"} {
		if _, err := desk.om.VerifyURI(t.Context(), bad); !errors.Is(err, verify.ErrURI) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}
