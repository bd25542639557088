package omemo_test

import (
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"testing"

	"pgregory.net/rapid"

	"example.org/omellium/omemo"
)

// parcel is a message on its way to one device.
type parcel struct {
	to      *party
	message *omemo.Message
	text    string // "": an empty message
}

// schedule is any order of sending, losing, reordering, repeating, restarting
// and starting anew.
type schedule struct {
	*world
	v        omemo.Version
	r        *rand.Rand
	transit  []parcel
	read     []parcel
	texts    int
	replaced map[[2]string]int
}

// maxReplaced keeps the sessions of two devices below what is archived: both may
// have started at once.
const maxReplaced = (omemo.MaxArchived - 1) / 2

func (s *schedule) put(sealed *omemo.Sealed, text string) {
	s.tapped(sealed)
	for _, message := range sealed.Messages {
		for _, p := range s.parties {
			if mine := p.of(message); len(mine.Keys) > 0 {
				s.transit = append(s.transit, parcel{p, mine, text})
			}
		}
	}
}

func (s *schedule) pick() *party { return s.parties[s.r.IntN(len(s.parties))] }

func (s *schedule) others() (from, to *party) {
	for from == to {
		from, to = s.pick(), s.pick()
	}
	return from, to
}

func (s *schedule) send() {
	from, to := s.others()
	s.texts++
	text := fmt.Sprintf("%s %d", from.jid, s.texts)
	missing, err := from.m.Missing(s.ctx, both(text), []string{to.jid})
	from.ok(err)
	var bundles []*omemo.Bundle
	if len(missing) > 0 {
		bundles = append(bundles, to.small(s.v))
	}
	sealed, err := from.m.Encrypt(s.ctx, both(text), []string{to.jid}, stanzas(text, to.jid), bundles...)
	from.ok(err)
	s.put(sealed, text)
}

func (s *schedule) replace() {
	from, to := s.others()
	if between := [2]string{from.jid, to.jid}; s.replaced[between] < maxReplaced {
		s.replaced[between]++
		sealed, err := from.m.Replace(s.ctx, to.small(s.v), stanzas("replace", to.jid))
		from.ok(err)
		s.put(sealed, "")
	}
}

func (s *schedule) answer() {
	p := s.pick()
	rows, err := p.m.Owed(s.ctx)
	p.ok(err)
	for _, row := range rows {
		switch row.Kind {
		case omemo.OwedBundle, omemo.OwedDevices:
			p.ok(p.m.Strike(s.ctx, row.OwedID))
		default:
			sealed, err := p.m.Answer(s.ctx, row.OwedID, omemo.Plaintext{}, stanzas("owed", row.JID))
			if errors.Is(err, omemo.ErrNoSession) {
				continue // replaced by hand
			}
			p.ok(err)
			s.put(sealed, "")
		}
	}
}

// take removes a parcel that is on its way.
func (s *schedule) take() (parcel, bool) {
	if len(s.transit) == 0 {
		return parcel{}, false
	}
	i := s.r.IntN(len(s.transit))
	p := s.transit[i]
	s.transit[i] = s.transit[len(s.transit)-1]
	s.transit = s.transit[:len(s.transit)-1]
	return p, true
}

func (s *schedule) deliver() {
	p, ok := s.take()
	if !ok {
		return
	}
	s.read = append(s.read, p)
	if p.to.resists(s.r, p.message, p.text, 20) {
		return
	}
	o, err := p.to.receive(p.message)
	if err != nil || string(o.Plaintext) != p.text {
		s.Fatalf("%s: %q: %v", p.to.jid, p.text, err)
	}
}

func (s *schedule) repeat() {
	if len(s.read) == 0 {
		return
	}
	p := s.read[s.r.IntN(len(s.read))]
	commits := p.to.store.commits
	if _, err := p.to.receive(p.message); !errors.Is(err, omemo.ErrDuplicate) || p.to.store.commits != commits {
		s.Fatalf("%s: %q a second time: %v", p.to.jid, p.text, err)
	}
}

// The race detector is slow: run more with -rapid.checks.
func init() {
	if err := flag.Set("rapid.checks", "40"); err != nil {
		panic(err)
	}
}

func TestAnySchedule(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		s := &schedule{
			world: newWorld(t), v: rapid.SampledFrom(omemo.Versions()).Draw(t, "version"),
			r:        rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0)),
			replaced: make(map[[2]string]int),
		}
		for _, jid := range []string{alice, bob, carol}[:rapid.IntRange(2, 3).Draw(t, "devices")] {
			s.join(jid, omemo.Options{})
		}
		s.meet(s.v)
		steps := []struct {
			name   string
			weight int
			do     func()
		}{
			{"send", 8, s.send},
			{"deliver", 8, s.deliver},
			{"repeat", 2, s.repeat},
			{"lose", 1, func() { s.take() }},
			{"answer", 2, s.answer},
			{"restart", 1, func() { s.pick().restart() }},
			{"replace", 1, s.replace},
		}
		var choices []int
		for i, step := range steps {
			for range step.weight {
				choices = append(choices, i)
			}
		}
		for range rapid.IntRange(1, 30).Draw(t, "steps") {
			steps[rapid.SampledFrom(choices).Draw(t, "step")].do()
		}
		for len(s.transit) > 0 {
			s.deliver()
		}
		for range 4 {
			s.send()
			s.deliver()
		}
	})
}
