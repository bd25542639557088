package omemo_test

import (
	"errors"
	"fmt"
	"testing"

	"example.org/omellium/omemo"
)

func TestInboxAndOutbox(t *testing.T) {
	versions(t, func(t *testing.T, v omemo.Version) {
		ctx := t.Context()
		a, b := pair(t, v)
		var first *omemo.Opened
		for i := range 3 {
			o := b.reads(a.send(fmt.Sprint(i), bob), fmt.Sprint(i))
			if first == nil {
				first = o
			}
		}
		out, err := a.m.Outbox(ctx, 0, 10)
		a.ok(err)
		if len(out) != 3 || out[0].ID != "m1" || out[0].Chat != bob || len(out[0].Devices) != 1 || out[0].Devices[0] != b.peer(v) {
			t.Fatalf("outbox %v", out)
		}
		in, err := b.m.Inbox(ctx, 0, 10)
		b.ok(err)
		if len(in) != 3 || string(in[1].Stanza) != "1" || in[0].Event != first.Event || in[0].Seq != first.Delivery.Seq {
			t.Fatalf("%d rows in the inbox", len(in))
		}
		if in, _ := b.m.Inbox(ctx, in[0].Seq, 1); len(in) != 1 || string(in[0].Stanza) != "1" {
			t.Error("reading on from a position")
		}

		again := in[1]
		again.Attempts, again.Dead = 5, true
		b.ok(b.m.Attempt(ctx, again))
		b.restart()
		if in, _ := b.m.Inbox(ctx, 0, 10); len(in) != 3 || in[1].Attempts != 5 || !in[1].Dead {
			t.Error("attempts are not counted")
		}

		// Removals ride along, and survive a commit that fails.
		b.m.Later([]uint64{in[0].Seq}, nil)
		b.store.failAt(0)
		if err := b.m.Flush(ctx); !errors.Is(err, errStore) {
			t.Error(err)
		}
		b.store.fail = nil
		b.reads(a.send("3", bob), "3")
		if in, _ := b.m.Inbox(ctx, 0, 10); len(in) != 3 || string(in[0].Stanza) != "1" {
			t.Error("a removal was lost")
		}
		a.m.Later(nil, []uint64{out[0].Seq, out[1].Seq})
		a.ok(a.m.Flush(ctx))
		a.restart()
		if out, _ := a.m.Outbox(ctx, 0, 10); len(out) != 2 || out[0].ID != "m3" {
			t.Error("stanzas that were settled are still there")
		}

		// Sequence numbers go on after a restart; what is transient has none.
		sealed, err := a.m.Encrypt(ctx, both("typing"), []string{bob}, func(*omemo.Sealed) ([]omemo.Outgoing, error) {
			return []omemo.Outgoing{{ID: "x", Transient: true}, {ID: "y"}}, nil
		})
		a.ok(err)
		if len(sealed.Outbox) != 2 || sealed.Outbox[0].Seq != 0 || sealed.Outbox[1].Seq != 5 {
			t.Errorf("outbox %v", sealed.Outbox)
		}
	})
}

func TestTheEventNameOfAMessageIsStable(t *testing.T) {
	versions(t, func(t *testing.T, v omemo.Version) {
		a, b := pair(t, v)
		first, second := b.find(a.send("one", bob)), b.find(a.send("two", bob))
		var name string
		_, err := b.m.Decrypt(t.Context(), first, func(o *omemo.Opened) (omemo.Delivery, error) {
			name = o.Event
			return omemo.Delivery{}, errHook
		})
		if !errors.Is(err, errHook) {
			t.Fatal(err)
		}
		b.restart()
		o, err := b.receive(first)
		b.ok(err)
		next, err := b.receive(second)
		b.ok(err)
		if name == "" || o.Event != name || next.Event == name {
			t.Errorf("%q, then %q; the next is %q", name, o.Event, next.Event)
		}
	})
}
