package middleware_test

import (
	"testing"
	"testing/synctest"
	"time"

	"example.org/omellium/bundle"
	"example.org/omellium/devicelist"
	"example.org/omellium/middleware"
	"example.org/omellium/omemo"
)

// A server that does not let us back on one list: that version is withdrawn, and
// what else is owed is done.
func TestARefusedListHoldsNothingUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := network(t, romeo, juliet)
		a := connected(t, srv, romeo, middleware.Config{AnswerStrangers: true})
		b := connected(t, srv, juliet, middleware.Config{AnswerStrangers: true})
		other := client(t, srv, romeo)
		own := omemo.Address{Device: device(t, a)}
		srv.SetFilter(refusePublishing(`<publish node="`+devicelist.NodeV2, `id="`+decimal(own.Device)+`"`))
		ok(t, devicelist.Publish(t.Context(), other, devicelist.List{Version: omemo.V2, Devices: []devicelist.Device{{ID: 7}}}))
		a.awaitVersion(middleware.Withdrawn, omemo.V2)
		before, err := bundle.Fetch(t.Context(), other, own, omemo.Legacy)
		ok(t, err)
		ok(t, a.om.Rotate(t.Context()))
		until(t, "legacy bundle with the new key", func() bool {
			after, err := bundle.Fetch(t.Context(), other, own, omemo.Legacy)
			ok(t, err)
			return after.SignedPreKeyID != before.SignedPreKeyID
		})
		b.say(romeo, "legacy goes on")
		if got := a.awaitText("legacy goes on"); got.Info.Version != omemo.Legacy {
			t.Errorf("came in %v", got.Info.Version)
		}
		srv.SetFilter(nil)
		time.Sleep(15 * time.Minute)
		synctest.Wait()
		if l := listed(t, other, "", omemo.V2); a.om.Withdrawn(omemo.V2) != nil || !l.Contains(own.Device) || !l.Contains(7) {
			t.Errorf("withdrawn: %v, list %v", a.om.Withdrawn(omemo.V2), l)
		}
	})
}

// Whoever takes us off the list may have removed our bundle as well: whoever finds
// us on the list again finds it.
func TestReannouncedWithItsBundle(t *testing.T) {
	for _, v := range omemo.Versions() {
		t.Run(v.String(), func(t *testing.T) {
			t.Parallel()
			srv := network(t, romeo)
			p := connected(t, srv, romeo, middleware.Config{})
			other := client(t, srv, romeo)
			own := device(t, p)
			ok(t, bundle.Retract(t.Context(), other, v, own))
			ok(t, devicelist.Publish(t.Context(), other, devicelist.List{Version: v, Devices: []devicelist.Device{{ID: 7}}}))
			until(t, "our device is back", func() bool { return listed(t, other, "", v).Contains(own) })
			b, err := bundle.Fetch(t.Context(), other, omemo.Address{JID: romeo, Device: own}, v)
			if err == nil {
				err = b.Verify()
			}
			if err != nil {
				t.Errorf("back on the list: %v", err)
			}
		})
	}
}
