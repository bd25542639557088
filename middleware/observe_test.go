package middleware_test

import (
	"bytes"
	"expvar"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"example.org/omellium/middleware"
	"example.org/omellium/omemo"
)

// Used pre keys are kept while an archive is caught up with, and go afterwards,
// with one empty message for each session.
func TestCatchUp(t *testing.T) {
	t.Parallel()
	srv := network(t, romeo, juliet)
	b := connected(t, srv, juliet, chat(omemo.V2))
	ok(t, b.om.CatchUp(t.Context(), true))
	a := connected(t, srv, romeo, chat(omemo.V2))
	a.say(juliet, "one")
	b.awaitText("one")
	a.say(juliet, "two")
	b.awaitText("two")
	used := func() (n int) {
		rows, err := b.store.PreKeys(t.Context(), omemo.V2)
		ok(t, err)
		for _, row := range rows {
			if !row.Used.IsZero() {
				n++
			}
		}
		return n
	}
	if n := used(); n != 1 {
		t.Errorf("%d used pre keys are kept", n)
	}
	b.awaitVersion(middleware.Published, omemo.V2)
	b.flush()
	if a.count(middleware.SessionConfirmed) != 0 {
		t.Error("an empty message has not waited")
	}
	ok(t, b.om.CatchUp(t.Context(), false))
	b.awaitEvent(middleware.CaughtUp)
	a.awaitEvent(middleware.SessionConfirmed)
	if n := used(); n != 0 {
		t.Errorf("%d used pre keys are left", n)
	}
}

// A counter for what happens, and nothing about whom.
func TestCounters(t *testing.T) {
	t.Parallel()
	srv := network(t, romeo, juliet)
	c := chat(omemo.V2)
	counted := new(expvar.Map).Init()
	c.Counters = counted
	a, b := connected(t, srv, romeo, c), connected(t, srv, juliet, chat(omemo.V2))
	a.say(juliet, "one")
	b.awaitText("one")
	a.awaitEvent(middleware.Accepted)
	a.om.Close()
	if got := counted.String(); !holdsAll(got, []string{`"accepted": 1`, `"published": 2`}) || strings.Contains(got, "@") {
		t.Errorf("counted: %s", got)
	}
}

func TestEventInALog(t *testing.T) {
	e := middleware.Event{
		Kind: middleware.SendFailed, Account: juliet, ID: "canary", Version: omemo.V2,
		Err: &omemo.RecipientError{JID: juliet, Err: omemo.ErrUntrusted},
	}
	s := e.LogValue().String()
	if strings.Contains(s, "juliet") || strings.Contains(s, "canary") || !strings.Contains(s, "send failed") || !strings.Contains(s, "trusted") {
		t.Errorf("logged: %s", s)
	}
}

// A program that queries no archive has caught up after a minute; one that does
// has when it is answered.
func TestCaughtUpByItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv := network(t, romeo)
		p := connected(t, srv, romeo, middleware.Config{})
		time.Sleep(59 * time.Second)
		synctest.Wait()
		if p.count(middleware.CaughtUp) != 0 {
			t.Fatal("caught up early")
		}
		ok(t, p.session.Send(t.Context(), raw(`<iq xmlns='jabber:client' type='set' id='q'><query xmlns='urn:xmpp:mam:2' queryid='1'/></iq>`)))
		time.Sleep(30 * time.Second)
		synctest.Wait()
		if p.count(middleware.CaughtUp) != 0 {
			t.Fatal("caught up while an archive was queried")
		}
		time.Sleep(45 * time.Second)
		synctest.Wait()
		if p.count(middleware.CaughtUp) != 1 {
			t.Error("never caught up")
		}
	})
}

// The way of a message is told without saying whose it is.
func TestTrace(t *testing.T) {
	t.Parallel()
	srv := network(t, romeo, juliet)
	a, b := connected(t, srv, romeo, chat(omemo.V2)), connected(t, srv, juliet, chat(omemo.V2))
	m := to(juliet)
	m.ID = "traced"
	_, err := a.om.Send(t.Context(), m, text("canary"))
	ok(t, err)
	b.awaitText("canary")
	way := func(p *program) string {
		var s strings.Builder
		for _, step := range p.om.Trace("traced") {
			s.WriteString(step.What + "\n")
		}
		return s.String()
	}
	if got := way(a); !holdsAll(got, []string{"queued\n", "sealed for 1 devices in omemo:2", "accepted\n", "written\n"}) {
		t.Errorf("the way out: %s", got)
	}
	if got := way(b); !holdsAll(got, []string{"decrypted in omemo:2, passive session"}) {
		t.Errorf("the way in: %s", got)
	}
	if s := way(a) + way(b); strings.Contains(s, "juliet") || strings.Contains(s, "romeo") || strings.Contains(s, "canary") {
		t.Errorf("too much: %s", s)
	}
	for range 600 { // it remembers the newest only
		_, err := a.om.Send(t.Context(), to(juliet), raw("<composing xmlns='http://jabber.org/protocol/chatstates'/>"))
		ok(t, err)
	}
	if way(a) != "" {
		t.Error("it remembers everything")
	}
}

// Two programs that have talked fall silent: no empty message answers another.
func TestQuietAfterwards(t *testing.T) {
	for _, v := range omemo.Versions() {
		t.Run(v.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				srv := network(t, romeo, juliet)
				a, b := connected(t, srv, romeo, chat(v)), connected(t, srv, juliet, chat(v))
				for i := range 120 { // heartbeats included
					a.say(juliet, "one way "+decimal(omemo.DeviceID(i)))
				}
				b.awaitText("one way 119")
				b.say(romeo, "and back")
				a.awaitText("and back")
				time.Sleep(time.Hour)
				synctest.Wait()
				before := len(srv.Wire())
				time.Sleep(20 * time.Hour)
				synctest.Wait()
				for _, s := range srv.Wire()[before:] {
					if bytes.Contains(s.XML, []byte("<encrypted")) {
						t.Fatalf("after an hour of silence: %s", s.XML)
					}
				}
				if n := len(srv.Wire()) - before; n > 2000 {
					t.Errorf("%d stanzas while nobody said anything", n)
				}
			})
		})
	}
}
