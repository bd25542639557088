package middleware_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"example.org/omellium/middleware"
	"example.org/omellium/middleware/xmpptest"
	"example.org/omellium/omemo"
)

// sizes returns how long a first message to Juliet's devices is, with the key
// exchange of each, and how long a later one.
func sizes(t *testing.T, devices int) (first, later int) {
	t.Helper()
	srv, _ := devicesOfJuliet(t, devices, chat(omemo.V2))
	a := connected(t, srv, romeo, chat(omemo.V2))
	for _, size := range []*int{&first, &later} {
		result, err := a.om.Send(t.Context(), to(juliet), text("canary"))
		ok(t, err)
		until(t, "on the wire", func() bool { return len(encryptedFrom(srv, romeo, result.ID)) == 1 })
		*size = len(encryptedFrom(srv, romeo, result.ID)[0])
		until(t, "sessions confirmed", func() bool { return a.count(middleware.SessionConfirmed) == devices })
	}
	return first, later
}

// A message to many new devices would be too large with all the key exchanges in
// it: the sessions are opened first, each by a message of its own.
func TestOpenFirst(t *testing.T) {
	const devices = 10 // enough to outweigh the random padding of an envelope
	first, later := sizes(t, devices)
	if first-later < 700 {
		t.Fatalf("a first message has %d bytes, a later one %d", first, later)
	}
	limit := later + (first-later)/2
	t.Run("devices answer", func(t *testing.T) {
		srv, all := devicesOfJuliet(t, devices, chat(omemo.V2))
		c := chat(omemo.V2)
		c.MaxStanza = limit
		a := connected(t, srv, romeo, c)
		result, err := a.om.Send(t.Context(), to(juliet), text("canary"))
		ok(t, err)
		if len(result.Devices) != devices {
			t.Errorf("devices: %+v", result.Devices)
		}
		for _, d := range result.Devices {
			if d.Err != nil || d.Exchange {
				t.Errorf("device: %+v", d)
			}
		}
		for _, b := range all {
			b.awaitText("canary")
		}
		a.say(juliet, "canary later")
		for _, b := range all {
			b.awaitText("canary later")
			if got := b.bodies(); len(got) != 2 {
				t.Errorf("arrived: %q", got)
			}
		}
		for _, s := range srv.Wire() {
			if fromTo(romeo, "<message")(s) && len(s.XML) > limit {
				t.Errorf("%d bytes: %s", len(s.XML), s.XML)
			}
		}
		noLeak(t, srv, "canary")
	})
	t.Run("devices do not answer", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			silent := chat(omemo.V2)
			silent.AnswerStrangers = false
			srv, all := devicesOfJuliet(t, devices, silent)
			c := chat(omemo.V2)
			c.MaxStanza = limit
			a := connected(t, srv, romeo, c)
			begin := time.Now()
			if _, err := a.om.Send(t.Context(), to(juliet), text("canary")); !errors.Is(err, middleware.ErrTooLarge) {
				t.Errorf("error: %v", err)
			}
			if took := time.Since(begin); took > 2*middleware.DefaultFetchTimeout {
				t.Errorf("took %v", took)
			}
			for _, b := range all {
				if got := b.bodies(); len(got) != 0 {
					t.Errorf("arrived: %q", got)
				}
			}
			noLeak(t, srv, "canary")
		})
	})
	t.Run("cannot be made smaller", func(t *testing.T) {
		srv, _ := devicesOfJuliet(t, devices, chat(omemo.V2))
		c := chat(omemo.V2)
		c.MaxStanza = limit
		a := connected(t, srv, romeo, c)
		a.settled()
		before := stateOf(t, a.store)
		if _, err := a.om.Send(t.Context(), to(juliet), text(strings.Repeat("canary", limit/6))); !errors.Is(err, middleware.ErrTooLarge) {
			t.Errorf("error: %v", err)
		}
		for _, s := range srv.Wire() {
			if fromTo(romeo, "<message")(s) {
				t.Errorf("sent: %s", s.XML)
			}
		}
		if after := stateOf(t, a.store); len(after.Sessions) != len(before.Sessions) || len(after.Outbox) != 0 {
			t.Errorf("the store has changed: %d sessions", len(after.Sessions))
		}
	})
}

// devicesOfJuliet returns a server and several clients of Juliet's.
func devicesOfJuliet(t *testing.T, n int, c middleware.Config) (srv *xmpptest.Server, all []*program) {
	t.Helper()
	srv = network(t, romeo, juliet)
	for i := range n {
		all = append(all, connected(t, srv, fmt.Sprintf("%s/%d", juliet, i), c))
	}
	return srv, all
}
