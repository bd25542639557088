package omemo_test

import (
	"context"
	"errors"
	"fmt"

	"example.org/omellium/omemo"
	"example.org/omellium/omemo/memstore"
)

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
		Within: func(_ context.Context, tx any, seal omemo.Sealer) error {
			*answers = nil
			tx.(*ledgerTx).read = append(tx.(*ledgerTx).read, id)
			if answer == "" {
				return nil
			}
			sealed, err := seal.Encrypt(both(d.texts[answer]), []string{o.Sender.JID}, d.render(answer, o.Sender.JID))
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
