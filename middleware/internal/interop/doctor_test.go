//go:build live

package interop

import (
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"example.org/omellium/bundle"
	"example.org/omellium/devicelist"
	"example.org/omellium/middleware/internal/lab"
	"example.org/omellium/omemo"
	"example.org/omellium/omemo/sqlstore/sqlite"
	"example.org/omellium/stanza"
	"example.org/omellium/stanza/pep"
)

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
