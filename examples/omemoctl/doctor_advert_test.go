package main

import (
	"crypto/ed25519"
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"example.org/omellium/bundle"
	"example.org/omellium/devicelist"
	"example.org/omellium/middleware"
	"example.org/omellium/omemo"
	"example.org/omellium/omemo/memstore"
	"example.org/omellium/stanza/pep"
)

// healthy fails the test if there is a finding that is not ok.
func (p *patient) healthy() {
	p.t.Helper()
	for _, f := range p.examine(false) {
		if f.State != stateOK {
			p.t.Errorf("%+v", f)
		}
	}
}

// mends has a fault found and mended.
func (p *patient) mends(check string, v omemo.Version) {
	p.t.Helper()
	if state := p.state(p.examine(false), check, v); state != stateFault {
		p.t.Errorf("%s: not found: %q", check, state)
	}
	if state := p.state(p.examine(true), check, v); state != stateFixed {
		p.t.Errorf("%s: not mended: %q", check, state)
	}
	p.healthy()
}

// listed returns what stands on a list for the device; nil if nothing does.
func (p *patient) listed(v omemo.Version) *devicelist.Device {
	p.t.Helper()
	list, err := devicelist.Fetch(p.t.Context(), p.pep, "", v)
	if i := indexOf(list, p.own.Device); i >= 0 {
		return &list.Devices[i]
	}
	if err != nil && !errors.Is(err, pep.ErrNone) {
		p.t.Fatal(err)
	}
	return nil
}

// A version that the program does not serve is not missed, and is withdrawn if it is
// announced.
func TestDoctorOfOneVersion(t *testing.T) {
	for _, v := range omemo.Versions() {
		t.Run(v.String(), func(t *testing.T) {
			t.Parallel()
			unserved := omemo.Legacy + omemo.V2 - v
			p := newPatientOf(t, middleware.Config{Versions: []omemo.Version{v}})
			p.healthy()
			p.examine(true)
			alone := func() {
				t.Helper()
				_, err := bundle.Fetch(t.Context(), p.pep, omemo.Address{Device: p.own.Device}, unserved)
				if p.listed(unserved) != nil || p.listed(v) == nil || !errors.Is(err, pep.ErrNone) {
					t.Errorf("served: %v; not served: %v, %v", p.listed(v), p.listed(unserved), err)
				}
			}
			alone()
			p.list(unserved, devicelist.Device{ID: p.own.Device})
			p.mends("own device off the list", unserved)
			alone()
			ok(t, bundle.Publish(t.Context(), p.pep, p.bundle(unserved)))
			p.mends("bundle withdrawn", unserved)
			alone()
			p.list(v)
			p.mends("own device on the list", v)
			alone()
			// Others of the account stay where they are.
			m, err := omemo.NewManager(t.Context(), memstore.New(romeo), omemo.Options{})
			ok(t, err)
			other, err := m.Bundle(t.Context(), unserved)
			ok(t, err)
			ok(t, bundle.Publish(t.Context(), p.pep, other))
			p.list(unserved, devicelist.Device{ID: p.own.Device}, devicelist.Device{ID: other.Owner.Device})
			p.mends("own device off the list", unserved)
			list, err := devicelist.Fetch(t.Context(), p.pep, "", unserved)
			if err != nil || len(list.Devices) != 1 || !list.Contains(other.Owner.Device) {
				t.Errorf("left: %+v, %v", list, err)
			}
		})
	}
}

// The label that the program has chosen is kept, and put back.
func TestDoctorAndTheOwnLabel(t *testing.T) {
	label := func(p *patient) string {
		if e := p.listed(omemo.V2); e != nil {
			return signedLabel(p.bundle(omemo.V2), *e)
		}
		return "not listed"
	}
	for _, c := range []struct {
		name, label, check string
		prepare            func(p *patient)
	}{
		{"taken off", "orchard", "own label", func(p *patient) { p.list(omemo.V2, devicelist.Device{ID: p.own.Device}) }},
		{"taken off with the device", "orchard", "own device on the list", func(p *patient) { p.list(omemo.V2) }},
		{"another", "orchard", "own label", func(p *patient) {
			l, err := p.manager.SignLabel(p.t.Context(), "balcony")
			ok(p.t, err)
			p.list(omemo.V2, devicelist.Device{ID: p.own.Device, Label: l.Text, LabelSig: l.Signature[:]})
		}},
		{"not signed by us", "orchard", "labels", func(p *patient) {
			_, key, err := ed25519.GenerateKey(nil)
			ok(p.t, err)
			p.list(omemo.V2, devicelist.Device{ID: p.own.Device, Label: "orchard", LabelSig: ed25519.Sign(key, []byte("orchard"))})
		}},
		{"none wanted", "", "own label", func(p *patient) {
			l, err := p.manager.SignLabel(p.t.Context(), "balcony")
			ok(p.t, err)
			p.list(omemo.V2, devicelist.Device{ID: p.own.Device, Label: l.Text, LabelSig: l.Signature[:]})
		}},
		{"another fault", "orchard", "devices have bundles", func(p *patient) {
			p.list(omemo.V2, *p.listed(omemo.V2), devicelist.Device{ID: 7})
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			p := newPatientOf(t, middleware.Config{Label: c.label})
			p.healthy()
			c.prepare(p)
			p.mends(c.check, omemo.V2)
			if got := label(p); got != c.label {
				t.Errorf("label %q, want %q", got, c.label)
			}
		})
	}
}

// A signed pre key is as old as the program lets it become.
func TestDoctorAndThePeriod(t *testing.T) {
	const day = 24 * time.Hour
	for _, period := range []time.Duration{omemo.SignedPreKeyPeriod, 2 * omemo.SignedPreKeyPeriod, omemo.MaxSignedPreKeyPeriod} {
		synctest.Test(t, func(t *testing.T) {
			p := newPatientOf(t, middleware.Config{SignedPreKeyPeriod: period})
			before := p.bundle(omemo.V2).SignedPreKeyID
			time.Sleep(period - day)
			p.examine(true)
			p.healthy()
			if p.bundle(omemo.V2).SignedPreKeyID != before {
				t.Errorf("%v: rotated too early", period)
			}
			time.Sleep(day)
			for _, v := range omemo.Versions() {
				if state := p.state(p.examine(false), "signed pre key", v); state != stateFault {
					t.Errorf("%v: not found: %q", period, state)
				}
			}
			p.mends("signed pre key", omemo.V2)
			if p.bundle(omemo.V2).SignedPreKeyID == before {
				t.Errorf("%v: not rotated", period)
			}
		})
	}
}

// The signed pre key of a store that is an old copy is not rotated: its id may have
// been given to another key.
func TestDoctorRotatesNothingInAnOldCopy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPatient(t)
		b := p.bundle(omemo.V2)
		b.PreKeys = b.PreKeys[:20] // too few: another fault that publishing would mend
		b.PreKeys[0].ID = 100_000
		ok(t, bundle.Publish(t.Context(), p.pep, b))
		time.Sleep(30 * 24 * time.Hour)
		p.examine(true)
		found, err := bundle.Fetch(t.Context(), p.pep, omemo.Address{Device: p.own.Device}, omemo.V2)
		ok(t, err)
		if found.PreKeys[0].ID != 100_000 {
			t.Error("published over what a newer store has published")
		}
	})
}

// What a program that has written nothing down is announced as.
func TestAnnounced(t *testing.T) {
	both := omemo.Versions()
	for _, c := range []struct {
		name     string
		prepare  func(p *patient)
		versions []omemo.Version
		label    string
	}{
		{"nowhere", func(*patient) {}, both, ""},
		{"on a list of others", func(p *patient) { p.list(omemo.V2, devicelist.Device{ID: 7}) }, both, ""},
		{"on the legacy list", func(p *patient) { p.list(omemo.Legacy, devicelist.Device{ID: p.own.Device}) }, []omemo.Version{omemo.Legacy}, ""},
		{"with a label", func(p *patient) {
			l, err := p.manager.SignLabel(p.t.Context(), "orchard")
			ok(p.t, err)
			p.list(omemo.V2, devicelist.Device{ID: p.own.Device, Label: l.Text, LabelSig: l.Signature[:]})
		}, []omemo.Version{omemo.V2}, "orchard"},
		{"with a label that another has signed", func(p *patient) {
			p.list(omemo.V2, devicelist.Device{ID: p.own.Device, Label: "orchard", LabelSig: make([]byte, 64)})
		}, []omemo.Version{omemo.V2}, ""},
		{"by its bundle", func(p *patient) {
			ok(p.t, bundle.Publish(p.t.Context(), p.pep, p.bundle(omemo.Legacy)))
		}, []omemo.Version{omemo.Legacy}, ""},
		{"on a list that is none", func(p *patient) {
			ok(p.t, p.srv.Publish(romeo, devicelist.NodeV2, "current", `<devices xmlns="urn:example"/>`))
			ok(p.t, bundle.Publish(p.t.Context(), p.pep, p.bundle(omemo.V2)))
		}, []omemo.Version{omemo.V2}, ""},
		{"where it cannot be read", func(p *patient) {
			p.list(omemo.Legacy, devicelist.Device{ID: p.own.Device})
			p.refuse("forbidden", devicelist.NodeV2)
		}, nil, ""},
		{"where the bundle cannot be read", func(p *patient) {
			p.list(omemo.Legacy, devicelist.Device{ID: p.own.Device})
			p.refuse("remote-server-timeout", bundle.NodeV2)
		}, nil, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			p := newUnpublished(t)
			c.prepare(p)
			ctx, before := t.Context(), len(p.srv.Wire())
			a, err := announced(ctx, p.pep, p.manager)
			want := omemo.Advert{Versions: c.versions, Label: c.label, SignedPreKeyPeriod: omemo.MaxSignedPreKeyPeriod}
			if c.versions == nil {
				if err == nil || !strings.Contains(err.Error(), "is not known") {
					t.Errorf("%+v, %v", a, err)
				}
				_, err := diagnose(ctx, p.pep, p.manager, repair{fix: true, anew: true})
				if changes := p.sets(before); err == nil || len(changes) > 0 {
					t.Errorf("doctor: %v; changed: %q", err, changes)
				}
				return
			}
			if err != nil || !reflect.DeepEqual(a, want) {
				t.Errorf("%+v, want %+v; %v", a, want, err)
			}
			// Whoever mends it writes down what it is from now on.
			p.examine(true)
			p.healthy()
			want.Versions = slices.Sorted(slices.Values(want.Versions))
			if a, written, err := p.manager.Advert(ctx); err != nil || !written || !reflect.DeepEqual(a, want) {
				t.Errorf("written down: %+v, %v", a, err)
			}
			for _, v := range both {
				if serves := slices.Contains(want.Versions, v); (p.listed(v) != nil) != serves {
					t.Errorf("%s: on the list: %t, want %t", v, !serves, serves)
				}
			}
		})
	}
}

// A doctor that mends nothing writes nothing down.
func TestLookingWritesNothing(t *testing.T) {
	p := newUnpublished(t)
	p.examine(false)
	if a, written, err := p.manager.Advert(t.Context()); err != nil || written {
		t.Errorf("written down: %+v, %v", a, err)
	}
}
