package omemo_test

import (
	"testing"

	"example.org/omellium/omemo"
)

// TestWithhold: what waits in the outbox does not leave once the key of one of its
// devices is distrusted, whoever decided so, and what is not for it does.
func TestWithhold(t *testing.T) {
	for _, v := range omemo.Versions() {
		t.Run(v.String(), func(t *testing.T) {
			ctx := t.Context()
			w := newWorld(t)
			a, b := w.join(alice, omemo.Options{}), w.join(bob, omemo.Options{})
			w.join(carol, omemo.Options{})
			own := w.join(alice, omemo.Options{})
			w.meet(v)
			toBob, toCarol := a.send("one", bob).Outbox[0], a.send("two", carol).Outbox[0]
			check := func(when string, want ...omemo.OutboxRow) {
				t.Helper()
				kept, withheld, err := a.m.Withhold(ctx, toBob, toCarol)
				a.ok(err)
				if len(kept) != len(want) || len(withheld) != 2-len(want) {
					t.Fatalf("%s: %d rows may leave, %d may not", when, len(kept), len(withheld))
				}
				for i, row := range want {
					if kept[i].Seq != row.Seq {
						t.Errorf("%s: row %d may leave, want %d", when, kept[i].Seq, row.Seq)
					}
				}
				rows, err := a.m.Outbox(ctx, 0, 10)
				a.ok(err)
				if len(rows) != len(want) {
					t.Errorf("%s: the outbox has %d rows", when, len(rows))
				}
			}
			check("nobody has decided", toBob, toCarol)
			a.ok(a.m.SetTrust(ctx, carol, b.fingerprint(), omemo.Distrusted))
			check("the key of another account is distrusted", toBob, toCarol)
			a.ok(a.m.SetTrust(ctx, bob, b.fingerprint(), omemo.Distrusted))
			check("a recipient's key is distrusted", toCarol)
			a.ok(a.m.SetTrust(ctx, alice, own.fingerprint(), omemo.Distrusted))
			check("that of our other device is distrusted")
		})
	}
}
