package middleware_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"example.org/omellium/bundle"
	"example.org/omellium/devicelist"
	"example.org/omellium/middleware"
	"example.org/omellium/middleware/xmpptest"
	"example.org/omellium/omemo"
	"example.org/omellium/omemo/memstore"
	"example.org/omellium/omemo/sqlstore/sqlite"
)

// What users of other clients suffer from, each with its cause, and what happens
// here. The table of all is in pains_table_test.go.

// 1, Conversations#4239: the sender's list is old. The message is told, and our
// own list is looked at.
func TestPain01NotEncryptedForThisDevice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := network(t, romeo, juliet)
		a := connected(t, srv, romeo, chat(omemo.V2))
		b := connected(t, srv, juliet, chat(omemo.V2))
		own := device(t, b)
		// The server tells nobody that juliet's device has gone from her list.
		other := client(t, srv, juliet)
		srv.SetFilter(dropEvents)
		for _, v := range omemo.Versions() {
			ok(t, devicelist.Publish(t.Context(), other, devicelist.List{Version: v, Devices: []devicelist.Device{{ID: 7}}}))
		}
		second := connected(t, srv, juliet, chat(omemo.V2)) // the one that romeo finds
		list := listed(t, other, "", omemo.V2)
		if list.Contains(own) || !list.Contains(device(t, second)) {
			t.Fatalf("list: %v", list)
		}
		a.say(juliet, "for the second alone")
		second.awaitText("for the second alone")
		if e := b.awaitEvent(middleware.NotForUs); e.Account != romeo || e.Device != device(t, a) {
			t.Errorf("event: %+v", e)
		}
		b.awaitEvent(middleware.OwnDeviceRemoved)
		time.Sleep(time.Minute)
		synctest.Wait()
		if list := listed(t, other, "", omemo.V2); !list.Contains(own) {
			t.Errorf("not back on the list: %v", list)
		}
	})
}

// 2, Conversations#2665: what cannot be decrypted is an event that says why.
func TestPain02FailedDecryptionIsVisible(t *testing.T) {
	t.Parallel()
	srv := network(t, romeo, juliet)
	a, b := connected(t, srv, romeo, chat(omemo.V2)), connected(t, srv, juliet, chat(omemo.V2))
	a.say(juliet, "one")
	b.awaitText("one")
	b.say(romeo, "two")
	a.awaitText("two")
	srv.SetFilter(spoilPayload)
	m := to(juliet)
	m.ID = "spoilt"
	_, err := a.om.Send(t.Context(), m, text("never seen"))
	ok(t, err)
	e := b.awaitEvent(middleware.Undecryptable)
	if e.ID != "spoilt" || e.Account != romeo || e.Device != device(t, a) || !errors.Is(e.Err, omemo.ErrRefused) {
		t.Errorf("event: %+v", e)
	}
	srv.SetFilter(nil)
	a.say(juliet, "three")
	b.awaitText("three")
}

// 4, ChatSecure#1106: messages of an archive that nobody can read are no reason
// for new sessions.
func TestPain04NoRepairFromTheArchive(t *testing.T) {
	for _, live := range []bool{true, false} {
		t.Run(fmt.Sprintf("live %t", live), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				srv := network(t, romeo, juliet)
				a := connected(t, srv, romeo, chat(omemo.V2))
				b := connected(t, srv, juliet, chat(omemo.V2))
				a.say(juliet, "one")
				b.awaitText("one")
				b.say(romeo, "two")
				a.awaitText("two")
				// juliet's store is lost; romeo goes on in the old session.
				b.om.Close()
				a.say(juliet, "three")
				until(t, "it left", func() bool { return a.count(middleware.Accepted) == 2 })
				b = connected(t, srv, juliet, middleware.Config{AnswerStrangers: true, Store: withoutSessions(t, b)})
				ok(t, b.om.Prepare(t.Context(), a.session.LocalAddr()))
				encrypted := lastEncrypted(t, srv, romeo)
				full := b.session.LocalAddr().String()
				before := len(srv.Wire())
				for i := range 50 {
					message := fmt.Sprintf("<message xmlns='jabber:client' from='%s/x' to='%s' type='chat' id='old%d'>%s</message>", romeo, juliet, i, encrypted)
					if !live {
						ok(t, b.session.Send(t.Context(), raw("<iq xmlns='jabber:client' type='set' id='q'><query xmlns='urn:xmpp:mam:2' queryid='1'/></iq>")))
						message = fmt.Sprintf("<message xmlns='jabber:client' from='%s' to='%s'><result xmlns='urn:xmpp:mam:2' queryid='1' id='%d'>"+
							"<forwarded xmlns='urn:xmpp:forward:0'>%s</forwarded></result></message>", juliet, full, i, message)
						synctest.Wait()
					}
					ok(t, srv.Inject(full, message))
				}
				b.awaitEvent(middleware.Undecryptable)
				time.Sleep(time.Hour)
				synctest.Wait()
				begun := 0
				for _, s := range srv.Wire()[before:] {
					if fromTo(juliet, "<encrypted")(s) {
						begun++
					}
				}
				if want := map[bool]int{true: 1, false: 0}[live]; begun != want {
					t.Errorf("%d messages were sent because of 50 that cannot be read, want %d", begun, want)
				}
			})
		})
	}
}

// 8, Converse#3769: a listed device without a bundle blocks nobody.
func TestPain08DeviceWithoutBundle(t *testing.T) {
	t.Parallel()
	srv := network(t, romeo, juliet)
	a, b := connected(t, srv, romeo, chat(omemo.V2)), connected(t, srv, juliet, chat(omemo.V2))
	other := client(t, srv, juliet)
	list := listed(t, other, "", omemo.V2)
	list.Devices = append(list.Devices, devicelist.Device{ID: 7})
	ok(t, devicelist.Publish(t.Context(), other, list))
	asked := func() (n int) {
		for _, s := range srv.Wire() {
			if fromTo(romeo, bundle.NodeV2)(s) && fromTo(romeo, `<item id="7"/>`)(s) {
				n++
			}
		}
		return n
	}
	for i := range 5 {
		result, err := a.om.Send(t.Context(), to(juliet), text(fmt.Sprint("canary ", i)))
		ok(t, err)
		b.awaitText(fmt.Sprint("canary ", i))
		skipped := false
		for _, d := range result.Devices {
			skipped = skipped || d.Peer.Address.Device == 7 && errors.Is(d.Err, omemo.ErrNoBundle)
		}
		if !skipped {
			t.Errorf("result: %+v", result)
		}
	}
	if n := asked(); n != 1 {
		t.Errorf("asked %d times for the bundle that is not there", n)
	}
}

// 15, Converse#2733: what was sent while we were away arrives, in order, before
// the program has done anything.
func TestPain15MessagesWhileOffline(t *testing.T) {
	t.Parallel()
	srv := newServer(t, xmpptest.StoreOffline())
	for _, a := range []string{romeo, juliet} {
		ok(t, srv.AddAccount(a, "secret"))
	}
	a, b := connected(t, srv, romeo, chat(omemo.V2)), connected(t, srv, juliet, chat(omemo.V2))
	a.say(juliet, "0")
	b.awaitText("0")
	b.om.Close()
	for i := range 20 {
		a.say(juliet, fmt.Sprint(i+1))
	}
	until(t, "all was sent", func() bool { return a.count(middleware.Accepted) == 21 })
	b = connected(t, srv, juliet, middleware.Config{Store: reopened(b.store)})
	b.awaitText("20")
	if got := strings.Join(b.bodies(), " "); got != "1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20" {
		t.Errorf("came: %s", got)
	}
}

// 16, Profanity#2137: many sessions are begun in a row. Each finds a full bundle, and
// an id never names two keys.
func TestPain16PreKeysNeverRepeat(t *testing.T) {
	t.Parallel()
	srv := network(t, romeo, juliet)
	a, b := connected(t, srv, romeo, chat(omemo.V2)), connected(t, srv, juliet, chat(omemo.V2))
	stranger := client(t, srv, romeo)
	own := omemo.Address{JID: juliet, Device: device(t, b)}
	named, highest := make(map[uint32][32]byte), uint32(0)
	for i := range 40 {
		var published omemo.Bundle
		until(t, "the next pre key is published", func() bool {
			var err error
			published, err = bundle.Fetch(t.Context(), stranger, own, omemo.V2)
			ok(t, err)
			return len(published.PreKeys) == omemo.PreKeyCount &&
				slices.ContainsFunc(published.PreKeys, func(k omemo.PublicPreKey) bool { return k.ID > highest })
		})
		for _, k := range published.PreKeys {
			if key, known := named[k.ID]; known && key != k.Key {
				t.Fatalf("pre key id %d names two keys", k.ID)
			}
			named[k.ID] = k.Key
			highest = max(highest, k.ID)
		}
		results, err := a.om.Replace(t.Context(), to(juliet).To, own.Device) // a new session
		ok(t, err)
		if len(results) != 1 || results[0].Err != nil {
			t.Fatalf("results: %+v", results)
		}
		body := fmt.Sprint("canary ", i)
		_, err = a.om.Send(t.Context(), to(juliet), text(body))
		ok(t, err)
		b.awaitText(body)
	}
	if n := b.count(middleware.Undecryptable); n != 0 {
		t.Errorf("%d messages could not be read", n)
	}
}

// 17, Conversations#4328: a program that is started again is the same device.
func TestPain17SameDeviceAfterARestart(t *testing.T) {
	t.Parallel()
	srv := network(t, romeo)
	db := filepath.Join(t.TempDir(), "bot.db")
	for range 3 {
		store, err := sqlite.Open(t.Context(), db, romeo)
		ok(t, err)
		p := connected(t, srv, romeo, middleware.Config{Store: store})
		p.om.Close()
		ok(t, store.Close())
	}
	for _, v := range omemo.Versions() {
		if l := listed(t, client(t, srv, romeo), "", v); len(l.Devices) != 1 {
			t.Errorf("%v list: %v", v, l)
		}
	}
	if _, err := middleware.New(t.Context(), middleware.Config{}); !errors.Is(err, middleware.ErrOwnStore) {
		t.Errorf("a program without a store: %v", err)
	}
}

// 19, Profanity#1051: our own devices need trust, too, and the result says who
// gets no copy.
func TestPain19OwnDevicesAreReported(t *testing.T) {
	t.Parallel()
	srv := network(t, romeo, juliet)
	c := chat(omemo.V2)
	c.Trust = omemo.ManualOwn(omemo.BlindBeforeVerification)
	a, second := connected(t, srv, romeo, c), connected(t, srv, romeo, chat(omemo.V2))
	b := connected(t, srv, juliet, chat(omemo.V2))
	send := func(body string) error {
		t.Helper()
		result, err := a.om.Send(t.Context(), to(juliet), text(body))
		ok(t, err)
		b.awaitText(body)
		for _, d := range result.Devices {
			if d.Peer.Address == (omemo.Address{JID: romeo, Device: device(t, second)}) {
				return d.Err
			}
		}
		t.Fatalf("result: %+v", result)
		return nil
	}
	until(t, "the list is known", func() bool {
		_, devices, err := a.om.Manager().Account(t.Context(), romeo)
		return err == nil && len(devices) == 4
	})
	if err := send("one"); !errors.Is(err, omemo.ErrUntrusted) {
		t.Errorf("undecided: %v", err)
	}
	f, err := second.om.Manager().Fingerprint(t.Context())
	ok(t, err)
	ok(t, a.om.Manager().SetTrust(t.Context(), romeo, f, omemo.Verified))
	if err := send("two"); err != nil {
		t.Errorf("verified: %v", err)
	}
}

// 20, gajim-omemo#90: nobody is asked about a new key: the policy says what it is
// worth.
func TestPain20NobodyIsAsked(t *testing.T) {
	t.Parallel()
	srv := network(t, romeo, juliet)
	trusting := connected(t, srv, romeo, chat(omemo.V2))
	connected(t, srv, juliet, chat(omemo.V2))
	if _, err := trusting.om.Send(t.Context(), to(juliet), text("one")); err != nil {
		t.Errorf("the default: %v", err)
	}
	c := chat(omemo.V2)
	c.Trust = omemo.Manual
	manual := connected(t, srv, romeo, c)
	if _, err := manual.om.Send(t.Context(), to(juliet), text("one")); !errors.Is(err, omemo.ErrUntrusted) {
		t.Errorf("manual: %v", err)
	}
}

// 25, slixmpp#4: a store of another account, or one that somebody else has open.
func TestPain25StoreOfSomebodyElse(t *testing.T) {
	t.Parallel()
	srv := network(t, romeo, juliet)
	p := load(t, romeo, middleware.Config{})
	if _, err := p.om.Wrap(t.Context(), login(t, srv, juliet)); !errors.Is(err, omemo.ErrWrongAccount) {
		t.Errorf("another account: %v", err)
	}
	db := filepath.Join(t.TempDir(), "bot.db")
	store, err := sqlite.Open(t.Context(), db, romeo)
	ok(t, err)
	defer store.Close()
	if second, err := sqlite.Open(t.Context(), db, romeo); !errors.Is(err, omemo.ErrLocked) {
		t.Errorf("opened twice: %v", err)
		if err == nil {
			second.Close()
		}
	}
}

// withoutSessions returns the store of a program that was stopped, with no
// sessions in it.
func withoutSessions(t *testing.T, p *program) *memstore.Store {
	t.Helper()
	store := p.store.(*memstore.Store).Reopen()
	m, err := omemo.NewManager(t.Context(), store, omemo.Options{})
	ok(t, err)
	for _, v := range omemo.Versions() {
		ok(t, m.ForgetVersion(t.Context(), v))
	}
	return store.Reopen()
}

// dropEvents keeps device lists from everybody who does not ask for them.
func dropEvents(_ context.Context, s xmpptest.Stanza) [][]byte {
	if s.Direction == xmpptest.ToClient && bytes.Contains(s.XML, []byte("pubsub#event")) {
		return nil
	}
	return [][]byte{s.XML}
}

// spoilPayload changes what is encrypted.
func spoilPayload(_ context.Context, s xmpptest.Stanza) [][]byte {
	if s.Direction == xmpptest.ToClient {
		if i := bytes.Index(s.XML, []byte("</payload>")); i > 10 {
			spoilt := bytes.Clone(s.XML)
			copy(spoilt[i-9:], "AAAAAA")
			return [][]byte{spoilt}
		}
	}
	return [][]byte{s.XML}
}

// lastEncrypted returns the <encrypted/> of the last message of an account that
// holds no key exchange.
func lastEncrypted(t *testing.T, srv *xmpptest.Server, account string) string {
	t.Helper()
	found := ""
	for _, s := range srv.Wire() {
		i, j := bytes.Index(s.XML, []byte("<encrypted")), bytes.Index(s.XML, []byte("</encrypted>"))
		if fromTo(account, "<payload")(s) && i >= 0 && j > i {
			found = string(s.XML[i : j+len("</encrypted>")])
		}
	}
	if found == "" {
		t.Fatal("no message")
	}
	return found
}
