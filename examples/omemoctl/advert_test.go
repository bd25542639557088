package main

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	"example.org/omellium/bundle"
	"example.org/omellium/devicelist"
	"example.org/omellium/middleware"
	"example.org/omellium/omemo"
)

// program runs a program with a configuration until it is connected, and stops it.
func (s *site) program(c middleware.Config) omemo.Address {
	s.t.Helper()
	s.online(c, nil, func(*omemo.Manager) bool { return true })
	return s.bot()
}

// written returns what is written down in the store.
func (s *site) written() (a omemo.Advert) {
	s.t.Helper()
	s.between(func(m *omemo.Manager) {
		var written bool
		var err error
		if a, written, err = m.Advert(s.t.Context()); err != nil || !written {
			s.t.Fatalf("written down: %+v, %t, %v", a, written, err)
		}
	})
	return a
}

// published returns what the server has of a node, in one string.
func (s *site) published(node string) string {
	s.t.Helper()
	items, err := s.srv.Items(romeo, node)
	ok(s.t, err)
	var all strings.Builder
	for _, item := range items {
		all.Write(item.Payload)
	}
	return all.String()
}

// Whatever is done to the store of a stopped program, its device stays advertised as
// the program wants it.
func TestWhatTheProgramAdvertises(t *testing.T) {
	for _, c := range []struct {
		name   string
		config middleware.Config
	}{
		{"both", middleware.Config{}},
		{"legacy", middleware.Config{Versions: []omemo.Version{omemo.Legacy}}},
		{"omemo:2", middleware.Config{Versions: []omemo.Version{omemo.V2}}},
		{"label and period", middleware.Config{Label: "orchard", SignedPreKeyPeriod: omemo.MaxSignedPreKeyPeriod}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newSite(t)
			own := s.program(c.config)
			s.contact()
			before, lists := s.written(), make(map[omemo.Version]string)
			bundles := map[omemo.Version]string{omemo.V2: bundle.NodeV2, omemo.Legacy: bundle.Node(omemo.Legacy, own.Device)}
			for _, v := range omemo.Versions() {
				lists[v] = s.published(devicelist.Node(v))
			}
			same := func(after string) {
				t.Helper()
				if a := s.written(); !reflect.DeepEqual(a, before) {
					t.Errorf("after %s, written down: %+v, before %+v", after, a, before)
				}
				for _, v := range omemo.Versions() {
					if got := s.published(devicelist.Node(v)); got != lists[v] {
						t.Errorf("after %s, %s list %s, before %s", after, v, got, lists[v])
					}
					serves := lists[v] != ""
					if got := s.published(bundles[v]); (got != "") != serves {
						t.Errorf("after %s, %s bundle: %t, want %t", after, v, got != "", serves)
					}
				}
			}
			same("nothing")
			for _, command := range [][]string{
				{"doctor"}, {"doctor", "-fix"}, {"rotate"}, {"doctor"}, {"send", juliet, "canary"}, {"replace", juliet}, {"prune", "-dry"}, {"purge", "device", "7"}, {"doctor", "-fix"},
			} {
				if code, _ := s.run(command...); code != exitOK {
					t.Errorf("%q: exit code %d", command, code)
				}
				same(strings.Join(command, " "))
			}
			if c.config.Label != "" && !strings.Contains(lists[omemo.V2], c.config.Label) {
				t.Errorf("list %s", lists[omemo.V2])
			}
			if code, _ := s.run("purge", "account"); code != exitOK {
				t.Errorf("purge account: exit code %d", code)
			}
			for _, v := range omemo.Versions() {
				if s.published(devicelist.Node(v))+s.published(bundles[v]) != "" {
					t.Errorf("left of %s", v)
				}
			}
		})
	}
}

// A version that was purged stays so, and the last one is not purged.
func TestPurgedVersion(t *testing.T) {
	s := newSite(t)
	s.program(middleware.Config{Label: "orchard"})
	if code, _ := s.run("purge", "version", "omemo:2"); code != exitOK {
		t.Fatalf("purge version: exit code %d", code)
	}
	for _, command := range [][]string{{"doctor"}, {"rotate"}, {"doctor", "-fix"}} {
		if code, _ := s.run(command...); code != exitOK {
			t.Errorf("%q: exit code %d", command, code)
		}
		if got := s.published(devicelist.NodeV2) + s.published(bundle.NodeV2); got != "" {
			t.Errorf("after %q: %.200s", command, got)
		}
	}
	if code, _ := s.run("purge", "version", "legacy"); code != exitError || s.published(devicelist.NodeLegacy) == "" {
		t.Errorf("the only version was purged: exit code %d", code)
	}
	s.program(middleware.Config{Label: "orchard"}) // which says otherwise
	if code, _ := s.run("doctor"); code != exitOK || !strings.Contains(s.published(devicelist.NodeV2), "orchard") {
		t.Errorf("doctor: exit code %d", code)
	}
}

// An identity that was exported and imported is advertised as before: the store says
// nothing of it, but the server does.
func TestImportedIsAdvertisedAsBefore(t *testing.T) {
	s := newSite(t)
	s.program(middleware.Config{Versions: []omemo.Version{omemo.V2}, Label: "orchard"})
	before := s.published(devicelist.NodeV2)
	_, exported := s.run("export")
	s.db = t.TempDir() + "/moved.db"
	if code, _ := s.pipe(exported, "import"); code != exitOK {
		t.Fatalf("import: exit code %d", code)
	}
	code, out := s.run("-json", "rotate")
	if code != exitOK || s.published(devicelist.NodeV2) != before || s.published(devicelist.NodeLegacy) != "" {
		t.Errorf("exit code %d, %s; list %s, legacy %s", code, out, s.published(devicelist.NodeV2), s.published(devicelist.NodeLegacy))
	}
	code, out = s.run("-json", "doctor")
	var findings []finding
	ok(t, json.Unmarshal([]byte(out), &findings))
	if code != exitOK {
		t.Errorf("doctor: exit code %d", code)
	}
}
