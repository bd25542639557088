package middleware

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"

	"example.org/omellium/omemo"
	"example.org/omellium/stanza"
	"mellium.im/xmpp/jid"
)

// boundLink is as much of a link as what is bounded here needs.
func boundLink(t *testing.T, c Config) *link {
	c.setDefaults()
	l := &link{m: &Middleware{config: c, own: identity{JID: "juliet@example.net"}}, wake: make(chan struct{}, 1)}
	l.ctx, l.cancel = context.WithCancel(t.Context())
	l.directory.init(l)
	return l
}

// What is kept about the lists of others is bounded, and dropping it is safe: a
// list that was asked for before an event counts as older, whatever is dropped.
func TestDirectoryIsBounded(t *testing.T) {
	l := boundLink(t, Config{})
	d := &l.directory
	own := listKey{l.m.own.JID, omemo.V2}
	d.learnt(own, true)
	asked := listKey{"romeo@example.net", omemo.V2}
	d.learnt(asked, true)
	heard := d.heard(asked)
	for i := range 3 * maxLists {
		d.learnt(listKey{fmt.Sprintf("stranger%d@example.net", i), omemo.V2}, true)
	}
	if len(d.fresh) > maxLists || len(d.news) > maxLists {
		t.Errorf("%d lists, news of %d", len(d.fresh), len(d.news))
	}
	if d.stale(own) {
		t.Error("our own list was dropped")
	}
	if d.heard(asked) == heard {
		t.Error("what was dropped counts as unchanged")
	}
	d.learnt(asked, true)
	if d.heard(asked) == heard {
		t.Error("an event was missed")
	}
	unlock, err := d.lock(t.Context(), "romeo@example.net")
	if err != nil {
		t.Fatal(err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := d.lock(ended, "romeo@example.net"); err == nil {
		t.Error("two turns at once")
	}
	unlock()
	if len(d.turns) != 0 {
		t.Errorf("%d turns are left", len(d.turns))
	}
}

// A flood of messages that are not for us leaves no timers behind.
func TestSiblingsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		events := 0
		l := boundLink(t, Config{OnEvent: func(Event) { events++ }})
		defer l.cancel()
		l.m.doubts = limiter{limit: 0}
		from := omemo.Address{JID: "romeo@example.net", Device: 2}
		for range 3 * maxSiblings {
			l.siblings.missing(l, from, "x")
		}
		if len(l.siblings.waiting[from]) != maxSiblings || events != 2*maxSiblings {
			t.Errorf("%d wait, %d were reported", len(l.siblings.waiting[from]), events)
		}
		l.siblings.found(from)
		if l.siblings.timers != 0 || len(l.siblings.waiting) != 0 {
			t.Errorf("%d timers are left", l.siblings.timers)
		}
	})
}

// Ids are somebody else's choice.
func TestTracesAreBounded(t *testing.T) {
	var traces traces
	traces.note(strings.Repeat("x", traceID+1), "step")
	if len(traces.steps) != 0 {
		t.Error("a long id is remembered")
	}
	for i := range 3 * traceMessages {
		for range 2 * traceSteps {
			traces.note(fmt.Sprint(i), "step")
		}
	}
	if len(traces.steps) > traceMessages || len(traces.steps[fmt.Sprint(3*traceMessages-1)]) != traceSteps {
		t.Errorf("%d messages", len(traces.steps))
	}
}

// Of what was sent in clear the newest is remembered, and no more than twice as much.
func TestOwnClearIsBounded(t *testing.T) {
	var o ownClear
	from := jid.MustParse("juliet@example.net/x")
	sent := func(i int) *stanza.Element {
		return stanza.NewElement(stanza.NSClient, "message").SetAttribute("from", from.String()).
			SetAttribute("to", "romeo@example.net").SetAttribute("id", fmt.Sprint(i))
	}
	const n = 3*maxOwnClear + 1
	for i := range n {
		o.note(from, sent(i))
	}
	if !o.has(sent(n-1)) || !o.has(sent(n-maxOwnClear)) || o.has(sent(0)) || len(o.now)+len(o.before) > 2*maxOwnClear {
		t.Errorf("%d and %d are remembered", len(o.now), len(o.before))
	}
	if o.has(stanza.NewElement(stanza.NSClient, "message")) || o.has(sent(n-1).SetAttribute("from", "juliet@example.net")) {
		t.Error("a message without an id or a resource")
	}
}
