package middleware_test

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"example.org/omellium/devicelist"
	"example.org/omellium/middleware"
	"example.org/omellium/omemo"
)

// A list of ours that cannot be read is not written over: its version is
// withdrawn until it can be, and the other is served.
func TestAnUnreadableOwnListWithdrawsItsVersion(t *testing.T) {
	long := devicelist.List{Version: omemo.V2}
	for i := range devicelist.MaxDevices + 1 {
		long.Devices = append(long.Devices, devicelist.Device{ID: omemo.DeviceID(i + 1)})
	}
	for _, c := range []struct {
		name, xml string
		reason    error
	}{
		{"of no version", `<devices xmlns="urn:example"/>`, devicelist.ErrMalformed},
		{"too long", string(long.Element().AppendXML(nil)), devicelist.ErrTooLarge},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				srv := network(t, romeo, juliet)
				ok(t, srv.Publish(romeo, devicelist.NodeV2, "current", c.xml))
				a := connected(t, srv, romeo, middleware.Config{AnswerStrangers: true})
				other := client(t, srv, romeo)
				if e := a.awaitVersion(middleware.Withdrawn, omemo.V2); !errors.Is(e.Err, c.reason) {
					t.Errorf("reason %v", e.Err)
				}
				p := connected(t, srv, juliet, middleware.Config{AnswerStrangers: true})
				p.say(romeo, "legacy is served")
				a.awaitText("legacy is served")
				a.say(juliet, "both ways")
				p.awaitText("both ways")
				time.Sleep(time.Hour)
				if _, err := devicelist.Fetch(t.Context(), other, "", omemo.V2); !errors.Is(err, c.reason) {
					t.Errorf("written over: %v", err)
				}
				if n := a.count(middleware.Withdrawn); n != 1 {
					t.Errorf("%d events", n)
				}
				ok(t, devicelist.Publish(t.Context(), other, devicelist.List{Version: omemo.V2, Devices: []devicelist.Device{{ID: 7}}}))
				time.Sleep(15 * time.Minute)
				synctest.Wait()
				if l := listed(t, other, "", omemo.V2); a.om.Withdrawn(omemo.V2) != nil || !l.Contains(device(t, a)) || !l.Contains(7) {
					t.Errorf("readable again: withdrawn %v, list %v", a.om.Withdrawn(omemo.V2), l)
				}
			})
		})
	}
}
