package omemo_test

import (
	"cmp"
	"context"
	"errors"
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

// simDevice is one device.
type simDevice struct {
	*simulation
	jid     string
	store   *ledger
	m       *omemo.Manager
	address omemo.Address
	cursor  int                               // how much of the archive was read
	bundles map[omemo.Version]*omemo.Bundle   // as the server has them
	given   map[omemo.Version]map[uint32]bool // pre keys that somebody has asked for
}

// ledger is a store that runs Within, keeps account of what was committed, and
// can make the device die.
type ledger struct {
	*memstore.Store
	d     *simDevice
	crash int // 0: not now; 1: before the next commit has its effect; 2: after that
	dead  bool
	// read counts texts by the id of their message: what Config.Receive has
	// written in the transaction of its message.
	read map[string]int
}

// ledgerTx is the transaction that Within is given.
type ledgerTx struct{ read []string }

var errDeath = fmt.Errorf("the device has died: %w", omemo.ErrClosed)

func (l *ledger) Commit(ctx context.Context, c *omemo.Changes) error {
	if l.dead || l.crash == 1 {
		l.dead = true
		return errDeath
	}
	within := c.Within
	attempts := 1
	if within != nil && l.d.chance(simRetry) {
		attempts = 2
	}
	var tx ledgerTx
	var d omemo.Changes
	for range attempts {
		tx, d = ledgerTx{}, *c
		if within == nil {
			continue
		}
		if err := within(ctx, &tx, &d); err != nil {
			return err
		}
	}
	d.Within = nil
	if err := l.Store.Commit(ctx, &d); err != nil {
		return err
	}
	for _, id := range tx.read {
		l.read[id]++
	}
	for _, row := range d.Outbox {
		l.d.promise(row)
	}
	if l.crash == 2 {
		l.dead = true
		return errDeath
	}
	d.Within = within
	*c = d
	return nil
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

// render makes the stanza of a message: its id, which leads to the message.
func (d *simDevice) render(id, to string) omemo.Render {
	return func(sealed *omemo.Sealed) ([]omemo.Outgoing, error) {
		d.messages[id] = sealed.Messages
		return []omemo.Outgoing{{ID: id, Chat: to, Stanza: []byte(id)}}, nil
	}
}

// open starts the device.
func (d *simDevice) open() {
	var err error
	if d.m, err = omemo.NewManager(d.ctx, d.store, omemo.Options{}); err == nil {
		d.address, err = d.m.Device(d.ctx)
	}
	d.ok(err)
}

// alive runs a piece of work, in which the device may die; then it is started
// again, sends what its outbox holds, and catches up.
func (d *simDevice) alive(f func() error) {
	if !d.calm && d.chance(simCrash) {
		d.store.crash = 1 + d.r.IntN(2)
	}
	err := f()
	if !d.store.dead {
		d.store.crash = 0
		d.ok(err)
		return
	}
	d.stats.crashes++
	d.store = &ledger{Store: d.store.Reopen(), d: d, read: d.store.read}
	d.open()
	d.resend()
	d.catchUp()
}

// resend sends what the outbox holds: some of it was sent before.
func (d *simDevice) resend() {
	rows, err := d.m.Outbox(d.ctx, 0, 1<<20)
	d.ok(err)
	d.transmit(rows)
}

// transmit puts committed stanzas onto the wire. That the server has them is
// often noted, and sometimes forgotten with a crash.
func (d *simDevice) transmit(rows []omemo.OutboxRow) {
	for _, row := range rows {
		id := string(row.Stanza)
		d.wire.tapped(&omemo.Sealed{Messages: d.messages[id]})
		for _, account := range []string{row.Chat, d.jid} {
			d.archives[account] = append(d.archives[account], id)
		}
		d.stanzas++
		d.clock++
		for _, to := range d.devices {
			if to == d || to.jid != row.Chat && to.jid != d.jid {
				continue
			}
			for copies := d.copies(); copies > 0; copies-- {
				d.simulation.transit = append(d.simulation.transit, simCopy{d.clock + d.r.IntN(simWindow), to, id})
			}
		}
		d.m.Later(nil, []uint64{row.Seq})
	}
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

// say sends a text to an account.
func (d *simDevice) say(to string) {
	text := fmt.Sprintf("%s %d", d.address, d.stats.sent)
	d.stats.sent++
	d.alive(func() error {
		missing, err := d.m.Missing(d.ctx, both(text), []string{to})
		if err != nil {
			return err
		}
		sealed, err := d.m.Encrypt(d.ctx, both(text), []string{to}, d.render(d.id(text), to), d.fetch(missing)...)
		if err != nil {
			return err
		}
		for _, result := range sealed.Devices {
			if result.Err != nil {
				d.t.Errorf("%v was not served: %v", result.Peer, result.Err)
			}
		}
		d.transmit(sealed.Outbox)
		return nil
	})
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

// work does what the device owes.
func (d *simDevice) work() {
	d.alive(func() error {
		due, err := d.m.Upkeep(d.ctx)
		for _, row := range due.Owed {
			if err == nil {
				err = d.do(row.OwedID)
			}
		}
		return err
	})
}

func (d *simDevice) do(id omemo.OwedID) error {
	switch id.Kind {
	case omemo.OwedBundle:
		b, err := d.m.Bundle(d.ctx, id.Version)
		if err != nil {
			return err
		}
		d.bundles[id.Version] = b
		if d.given[id.Version] == nil {
			d.given[id.Version] = make(map[uint32]bool)
		}
		return d.m.Published(d.ctx, b)
	case omemo.OwedDevices:
		return d.m.Strike(d.ctx, id)
	}
	var text omemo.Plaintext
	if id.Kind == omemo.OwedInvite {
		text.V2 = []byte("<invite/>")
	}
	list, err := d.m.Sessions(d.ctx, id.Peer)
	if err != nil {
		return err
	}
	var bundles []*omemo.Bundle
	if len(list) == 0 || list[0].Archived() {
		bundles = d.fetch([]omemo.Peer{id.Peer})
	}
	sealed, err := d.m.Answer(d.ctx, id, text, d.render(d.id(""), id.JID), bundles...)
	if errors.Is(err, omemo.ErrNoSession) {
		return nil
	}
	if err != nil {
		return err
	}
	d.transmit(sealed.Outbox)
	return nil
}

// receive opens a message, if it holds a key for the device.
func (d *simDevice) receive(id string, live bool, journal uint64) error {
	var mine *omemo.Message
	for _, message := range d.messages[id] {
		for _, k := range message.Keys {
			if k.Address == d.address {
				m := *message
				m.Keys, m.Journal = []omemo.Key{k}, journal
				mine = &m
			}
		}
	}
	if mine == nil {
		return nil
	}
	var answers []omemo.OutboxRow
	o, err := d.m.Decrypt(d.ctx, mine, func(o *omemo.Opened) (omemo.Delivery, error) { return d.verify(id, o, &answers) })
	switch {
	case err == nil:
		d.transmit(answers)
		if o.Built {
			return d.retry(mine.Sender)
		}
		return nil
	case errors.Is(err, omemo.ErrDuplicate):
		d.stats.duplicates++
		return nil
	case errors.Is(err, omemo.ErrNoSession) && journal == 0:
		d.stats.kept++
		_, err := d.m.Keep(d.ctx, mine.Sender, err.Error(), []byte(id))
		return err
	case errors.Is(err, omemo.ErrNoSession), errors.Is(err, omemo.ErrRefused), errors.Is(err, omemo.ErrKeyExchange):
		d.stats.late++ // the end will show whether it was read by another way
		return nil
	}
	return err
}

// verify is an application that reads within the commit, and answers there now
// and then.
func (d *simDevice) verify(id string, o *omemo.Opened, answers *[]omemo.OutboxRow) (omemo.Delivery, error) {
	text := d.texts[id]
	if text == "" {
		return omemo.Delivery{}, nil // an invitation
	}
	if string(o.Plaintext) != text {
		return omemo.Delivery{}, fmt.Errorf("message %s says %q, want %q", id, o.Plaintext, text)
	}
	answer := ""
	if o.Sender.JID != d.jid && d.chance(simAnswer) {
		answer = d.id("answer to " + text)
	}
	return omemo.Delivery{
		Stanza: []byte(text),
		Within: func(_ context.Context, tx any, seal omemo.SealFunc) error {
			*answers = nil
			tx.(*ledgerTx).read = append(tx.(*ledgerTx).read, id)
			if answer == "" {
				return nil
			}
			sealed, err := seal(both(d.texts[answer]), []string{o.Sender.JID}, d.render(answer, o.Sender.JID))
			if errors.As(err, new(*omemo.RecipientError)) {
				return nil // no session with any device of the account but this
			}
			if err == nil {
				*answers = sealed.Outbox
			}
			return err
		},
	}, nil
}

// retry opens what the journal holds of a device that has begun a new session.
func (d *simDevice) retry(from omemo.Address) error {
	rows, err := d.m.Kept(d.ctx, from)
	for _, row := range rows {
		if err == nil {
			err = d.receive(string(row.Stanza), false, row.ID)
		}
	}
	return err
}

// catchUp reads the archive from where it was left.
func (d *simDevice) catchUp() {
	d.alive(func() error {
		if err := d.m.CatchUp(d.ctx, true); err != nil {
			return err
		}
		archive := d.archives[d.jid]
		for _, id := range archive[d.cursor:] {
			if err := d.receive(id, false, 0); err != nil {
				return err
			}
		}
		d.cursor = len(archive)
		return d.m.CatchUp(d.ctx, false)
	})
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
