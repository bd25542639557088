package omemo_test

import (
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"testing"
	"testing/cryptotest"
	"testing/synctest"
	"time"

	"example.org/omellium/omemo"
	"example.org/omellium/omemo/memstore"
)

// What the simulation is like.
const (
	simAccounts = 5
	simDevices  = 2 // of each account
	simMessages = 500
	simLoss     = 0.20 // of the copies that go to a device at once; an archive has all
	simRepeat   = 0.20 // of them that come twice
	simWindow   = 100  // by how many messages one may be late
	simCrash    = 0.02 // of the operations
	simRetry    = 0.10 // of the commits are tried twice by the store
	simAnswer   = 0.05 // of the texts are answered within their own commit
)

// TestSimulation plays the lives of ten devices: each seed is another one.
// OMELLIUM_SEEDS says how many are played, OMELLIUM_SEED plays one.
func TestSimulation(t *testing.T) {
	first, count := uint64(1), simSeeds(t, "OMELLIUM_SEEDS", 3)
	if one := simSeeds(t, "OMELLIUM_SEED", 0); one > 0 {
		first, count = one, 1
	}
	for seed := first; seed < first+count; seed++ {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			cryptotest.SetGlobalRandom(t, seed)
			synctest.Test(t, func(t *testing.T) {
				defer func() {
					if t.Failed() {
						t.Logf("again: OMELLIUM_SEED=%d go test -run TestSimulation", seed)
					}
				}()
				newSimulation(t, seed).play()
			})
		})
	}
}

func simSeeds(t *testing.T, name string, standard uint64) uint64 {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return standard
	}
	n, err := strconv.ParseUint(text, 10, 32)
	if err != nil || n < 1 {
		t.Fatalf("%s=%q is not a number from 1", name, text)
	}
	return n
}

// simulation is a server and all devices. Every device lists the versions.
type simulation struct {
	t        *testing.T
	ctx      context.Context
	r        *rand.Rand
	versions []omemo.Version
	devices  []*simDevice
	archives map[string][]string         // account → ids of its messages, in order
	messages map[string][]*omemo.Message // id → what was sealed
	texts    map[string]string           // id → text; none: an empty message
	promised map[string]map[omemo.Address]bool
	transit  []simCopy
	stanzas  int  // that were transmitted
	clock    int  // of the messages on their way: one stanza is one tick
	last     int  // number of the last id
	calm     bool // nobody dies, nothing is lost
	wire     *world
	stats    struct{ sent, crashes, duplicates, kept, late int }
}

// simCopy is a message on its way to one device.
type simCopy struct {
	due int
	to  *simDevice
	id  string
}

func newSimulation(t *testing.T, seed uint64) *simulation {
	t.Helper()
	s := &simulation{
		t: t, ctx: t.Context(), r: rand.New(rand.NewPCG(seed, 0)), wire: newWorld(t),
		archives: make(map[string][]string), messages: make(map[string][]*omemo.Message),
		texts: make(map[string]string), promised: make(map[string]map[omemo.Address]bool),
		calm:     true,
		versions: [][]omemo.Version{{omemo.V2}, {omemo.Legacy}, {omemo.Legacy, omemo.V2}}[seed%3],
	}
	for account := range simAccounts {
		for range simDevices {
			d := &simDevice{
				simulation: s, jid: fmt.Sprintf("account%d@example.org", account),
				bundles: make(map[omemo.Version]*omemo.Bundle), given: make(map[omemo.Version]map[uint32]bool),
			}
			d.store = &ledger{Store: memstore.New(d.jid), d: d, read: make(map[string]int)}
			d.open()
			s.devices = append(s.devices, d)
		}
	}
	lists := make(map[string][]omemo.DeviceID)
	for _, d := range s.devices {
		lists[d.jid] = append(lists[d.jid], d.address.Device)
		d.work()
	}
	for _, d := range s.devices {
		for jid, list := range lists {
			for _, v := range s.versions {
				s.ok(d.m.SetList(s.ctx, jid, v, list))
			}
		}
	}
	return s
}

func (s *simulation) ok(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

func (s *simulation) chance(p float64) bool { return s.r.Float64() < p }

func (s *simulation) pick() *simDevice { return s.devices[s.r.IntN(len(s.devices))] }

// id returns the id of a new message.
func (s *simulation) id(text string) string {
	s.last++
	id := strconv.Itoa(s.last)
	if text != "" {
		s.texts[id] = text
	}
	return id
}

// promise takes note of a stanza that was committed: it has to arrive.
func (s *simulation) promise(row omemo.OutboxRow) {
	devices := make(map[omemo.Address]bool)
	for _, p := range row.Devices {
		devices[p.Address] = true
	}
	s.promised[row.ID] = devices
}

// copies says how often a stanza reaches a device at once.
func (s *simulation) copies() int {
	switch {
	case s.calm:
	case s.chance(simLoss):
		return 0
	case s.chance(simRepeat):
		return 2
	}
	return 1
}

// fetch asks the server for bundles. It gives each who asks another pre key: that
// two choose the same one is another test.
func (s *simulation) fetch(peers []omemo.Peer) []*omemo.Bundle {
	var found []*omemo.Bundle
	for _, p := range peers {
		for _, d := range s.devices {
			if d.address != p.Address || d.bundles[p.Version] == nil {
				continue
			}
			b := *d.bundles[p.Version]
			given := d.given[p.Version]
			i := slices.IndexFunc(b.PreKeys, func(k omemo.PublicPreKey) bool { return !given[k.ID] })
			if i < 0 {
				s.t.Fatalf("%v: all pre keys are given away", p)
			}
			given[b.PreKeys[i].ID] = true
			b.PreKeys = b.PreKeys[i : i+1]
			found = append(found, &b)
		}
	}
	return found
}

// deliver hands over what is due.
func (s *simulation) deliver() {
	slices.SortStableFunc(s.transit, func(a, b simCopy) int { return cmp.Compare(a.due, b.due) })
	for len(s.transit) > 0 && s.transit[0].due <= s.clock {
		c := s.transit[0]
		s.transit = s.transit[1:]
		c.to.alive(func() error { return c.to.receive(c.id, true, 0) })
	}
}

func (s *simulation) play() {
	s.calm = false
	for s.stats.sent < simMessages {
		from, to := s.pick(), s.pick()
		if from.jid == to.jid {
			continue
		}
		from.say(to.jid)
		s.deliver()
		if s.chance(0.3) {
			s.pick().work()
		}
		if s.chance(0.03) {
			s.pick().catchUp()
		}
		if s.chance(0.1) {
			d := s.pick()
			d.alive(func() error { return d.m.Flush(s.ctx) })
		}
		time.Sleep(time.Duration(s.r.ExpFloat64() * float64(30*time.Minute)))
	}
	s.heal()
	s.check()
}

// heal has everything arrive, and everybody do what is owed, until nobody has
// anything to do.
func (s *simulation) heal() {
	s.calm = true
	for range 30 {
		before := s.stanzas
		s.clock += simWindow
		s.deliver()
		for _, d := range s.devices {
			d.resend()
			d.alive(func() error { return d.m.Flush(s.ctx) })
			d.catchUp()
			d.work()
		}
		if s.stanzas == before && len(s.transit) == 0 {
			return
		}
	}
	s.t.Errorf("the devices have no end of things to do")
}

// check compares what was promised with what was read.
func (s *simulation) check() {
	read := 0
	for _, d := range s.devices {
		for id, text := range s.texts {
			want := 0
			if s.promised[id][d.address] {
				want = 1
			}
			if got := d.store.read[id]; got != want {
				s.t.Errorf("%v has read message %s, %q, %d times, want %d", d.address, id, text, got, want)
			}
			read += d.store.read[id]
		}
		owed, err := d.m.Owed(s.ctx)
		s.ok(err)
		if len(owed) > 0 {
			s.t.Errorf("%v owes %v", d.address, owed)
		}
	}
	s.t.Logf("%v: %d sent, %d read, %d message keys, %d crashes, %d duplicates, %d kept for later, %d in vain",
		s.versions, s.stats.sent, read, len(s.wire.wire), s.stats.crashes, s.stats.duplicates, s.stats.kept, s.stats.late)
}
