package omemo_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"

	"example.org/omellium/omemo"
	"example.org/omellium/omemo/memstore"
)

// tb is what a test or a property check offers.
type tb interface {
	Helper()
	Errorf(format string, args ...any)
	Fatalf(format string, args ...any)
}

// world is a network without a network: it knows every device, and taps every
// message that leaves.
type world struct {
	tb
	ctx     context.Context
	parties []*party
	wire    map[string][]byte // ratchet key and number → key element
	fetched int               // bundles so far
}

func newWorld(t tb) *world {
	return &world{tb: t, ctx: context.Background(), wire: make(map[string][]byte)}
}

// party is one device in tests.
type party struct {
	*world
	jid     string
	options omemo.Options
	store   *tap
	m       *omemo.Manager
	device  omemo.DeviceID
	sends   int
}

// join adds a device of an account.
func (w *world) join(jid string, o omemo.Options) *party {
	w.Helper()
	p := &party{world: w, jid: jid, options: o, store: newTap(memstore.New(jid))}
	p.open()
	w.parties = append(w.parties, p)
	return p
}

func (p *party) open() {
	p.Helper()
	m, err := omemo.NewManager(p.ctx, p.store, p.options)
	if err != nil {
		p.Fatalf("%s: %v", p.jid, err)
	}
	a, err := m.Device(p.ctx)
	if err != nil {
		p.Fatalf("%s: %v", p.jid, err)
	}
	p.m, p.device = m, a.Device
}

// restart gives the device a new manager on the same rows.
func (p *party) restart() {
	p.Helper()
	fail := p.store.fail
	p.store = p.store.reopen()
	p.store.fail = fail
	p.open()
}

func (p *party) address() omemo.Address { return omemo.Address{JID: p.jid, Device: p.device} }

func (p *party) peer(v omemo.Version) omemo.Peer {
	return omemo.Peer{Version: v, Address: p.address()}
}

// lists has p learn the devices of an account in the versions.
func (p *party) lists(jid string, versions ...omemo.Version) {
	p.Helper()
	var ids []omemo.DeviceID
	for _, other := range p.parties {
		if other.jid == jid {
			ids = append(ids, other.device)
		}
	}
	for _, v := range versions {
		p.ok(p.m.SetList(p.ctx, jid, v, ids))
	}
}

// meet has all devices learn the lists of all accounts.
func (w *world) meet(versions ...omemo.Version) {
	w.Helper()
	for _, p := range w.parties {
		for _, other := range w.parties {
			p.lists(other.jid, versions...)
		}
	}
}

func (p *party) bundle(v omemo.Version) *omemo.Bundle {
	p.Helper()
	b, err := p.m.Bundle(p.ctx, v)
	p.ok(err)
	return b
}

func (p *party) ok(err error) {
	p.Helper()
	if err != nil {
		p.Fatalf("%s: %v", p.jid, err)
	}
}

// bundles fetches what is missing to send to an account.
func (p *party) bundles(text omemo.Plaintext, to ...string) []*omemo.Bundle {
	p.Helper()
	missing, err := p.m.Missing(p.ctx, text, to)
	p.ok(err)
	return p.fetch(missing...)
}

func (w *world) fetch(peers ...omemo.Peer) []*omemo.Bundle {
	w.Helper()
	var found []*omemo.Bundle
	for _, peer := range peers {
		for _, other := range w.parties {
			if other.address() == peer.Address {
				found = append(found, other.small(peer.Version))
			}
		}
	}
	return found
}

// small returns a bundle with one pre key, which no other one before had: cheap,
// and two devices that choose the same pre key are a test of their own.
func (p *party) small(v omemo.Version) *omemo.Bundle {
	p.Helper()
	b, err := p.m.SmallBundle(p.ctx, v, p.fetched)
	p.ok(err)
	p.fetched++
	return b
}

func both(text string) omemo.Plaintext {
	return omemo.Plaintext{Legacy: []byte(text), V2: []byte(text)}
}

// stanzas is a Render that makes one stanza.
func stanzas(id, chat string) omemo.Render {
	return func(*omemo.Sealed) ([]omemo.Outgoing, error) {
		return []omemo.Outgoing{{ID: id, Chat: chat, Stanza: []byte("<message id='" + id + "'/>")}}, nil
	}
}

// accept is a Verify that delivers what it is given.
func accept(o *omemo.Opened) (omemo.Delivery, error) {
	return omemo.Delivery{Stanza: o.Plaintext}, nil
}

// trySend sends a text to an account.
func (p *party) trySend(text omemo.Plaintext, to ...string) (*omemo.Sealed, error) {
	p.Helper()
	bundles := p.bundles(text, to...)
	p.sends++
	sealed, err := p.m.Encrypt(p.ctx, text, to, stanzas(fmt.Sprintf("m%d", p.sends), to[0]), bundles...)
	if err == nil {
		p.tapped(sealed)
	}
	return sealed, err
}

// send sends a text to an account in the form of both versions.
func (p *party) send(text string, to ...string) *omemo.Sealed {
	p.Helper()
	sealed, err := p.trySend(both(text), to...)
	if err != nil {
		p.Fatalf("%s sends %q: %v", p.jid, text, err)
	}
	return sealed
}

// tapped checks that no message key was used for two ciphertexts.
func (w *world) tapped(sealed *omemo.Sealed) {
	w.Helper()
	for _, message := range sealed.Messages {
		for _, key := range message.Keys {
			h, err := key.Header(message.Version)
			if err != nil {
				w.Fatalf("key for %v does not parse: %v", key.Address, err)
			}
			name := fmt.Sprintf("%x/%d", h.Key, h.N)
			if before, ok := w.wire[name]; ok && !bytes.Equal(before, key.Data) {
				w.Fatalf("message key %d of a chain was used twice", h.N)
			}
			w.wire[name] = key.Data
		}
	}
}

// of returns the message of a version as the device p finds it: with the keys
// for p only.
func (p *party) of(message *omemo.Message) *omemo.Message {
	mine := *message
	mine.Keys = nil
	for _, k := range message.Keys {
		if k.Address == p.address() {
			mine.Keys = append(mine.Keys, k)
		}
	}
	return &mine
}

// find returns the one message that holds a key for p.
func (p *party) find(sealed *omemo.Sealed) *omemo.Message {
	p.Helper()
	var found []*omemo.Message
	for _, message := range sealed.Messages {
		if mine := p.of(message); len(mine.Keys) > 0 {
			found = append(found, mine)
		}
	}
	if len(found) != 1 {
		p.Fatalf("%d messages hold a key for %v, want 1", len(found), p.address())
	}
	return found[0]
}

// receive has p decrypt a message.
func (p *party) receive(message *omemo.Message) (*omemo.Opened, error) {
	return p.m.Decrypt(p.ctx, p.of(message), accept)
}

// reads has p decrypt what was sealed and compares the text.
func (p *party) reads(sealed *omemo.Sealed, text string) *omemo.Opened {
	p.Helper()
	o, err := p.receive(p.find(sealed))
	if err != nil {
		p.Fatalf("%s decrypts %q: %v", p.jid, text, err)
	}
	if string(o.Plaintext) != text {
		p.Fatalf("%s decrypts %q, want %q", p.jid, o.Plaintext, text)
	}
	return o
}

// refuses checks that a message fails with an error and changes nothing.
func (p *party) refuses(message *omemo.Message, want error) {
	p.Helper()
	before := p.store.dump()
	o, err := p.receive(message)
	if err == nil || want != nil && !errors.Is(err, want) {
		p.Fatalf("%s: error %v, want %v", p.jid, err, want)
	}
	if o != nil {
		p.Fatalf("%s: a result came with an error", p.jid)
	}
	if after := p.store.dump(); before != after {
		p.Fatalf("%s: a refused message changed the store:\n%s\n---\n%s", p.jid, before, after)
	}
}

// session returns the current session with a device.
func (p *party) session(with omemo.Peer) *omemo.Session {
	p.Helper()
	list := p.sessions(with)
	if len(list) == 0 || list[0].Archived() {
		return nil
	}
	return list[0]
}

// sessions returns all sessions with a device, after checking that at most one
// is current, in memory and in the store.
func (p *party) sessions(with omemo.Peer) []*omemo.Session {
	p.Helper()
	list, err := p.m.Sessions(p.ctx, with)
	p.ok(err)
	rows, err := p.store.Store.Sessions(p.ctx, []omemo.Peer{with})
	p.ok(err)
	current := 0
	for _, r := range rows {
		if r.Archived == 0 {
			current++
		}
	}
	if len(rows) != len(list) || current > 1 {
		p.Fatalf("%d sessions in memory, %d in the store, %d current", len(list), len(rows), current)
	}
	for i, s := range list {
		if s.Archived() != (i > 0 || current == 0) {
			p.Fatalf("session %d of %d: archived is %t", i, len(list), s.Archived())
		}
	}
	return list
}

// owed returns the work of a kind that is owed.
func (p *party) owed(kind omemo.OwedKind) []omemo.OwedRow {
	p.Helper()
	rows, err := p.m.Owed(p.ctx)
	p.ok(err)
	return slices.DeleteFunc(rows, func(r omemo.OwedRow) bool { return r.Kind != kind })
}

// answer does one piece of owed work that is a message.
func (p *party) answer(row omemo.OwedRow) (*omemo.Sealed, error) {
	p.Helper()
	text := omemo.Plaintext{}
	if row.Kind == omemo.OwedInvite {
		text.V2 = []byte("<empty/>")
	}
	sealed, err := p.m.Answer(p.ctx, row.OwedID, text, stanzas("owed", row.JID), p.fetch(row.Peer)...)
	if err == nil {
		p.tapped(sealed)
	}
	return sealed, err
}

// settle has all devices do all the work they owe until nothing is left. It
// returns how many messages that took.
func (w *world) settle() int {
	w.Helper()
	messages := 0
	for range 20 {
		idle := true
		for _, p := range w.parties {
			rows, err := p.m.Owed(w.ctx)
			p.ok(err)
			for _, row := range rows {
				idle = false
				switch row.Kind {
				case omemo.OwedBundle:
					p.ok(p.m.Strike(w.ctx, row.OwedID)) // published
				case omemo.OwedDevices:
					for _, b := range w.fetch(row.Peer) {
						_, err := p.m.Compare(w.ctx, b)
						p.ok(err)
					}
					p.ok(p.m.Strike(w.ctx, row.OwedID))
				default:
					sealed, err := p.answer(row)
					if errors.Is(err, omemo.ErrNoSession) {
						continue
					}
					p.ok(err)
					messages++
					w.spread(sealed)
				}
			}
		}
		if idle {
			return messages
		}
	}
	w.Fatalf("owed work does not come to an end")
	return 0
}

// spread delivers a message to all devices it holds a key for.
func (w *world) spread(sealed *omemo.Sealed) {
	w.Helper()
	for _, message := range sealed.Messages {
		for _, p := range w.parties {
			if mine := p.of(message); len(mine.Keys) > 0 {
				if _, err := p.receive(mine); err != nil {
					w.Fatalf("%s: %v", p.jid, err)
				}
			}
		}
	}
}

const (
	alice = "alice@example.org"
	bob   = "bob@example.net"
	carol = "carol@example.com"
)

// pair returns two devices that know each other's list in one version.
func pair(t tb, v omemo.Version) (a, b *party) {
	t.Helper()
	w := newWorld(t)
	a, b = w.join(alice, omemo.Options{}), w.join(bob, omemo.Options{})
	w.meet(v)
	return a, b
}

// versions runs a test for each version.
func versions(t *testing.T, f func(t *testing.T, v omemo.Version)) {
	for _, v := range omemo.Versions() {
		t.Run(v.String(), func(t *testing.T) { f(t, v) })
	}
}
