package middleware_test

import (
	"bytes"
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"example.org/omellium/devicelist"
	"example.org/omellium/middleware"
	"example.org/omellium/middleware/xmpptest"
	"example.org/omellium/omemo"
	omemostanza "example.org/omellium/stanza"
)

// Another client publishes the list between our reading and our publishing it:
// ours takes its device off, and puts it back.
func TestListOfAnotherIsNotOverwritten(t *testing.T) {
	for _, v := range omemo.Versions() {
		for _, c := range []struct {
			name string
			// what the other publishes beforehand, and then in between; 0 is our device
			before, between, want []omemo.DeviceID
			revoke, leave         bool
		}{
			{"while we put ourselves back", []omemo.DeviceID{7}, []omemo.DeviceID{7, 9}, []omemo.DeviceID{7, 9, 0}, false, false},
			{"with us, while we put ourselves back", []omemo.DeviceID{7}, []omemo.DeviceID{0, 9}, []omemo.DeviceID{9, 0}, false, false},
			{"while we revoke a device", []omemo.DeviceID{0, 7}, []omemo.DeviceID{7, 0, 9}, []omemo.DeviceID{9, 0}, true, false},
			{"while we leave the version", []omemo.DeviceID{0, 7}, []omemo.DeviceID{7, 0, 9}, []omemo.DeviceID{7, 9}, false, true},
		} {
			t.Run(fmt.Sprint(v, " ", c.name), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					srv := network(t, romeo)
					config := middleware.Config{}
					if c.leave {
						config.Versions = []omemo.Version{otherVersion(v)}
					}
					p := load(t, romeo, config)
					own := device(t, p)
					payload := func(ids []omemo.DeviceID) string {
						list := devicelist.List{Version: v}
						for _, id := range ids {
							if id == 0 {
								id = own
							}
							list.Devices = append(list.Devices, devicelist.Device{ID: id})
						}
						return string(list.Element().AppendXML(nil))
					}
					p.attach(login(t, srv, romeo), nil)
					time.Sleep(time.Minute)
					var publications atomic.Int32
					srv.SetFilter(func(_ context.Context, s xmpptest.Stanza) [][]byte {
						ours := s.Direction == xmpptest.FromClient && bytes.Contains(s.XML, []byte(`<publish node="`+devicelist.Node(v)+`"`))
						if ours && publications.Add(1) == 1 {
							ok(t, srv.Publish(romeo, devicelist.Node(v), "current", payload(c.between)))
						}
						return [][]byte{s.XML}
					})
					ok(t, srv.Publish(romeo, devicelist.Node(v), "current", payload(c.before)))
					if c.revoke {
						ok(t, p.om.Revoke(t.Context(), 7))
					}
					time.Sleep(time.Minute)
					synctest.Wait()
					if n := publications.Load(); n != 2 {
						t.Errorf("%d publications", n)
					}
					items, err := srv.Items(romeo, devicelist.Node(v))
					ok(t, err)
					list, err := omemostanza.ParseElement(items[0].Payload, omemostanza.DefaultLimits)
					ok(t, err)
					found, err := devicelist.Parse(list)
					ok(t, err)
					for _, id := range c.want {
						if id == 0 {
							id = own
						}
						if !found.Contains(id) {
							t.Errorf("device %d is lost: %v", id, found)
						}
					}
					if c.revoke && found.Contains(7) {
						t.Errorf("what was revoked is back: %v", found)
					}
					if c.leave && found.Contains(own) {
						t.Errorf("we are not gone: %v", found)
					}
					// It is not a quarrel: nobody publishes any more.
					before := publications.Load()
					time.Sleep(time.Hour)
					if n := publications.Load() - before; n != 0 {
						t.Errorf("%d publications in an hour", n)
					}
				})
			})
		}
	}
}

// A device that another client takes off on purpose is not put back.
func TestDevicesThatWereTakenOffStayOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := network(t, romeo)
		p := connected(t, srv, romeo, middleware.Config{})
		other, own := client(t, srv, romeo), device(t, p)
		for range 3 {
			ok(t, devicelist.Publish(t.Context(), other, devicelist.List{Version: omemo.V2, Devices: []devicelist.Device{{ID: own}, {ID: 7}}}))
			time.Sleep(time.Minute)
			ok(t, devicelist.Publish(t.Context(), other, devicelist.List{Version: omemo.V2, Devices: []devicelist.Device{{ID: own}}}))
			time.Sleep(time.Minute)
			synctest.Wait()
			if l := listed(t, other, "", omemo.V2); len(l.Devices) != 1 {
				t.Fatalf("list: %v", l)
			}
		}
	})
}
