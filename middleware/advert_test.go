package middleware_test

import (
	"bytes"
	"context"
	"errors"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"example.org/omellium/bundle"
	"example.org/omellium/devicelist"
	"example.org/omellium/middleware"
	"example.org/omellium/middleware/xmpptest"
	"example.org/omellium/omemo"
	"example.org/omellium/stanza/pep"
	"mellium.im/xmpp/jid"
)

// Pain 5 (lurch#52): another client writes the list without us.
func TestOwnDeviceRemovedFromTheList(t *testing.T) {
	for _, v := range omemo.Versions() {
		t.Run(v.String(), func(t *testing.T) {
			t.Parallel()
			srv := network(t, romeo)
			p := connected(t, srv, romeo, middleware.Config{})
			other := client(t, srv, romeo)
			own := device(t, p)
			ok(t, devicelist.Publish(t.Context(), other, devicelist.List{Version: v, Devices: []devicelist.Device{{ID: 7}}}))
			until(t, "our device is back", func() bool {
				l := listed(t, other, "", v)
				return l.Contains(own) && l.Contains(7)
			})
			p.awaitVersion(middleware.OwnDeviceRemoved, v)
		})
	}
}

func TestOwnDeviceRemovedAgainAndAgain(t *testing.T) {
	t.Parallel()
	srv := network(t, romeo)
	p := connected(t, srv, romeo, middleware.Config{})
	other := client(t, srv, romeo)
	own := device(t, p)
	for removed := 0; p.count(middleware.OwnDeviceContested) == 0; removed++ {
		if removed > 10 {
			t.Fatal("put back more than ten times")
		}
		ok(t, devicelist.Publish(t.Context(), other, devicelist.List{Version: omemo.V2, Devices: []devicelist.Device{{ID: 7}}}))
		until(t, "a decision", func() bool {
			return p.count(middleware.OwnDeviceContested) > 0 || listed(t, other, "", omemo.V2).Contains(own)
		})
	}
	if l := listed(t, other, "", omemo.V2); l.Contains(own) {
		t.Error("contested, and back on the list")
	}
}

// Pain 6 (Dino#1139): another client has made the nodes, for contacts only, with
// room for one item.
func TestNodesOfOthersAreRepaired(t *testing.T) {
	t.Parallel()
	srv := network(t, romeo, juliet)
	other := client(t, srv, romeo)
	stored := omemo.DeviceID(7)
	b, err := newManager(t, romeo).Bundle(t.Context(), omemo.V2)
	ok(t, err)
	b.Owner.Device = stored
	for _, node := range []struct{ name, id string }{
		{devicelist.NodeV2, "current"}, {devicelist.NodeLegacy, "current"}, {bundle.NodeV2, decimal(stored)},
	} {
		payload := bundle.Element(b)
		if node.name != bundle.NodeV2 {
			v, _ := devicelist.NodeVersion(node.name)
			payload = devicelist.List{Version: v, Devices: []devicelist.Device{{ID: stored}}}.Element()
		}
		ok(t, pep.Publish(t.Context(), other, node.name, node.id, payload, pep.Options{AccessModel: "presence", MaxItems: "1"}))
	}
	stranger := client(t, srv, juliet)
	if _, err := bundle.Fetch(t.Context(), stranger, omemo.Address{JID: romeo, Device: stored}, omemo.V2); err == nil {
		t.Fatal("a stranger can read before")
	}
	p := connected(t, srv, romeo, middleware.Config{})
	own := device(t, p)
	for _, v := range omemo.Versions() {
		if l := listed(t, stranger, romeo, v); !l.Contains(own) || !l.Contains(stored) {
			t.Errorf("%v: a stranger sees %v", v, l)
		}
		if _, err := bundle.Fetch(t.Context(), stranger, omemo.Address{JID: romeo, Device: own}, v); err != nil {
			t.Errorf("%v: a stranger: %v", v, err)
		}
	}
	if _, err := bundle.Fetch(t.Context(), stranger, omemo.Address{JID: romeo, Device: stored}, omemo.V2); err != nil {
		t.Errorf("the bundle of the other device: %v", err)
	}
}

// Pain 7 (Converse#4113): ejabberd refuses max_items, but lets it be configured.
func TestServerRefusesMaxItems(t *testing.T) {
	t.Parallel()
	srv := newServer(t, xmpptest.RefuseMaxItems())
	for _, a := range []string{romeo, juliet} {
		ok(t, srv.AddAccount(a, "secret"))
	}
	one := connected(t, srv, romeo, middleware.Config{})
	two := connected(t, srv, romeo, middleware.Config{})
	stranger := client(t, srv, juliet)
	for _, p := range []*program{one, two} {
		for _, v := range omemo.Versions() {
			if err := p.om.Withdrawn(v); err != nil {
				t.Errorf("%v was withdrawn: %v", v, err)
			}
			b, err := bundle.Fetch(t.Context(), stranger, omemo.Address{JID: romeo, Device: device(t, p)}, v)
			if err != nil || b.Verify() != nil {
				t.Errorf("%v: %v", v, err)
			}
		}
	}
}

// refuseConfiguration answers whoever configures a node with an error.
func refuseConfiguration(_ context.Context, s xmpptest.Stanza) [][]byte {
	if s.Direction == xmpptest.FromClient && bytes.Contains(s.XML, []byte("<configure")) && bytes.Contains(s.XML, []byte("submit")) {
		return [][]byte{bytes.ReplaceAll(s.XML, []byte("configure"), []byte("refused"))}
	}
	return [][]byte{s.XML}
}

// A version that cannot be served is withdrawn; the other goes on.
func TestHonestAdvertising(t *testing.T) {
	for _, c := range []struct {
		name    string
		options pep.Options
		reason  error
	}{
		{"room for one bundle", pep.Options{AccessModel: "open", MaxItems: "1"}, middleware.ErrItemLimit},
		{"for contacts only", pep.Options{AccessModel: "presence", MaxItems: "20"}, middleware.ErrAccessModel},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			srv := network(t, romeo, juliet)
			other := client(t, srv, romeo)
			b, err := newManager(t, romeo).Bundle(t.Context(), omemo.V2)
			ok(t, err)
			ok(t, pep.Publish(t.Context(), other, bundle.NodeV2, decimal(b.Owner.Device), bundle.Element(b), c.options))
			ok(t, devicelist.Publish(t.Context(), other, devicelist.List{Version: omemo.V2, Devices: []devicelist.Device{{ID: b.Owner.Device}}}))
			srv.SetFilter(refuseConfiguration)
			a := connected(t, srv, romeo, middleware.Config{AnswerStrangers: true})
			e := a.awaitVersion(middleware.Withdrawn, omemo.V2)
			if !errors.Is(e.Err, c.reason) || !errors.Is(a.om.Withdrawn(omemo.V2), c.reason) || a.om.Withdrawn(omemo.Legacy) != nil {
				t.Fatalf("withdrawn: %v; %v, %v", e.Err, a.om.Withdrawn(omemo.V2), a.om.Withdrawn(omemo.Legacy))
			}
			if l := listed(t, other, "", omemo.V2); l.Contains(device(t, a)) || !l.Contains(b.Owner.Device) {
				t.Errorf("omemo:2 list: %v", l)
			}
			if c.reason == middleware.ErrItemLimit {
				// That of the other device is still there.
				if _, err := bundle.Fetch(t.Context(), other, omemo.Address{JID: romeo, Device: b.Owner.Device}, omemo.V2); err != nil {
					t.Error(err)
				}
			}
			p := connected(t, srv, juliet, middleware.Config{AnswerStrangers: true})
			p.say(romeo, "legacy goes on")
			if got := a.awaitText("legacy goes on"); got.Info.Version != omemo.Legacy {
				t.Errorf("came in %v", got.Info.Version)
			}
			if n := a.count(middleware.Withdrawn); n != 1 {
				t.Errorf("%d events", n)
			}
		})
	}
}

// refusePublishing answers whoever publishes something that holds all of some
// texts with an error.
func refusePublishing(texts ...string) func(context.Context, xmpptest.Stanza) [][]byte {
	refused := strings.NewReplacer("<publish ", "<refused ", "</publish>", "</refused>")
	return func(_ context.Context, s xmpptest.Stanza) [][]byte {
		if s.Direction == xmpptest.FromClient && holdsAll(string(s.XML), texts) {
			return [][]byte{[]byte(refused.Replace(string(s.XML)))}
		}
		return [][]byte{s.XML}
	}
}

// Without any version that can be served, nothing is.
func TestNothingCanBeServed(t *testing.T) {
	t.Parallel()
	srv := network(t, romeo)
	srv.SetFilter(refusePublishing())
	p := load(t, romeo, middleware.Config{})
	_, err := p.om.Wrap(t.Context(), login(t, srv, romeo))
	if _, refused := errors.AsType[*pep.Error](err); !errors.Is(err, middleware.ErrNotReady) || !refused {
		t.Errorf("error %v", err)
	}
	for _, v := range omemo.Versions() {
		if p.count(middleware.Withdrawn) != 2 || p.om.Withdrawn(v) == nil {
			t.Errorf("%v was not withdrawn", v)
		}
	}
}

// A server that gives strangers another bundle than was published.
func TestReadBackDiffers(t *testing.T) {
	t.Parallel()
	srv := network(t, romeo)
	altered := regexp.MustCompile(`(<pk [^>]*id=.)100(.)`)
	srv.SetFilter(func(_ context.Context, s xmpptest.Stanza) [][]byte {
		if s.Direction == xmpptest.FromClient {
			return [][]byte{s.XML}
		}
		return [][]byte{altered.ReplaceAll(s.XML, []byte("${1}99999$2"))}
	})
	p := connected(t, srv, romeo, middleware.Config{})
	if e := p.awaitVersion(middleware.Withdrawn, omemo.V2); !errors.Is(e.Err, middleware.ErrReadBack) {
		t.Errorf("reason %v", e.Err)
	}
}

// What a connection before this one has published last can come to the server after
// what this one publishes.
func TestLatePublication(t *testing.T) {
	t.Parallel()
	srv := network(t, romeo)
	published := regexp.MustCompile(`^<iq[^>]*><pubsub[^>]*><publish node=.(urn:xmpp:omemo:2:bundles|eu.siacs.conversations.axolotl.bundles:)`)
	keyID := regexp.MustCompile(`(<pk id=.|preKeyId=.)100(.)`)
	late := make(map[string]bool)
	srv.SetFilter(func(_ context.Context, s xmpptest.Stanza) [][]byte {
		node := published.FindSubmatch(s.XML)
		if s.Direction != xmpptest.FromClient || node == nil || late[string(node[1])] {
			return [][]byte{s.XML}
		}
		late[string(node[1])] = true
		return [][]byte{s.XML, keyID.ReplaceAll(s.XML, []byte("${1}99999$2"))}
	})
	p := connected(t, srv, romeo, middleware.Config{})
	if n := p.count(middleware.Withdrawn); len(late) != 2 || n != 0 {
		t.Errorf("of %d versions that something came late in, %d were withdrawn", len(late), n)
	}
}

func TestProgressOfTheFirstPublication(t *testing.T) {
	t.Parallel()
	srv := network(t, romeo)
	p := connected(t, srv, romeo, middleware.Config{})
	steps := func() (steps []int) {
		p.mu.Lock()
		defer p.mu.Unlock()
		for _, e := range p.events {
			if e.Kind == middleware.Progress {
				steps = append(steps, e.Done, e.Total)
			}
		}
		return steps
	}
	if s := steps(); len(s) != 4 || s[0] != 1 || s[2] != 2 || s[3] != 2 {
		t.Errorf("steps: %v", s)
	}
	p.attach(login(t, srv, romeo), nil)
	if s := steps(); len(s) != 4 {
		t.Errorf("progress without a first publication: %v", s)
	}
}

func TestOwnLabel(t *testing.T) {
	t.Parallel()
	srv := network(t, romeo, juliet)
	p := load(t, romeo, middleware.Config{Label: "orchard <3", AnswerStrangers: true})
	p.attach(login(t, srv, romeo), nil)
	b := connected(t, srv, juliet, middleware.Config{AnswerStrangers: true, Prefer: func(jid.JID) omemo.Version { return omemo.V2 }})
	stranger := client(t, srv, juliet)
	if l := listed(t, stranger, romeo, omemo.V2); len(l.Devices) != 1 || l.Devices[0].Label != "orchard <3" {
		t.Fatalf("list: %+v", l)
	}
	if l := listed(t, stranger, juliet, omemo.V2); len(l.Devices) != 1 || l.Devices[0].Label != "" {
		t.Errorf("a label that nobody has set: %+v", l)
	}
	before := listed(t, stranger, romeo, omemo.V2).Devices[0]
	b.say(romeo, "hello")
	p.awaitText("hello")
	_, devices, err := b.om.Manager().Account(t.Context(), romeo)
	ok(t, err)
	shown := ""
	for _, d := range devices {
		shown += d.VerifiedLabel()
	}
	if shown != "orchard <3" {
		t.Errorf("label shown: %q", shown)
	}
	// It is signed once, not with each connection.
	p.attach(login(t, srv, romeo), nil)
	if after := listed(t, stranger, romeo, omemo.V2).Devices[0]; !bytes.Equal(after.LabelSig, before.LabelSig) {
		t.Error("label was signed again")
	}
	// And it goes when it is not set any more.
	p.om.Close()
	p.store = reopened(p.store)
	q := load(t, romeo, middleware.Config{Store: p.store})
	q.attach(login(t, srv, romeo), nil)
	if l := listed(t, stranger, romeo, omemo.V2); l.Devices[0].Label != "" {
		t.Errorf("label left: %+v", l)
	}
}

func TestVersionsOfConfig(t *testing.T) {
	t.Parallel()
	srv := network(t, romeo)
	p := load(t, romeo, middleware.Config{})
	p.attach(login(t, srv, romeo), nil)
	p.om.Close()
	q := load(t, romeo, middleware.Config{Store: reopened(p.store), Versions: []omemo.Version{omemo.Legacy}})
	q.attach(login(t, srv, romeo), nil)
	other := client(t, srv, romeo)
	if listed(t, other, "", omemo.V2).Contains(device(t, q)) || !listed(t, other, "", omemo.Legacy).Contains(device(t, q)) {
		t.Error("the lists are not those of Config.Versions")
	}
}

// A version that is withdrawn comes back when the server lets it.
func TestWithdrawnVersionComesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := network(t, romeo)
		srv.SetFilter(func(_ context.Context, s xmpptest.Stanza) [][]byte {
			if s.Direction == xmpptest.FromClient && bytes.Contains(s.XML, []byte(bundle.NodeV2)) && bytes.Contains(s.XML, []byte("<publish")) {
				return [][]byte{bytes.ReplaceAll(s.XML, []byte("publish"), []byte("refused"))}
			}
			return [][]byte{s.XML}
		})
		p := connected(t, srv, romeo, middleware.Config{})
		other := client(t, srv, romeo)
		if p.om.Withdrawn(omemo.V2) == nil || listed(t, other, "", omemo.V2).Contains(device(t, p)) {
			t.Fatal("not withdrawn")
		}
		before := len(srv.Wire())
		time.Sleep(time.Hour)
		if n := len(srv.Wire()) - before; n > 200 {
			t.Errorf("%d stanzas in an hour", n)
		}
		srv.SetFilter(nil)
		time.Sleep(15 * time.Minute)
		synctest.Wait()
		if p.om.Withdrawn(omemo.V2) != nil || !listed(t, other, "", omemo.V2).Contains(device(t, p)) {
			t.Errorf("still withdrawn: %v", p.om.Withdrawn(omemo.V2))
		}
		if p.count(middleware.Withdrawn) != 1 || p.count(middleware.Trouble) != 0 {
			t.Errorf("%d, %d events", p.count(middleware.Withdrawn), p.count(middleware.Trouble))
		}
	})
}
