//go:build live

package interop

import (
	"slices"
	"strings"
	"testing"

	"example.org/omellium/middleware/internal/lab"
)

// sent is how many encrypted messages with content a server has delivered at least,
// by the address that they are from: bare, of an account or of a room.
type sent map[string]int

// written counts texts by the accounts that they are named after.
func written(bodies ...[]string) sent {
	all := slices.Concat(bodies...)
	slices.Sort(all)
	by := make(sent)
	for _, body := range slices.Compact(all) {
		if parts := strings.Split(body, "-"); len(parts) == 4 {
			by[parts[2]+"@"+lab.Domain]++
		}
	}
	return by
}

// secret checks that the server has seen messages of the accounts, as many as there
// are texts, and none of the texts.
func secret(t *testing.T, s *lab.Server, bodies ...[]string) {
	t.Helper()
	secretOf(t, s, written(bodies...), bodies...)
}

// secretEcho is secret with an answer to each text.
func secretEcho(t *testing.T, s *lab.Server, bot *lab.Account, bodies []string) {
	t.Helper()
	by := written(bodies)
	by[bot.JID] += len(bodies)
	secretOf(t, s, by, bodies)
}

// secretIn is secret with texts that went to a room.
func secretIn(t *testing.T, s *lab.Server, room string, bodies ...[]string) {
	t.Helper()
	secretOf(t, s, sent{room: len(slices.Concat(bodies...))}, bodies...)
}

// secretOf checks that the server's log shows so many messages, or more, and none of
// the texts: of a log that has lost messages, the second says nothing.
func secretOf(t *testing.T, s *lab.Server, least sent, bodies ...[]string) {
	t.Helper()
	var tap string
	for from, n := range least {
		seen := 0
		if !lab.Until(deadline, func() bool {
			tap = s.Tap(t)
			seen = s.Encrypted(tap, from)
			return seen >= n
		}) {
			t.Errorf("the server's log shows %d encrypted messages from %s, not %d; it has %d bytes and ends with\n%s",
				seen, from, n, len(tap), tap[max(0, len(tap)-2000):])
		}
	}
	if len(least) == 0 {
		t.Error("no messages are looked for")
	}
	for _, texts := range bodies {
		// The texts of one list begin alike, and that occurs nowhere else.
		if start := common(texts); start != "" && !strings.Contains(tap, start) {
			continue
		}
		for _, body := range texts {
			if strings.Contains(tap, body) {
				t.Errorf("the server has seen %q", body)
			}
		}
	}
}

// common returns what all texts begin with.
func common(texts []string) string {
	if len(texts) == 0 {
		return ""
	}
	start := texts[0]
	for _, text := range texts {
		for !strings.HasPrefix(text, start) {
			start = start[:len(start)-1]
		}
	}
	return start
}
