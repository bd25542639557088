package middleware_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"example.org/omellium/bundle"
	"example.org/omellium/devicelist"
	"example.org/omellium/middleware"
	"example.org/omellium/middleware/xmpptest"
	"example.org/omellium/omemo"
	"example.org/omellium/stanza/pep"
	"mellium.im/xmpp"
)

var (
	startTag    = regexp.MustCompile(`^<iq[^>]*>`)
	idAttribute = regexp.MustCompile(` id=["']([^"']*)["']`)
)

// answered returns a filter that has the server answer requests of a session that
// hold all of some texts by an error, as it stands below <error/>; without a session,
// those of all. With an empty one it says nothing.
func answered(session, failure string, texts ...string) xmpptest.Filter {
	var mu sync.Mutex
	asked := make(map[string]bool)
	return func(_ context.Context, s xmpptest.Stanza) [][]byte {
		id := idAttribute.FindSubmatch(startTag.Find(s.XML))
		if id == nil || session != "" && s.Session != session {
			return [][]byte{s.XML}
		}
		key := s.Session + " " + string(id[1])
		mu.Lock()
		defer mu.Unlock()
		if s.Direction == xmpptest.FromClient {
			asked[key] = holdsAll(string(s.XML), texts)
			return [][]byte{s.XML}
		}
		switch {
		case !asked[key]:
			return [][]byte{s.XML}
		case failure == "":
			return nil
		}
		return [][]byte{fmt.Appendf(nil, `<iq xmlns="jabber:client" type="error" id="%s" to="%s"><error type="cancel">%s</error></iq>`, id[1], s.Session, failure)}
	}
}

// failure returns a condition, and one of XEP-0060 with it.
func failure(condition string, specific ...string) string {
	s := `<` + condition + ` xmlns="urn:ietf:params:xml:ns:xmpp-stanzas"/>`
	for _, c := range specific {
		s += `<` + c + ` xmlns="http://jabber.org/protocol/pubsub#errors"/>`
	}
	return s
}

// refusals are what a server answers that does not let us see what is ours, or
// cannot at this moment.
var refusals = map[string]string{
	"forbidden":               failure("forbidden"),
	"presence needed":         failure("not-authorized", "presence-subscription-required"),
	"whitelist":               failure("not-allowed", "closed-node"),
	"service-unavailable":     failure("service-unavailable"),
	"feature-not-implemented": failure("feature-not-implemented", `unsupported feature="retrieve-items"`),
	"internal-server-error":   failure("internal-server-error"),
	"remote-server-timeout":   failure("remote-server-timeout"),
	"silence":                 "",
}

// changes returns what a session has asked the server to change on a node, since a
// moment.
func changes(srv *xmpptest.Server, session, node string, since int) (found []string) {
	for _, s := range srv.Wire()[since:] {
		if tag := string(startTag.Find(s.XML)); s.Session == session && s.Direction == xmpptest.FromClient && strings.Contains(tag, `type="set"`) && bytes.Contains(s.XML, []byte(`node="`+node+`"`)) {
			found = append(found, fmt.Sprintf("%.400s", s.XML))
		}
	}
	return found
}

// A list of ours that the server does not let us see is not taken for none, in
// whose place one with this device alone would cut off all others: nothing is
// published, and when the list can be read all is as it should be.
func TestAnUnseenOwnListIsNotWrittenOver(t *testing.T) {
	const other = omemo.DeviceID(7)
	type place struct {
		name string
		// enters brings a program into the state before the list can be seen no more.
		enters func(t *testing.T, srv *xmpptest.Server, c middleware.Config, v omemo.Version) *program
		// acts does what reads the list, and checks what can be seen at once.
		acts   func(t *testing.T, srv *xmpptest.Server, p *program, session *xmpp.Session, v omemo.Version)
		listed bool // this device, at last
	}
	fresh := func(t *testing.T, _ *xmpptest.Server, c middleware.Config, _ omemo.Version) *program {
		return load(t, romeo, c)
	}
	online := func(t *testing.T, srv *xmpptest.Server, c middleware.Config, _ omemo.Version) *program {
		return load(t, romeo, c).attach(login(t, srv, romeo), nil)
	}
	withdrawn := func(t *testing.T, p *program, v omemo.Version) {
		t.Helper()
		p.awaitVersion(middleware.Withdrawn, v)
	}
	places := []place{
		{"first Wrap", fresh, func(t *testing.T, _ *xmpptest.Server, p *program, session *xmpp.Session, v omemo.Version) {
			p.attach(session, nil)
			withdrawn(t, p, v)
		}, true},
		{"Wrap", func(t *testing.T, srv *xmpptest.Server, c middleware.Config, v omemo.Version) *program {
			p := online(t, srv, c, v)
			p.om.Close()
			return load(t, romeo, middleware.Config{Store: reopened(p.store)})
		}, func(t *testing.T, _ *xmpptest.Server, p *program, session *xmpp.Session, v omemo.Version) {
			p.attach(session, nil)
			withdrawn(t, p, v)
		}, true},
		{"Wrap without a version that was served", func(t *testing.T, srv *xmpptest.Server, c middleware.Config, v omemo.Version) *program {
			p := online(t, srv, c, v)
			p.om.Close()
			return load(t, romeo, middleware.Config{Store: reopened(p.store), Versions: []omemo.Version{otherVersion(v)}})
		}, func(_ *testing.T, _ *xmpptest.Server, p *program, session *xmpp.Session, _ omemo.Version) {
			p.attach(session, nil)
		}, false},
		{"again, after presence", func(t *testing.T, srv *xmpptest.Server, c middleware.Config, _ omemo.Version) *program {
			p := load(t, romeo, c)
			p.serve(login(t, srv, romeo), nil)
			return p
		}, func(_ *testing.T, _ *xmpptest.Server, p *program, _ *xmpp.Session, _ omemo.Version) {
			p.broadcast("", "")
			p.await("the refusal is told", func() bool {
				return slices.ContainsFunc(p.events, func(e middleware.Event) bool { return e.Kind == middleware.Trouble || e.Kind == middleware.Withdrawn })
			})
		}, true},
		{"removed from it", online, func(t *testing.T, srv *xmpptest.Server, p *program, _ *xmpp.Session, v omemo.Version) {
			ok(t, srv.Publish(romeo, devicelist.Node(v), "current", listOf(v, other)))
			withdrawn(t, p, v)
		}, true},
		{"PurgeVersion", online, func(t *testing.T, _ *xmpptest.Server, p *program, _ *xmpp.Session, v omemo.Version) {
			if err := p.om.PurgeVersion(t.Context(), v); err == nil {
				t.Error("purged without seeing the list")
			}
		}, false},
		{"Purge", online, func(t *testing.T, _ *xmpptest.Server, p *program, _ *xmpp.Session, v omemo.Version) {
			if err := p.om.Purge(t.Context()); err == nil {
				t.Error("purged without seeing the list")
			}
		}, false},
		{"Revoke", online, func(t *testing.T, _ *xmpptest.Server, p *program, _ *xmpp.Session, _ omemo.Version) {
			if err := p.om.Revoke(t.Context(), other); err == nil {
				t.Error("revoked without seeing the list")
			}
		}, true},
		{"Prune", online, func(t *testing.T, _ *xmpptest.Server, p *program, _ *xmpp.Session, _ omemo.Version) {
			if pruned, err := p.om.Prune(t.Context(), middleware.PruneMinimum, false); err == nil {
				t.Errorf("pruned %v without seeing the list", pruned)
			}
		}, true},
		{"new signed pre key", online, func(t *testing.T, _ *xmpptest.Server, p *program, _ *xmpp.Session, v omemo.Version) {
			ok(t, p.om.Rotate(t.Context()))
			time.Sleep(10 * time.Minute) // several attempts may each wait for an answer
			withdrawn(t, p, v)
		}, true},
	}
	for _, at := range places {
		t.Run(at.name, func(t *testing.T) {
			t.Parallel()
			for name, refusal := range refusals {
				for _, v := range omemo.Versions() {
					synctest.Test(t, func(t *testing.T) {
						srv := network(t, romeo)
						reader := client(t, srv, romeo)
						for _, each := range omemo.Versions() {
							ok(t, srv.Publish(romeo, devicelist.Node(each), "current", listOf(each, other)))
						}
						p := at.enters(t, srv, middleware.Config{}, v)
						var session *xmpp.Session
						address := ""
						if p.session == nil {
							session = login(t, srv, romeo)
							address = session.LocalAddr().String()
						} else {
							address = p.session.LocalAddr().String()
						}
						since := len(srv.Wire())
						srv.SetFilter(answered(address, refusal, "<items", `node="`+devicelist.Node(v)+`"`))
						at.acts(t, srv, p, session, v)
						time.Sleep(time.Hour)
						synctest.Wait()
						if found := changes(srv, address, devicelist.Node(v), since); len(found) > 0 {
							t.Fatalf("%s, %v: changed: %q", name, v, found)
						}
						if !listed(t, reader, "", v).Contains(other) {
							t.Fatalf("%s, %v: the other device is gone", name, v)
						}
						srv.SetFilter(nil)
						time.Sleep(time.Hour)
						synctest.Wait()
						l := listed(t, reader, "", v)
						own := device(t, p)
						if !l.Contains(other) || at.name != "Purge" && l.Contains(own) != at.listed {
							t.Errorf("%s, %v: at last %v, without %d", name, v, l, own)
						}
						if reason := p.om.Withdrawn(v); at.listed && reason != nil {
							t.Errorf("%s, %v: still withdrawn: %v", name, v, reason)
						}
					})
				}
			}
		})
	}
}

// A device that another client puts back on the list of a version that is not served
// is taken off again, but not for ever; also if what we hear does not say what the
// list is.
func TestPutBackOnAListThatIsNotServed(t *testing.T) {
	payload := regexp.MustCompile(`(<item [^>]*)><devices.*</devices></item>`)
	for name, event := range map[string]string{"told": "$0", "to be fetched": "$1/>"} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				srv := network(t, romeo)
				reader := client(t, srv, romeo)
				p := connected(t, srv, romeo, middleware.Config{Versions: []omemo.Version{omemo.Legacy}})
				srv.SetFilter(func(_ context.Context, s xmpptest.Stanza) [][]byte {
					if s.Direction == xmpptest.FromClient || !bytes.HasPrefix(s.XML, []byte("<message")) {
						return [][]byte{s.XML}
					}
					return [][]byte{payload.ReplaceAll(s.XML, []byte(event))}
				})
				own := device(t, p)
				list := devicelist.List{Version: omemo.V2, Devices: []devicelist.Device{{ID: 7}, {ID: own}}}
				back := 0
				for ; back < 20; back++ {
					ok(t, devicelist.Publish(t.Context(), reader, list))
					time.Sleep(time.Second)
					synctest.Wait()
					if l := listed(t, reader, "", omemo.V2); !l.Contains(7) {
						t.Fatalf("the other device is gone: %v", l)
					} else if l.Contains(own) {
						break
					}
				}
				if back == 0 || back > 10 {
					t.Errorf("taken off %d times", back)
				}
				time.Sleep(2 * time.Hour)
				synctest.Wait()
				if l := listed(t, reader, "", omemo.V2); l.Contains(own) || !l.Contains(7) {
					t.Errorf("at last: %v", l)
				}
			})
		})
	}
}

func listOf(v omemo.Version, id omemo.DeviceID) string {
	return string(devicelist.List{Version: v, Devices: []devicelist.Device{{ID: id}}}.Element().AppendXML(nil))
}

func otherVersion(v omemo.Version) omemo.Version {
	if v == omemo.V2 {
		return omemo.Legacy
	}
	return omemo.V2
}

// A bundle of ours that the server does not let us see is not written over: it may
// be newer than ours. Its version is withdrawn until it can be read.
func TestAnUnseenOwnBundleIsNotWrittenOver(t *testing.T) {
	for name, refusal := range refusals {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, v := range omemo.Versions() {
				for _, first := range []bool{true, false} {
					synctest.Test(t, func(t *testing.T) {
						srv := network(t, romeo)
						reader := client(t, srv, romeo)
						p := load(t, romeo, middleware.Config{})
						if !first {
							p.attach(login(t, srv, romeo), nil)
							p.om.Close()
							p = load(t, romeo, middleware.Config{Store: reopened(p.store)})
						}
						session := login(t, srv, romeo)
						address := session.LocalAddr().String()
						node := bundle.Node(v, device(t, p))
						since := len(srv.Wire())
						srv.SetFilter(answered(address, refusal, "<items", `node="`+node+`"`))
						p.attach(session, nil)
						p.awaitVersion(middleware.Withdrawn, v)
						time.Sleep(time.Hour)
						synctest.Wait()
						if found := changes(srv, address, node, since); len(found) > 0 {
							t.Fatalf("%v: changed: %q", v, found)
						}
						srv.SetFilter(nil)
						time.Sleep(time.Hour)
						synctest.Wait()
						b, err := bundle.Fetch(t.Context(), reader, omemo.Address{Device: device(t, p)}, v)
						if err != nil || b.Verify() != nil || p.om.Withdrawn(v) != nil || !listed(t, reader, "", v).Contains(device(t, p)) {
							t.Errorf("%v: bundle %v, withdrawn %v", v, err, p.om.Withdrawn(v))
						}
						if p.count(middleware.StateRolledBack) > 0 {
							t.Errorf("%v: rolled back", v)
						}
					})
				}
			}
		})
	}
}

// A store that was rolled back is found out when the bundle can be read, if it could
// not be before, and the newer bundle stays until then.
func TestRollbackIsSeenLate(t *testing.T) {
	for _, v := range omemo.Versions() {
		t.Run(v.String(), func(t *testing.T) {
			t.Parallel()
			srv := network(t, romeo)
			dir := t.TempDir()
			old, newer := filepath.Join(dir, "old.db"), filepath.Join(dir, "newer.db")
			p := connected(t, srv, romeo, onFile(t, newer, middleware.Config{}))
			own := omemo.Address{Device: device(t, p)}
			p.off()
			copyFile(t, newer, old)
			p = connected(t, srv, romeo, onFile(t, newer, middleware.Config{}))
			reader := client(t, srv, romeo)
			ok(t, p.om.Rotate(t.Context()))
			published := func() uint32 {
				b, err := bundle.Fetch(t.Context(), reader, own, v)
				ok(t, err)
				return b.SignedPreKeyID
			}
			until(t, "the new signed pre key", func() bool { return published() == 2 })
			idle(t, p)
			p.off()

			p = load(t, romeo, onFile(t, old, middleware.Config{}))
			session := login(t, srv, romeo)
			// That of the other version is not there to tell.
			ok(t, bundle.Retract(t.Context(), reader, otherVersion(v), own.Device))
			srv.SetFilter(answered(session.LocalAddr().String(), failure("service-unavailable"), "<items", `node="`+bundle.Node(v, own.Device)+`"`))
			p.briefly(session)
			p.awaitVersion(middleware.Withdrawn, v)
			if p.count(middleware.StateRolledBack) > 0 || published() != 2 {
				t.Fatalf("signed pre key %d", published())
			}
			srv.SetFilter(nil)
			p.awaitEvent(middleware.StateRolledBack)
			<-p.done
			if published() != 2 {
				t.Fatalf("signed pre key %d", published())
			}
			p.attach(login(t, srv, romeo), nil)
			if id := published(); id <= 2 || p.om.Withdrawn(v) != nil {
				t.Errorf("signed pre key %d, withdrawn %v", id, p.om.Withdrawn(v))
			}
		})
	}
}

// A device whose id is on a list is not given another because nobody says whose
// bundle that is.
func TestOwnDeviceKeepsItsIDUntilItIsKnownWhoseItIs(t *testing.T) {
	t.Parallel()
	srv := network(t, romeo)
	reader := client(t, srv, romeo)
	p := load(t, romeo, middleware.Config{})
	own := device(t, p)
	b, err := p.om.Manager().Bundle(t.Context(), omemo.V2)
	ok(t, err)
	ok(t, bundle.Publish(t.Context(), reader, b))
	ok(t, devicelist.Publish(t.Context(), reader, devicelist.List{Version: omemo.V2, Devices: []devicelist.Device{{ID: own}}}))
	session := login(t, srv, romeo)
	srv.SetFilter(answered(session.LocalAddr().String(), failure("service-unavailable"), "<items", `node="`+bundle.NodeV2+`"`))
	if _, err := p.om.Wrap(t.Context(), session); !errors.Is(err, middleware.ErrNotReady) || device(t, p) != own {
		t.Fatalf("error %v, device %d, was %d", err, device(t, p), own)
	}
	srv.SetFilter(nil)
	p.attach(login(t, srv, romeo), nil)
	if device(t, p) != own {
		t.Errorf("device %d, was %d", device(t, p), own)
	}
}

// A server without a service for what we publish says so.
func TestServerWithoutPEP(t *testing.T) {
	for _, condition := range []string{"service-unavailable", "feature-not-implemented"} {
		t.Run(condition, func(t *testing.T) {
			t.Parallel()
			srv := network(t, romeo)
			srv.SetFilter(answered("", failure(condition), "http://jabber.org/protocol/pubsub"))
			p := load(t, romeo, middleware.Config{})
			_, err := p.om.Wrap(t.Context(), login(t, srv, romeo))
			e, refused := errors.AsType[*pep.Error](err)
			if !errors.Is(err, middleware.ErrNotReady) || !refused || string(e.Condition) != condition || errors.Is(err, pep.ErrNone) {
				t.Errorf("error %v", err)
			}
			for _, v := range omemo.Versions() {
				if p.om.Withdrawn(v) == nil || !strings.Contains(err.Error(), v.String()) {
					t.Errorf("%v was not withdrawn: %v", v, err)
				}
			}
		})
	}
}
