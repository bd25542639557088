package middleware_test

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"example.org/omellium/bundle"
	"example.org/omellium/devicelist"
	"example.org/omellium/middleware"
	"example.org/omellium/middleware/xmpptest"
	"example.org/omellium/omemo"
	"example.org/omellium/omemo/memstore"
	"example.org/omellium/stanza/pep"
	"mellium.im/xmpp/jid"
)

// client is a program of an account that has no OMEMO, but changes its nodes.
func client(t *testing.T, srv *xmpptest.Server, account string) pep.Requester {
	t.Helper()
	return pep.SessionRequester(plain(t).attach(login(t, srv, account), nil).session)
}

func ok(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// newManager returns another device of an account.
func newManager(t *testing.T, account string) *omemo.Manager {
	t.Helper()
	m, err := omemo.NewManager(t.Context(), memstore.New(account), omemo.Options{})
	ok(t, err)
	return m
}

// reopened returns a store as a program finds it that was started again.
func reopened(s omemo.Store) omemo.Store { return s.(*memstore.Store).Reopen() }

// listed returns the ids of a list, as the server has it.
func listed(t *testing.T, r pep.Requester, account string, v omemo.Version) devicelist.List {
	t.Helper()
	l, err := devicelist.Fetch(t.Context(), r, account, v)
	if err != nil && !errors.Is(err, pep.ErrNone) {
		t.Fatal(err)
	}
	return l
}

func device(t *testing.T, p *program) omemo.DeviceID {
	t.Helper()
	a, err := p.om.Manager().Device(t.Context())
	ok(t, err)
	return a.Device
}

func (p *program) awaitVersion(kind middleware.EventKind, v omemo.Version) (found middleware.Event) {
	p.t.Helper()
	p.await(kind.String(), func() bool {
		for _, e := range p.events {
			if e.Kind == kind && e.Version == v {
				found = e
				return true
			}
		}
		return false
	})
	return found
}

func TestReplaceByHand(t *testing.T) {
	t.Parallel()
	srv := network(t, romeo, juliet)
	a := connected(t, srv, romeo, middleware.Config{AnswerStrangers: true, ListAge: time.Nanosecond})
	b := connected(t, srv, juliet, middleware.Config{AnswerStrangers: true})
	if _, err := a.om.Replace(t.Context(), jid.MustParse("nobody@example.net")); !errors.Is(err, omemo.ErrNoDevices) {
		t.Errorf("nobody: %v", err)
	}
	a.say(juliet, "one")
	b.awaitText("one")
	b.say(romeo, "two")
	a.awaitText("two")
	results, err := a.om.Replace(t.Context(), jid.MustParse(juliet+"/balcony"))
	if err != nil || len(results) == 0 {
		t.Fatalf("results %+v, %v", results, err)
	}
	for _, r := range results {
		if r.Err != nil || !r.Exchange || r.Peer.Address.Device != device(t, b) {
			t.Errorf("result %+v", r)
		}
	}
	a.awaitVersion(middleware.SessionReplaced, omemo.Legacy)
	b.awaitVersion(middleware.SessionReplaced, omemo.Legacy)
	b.say(romeo, "three")
	a.awaitText("three")
	a.say(juliet, "four")
	b.awaitText("four")
	if _, err := a.om.Replace(t.Context(), jid.MustParse(juliet), 1); !errors.Is(err, omemo.ErrNoDevices) {
		t.Errorf("a device that does not exist: %v", err)
	}
	of := func(v omemo.Version) (found omemo.DeviceResult) {
		for _, r := range results {
			if r.Peer.Version == v {
				found = r
			}
		}
		return found
	}
	f, err := b.om.Manager().Fingerprint(t.Context())
	ok(t, err)
	ok(t, a.om.Manager().SetTrust(t.Context(), juliet, f, omemo.Distrusted))
	results, err = a.om.Replace(t.Context(), jid.MustParse(juliet), device(t, b))
	if err != nil || !errors.Is(of(omemo.Legacy).Err, omemo.ErrUntrusted) {
		t.Errorf("a distrusted device: %+v, %v", results, err)
	}
	other := client(t, srv, juliet)
	list := listed(t, other, "", omemo.Legacy)
	list.Devices = append(list.Devices, devicelist.Device{ID: 7})
	ok(t, devicelist.Publish(t.Context(), other, list))
	results, err = a.om.Replace(t.Context(), jid.MustParse(juliet), 7)
	if err != nil || !errors.Is(of(omemo.Legacy).Err, omemo.ErrNoBundle) {
		t.Errorf("a device without bundle: %+v, %v", results, err)
	}
}

// What was prepared leaves without a question.
func TestPrepare(t *testing.T) {
	t.Parallel()
	srv := network(t, romeo, juliet)
	a := connected(t, srv, romeo, middleware.Config{AnswerStrangers: true})
	b := connected(t, srv, juliet, middleware.Config{AnswerStrangers: true})
	ok(t, a.om.Prepare(t.Context(), jid.MustParse(juliet), jid.MustParse("nobody@example.net")))
	before := len(srv.Wire())
	a.say(juliet, "prepared")
	b.awaitText("prepared")
	for _, s := range srv.Wire()[before:] {
		if fromTo(romeo, "<items")(s) {
			t.Errorf("asked: %s", s.XML)
		}
		if fromTo(romeo, "<encrypted")(s) {
			break
		}
	}
}

func TestPurge(t *testing.T) {
	t.Parallel()
	srv := network(t, romeo, juliet)
	a := connected(t, srv, romeo, middleware.Config{AnswerStrangers: true})
	b := connected(t, srv, juliet, middleware.Config{AnswerStrangers: true})
	a.say(juliet, "one")
	b.awaitText("one")
	stranger, purged := client(t, srv, juliet), device(t, a)
	gone := func(v omemo.Version, want bool) {
		t.Helper()
		_, err := bundle.Fetch(t.Context(), stranger, omemo.Address{JID: romeo, Device: purged}, v)
		if l := listed(t, stranger, romeo, v); l.Contains(purged) == want || errors.Is(err, pep.ErrNone) != want {
			t.Errorf("%v: on the list %t, bundle: %v", v, l.Contains(purged), err)
		}
	}
	gone(omemo.V2, false)
	ok(t, a.om.PurgeVersion(t.Context(), omemo.V2))
	gone(omemo.V2, true)
	gone(omemo.Legacy, false)
	a.attach(login(t, srv, romeo), nil) // it stays so
	gone(omemo.V2, true)
	a.say(juliet, "legacy is left")
	b.awaitText("legacy is left")

	ok(t, a.om.Forget(t.Context(), jid.MustParse(juliet)))
	if contact, devices, err := a.om.Manager().Account(t.Context(), juliet); err != nil || contact.Seen || len(devices) != 0 {
		t.Errorf("left: %+v, %+v, %v", contact, devices, err)
	}
	a.say(juliet, "we have never met")
	b.awaitText("we have never met")

	ok(t, a.om.Purge(t.Context()))
	gone(omemo.V2, true)
	gone(omemo.Legacy, true)
	if device(t, a) == purged {
		t.Error("the store still holds the device")
	}
	if _, err := a.om.Wrap(t.Context(), login(t, srv, romeo)); !errors.Is(err, middleware.ErrClosed) {
		t.Errorf("wrap after purge: %v", err)
	}
}

// Pain 18 (Conversations#4193): pruning is opt-in, our own only, and can be tried.
func TestPrune(t *testing.T) {
	t.Parallel()
	srv := network(t, romeo)
	p := connected(t, srv, romeo, middleware.Config{})
	if _, err := p.om.Prune(t.Context(), middleware.PruneMinimum-1, true); err == nil {
		t.Error("pruned devices of today")
	}
	other := client(t, srv, romeo)
	for _, v := range omemo.Versions() {
		list := listed(t, other, "", v)
		list.Version = v
		list.Devices = append(list.Devices, devicelist.Device{ID: 7})
		ok(t, devicelist.Publish(t.Context(), other, list))
	}
	if stale, err := p.om.Prune(t.Context(), middleware.PruneMinimum, false); err != nil || len(stale) != 0 {
		t.Errorf("a new device: %v, %v", stale, err)
	}
	if l := listed(t, other, "", omemo.V2); !l.Contains(7) {
		t.Errorf("list: %v", l)
	}
}

// Opt-out, asked and answered; Pain 21: never by itself.
func TestOptOutIsPutToTheApplication(t *testing.T) {
	t.Parallel()
	srv := network(t, romeo, juliet)
	v2 := chat(omemo.V2)
	asking := v2
	asking.AskOptOut = true
	a, b := connected(t, srv, romeo, asking), connected(t, srv, juliet, v2)
	a.say(juliet, "one")
	b.awaitText("one")
	b.say(romeo, "two")
	a.awaitText("two")
	result, err := b.om.OptOut(t.Context(), jid.MustParse(romeo), "my reason is a canary")
	if err != nil || len(result.Devices) == 0 {
		t.Fatalf("%+v, %v", result, err)
	}
	if e := a.awaitEvent(middleware.OptOutAsked); e.Account != juliet {
		t.Errorf("event: %+v", e)
	}
	noLeak(t, srv, "canary")
	if _, err := a.om.Send(t.Context(), to(juliet), text("blocked canary")); !errors.Is(err, omemo.ErrOptedOut) {
		t.Fatalf("sent: %v", err)
	}
	noLeak(t, srv, "canary")
	ok(t, a.om.AnswerOptOut(t.Context(), jid.MustParse(juliet), true))
	a.say(juliet, "in clear")
	if got := b.awaitText("in clear"); got.Info != nil {
		t.Errorf("came encrypted: %+v", got.Info)
	}
	b.say(romeo, "in clear, too")
	a.awaitText("in clear, too")
	// Taken back by both.
	ok(t, b.om.AnswerOptOut(t.Context(), jid.MustParse(romeo), false))
	b.say(romeo, "encrypted canary")
	a.awaitText("encrypted canary")
	a.say(juliet, "as well, canary")
	if got := b.awaitText("as well, canary"); got.Info == nil {
		t.Error("not encrypted")
	}
	noLeak(t, srv, "canary")
}

func TestOptOutIsRefusedByDefault(t *testing.T) {
	t.Parallel()
	srv := network(t, romeo, juliet)
	a, b := connected(t, srv, romeo, chat(omemo.V2)), connected(t, srv, juliet, chat(omemo.V2))
	if _, err := b.om.OptOut(t.Context(), jid.MustParse(romeo), ""); err != nil {
		t.Fatal(err)
	}
	a.awaitEvent(middleware.OptOutRefused)
	if _, err := a.om.Send(t.Context(), to(juliet), text("still encrypted canary")); err != nil {
		t.Fatal(err)
	}
	b.awaitText("still encrypted canary")
	noLeak(t, srv, "canary")
}

func TestOptOutNeedsOmemo2(t *testing.T) {
	t.Parallel()
	srv := network(t, romeo, juliet)
	old := chat(omemo.Legacy)
	old.Versions = []omemo.Version{omemo.Legacy}
	connected(t, srv, romeo, old)
	b := connected(t, srv, juliet, chat(omemo.V2))
	if _, err := b.om.OptOut(t.Context(), jid.MustParse(romeo), ""); !errors.Is(err, omemo.ErrNoForm) {
		t.Fatalf("error %v", err)
	}
	if _, err := b.om.Send(t.Context(), to(romeo), text("still encrypted canary")); err != nil {
		t.Fatal(err)
	}
	noLeak(t, srv, "canary")
}

// Stale devices of our own go; those that were heard of stay.
func TestPruneStaleDevices(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := network(t, romeo)
		stale := connected(t, srv, romeo, chat(omemo.V2))
		lively := connected(t, srv, romeo, chat(omemo.V2))
		p := connected(t, srv, romeo, chat(omemo.V2))
		gone := device(t, stale)
		stale.om.Close()
		time.Sleep(middleware.PruneMinimum + 48*time.Hour)
		lively.say(romeo, "a note to myself")
		p.awaitText("a note to myself")
		for _, dry := range []bool{true, false} {
			pruned, err := p.om.Prune(t.Context(), middleware.PruneMinimum, dry)
			if err != nil || len(pruned) != 2 || pruned[0].Address.Device != gone || pruned[1].Address.Device != gone {
				t.Fatalf("pruned %v, %v", pruned, err)
			}
			for _, v := range omemo.Versions() {
				l := listed(t, client(t, srv, romeo), "", v)
				if l.Contains(gone) != dry || !l.Contains(device(t, lively)) || !l.Contains(device(t, p)) {
					t.Errorf("dry run %t, %v: %v", dry, v, l)
				}
				_, err := bundle.Fetch(t.Context(), client(t, srv, romeo), omemo.Address{JID: romeo, Device: gone}, v)
				if errors.Is(err, pep.ErrNone) == dry {
					t.Errorf("dry run %t, %v bundle: %v", dry, v, err)
				}
			}
		}
	})
}
