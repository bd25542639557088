//go:build live

package interop

import (
	"context"
	"errors"
	"strconv"
	"testing"

	"mellium.im/xmpp"

	"example.org/omellium/bundle"
	"example.org/omellium/devicelist"
	"example.org/omellium/middleware/internal/lab"
	"example.org/omellium/omemo"
	"example.org/omellium/omemo/memstore"
	"example.org/omellium/stanza/pep"
)

// client is a program of an account that has no OMEMO, but changes its nodes,
// or reads those of others.
func client(t *testing.T, s *lab.Server, a *lab.Account) pep.Requester {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), deadline)
	defer cancel()
	session, err := s.Dial(ctx, a)
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan struct{})
	go func(s *xmpp.Session) {
		defer close(served)
		_ = s.Serve(nil)
	}(session)
	t.Cleanup(func() {
		session.Conn().Close()
		<-served
	})
	return pep.SessionRequester(session)
}

func ok(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// listed returns a device list; no list is one without devices.
func listed(t *testing.T, r pep.Requester, account string, v omemo.Version) devicelist.List {
	t.Helper()
	list, err := devicelist.Fetch(t.Context(), r, account, v)
	if err != nil && !errors.Is(err, pep.ErrNone) {
		t.Fatal(err)
	}
	return list
}

// readable checks that a stranger can read a device's place on the list and its
// bundle, in both versions.
func readable(t *testing.T, stranger pep.Requester, account string, device uint32) {
	t.Helper()
	for _, v := range omemo.Versions() {
		if !listed(t, stranger, account, v).Contains(omemo.DeviceID(device)) {
			t.Errorf("%v: a stranger does not see device %d", v, device)
		}
		b, err := bundle.Fetch(t.Context(), stranger, omemo.Address{JID: account, Device: omemo.DeviceID(device)}, v)
		if err == nil {
			err = b.Verify()
		}
		if err != nil {
			t.Errorf("%v: a stranger and the bundle of device %d: %v", v, device, err)
		}
	}
}

func TestOwnDeviceComesBack(t *testing.T) {
	lab.Each(t, func(t *testing.T, s *lab.Server) {
		one := s.Account(t, "program")
		p := newProgram(t, s, one)
		other := client(t, s, one)
		for _, v := range omemo.Versions() {
			ok(t, devicelist.Publish(t.Context(), other, devicelist.List{Version: v, Devices: []devicelist.Device{{ID: 7}}}))
			if !lab.Until(deadline, func() bool {
				list := listed(t, other, "", v)
				return list.Contains(omemo.DeviceID(p.Device)) && list.Contains(7)
			}) {
				t.Errorf("%v: device is not back", v)
			}
		}
	})
}

func TestNodesAreRepaired(t *testing.T) {
	lab.Each(t, func(t *testing.T, s *lab.Server) {
		one := s.Account(t, "program")
		other, stranger := client(t, s, one), client(t, s, s.Account(t, "stranger"))
		b := another(t, one.JID, omemo.V2)
		stored := b.Owner.Device
		options := pep.Options{AccessModel: "presence", MaxItems: "1"}
		list := devicelist.List{Version: omemo.V2, Devices: []devicelist.Device{{ID: stored}}}
		ok(t, pep.Publish(t.Context(), other, bundle.NodeV2, strconv.FormatUint(uint64(stored), 10), bundle.Element(b), options))
		ok(t, pep.Publish(t.Context(), other, devicelist.NodeV2, "current", list.Element(), options))
		if listed(t, stranger, one.JID, omemo.V2).Contains(stored) {
			t.Fatal("a stranger sees the list before")
		}
		p := newProgram(t, s, one)
		readable(t, stranger, one.JID, p.Device)
		if _, err := bundle.Fetch(t.Context(), stranger, omemo.Address{JID: one.JID, Device: stored}, omemo.V2); err != nil {
			t.Errorf("the bundle of the other device: %v", err)
		}
	})
}

func TestTwoDevicesStayReadable(t *testing.T) {
	lab.Each(t, func(t *testing.T, s *lab.Server) {
		one := s.Account(t, "program")
		first, second := newProgram(t, s, one), newProgram(t, s, one)
		stranger := client(t, s, s.Account(t, "stranger"))
		readable(t, stranger, one.JID, first.Device)
		readable(t, stranger, one.JID, second.Device)
	})
}

// another returns the bundle of another device of an account, that only this
// test has.
func another(t *testing.T, account string, v omemo.Version) *omemo.Bundle {
	t.Helper()
	m, err := omemo.NewManager(t.Context(), memstore.New(account), omemo.Options{})
	ok(t, err)
	b, err := m.Bundle(t.Context(), v)
	ok(t, err)
	return b
}
