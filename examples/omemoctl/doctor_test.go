package main

import (
	"context"
	"crypto/ed25519"
	"slices"
	"testing"
	"time"

	"example.org/omellium/bundle"
	"example.org/omellium/devicelist"
	"example.org/omellium/middleware"
	"example.org/omellium/middleware/xmpptest"
	"example.org/omellium/omemo"
	"example.org/omellium/omemo/memstore"
	"example.org/omellium/stanza"
	"example.org/omellium/stanza/pep"
)

const romeo = "romeo@example.net"

// patient is a device that is published, and a client of the same account that
// puts faults into its nodes.
type patient struct {
	t       *testing.T
	srv     *xmpptest.Server
	pep     pep.Requester
	manager *omemo.Manager
	own     omemo.Address

	full     string // address of the client
	breakOff func() // breaks its connection off
}

func newPatient(t *testing.T) *patient {
	t.Helper()
	return newPatientOf(t, middleware.Config{})
}

// newPatientOf returns the device of a program with a configuration.
func newPatientOf(t *testing.T, c middleware.Config) *patient {
	t.Helper()
	return newPatientOn(t, func(ctx context.Context, srv *xmpptest.Server, store omemo.Store) {
		c.Store = store
		om, err := middleware.New(ctx, c)
		ok(t, err)
		session, err := srv.Client(ctx, romeo, "secret")
		ok(t, err)
		_, err = om.Wrap(ctx, session)
		ok(t, err)
		om.Close()
	})
}

// newUnpublished returns a device that no program has published.
func newUnpublished(t *testing.T) *patient {
	t.Helper()
	return newPatientOn(t, func(ctx context.Context, _ *xmpptest.Server, store omemo.Store) {
		_, err := omemo.NewManager(ctx, store, omemo.Options{})
		ok(t, err)
	})
}

// newPatientOn returns the device that a program makes in a store.
func newPatientOn(t *testing.T, program func(context.Context, *xmpptest.Server, omemo.Store)) *patient {
	t.Helper()
	ctx := t.Context() // see forAnAnswer
	srv, err := xmpptest.NewServer()
	ok(t, err)
	t.Cleanup(func() { srv.Close() })
	ok(t, srv.AddAccount(romeo, "secret"))
	store := memstore.New(romeo)
	program(ctx, srv, store)
	p := &patient{t: t, srv: srv}
	session, err := srv.Client(ctx, romeo, "secret")
	ok(t, err)
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = session.Serve(nil)
	}()
	p.breakOff = func() { session.Conn().Close() }
	t.Cleanup(func() {
		p.breakOff()
		<-served
	})
	p.pep, p.full = pep.SessionRequester(session), session.LocalAddr().String()
	p.manager, err = openManager(ctx, store.Reopen())
	ok(t, err)
	p.own, err = p.manager.Device(ctx)
	ok(t, err)
	return p
}

func ok(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (p *patient) bundle(v omemo.Version) *omemo.Bundle {
	p.t.Helper()
	b, err := p.manager.Bundle(p.t.Context(), v)
	ok(p.t, err)
	return b
}

func (p *patient) list(v omemo.Version, devices ...devicelist.Device) {
	p.t.Helper()
	ok(p.t, devicelist.Publish(p.t.Context(), p.pep, devicelist.List{Version: v, Devices: devices}))
}

// faults are what a doctor has to find, and to mend.
var faults = []struct {
	name, check string
	version     omemo.Version
	prepare     func(p *patient)
}{
	{"wrong access model", "list node", omemo.V2, func(p *patient) {
		ok(p.t, pep.Configure(p.t.Context(), p.pep, devicelist.NodeV2, pep.Options{AccessModel: "presence"}))
	}},
	{"wrong access model of a bundle", "bundle node", omemo.Legacy, func(p *patient) {
		ok(p.t, pep.Configure(p.t.Context(), p.pep, bundle.Node(omemo.Legacy, p.own.Device), pep.Options{AccessModel: "whitelist"}))
	}},
	{"too few items", "bundle node", omemo.V2, func(p *patient) {
		other := otherDevice(p.t)
		ok(p.t, bundle.Publish(p.t.Context(), p.pep, other))
		p.list(omemo.V2, devicelist.Device{ID: p.own.Device}, devicelist.Device{ID: other.Owner.Device})
		ok(p.t, pep.Configure(p.t.Context(), p.pep, bundle.NodeV2, pep.Options{MaxItems: "1"}))
		ok(p.t, bundle.Publish(p.t.Context(), pepWithoutOptions{p.pep}, other))
	}},
	{"missing bundle", "bundle", omemo.Legacy, func(p *patient) {
		ok(p.t, bundle.Retract(p.t.Context(), p.pep, omemo.Legacy, p.own.Device))
	}},
	{"stale list", "devices have bundles", omemo.V2, func(p *patient) {
		p.list(omemo.V2, devicelist.Device{ID: 7}, devicelist.Device{ID: p.own.Device})
	}},
	{"missing own id", "own device on the list", omemo.Legacy, func(p *patient) {
		p.list(omemo.Legacy)
	}},
	{"bad signature", "bundle signature", omemo.V2, func(p *patient) {
		b := p.bundle(omemo.V2)
		b.Signature[5] ^= 1
		ok(p.t, bundle.Publish(p.t.Context(), p.pep, b))
	}},
	{"too few pre keys", "pre keys", omemo.V2, func(p *patient) {
		b := p.bundle(omemo.V2)
		b.PreKeys = b.PreKeys[:24]
		ok(p.t, bundle.Publish(p.t.Context(), p.pep, b))
	}},
	{"foreign item", "bundles have devices", omemo.V2, func(p *patient) {
		ok(p.t, bundle.Publish(p.t.Context(), p.pep, otherDevice(p.t)))
	}},
	{"foreign item beside the list", "list alone on its node", omemo.V2, func(p *patient) {
		ok(p.t, pep.Configure(p.t.Context(), p.pep, devicelist.NodeV2, pep.Options{MaxItems: "5"}))
		foreign := devicelist.List{Version: omemo.V2, Devices: []devicelist.Device{{ID: 7}}}
		ok(p.t, p.srv.Publish(romeo, devicelist.NodeV2, "other", string(foreign.Element().AppendXML(nil))))
	}},
	{"wrong identity in one version", "bundle identity", omemo.Legacy, func(p *patient) {
		m, err := omemo.NewManager(p.t.Context(), memstore.New(romeo), omemo.Options{})
		ok(p.t, err)
		b, err := m.Bundle(p.t.Context(), omemo.Legacy)
		ok(p.t, err)
		b.Owner = p.own
		ok(p.t, bundle.Publish(p.t.Context(), p.pep, b))
	}},
	{"unsigned label", "labels", omemo.V2, func(p *patient) {
		list := devicelist.List{Version: omemo.V2, Devices: []devicelist.Device{{ID: p.own.Device}}}.Element()
		for e := range list.Elements() {
			e.SetAttribute("label", "orchard")
		}
		ok(p.t, p.srv.Publish(romeo, devicelist.NodeV2, "current", string(list.AppendXML(nil))))
	}},
	{"label signed by another key", "labels", omemo.V2, func(p *patient) {
		_, key, err := ed25519.GenerateKey(nil)
		ok(p.t, err)
		p.list(omemo.V2, devicelist.Device{ID: p.own.Device, Label: "orchard", LabelSig: ed25519.Sign(key, []byte("orchard"))})
	}},
	{"malformed list", "list readable", omemo.V2, func(p *patient) {
		ok(p.t, p.srv.Publish(romeo, devicelist.NodeV2, "current", `<devices xmlns="urn:example"/>`))
	}},
}

// otherDevice returns the bundle of another device of the account.
func otherDevice(t *testing.T) *omemo.Bundle {
	t.Helper()
	m, err := omemo.NewManager(t.Context(), memstore.New(romeo), omemo.Options{})
	ok(t, err)
	b, err := m.Bundle(t.Context(), omemo.V2)
	ok(t, err)
	return b
}

// pepWithoutOptions publishes as old clients do.
type pepWithoutOptions struct{ pep.Requester }

func (r pepWithoutOptions) Request(ctx context.Context, iq *stanza.Element) (*stanza.Element, error) {
	iq = iq.Clone()
	for e := range iq.Elements() {
		e.Remove(func(c *stanza.Element) bool { return c.Name.Local == "publish-options" })
	}
	return r.Requester.Request(ctx, iq)
}

func TestDoctor(t *testing.T) {
	t.Run("healthy", func(t *testing.T) {
		t.Parallel()
		p := newPatient(t)
		for _, f := range p.examine(false) {
			if f.State != stateOK {
				t.Errorf("%+v", f)
			}
		}
	})
	for _, c := range faults {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			p := newPatient(t)
			c.prepare(p)
			if state := p.state(p.examine(false), c.check, c.version); state != stateFault {
				t.Fatalf("not found: %q", state)
			}
			if state := p.state(p.examine(true), c.check, c.version); state != stateFixed {
				t.Fatalf("not mended: %q", state)
			}
			for _, f := range p.examine(false) {
				if f.State != stateOK {
					t.Errorf("left: %+v", f)
				}
			}
		})
	}
}

func (p *patient) examine(fix bool) []finding {
	p.t.Helper()
	return p.mend(repair{fix: fix})
}

func (p *patient) mend(mend repair) []finding {
	p.t.Helper()
	findings, err := diagnose(p.t.Context(), p.pep, p.manager, mend)
	ok(p.t, err)
	for _, f := range findings {
		if f.State != stateOK {
			p.t.Logf("%+v: %s %s: %s %s", mend, f.Check, f.Version, f.State, f.Detail)
		}
	}
	return findings
}

func (p *patient) state(findings []finding, check string, v omemo.Version) string {
	i := slices.IndexFunc(findings, func(f finding) bool { return f.Check == check && f.Version == v.String() })
	if i < 0 {
		return "not looked at"
	}
	return findings[i].State
}

// A store that is an old copy is told, and nothing is published from it.
func TestDoctorLeavesARestoredStoreAlone(t *testing.T) {
	p := newPatient(t)
	b := p.bundle(omemo.V2)
	b.PreKeys[0].ID = 100_000
	ok(t, bundle.Publish(t.Context(), p.pep, b))
	if state := p.state(p.examine(true), "bundle is ours", omemo.V2); state != stateFault {
		t.Errorf("state %q", state)
	}
	found, err := bundle.Fetch(t.Context(), p.pep, omemo.Address{Device: p.own.Device}, omemo.V2)
	ok(t, err)
	if found.PreKeys[0].ID != 100_000 {
		t.Error("published over what a newer store has published")
	}
}

// Another device with two identities is told; only itself can mend that.
func TestDoctorComparesIdentities(t *testing.T) {
	p := newPatient(t)
	other := otherDevice(t)
	ok(t, bundle.Publish(t.Context(), p.pep, other))
	m, err := omemo.NewManager(t.Context(), memstore.New(romeo), omemo.Options{})
	ok(t, err)
	legacy, err := m.Bundle(t.Context(), omemo.Legacy)
	ok(t, err)
	legacy.Owner = other.Owner
	ok(t, bundle.Publish(t.Context(), p.pep, legacy))
	p.list(omemo.V2, devicelist.Device{ID: p.own.Device}, devicelist.Device{ID: other.Owner.Device})
	if state := p.state(p.examine(true), "devices have one identity", omemo.V2); state != stateFault {
		t.Errorf("state %q", state)
	}
}

func TestDoctorAndTheClock(t *testing.T) {
	for _, c := range []struct {
		off   time.Duration
		err   error
		state string
	}{
		{0, nil, stateOK}, {clockTolerance, nil, stateOK}, {-clockTolerance, nil, stateOK},
		{clockTolerance + time.Second, nil, stateFault}, {-24 * time.Hour, nil, stateFault},
		{24 * time.Hour, errSilent, stateUnknown},
	} {
		if f := clock(c.off, c.err); f.State != c.state {
			t.Errorf("%v, %v: %+v", c.off, c.err, f)
		}
	}
}
