package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"example.org/omellium/bundle"
	"example.org/omellium/devicelist"
	"example.org/omellium/middleware/xmpptest"
	"example.org/omellium/omemo"
	"example.org/omellium/omemo/memstore"
)

// withOther puts another device on both lists, with its bundles.
func (p *patient) withOther() omemo.DeviceID {
	p.t.Helper()
	m, err := omemo.NewManager(p.t.Context(), memstore.New(romeo), omemo.Options{})
	ok(p.t, err)
	own, err := m.Device(p.t.Context())
	ok(p.t, err)
	for _, v := range omemo.Versions() {
		b, err := m.Bundle(p.t.Context(), v)
		ok(p.t, err)
		ok(p.t, bundle.Publish(p.t.Context(), p.pep, b))
		p.list(v, devicelist.Device{ID: p.own.Device}, devicelist.Device{ID: own.Device})
	}
	return own.Device
}

// The ways in which a question stays open.
const (
	silence = "no answer"
	broken  = "connection broken off"
	// What Prosody does with a node of which it cannot read what it has stored.
	spoiled = "stored items are spoiled"
)

var (
	startTag    = regexp.MustCompile(`^<iq[^>]*>`)
	idAttribute = regexp.MustCompile(` id=["']([^"']*)["']`)
)

// refuse has the server answer questions that hold all parts with an error, until
// the node is deleted or the returned function is called.
func (p *patient) refuse(how string, parts ...string) (allow func()) {
	var mu sync.Mutex
	allowed, asked := false, make(map[string]bool)
	p.srv.SetFilter(func(_ context.Context, s xmpptest.Stanza) [][]byte {
		mu.Lock()
		defer mu.Unlock()
		id := idAttribute.FindSubmatch(startTag.Find(s.XML))
		if s.Session != p.full || id == nil || allowed {
			return [][]byte{s.XML}
		}
		if s.Direction == xmpptest.FromClient {
			if bytes.Contains(s.XML, []byte("<delete")) && bytes.Contains(s.XML, []byte(parts[0])) {
				allowed = true
			}
			for _, part := range append(parts, "<items") {
				if !bytes.Contains(s.XML, []byte(part)) {
					return [][]byte{s.XML}
				}
			}
			switch how {
			case silence:
				return nil
			case spoiled:
				if !bytes.Contains(s.XML, []byte("<item ")) {
					return nil
				}
			case broken:
				p.breakOff()
				return nil
			}
			asked[string(id[1])] = true
			return [][]byte{s.XML}
		}
		if !asked[string(id[1])] {
			return [][]byte{s.XML}
		}
		condition := how
		if how == spoiled {
			condition = "item-not-found"
		}
		return [][]byte{fmt.Appendf(nil, `<iq xmlns="jabber:client" type="error" id="%s" to="%s"><error type="cancel"><%s xmlns="urn:ietf:params:xml:ns:xmpp-stanzas"/></error></iq>`, id[1], p.full, condition)}
	})
	return func() {
		mu.Lock()
		defer mu.Unlock()
		allowed = true
	}
}

// sets returns what the client has asked the server to change since a moment.
func (p *patient) sets(since int) (changes []string) {
	for _, s := range p.srv.Wire()[since:] {
		if tag := string(startTag.Find(s.XML)); s.Session == p.full && s.Direction == xmpptest.FromClient && strings.Contains(tag, `type="set"`) {
			changes = append(changes, fmt.Sprintf("%.500s", s.XML))
		}
	}
	return changes
}

// What cannot be read is told, and nothing takes its place: neither a list that other
// devices may stand on, nor a bundle that may be newer than ours; and no device is
// taken off a list because its bundle cannot be read.
func TestDoctorLeavesAloneWhatItCannotRead(t *testing.T) {
	targets := []struct {
		name  string
		parts func(p *patient, other omemo.DeviceID) []string
	}{
		{"legacy list", func(*patient, omemo.DeviceID) []string { return []string{devicelist.NodeLegacy + `"`} }},
		{"omemo:2 list", func(*patient, omemo.DeviceID) []string { return []string{devicelist.NodeV2 + `"`} }},
		{"own legacy bundle", func(p *patient, _ omemo.DeviceID) []string {
			return []string{bundle.Node(omemo.Legacy, p.own.Device) + `"`}
		}},
		{"own omemo:2 bundle", func(p *patient, _ omemo.DeviceID) []string {
			return []string{bundle.NodeV2, decimal(uint32(p.own.Device))}
		}},
		{"other omemo:2 bundle", func(_ *patient, other omemo.DeviceID) []string {
			return []string{bundle.NodeV2, decimal(uint32(other))}
		}},
		{"other legacy bundle", func(_ *patient, other omemo.DeviceID) []string {
			return []string{bundle.Node(omemo.Legacy, other) + `"`}
		}},
		{"all omemo:2 bundles", func(*patient, omemo.DeviceID) []string { return []string{bundle.NodeV2} }},
	}
	for _, target := range targets {
		t.Run(target.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newPatient(t)
				other := p.withOther()
				for _, how := range []string{
					"remote-server-timeout", "internal-server-error", "forbidden", "not-authorized", "service-unavailable", "bad-request", "resource-constraint",
					silence, spoiled, broken, // which is the last
				} {
					if how == spoiled && strings.HasSuffix(target.name, "omemo:2 bundle") {
						continue // a node is spoiled as a whole
					}
					before := len(p.srv.Wire())
					p.refuse(how, target.parts(p, other)...)
					findings, err := diagnose(t.Context(), p.pep, p.manager, repair{fix: true})
					if changes := p.sets(before); len(changes) > 0 {
						t.Fatalf("%s: changed: %q", how, changes)
					}
					told := how == broken && errors.Is(err, errSilent)
					if err != nil && !told {
						t.Errorf("%s: error %v", how, err)
					}
					for _, f := range findings {
						told = told || f.State == stateFault && strings.Contains(f.Detail, "cannot be read: ")
					}
					if !told {
						t.Errorf("%s: not told", how)
					}
				}
			})
		})
	}
}

// A list that cannot be read is made anew by who is told to, and only then; what can be
// read by then is not lost.
func TestDoctorMakesListsAnew(t *testing.T) {
	for _, v := range omemo.Versions() {
		for _, how := range []string{silence, spoiled, "internal-server-error"} {
			for _, passes := range []bool{false, true} {
				synctest.Test(t, func(t *testing.T) {
					p := newPatient(t)
					p.withOther()
					before := len(p.srv.Wire())
					allow := p.refuse(how, devicelist.Node(v)+`"`)
					if got := p.state(p.examine(true), "list node reachable", v); got != stateFault {
						t.Errorf("%v, %s: with -fix: %q", v, how, got)
					}
					for _, change := range p.sets(before) {
						if strings.Contains(change, devicelist.Node(v)+`"`) {
							t.Errorf("%v, %s: changed: %s", v, how, change)
						}
					}
					if passes {
						allow()
					}
					want := map[bool]string{true: stateOK, false: stateFixed}[passes]
					if got := p.state(p.mend(repair{fix: true, anew: true}), "list node reachable", v); got != want {
						t.Errorf("%v, %s: with -anew: %q", v, how, got)
					}
					list, err := devicelist.Fetch(t.Context(), p.pep, "", v)
					ok(t, err)
					if !list.Contains(p.own.Device) || (len(list.Devices) == 1) == passes {
						t.Errorf("%v, %s: %+v", v, how, list.Devices)
					}
				})
			}
		}
	}
}

// A server that says nothing at all is left alone, whatever we are told to do.
func TestDoctorAndSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPatient(t)
		before := len(p.srv.Wire())
		p.srv.SetFilter(func(context.Context, xmpptest.Stanza) [][]byte { return nil })
		if _, err := diagnose(t.Context(), p.pep, p.manager, repair{fix: true, anew: true}); !errors.Is(err, errSilent) {
			t.Errorf("error %v", err)
		}
		if changes := p.sets(before); len(changes) > 0 {
			t.Errorf("changed: %q", changes)
		}
	})
}
