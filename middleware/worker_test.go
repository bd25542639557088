package middleware_test

import (
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"example.org/omellium/middleware"
	"example.org/omellium/omemo"
)

// A heartbeat is owed once for a chain. If its receiver may not see us yet, it
// waits until it may.
func TestAHeartbeatWaitsUntilItMayBeSent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := network(t, romeo, juliet)
		a := connected(t, srv, romeo, middleware.Config{})
		b := connected(t, srv, juliet, middleware.Config{})
		owed := func() bool {
			rows, err := a.om.Manager().Owed(t.Context())
			ok(t, err)
			return slices.ContainsFunc(rows, func(r omemo.OwedRow) bool { return r.Kind == omemo.OwedHeartbeat })
		}
		for i := range 55 {
			b.say(romeo, fmt.Sprint(i))
		}
		a.awaitText("54")
		time.Sleep(time.Hour)
		if !owed() {
			t.Fatal("struck off")
		}
		a.say(juliet, "an answer")
		b.awaitText("an answer")
		time.Sleep(15 * time.Minute)
		synctest.Wait()
		if owed() {
			t.Error("still owed, though the contact was written to")
		}
	})
}
