//go:build live

package interop

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"example.org/omellium/bundle"
	"example.org/omellium/middleware/internal/lab"
	"example.org/omellium/omemo"
	"example.org/omellium/stanza/pep"
)

// member is one of those who speak in a room.
type member struct {
	account *lab.Account
	device  uint32
	say     func(body string)
	reads   func(of *lab.Account, body string)
}

// acquaint has members greet each other, one after the other, so that each two have
// a session. Of two that choose the same pre key of a device, it reads the first
// alone: so each speaks when what was chosen before is not offered any more.
func acquaint(t *testing.T, p *program, members ...member) {
	t.Helper()
	for i, m := range members {
		p.awaitOffers(t, members[i+1:], func() {
			body := texts("greeting", m.account, 1)[0]
			m.say(body)
			for j, other := range members {
				if j != i {
					other.reads(m.account, body)
				}
			}
		})
	}
}

// awaitOffers does something that uses a pre key of each of some devices, and waits
// until they have replaced it.
func (p *program) awaitOffers(t *testing.T, members []member, do func()) {
	t.Helper()
	before := make([]string, len(members))
	for i, m := range members {
		before[i] = p.offers(t, m)
	}
	do()
	for i, m := range members {
		if !lab.Until(deadline, func() bool { return p.offers(t, m) != before[i] }) {
			t.Fatalf("%s has not replaced the pre key that was used", m.account.JID)
		}
	}
}

// offers tells the pre keys that a device has published.
func (p *program) offers(t *testing.T, m member) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), deadline)
	defer cancel()
	offers := ""
	for _, v := range omemo.Versions() {
		b, err := bundle.Fetch(ctx, pep.SessionRequester(p.session), omemo.Address{JID: m.account.JID, Device: omemo.DeviceID(m.device)}, v)
		if err != nil && !errors.Is(err, pep.ErrNone) {
			t.Fatal(err)
		}
		offers += fmt.Sprintln(v, b.PreKeys)
	}
	return offers
}
