package middleware_test

import (
	"fmt"
	"slices"
	"testing"

	"example.org/omellium/middleware"
	"example.org/omellium/omemo"
	"mellium.im/xmpp/jid"
)

// A server that tells nobody of a list that changes while its client comes online,
// as ejabberd may: it is the presence that has the list asked for, though events
// have brought it before.
func TestADeviceThatComesWithoutAnEvent(t *testing.T) {
	t.Parallel()
	for _, account := range []string{juliet, romeo} {
		for _, v := range omemo.Versions() {
			t.Run(fmt.Sprint(account, " ", v), func(t *testing.T) {
				t.Parallel()
				srv := network(t, romeo, juliet)
				ok(t, srv.Befriend(romeo, juliet))
				a := connected(t, srv, romeo, chat(v))
				known := func(id omemo.DeviceID) bool {
					_, devices, err := a.om.Manager().Account(t.Context(), account)
					ok(t, err)
					return slices.ContainsFunc(devices, func(d omemo.Device) bool {
						return d.Peer.Device == id && d.Version == v && d.Active
					})
				}
				b := connected(t, srv, juliet, chat(v))
				other := connected(t, srv, account, chat(v))
				until(t, "events have brought the lists", func() bool {
					return a.count(middleware.ListChanged) > 0 && known(device(t, other))
				})
				a.say(juliet, "one")
				b.awaitText("one")

				srv.SetFilter(dropEvents)
				later := connected(t, srv, account, chat(v))
				until(t, "the device is known", func() bool {
					ok(t, a.om.Prepare(t.Context(), jid.MustParse(juliet)))
					return known(device(t, later))
				})
				a.say(juliet, "two")
				b.awaitText("two")
				if account == juliet {
					later.awaitText("two")
				}
			})
		}
	}
}
