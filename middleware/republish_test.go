package middleware_test

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"example.org/omellium/bundle"
	"example.org/omellium/devicelist"
	"example.org/omellium/middleware"
	"example.org/omellium/middleware/xmpptest"
	"example.org/omellium/omemo"
	"example.org/omellium/stanza/pep"
)

// A bundle that cannot be published anew is tried again with growing pauses,
// until it was read back. The one before is good for a while: only a server that
// keeps refusing has the version withdrawn.
func TestBundleIsRepublishedWithPauses(t *testing.T) {
	for _, c := range []struct {
		name      string
		refusals  int
		withdrawn int
	}{{"twice", 2, 0}, {"for hours", 1 << 30, 1}} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				srv := network(t, romeo)
				p := connected(t, srv, romeo, middleware.Config{})
				own := omemo.Address{JID: romeo, Device: device(t, p)}
				stranger := client(t, srv, romeo)
				var mu sync.Mutex
				var attempts []time.Time
				var mended atomic.Bool
				srv.SetFilter(func(_ context.Context, s xmpptest.Stanza) [][]byte {
					if s.Direction != xmpptest.FromClient || !bytes.Contains(s.XML, []byte(`<publish node="`+bundle.NodeV2)) {
						return [][]byte{s.XML}
					}
					mu.Lock()
					defer mu.Unlock()
					if now := time.Now(); len(attempts) == 0 || !attempts[len(attempts)-1].Equal(now) { // one is more than one stanza
						attempts = append(attempts, now)
					}
					if mended.Load() || len(attempts) > c.refusals {
						return [][]byte{s.XML}
					}
					return [][]byte{bytes.ReplaceAll(s.XML, []byte("publish"), []byte("refused"))}
				})
				ok(t, p.om.Rotate(t.Context()))
				time.Sleep(4 * time.Hour)
				synctest.Wait()
				if n := p.count(middleware.Withdrawn); n != c.withdrawn || (p.om.Withdrawn(omemo.V2) != nil) != (n > 0) {
					t.Errorf("%d times withdrawn", n)
				}
				mu.Lock()
				tried := slices.Clone(attempts)
				mu.Unlock()
				if n := len(tried); n < min(c.refusals, 20) || n > 100 {
					t.Errorf("tried %d times in four hours", n)
				}
				for i := 2; i < min(len(tried), 7); i++ {
					if before, after := tried[i-1].Sub(tried[i-2]), tried[i].Sub(tried[i-1]); after < before {
						t.Errorf("a pause of %v after one of %v", after, before)
					}
				}
				mended.Store(true)
				time.Sleep(time.Hour)
				synctest.Wait()
				b, err := bundle.Fetch(t.Context(), stranger, own, omemo.V2)
				if err != nil || b.SignedPreKeyID != 2 || p.om.Withdrawn(omemo.V2) != nil {
					t.Errorf("signed pre key %d, %v; withdrawn: %v", b.SignedPreKeyID, err, p.om.Withdrawn(omemo.V2))
				}
				if !listed(t, stranger, romeo, omemo.V2).Contains(own.Device) {
					t.Error("not on the list")
				}
			})
		})
	}
}

// A version that is not served owes no bundle, whatever becomes of its keys; it has
// one when it is served again.
func TestUnservedVersionOwesNoBundle(t *testing.T) {
	for _, unserved := range omemo.Versions() {
		t.Run(unserved.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				srv := network(t, romeo)
				stranger := client(t, srv, romeo)
				p := connected(t, srv, romeo, middleware.Config{Versions: []omemo.Version{otherVersion(unserved)}})
				own := omemo.Address{JID: romeo, Device: device(t, p)}
				for range 2 {
					synctest.Wait()
					rows, err := p.om.Manager().Owed(t.Context())
					if err != nil || len(rows) > 0 {
						t.Errorf("owed: %+v, %v", rows, err)
					}
					if _, err := bundle.Fetch(t.Context(), stranger, own, unserved); !errors.Is(err, pep.ErrNone) {
						t.Errorf("bundle: %v", err)
					}
					ok(t, p.om.Rotate(t.Context())) // owes both
					time.Sleep(15 * time.Minute)
				}
				p.om.Close()
				q := load(t, romeo, middleware.Config{Store: reopened(p.store)}).attach(login(t, srv, romeo), nil)
				b, err := bundle.Fetch(t.Context(), stranger, own, unserved)
				if err == nil {
					err = b.Verify()
				}
				if err != nil || !listed(t, stranger, romeo, unserved).Contains(own.Device) || device(t, q) != own.Device || b.SignedPreKeyID != 3 {
					t.Errorf("served again: bundle %v with signed pre key %d, list %v", err, b.SignedPreKeyID, listed(t, stranger, romeo, unserved))
				}
				synctest.Wait()
				rows, err := q.om.Manager().Owed(t.Context())
				if err != nil || len(rows) > 0 {
					t.Errorf("owed at last: %+v, %v", rows, err)
				}
			})
		})
	}
}

// Whoever writes to a contact with many devices is told how far it is.
func TestProgressOfALongFetch(t *testing.T) {
	t.Parallel()
	const devices = 20
	srv := network(t, romeo, juliet)
	c := chat(omemo.V2)
	c.FetchTimeout = patience
	a := connected(t, srv, romeo, c)
	other := client(t, srv, juliet)
	list := devicelist.List{Version: omemo.V2}
	for range devices {
		b, err := newManager(t, juliet).Bundle(t.Context(), omemo.V2)
		ok(t, err)
		ok(t, bundle.Publish(t.Context(), other, b))
		list.Devices = append(list.Devices, devicelist.Device{ID: b.Owner.Device})
	}
	ok(t, devicelist.Publish(t.Context(), other, list))
	result, err := a.om.Send(t.Context(), to(juliet), text("canary"))
	if err != nil || len(result.Devices) != devices {
		t.Fatalf("%+v, %v", result, err)
	}
	seen := make(map[int]bool)
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, e := range a.events {
		if e.Kind == middleware.Progress && e.Account == juliet && e.Total == devices {
			seen[e.Done] = true
		}
	}
	if len(seen) != devices {
		t.Errorf("%d steps of %d were told", len(seen), devices)
	}
}
