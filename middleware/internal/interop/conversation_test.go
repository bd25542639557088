//go:build live

package interop

import (
	"fmt"
	"slices"
	"testing"

	"example.org/omellium/middleware/internal/lab"
)

// hundred is how many messages go each way.
const hundred = 100

// party is one side of a conversation.
type party interface {
	Send(t testing.TB, to, body string)
	AwaitBody(t testing.TB, from, body string)
	Bodies(from string) []string
}

// The clients answer their own way; here only that they do counts.

type python struct{ *lab.PythonClient }

func (p python) Send(t testing.TB, to, body string) { p.PythonClient.Send(t, to, body) }

func (p python) AwaitBody(t testing.TB, from, body string) { p.PythonClient.AwaitBody(t, from, body) }

// texts returns n texts that occur nowhere else. They are of letters and digits
// alone, so that every log shows them as they are.
func texts(prefix string, from *lab.Account, n int) []string {
	out := make([]string, n)
	for i := range out {
		out[i] = fmt.Sprintf("canary-%s-%s-%d", prefix, from.Local, i)
	}
	return out
}

func sendAll(t *testing.T, p party, to string, bodies []string) {
	t.Helper()
	for _, body := range bodies {
		p.Send(t, to, body)
	}
}

// expect waits for the last of the texts and checks that all of them came, each
// once and in order, after what had come before.
func expect(t *testing.T, p party, from string, want ...[]string) {
	t.Helper()
	all := slices.Concat(want...)
	p.AwaitBody(t, from, all[len(all)-1])
	if got := p.Bodies(from); !slices.Equal(got, all) {
		i := 0
		for i < min(len(got), len(all)) && got[i] == all[i] {
			i++
		}
		t.Errorf("from %s came %d texts, want %d; from text %d on:\ngot  %q\nwant %q", from, len(got), len(all), i,
			got[i:min(len(got), i+10)], all[i:min(len(all), i+10)])
	}
}
