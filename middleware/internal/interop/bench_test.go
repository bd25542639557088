//go:build live

package interop

import (
	"fmt"
	"testing"

	"example.org/omellium/middleware/internal/lab"
)

// echoBatch is how many messages are on the way at once.
const echoBatch = 50

// BenchmarkEcho is messages to a bot that answers each with its text, through
// Prosody and over TLS: examples/echobot with its store on SQLite, and a bot of
// Python-OMEMO on slixmpp. The other side is a program of ours both times.
func BenchmarkEcho(b *testing.B) {
	b.Run("bot=echobot", func(b *testing.B) {
		s := lab.Prosody(b)
		driver, bot := s.Account(b, "driver"), s.Account(b, "echobot")
		lab.Befriend(b, driver, bot)
		newEchobot(b, s, bot)
		benchEcho(b, newProgram(b, s, driver), bot)
	})
	b.Run("bot=python", func(b *testing.B) {
		s := lab.Prosody(b)
		driver, bot := s.Account(b, "driver"), s.Account(b, "pythonbot")
		lab.Befriend(b, driver, bot)
		lab.Python(b, s, bot, lab.PythonOptions{Versions: []string{lab.Legacy}}).Echo(b, true)
		benchEcho(b, newProgram(b, s, driver), bot)
	})
}

func benchEcho(b *testing.B, p *program, bot *lab.Account) {
	sent := 0
	exchange := func(n int) {
		for range n {
			p.Send(b, bot.JID, fmt.Sprintf("text %d", sent))
			sent++
		}
		p.AwaitBody(b, bot.JID, fmt.Sprintf("text %d", sent-1))
	}
	exchange(1) // with the key exchange
	exchange(1)
	b.ResetTimer()
	messages := 0
	for b.Loop() {
		exchange(echoBatch)
		messages += echoBatch
	}
	b.StopTimer()
	b.ReportMetric(float64(messages)/b.Elapsed().Seconds(), "echoes/s")
	if got := len(p.Bodies(bot.JID)); got != sent {
		b.Errorf("%d echoes of %d messages", got, sent)
	}
}
