//go:build live

package interop

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"mellium.im/xmpp"
	"mellium.im/xmpp/jid"

	"example.org/omellium/bundle"
	"example.org/omellium/devicelist"
	"example.org/omellium/middleware"
	"example.org/omellium/middleware/internal/lab"
	"example.org/omellium/omemo"
	"example.org/omellium/omemo/memstore"
	"example.org/omellium/omemo/sqlstore/sqlite"
	"example.org/omellium/stanza"
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

// Sessions are replaced by hand, from either side.
func TestReplaceWithPython(t *testing.T) {
	eachVersion(t, func(t *testing.T, s *lab.Server, versions []string) {
		one, user := s.Account(t, "program"), s.Account(t, "user")
		lab.Befriend(t, one, user)
		program := newProgram(t, s, one)
		peer := python{lab.Python(t, s, user, lab.PythonOptions{Versions: versions})}
		there, back := texts("there", one, 6), texts("back", user, 6)
		talk := func(i int) {
			t.Helper()
			program.Send(t, user.JID, there[i])
			expect(t, peer, one.JID, there[:i+1])
			peer.Send(t, one.JID, back[i])
			expect(t, program, user.JID, back[:i+1])
		}
		talk(0)
		results, err := program.om.Replace(t.Context(), jid.MustParse(user.JID))
		ok(t, err)
		for _, r := range results {
			if r.Err != nil {
				t.Errorf("%v: %v", r.Peer, r.Err)
			}
		}
		talk(1)
		talk(2)
		// Python forgets the session before: what we would send in it, it cannot read.
		replaced := func() (n int) {
			program.mu.Lock()
			defer program.mu.Unlock()
			for _, e := range program.events {
				if e.Kind == middleware.SessionReplaced {
					n++
				}
			}
			return n
		}
		before := replaced()
		peer.ReplaceSessions(t, one.JID)
		if !lab.Until(deadline, func() bool { return replaced() > before }) {
			t.Fatal("no session was replaced")
		}
		talk(3)
		talk(4)
		// The other side speaks first after it was replaced.
		_, err = program.om.Replace(t.Context(), jid.MustParse(user.JID))
		ok(t, err)
		peer.Send(t, one.JID, back[5])
		expect(t, program, user.JID, back)
		program.Send(t, user.JID, there[5])
		expect(t, peer, one.JID, there)
		secret(t, s, there, back)
	})
}

// 150 messages one way: the heartbeats of the other side keep the chain short.
func TestOneWay(t *testing.T) {
	const messages, heartbeat = 150, 53
	eachVersion(t, func(t *testing.T, s *lab.Server, versions []string) {
		one, user := s.Account(t, "program"), s.Account(t, "user")
		lab.Befriend(t, one, user)
		program := newProgram(t, s, one)
		peer := python{lab.Python(t, s, user, lab.PythonOptions{Versions: versions})}
		there, back := texts("there", one, messages), texts("back", user, messages)
		chains := func(chain func(*omemo.Session) int) (longest int) {
			for _, v := range omemo.Versions() {
				sessions, err := program.om.Manager().Sessions(t.Context(), omemo.Peer{
					Version: v, Address: omemo.Address{JID: user.JID, Device: omemo.DeviceID(peer.Device)},
				})
				ok(t, err)
				for _, session := range sessions {
					longest = max(longest, chain(session))
				}
			}
			return longest
		}
		for i, body := range there {
			program.Send(t, user.JID, body)
			if i%10 == 9 { // so that the other side's answers find their way in between
				peer.AwaitBody(t, one.JID, body)
			}
		}
		expect(t, peer, one.JID, there)
		if !lab.Until(deadline, func() bool { return chains((*omemo.Session).SendingChain) < 2*heartbeat }) {
			t.Errorf("no heartbeat of the other side in %d messages", messages)
		}
		for i, body := range back {
			peer.Send(t, one.JID, body)
			if i%10 == 9 {
				program.AwaitBody(t, user.JID, body)
			}
		}
		expect(t, program, user.JID, back)
		if n := chains((*omemo.Session).ReceivingChain); n >= 2*heartbeat {
			t.Errorf("a receiving chain of %d messages: our heartbeat was not heard", n)
		}
		if bad := peer.Undecryptable(); len(bad) > 0 {
			t.Errorf("undecryptable: %+v", bad)
		}
		secret(t, s, there, back)
	})
}

// omemoctl is examples/omemoctl as a process, on the store of a stopped program.
type omemoctl struct {
	t       *testing.T
	s       *lab.Server
	account *lab.Account
	binary  string
	db      string
}

type finding struct{ Check, Version, State, Detail string }

func (c *omemoctl) doctor(args ...string) (findings []finding, clean bool) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), 2*deadline)
	defer cancel()
	cmd := exec.CommandContext(ctx, c.binary, append([]string{
		"-jid", c.account.JID, "-addr", c.s.Addr, "-ca", c.s.CAFile, "-db", c.db, "-json", "doctor",
	}, args...)...)
	cmd.Env = append(os.Environ(), "XMPP_PASSWORD="+c.account.Password)
	var errs strings.Builder
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if e := json.Unmarshal(out, &findings); e != nil {
		c.t.Fatalf("doctor: %v, %v: %s", err, e, errs.String())
	}
	for _, f := range findings {
		if f.State == "fault" || f.State == "fixed" {
			c.t.Logf("%v %+v", args, f)
		}
	}
	return findings, err == nil
}

// state returns what was found of a check.
func state(findings []finding, check string, v omemo.Version) string {
	i := slices.IndexFunc(findings, func(f finding) bool { return f.Check == check && f.Version == v.String() })
	if i < 0 {
		return "not looked at"
	}
	return findings[i].State
}

// fault is what a test does to a healthy device, and the check that has to find
// it.
type fault struct {
	name, check string
	version     omemo.Version
	prepare     func()
	anew        bool // what is there cannot be read, and is lost
}

// omemoctlBinary builds examples/omemoctl.
func omemoctlBinary(t *testing.T) string {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "omemoctl")
	if out, err := exec.Command("go", "build", "-o", binary, "example.org/omellium/examples/omemoctl").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v: %s", err, out)
	}
	return binary
}

func TestDoctor(t *testing.T) {
	binary := omemoctlBinary(t)
	lab.Each(t, func(t *testing.T, s *lab.Server) {
		one := s.Account(t, "program")
		c := &omemoctl{t: t, s: s, account: one, binary: binary, db: filepath.Join(t.TempDir(), "bot.db")}
		ours := make(map[omemo.Version]*omemo.Bundle)
		store, err := sqlite.Open(t.Context(), c.db, one.JID)
		ok(t, err)
		m, err := omemo.NewManager(t.Context(), store, omemo.Options{})
		ok(t, err)
		for _, v := range omemo.Versions() {
			ours[v], err = m.Bundle(t.Context(), v)
			ok(t, err)
		}
		ok(t, store.Close())
		own := ours[omemo.V2].Owner.Device
		if _, clean := c.doctor("-fix"); !clean {
			t.Fatal("what was never published was not mended")
		}
		other, stranger := client(t, s, one), client(t, s, s.Account(t, "stranger"))
		publish := func(b omemo.Bundle, change func(*omemo.Bundle)) {
			b.PreKeys = slices.Clone(b.PreKeys)
			change(&b)
			ok(t, bundle.Publish(t.Context(), other, &b))
		}
		list := func(v omemo.Version, devices ...devicelist.Device) {
			ok(t, devicelist.Publish(t.Context(), other, devicelist.List{Version: v, Devices: devices}))
		}
		ctx := t.Context()
		faults := []fault{
			{"wrong access model", "list node", omemo.V2, func() {
				ok(t, pep.Configure(ctx, other, devicelist.NodeV2, pep.Options{AccessModel: "presence"}))
			}, false},
			{"missing bundle", "bundle", omemo.Legacy, func() {
				ok(t, bundle.Retract(ctx, other, omemo.Legacy, own))
			}, false},
			{"stale list", "devices have bundles", omemo.V2, func() {
				list(omemo.V2, devicelist.Device{ID: 7}, devicelist.Device{ID: own})
			}, false},
			{"missing own id", "own device on the list", omemo.Legacy, func() {
				ok(t, pep.Delete(ctx, other, devicelist.NodeLegacy))
			}, false},
			{"bad signature", "bundle signature", omemo.V2, func() {
				publish(*ours[omemo.V2], func(b *omemo.Bundle) { b.Signature[5] ^= 1 })
			}, false},
			{"too few pre keys", "pre keys", omemo.Legacy, func() {
				publish(*ours[omemo.Legacy], func(b *omemo.Bundle) { b.PreKeys = b.PreKeys[:10] })
			}, false},
			{"foreign item", "bundles have devices", omemo.V2, func() {
				publish(*another(t, one.JID, omemo.V2), func(*omemo.Bundle) {})
			}, false},
			{"wrong identity in one version", "bundle identity", omemo.Legacy, func() {
				publish(*another(t, one.JID, omemo.Legacy), func(b *omemo.Bundle) { b.Owner.Device = own })
			}, false},
			{"unsigned label", "labels", omemo.V2, func() {
				payload := devicelist.List{Version: omemo.V2, Devices: []devicelist.Device{{ID: own}}}.Element()
				for e := range payload.Elements() {
					e.SetAttribute("label", "orchard")
				}
				ok(t, pep.Publish(ctx, other, devicelist.NodeV2, "current", payload, pep.Options{AccessModel: "open", MaxItems: "1"}))
			}, false},
			{"unreadable list", "list readable", omemo.Legacy, func() {
				payload := stanza.NewElement("urn:example", "list")
				ok(t, pep.Publish(ctx, other, devicelist.NodeLegacy, "current", payload, pep.Options{AccessModel: "open", MaxItems: "1"}))
			}, false},
		}
		if s.Kind == "prosody" { // ejabberd keeps nodes in a database of its own
			faults = append(faults, fault{"unreachable node", "list node reachable", omemo.V2, func() {
				s.Spoil(t, one, devicelist.NodeV2)
			}, true})
		}
		for _, fault := range faults {
			fault.prepare()
			findings, clean := c.doctor()
			if got := state(findings, fault.check, fault.version); got != "fault" || clean {
				t.Errorf("%s: found %q, exit code 0: %t", fault.name, got, clean)
			}
			mend := []string{"-fix"}
			if fault.anew {
				findings, clean = c.doctor(mend...)
				if got := state(findings, fault.check, fault.version); got != "fault" || clean {
					t.Errorf("%s: %q without having been asked to, exit code 0: %t", fault.name, got, clean)
				}
				mend = append(mend, "-anew")
			}
			findings, clean = c.doctor(mend...)
			if got := state(findings, fault.check, fault.version); got != "fixed" || !clean {
				t.Errorf("%s: %q, exit code 0: %t", fault.name, got, clean)
			}
			if _, clean := c.doctor(); !clean {
				t.Errorf("%s: faults are left", fault.name)
			}
			readable(t, stranger, one.JID, uint32(own))
		}
	})
}
