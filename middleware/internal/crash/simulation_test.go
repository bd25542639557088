package crash

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"mellium.im/xmpp/jid"

	"example.org/omellium/middleware/xmpptest"
	"example.org/omellium/omemo"
)

// What the simulation is like.
const (
	simAccounts = 5
	simDevices  = 2           // of each account
	simMessages = 500         // a fifth of them with "go test -short" and the race detector
	simWindow   = 100         // by how many messages one may be late
	simPause    = time.Minute // between two of them, on the average
	simCrash    = 0.03        // of the messages a program dies within its next steps
	simQuit     = 0.01        // of the messages a program is ended in order
	simSteps    = 60          // within so many steps it dies
	simAbsence  = 10          // messages that a program misses, on the average, until it is started again
	simAnswer   = 0.05        // of the messages are answered within their own commit, if at all
	simLimit    = 60 * 24 * time.Hour
)

// TestSimulation plays the lives of ten programs that handle messages with
// Config.Receive: each seed is another one. OMELLIUM_SEEDS says how many are played,
// OMELLIUM_SEED plays one again. The seed says who writes to whom in each turn, which
// message is lost, repeated or late at which device, and who dies when, at which
// step of its machine. What goroutines do at the same moment is not in its hand, nor
// which keys are drawn: the same seed is the same fate, but not the same run to the
// last step.
func TestSimulation(t *testing.T) {
	first, count := 1, knob(t, "OMELLIUM_SEEDS", 1, 1)
	if one := knob(t, "OMELLIUM_SEED", 0, 0); one > 0 {
		first, count = one, 1
	}
	for seed := first; seed < first+count; seed++ {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			defer func() {
				if t.Failed() {
					t.Logf("again: OMELLIUM_SEED=%d go test -run '^TestSimulation$' ./middleware/internal/crash", seed)
				}
			}()
			synctest.Test(t, func(t *testing.T) { newSimulation(t, uint64(seed)).play() })
		})
	}
}

// simulation is a server with an archive, and all devices.
type simulation struct {
	t        *testing.T
	ctx      context.Context
	seed     uint64
	net      *simNet
	devices  []*simDevice
	accepted map[string]bool // ids of messages that Send has accepted
	complete map[string]bool // of those, for all devices
	deaths   int
	quits    int
	breaks   int
}

func newSimulation(t *testing.T, seed uint64) *simulation {
	t.Helper()
	srv, err := xmpptest.NewServer(xmpptest.Archives())
	ok(t, err)
	s := &simulation{
		t: t, ctx: t.Context(), seed: seed,
		net: newSimNet(srv, seed), accepted: make(map[string]bool), complete: make(map[string]bool),
	}
	account := func(n int) string { return fmt.Sprintf("account%d@example.net", n) }
	for n := range simAccounts {
		ok(t, srv.AddAccount(account(n), password))
		for other := range n {
			ok(t, srv.Befriend(account(n), account(other)))
		}
	}
	for n := range simAccounts * simDevices {
		d := s.newDevice(account(n/simDevices), fmt.Sprintf("device%d", n), omemo.Versions()[seed%2])
		d.unwatched = seed > 1
		s.devices = append(s.devices, d)
		d.start(true)
		synctest.Wait() // two that change one device list at once can undo each other
	}
	srv.SetFilter(s.net.filter)
	return s
}

// close ends everything, so that no goroutine is left.
func (s *simulation) close() {
	for _, d := range s.devices {
		ok(s.t, d.die())
	}
	ok(s.t, s.net.srv.Close())
}

// odds returns what the dice say about something, from 0 to 1.
func (s *simulation) odds(about ...any) float64 { return odds(s.seed, about...) }

// pick returns the device that the dice choose for something.
func (s *simulation) pick(about ...any) *simDevice {
	return s.devices[int(s.odds(about...)*float64(len(s.devices)))]
}

func (s *simulation) play() {
	// Who waits for what never comes would have the virtual time run on for ever.
	limit := time.AfterFunc(simLimit, func() { panic(fmt.Sprintf("seed %d does not come to an end", s.seed)) })
	defer limit.Stop()
	defer s.close()
	s.net.setCalm(false)
	messages := simMessages
	if testing.Short() || raceEnabled {
		messages /= 5
	}
	for turn := 0; len(s.complete) < messages; turn++ {
		if turn > 20*messages {
			s.t.Fatalf("after %d turns, %d messages were sent", turn, len(s.complete))
		}
		if s.odds("crash", turn) < simCrash {
			s.pick("crashes", turn).doom(turn)
		}
		if s.odds("quit", turn) < simQuit {
			s.pick("quits", turn).retire()
		}
		from, to := s.pick("from", turn), s.pick("to", turn)
		if from.account != to.account && from.om != nil {
			from.say(to.account, turn)
		}
		s.pass(turn)
	}
	s.heal()
	s.check()
}

// pass lets time pass: what is due arrives, and who was away comes back.
func (s *simulation) pass(turn int) {
	time.Sleep(time.Duration(s.odds("pause", turn) * float64(2*simPause)))
	synctest.Wait()
	s.net.deliver()
	synctest.Wait()
	for _, d := range s.devices {
		d.next()
	}
	s.net.srv.ForgetWire() // the tap has seen it
}

// heal has everything arrive, and everybody do what there is to do, until nobody
// has anything to do.
func (s *simulation) heal() {
	s.net.setCalm(true)
	for _, d := range s.devices {
		d.revive()
	}
	left := make(map[string]string)
	for round := range 6 {
		s.net.deliver()
		for _, d := range s.devices {
			if d.om != nil && (round == 0 || left[d.device] != "") {
				ok(s.t, d.quit())
			}
			synctest.Wait() // what it wrote at last has arrived, or could undo what it writes now
			d.start(true)
		}
		for _, pause := range []time.Duration{time.Second, 10 * time.Minute} {
			time.Sleep(pause)
			synctest.Wait()
		}
		s.net.srv.ForgetWire()
		clear(left)
		for _, d := range s.devices {
			what, err := d.left(s.ctx)
			ok(s.t, err)
			if what != "" {
				left[d.device] = what
			}
		}
		if len(left) == 0 {
			return
		}
	}
	for device, what := range left {
		s.t.Errorf("%s: left: %s", device, what)
	}
}

// check compares the stanzas that were written with what Config.Receive has.
func (s *simulation) check() {
	if err := s.net.tap.verdict(); err != nil {
		s.t.Error(err)
	}
	written := s.net.tap.texts(s.t)
	for id := range s.accepted {
		if written[id] == nil {
			s.t.Errorf("%s was accepted and never written", id)
		}
	}
	rows := 0
	for _, d := range s.devices {
		ledger := d.ledger(s.t)
		for id, m := range written {
			want := 0
			if slices.ContainsFunc(m.keys, func(k tappedKey) bool { return k.seal.to == d.number }) {
				want = 1
			}
			if sender := senderOf(id); s.complete[id] && want == 0 && d.device != sender &&
				(m.to == d.account || s.device(sender).account == d.account) {
				s.t.Errorf("%s was not written to in %s", d.device, id)
			}
			if got := ledger[id]; got != want {
				s.t.Errorf("%s has %s in its ledger %d times, want %d", d.device, id, got, want)
			}
			rows += ledger[id]
			delete(ledger, id)
		}
		for id, times := range ledger {
			s.t.Errorf("%s has %s in its ledger %d times, which nobody has written", d.device, id, times)
		}
		for _, what := range d.faults() {
			s.t.Errorf("%s: %s", d.device, what)
		}
	}
	keys, resent := s.net.tap.used()
	s.t.Logf("%v, %v: %d messages, %d rows in ledgers, %d message keys, %d stanzas sent again, %d deaths, %d orderly ends, %d broken connections; %v",
		s.devices[0].version, s.net.way(), len(s.accepted), rows, keys, resent, s.deaths, s.quits, s.breaks, s.net)
}

func (s *simulation) device(name string) *simDevice {
	i := slices.IndexFunc(s.devices, func(d *simDevice) bool { return d.device == name })
	return s.devices[i]
}

// texts returns what messages with a text were written, by their ids.
func (w *wiretap) texts(t *testing.T) map[string]*tapped {
	found := make(map[string]*tapped)
	for id, raw := range w.stanzas {
		if !isText(id) {
			continue // an empty message
		}
		m, err := parseMessage(raw)
		ok(t, err)
		found[id] = m
	}
	return found
}

// address returns an address of which nothing is wrong.
func address(bare string) jid.JID { return jid.MustParse(bare) }
