package middleware_test

import (
	"bytes"
	"context"
	"errors"
	"regexp"
	"slices"
	"testing"

	"example.org/omellium/bundle"
	"example.org/omellium/middleware"
	"example.org/omellium/middleware/xmpptest"
	"example.org/omellium/omemo"
	"example.org/omellium/stanza/pep"
)

func TestRevoke(t *testing.T) {
	t.Parallel()
	srv := network(t, romeo, juliet)
	a := connected(t, srv, romeo, middleware.Config{AnswerStrangers: true})
	lost := connected(t, srv, romeo, middleware.Config{AnswerStrangers: true})
	b := connected(t, srv, juliet, middleware.Config{AnswerStrangers: true})
	a.say(juliet, "a copy for the other device")
	b.awaitText("a copy for the other device")
	id := device(t, lost)
	f, err := lost.om.Manager().Fingerprint(t.Context())
	ok(t, err)
	lost.om.Close()
	if err := a.om.Revoke(t.Context(), device(t, a)); !errors.Is(err, middleware.ErrOwnDevice) {
		t.Errorf("our own: %v", err)
	}
	ok(t, a.om.Revoke(t.Context(), id))
	for _, v := range omemo.Versions() {
		if l := listed(t, client(t, srv, juliet), romeo, v); l.Contains(id) || !l.Contains(device(t, a)) {
			t.Errorf("%v list: %v", v, l)
		}
	}
	if trust, err := a.om.Manager().TrustOf(t.Context(), omemo.Address{JID: romeo, Device: id}, f); err != nil || trust != omemo.Distrusted {
		t.Errorf("trust: %v, %v", trust, err)
	}
}

// knows waits until a program knows another device of its own account from both
// lists.
func (p *program) knows(account string, id omemo.DeviceID) {
	p.t.Helper()
	until(p.t, "the device is known from the lists", func() bool {
		_, devices, err := p.om.Manager().Account(p.t.Context(), account)
		ok(p.t, err)
		return len(slices.DeleteFunc(devices, func(d omemo.Device) bool { return d.Address.Device != id || !d.Active })) == len(omemo.Versions())
	})
}

// A device that was never written to is known by its id alone: its keys stand in
// its bundles. Who has stolen it finds nothing written to it, and the application
// learns that it is back.
func TestRevokeADeviceWhoseKeyWasNeverSeen(t *testing.T) {
	t.Parallel()
	srv := network(t, romeo, juliet)
	a := connected(t, srv, romeo, middleware.Config{AnswerStrangers: true})
	lost := connected(t, srv, romeo, middleware.Config{AnswerStrangers: true})
	b := connected(t, srv, juliet, middleware.Config{AnswerStrangers: true})
	id := device(t, lost)
	a.knows(romeo, id)
	f, err := lost.om.Manager().Fingerprint(t.Context())
	ok(t, err)
	lost.om.Close()
	ok(t, a.om.Revoke(t.Context(), id))
	if trust, err := a.om.Manager().TrustOf(t.Context(), omemo.Address{JID: romeo, Device: id}, f); err != nil || trust != omemo.Distrusted {
		t.Errorf("trust: %v, %v", trust, err)
	}
	added := a.count(middleware.OwnDeviceAdded)
	connected(t, srv, romeo, middleware.Config{AnswerStrangers: true, Store: reopened(lost.store)})
	a.knows(romeo, id)
	if n := a.count(middleware.OwnDeviceAdded) - added; n == 0 {
		t.Error("nobody is told that the device is back")
	}
	result, err := a.om.Send(t.Context(), to(juliet), text("after the theft"))
	ok(t, err)
	refused := false
	for _, d := range result.Devices {
		if d.Peer.Address.Device == id && d.Peer.JID == romeo {
			refused = d.Trust == omemo.Distrusted && d.Err != nil
		}
	}
	if !refused {
		t.Errorf("written to the revoked device: %+v", result.Devices)
	}
	b.awaitText("after the theft")
}

// A server that does not say what the bundles are leaves everything as it was.
func TestRevokeChangesNothingIfTheKeysCannotBeHad(t *testing.T) {
	t.Parallel()
	srv := network(t, romeo)
	a, id := lost(t, srv)
	result := regexp.MustCompile(`type=.result.`)
	srv.SetFilter(func(_ context.Context, s xmpptest.Stanza) [][]byte {
		if s.Direction == xmpptest.ToClient && bytes.Contains(s.XML, []byte(bundle.NodeV2)) {
			return [][]byte{result.ReplaceAll(s.XML, []byte(`type="error"`))}
		}
		return [][]byte{s.XML}
	})
	if err := a.om.Revoke(t.Context(), id); err == nil {
		t.Error("revoked without its keys")
	}
	other := client(t, srv, romeo)
	for _, v := range omemo.Versions() {
		if !listed(t, other, "", v).Contains(id) {
			t.Errorf("%v: taken off the list", v)
		}
	}
	srv.SetFilter(nil)
	ok(t, a.om.Revoke(t.Context(), id))
}

// Whoever gives the device a copy of another one's bundle does not have that one
// distrusted.
func TestRevokeSparesTheKeysOfOthers(t *testing.T) {
	t.Parallel()
	srv := network(t, romeo)
	a, id := lost(t, srv)
	other := client(t, srv, romeo)
	for _, v := range omemo.Versions() {
		copied, err := a.om.Manager().Bundle(t.Context(), v)
		ok(t, err)
		copied.Owner.Device = id
		ok(t, bundle.Publish(t.Context(), other, copied))
	}
	ok(t, a.om.Revoke(t.Context(), id))
	own, err := a.om.Manager().Fingerprint(t.Context())
	ok(t, err)
	if trust, err := a.om.Manager().TrustOf(t.Context(), omemo.Address{JID: romeo, Device: device(t, a)}, own); err != nil || trust == omemo.Distrusted {
		t.Errorf("our own key: %v, %v", trust, err)
	}
	if _, err := bundle.Fetch(t.Context(), other, omemo.Address{Device: id}, omemo.V2); !errors.Is(err, pep.ErrNone) {
		t.Errorf("the bundle is left: %v", err)
	}
}

// lost returns a program of romeo's, and the id of another device of his that it
// knows and that is not there any more.
func lost(t *testing.T, srv *xmpptest.Server) (*program, omemo.DeviceID) {
	t.Helper()
	a, other := connected(t, srv, romeo, middleware.Config{}), connected(t, srv, romeo, middleware.Config{})
	id := device(t, other)
	a.knows(romeo, id)
	other.om.Close()
	return a, id
}
