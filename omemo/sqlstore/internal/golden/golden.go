// Package golden fills the databases that are kept in testdata, one for each
// schema that was released, and checks that they can be read and used for ever:
// every row is what it was, and conversations go on where they had stopped.
package golden

import (
	"context"
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"example.org/omellium/omemo"
)

// The accounts of a golden database. Nurse speaks legacy, the others omemo:2;
// the store of Juliet is sealed (see Sealed).
const (
	Juliet = "juliet@golden.example"
	Romeo  = "romeo@golden.example"
	Nurse  = "nurse@golden.example"
)

// Sealed reports whether the store of an account is sealed.
func Sealed(account string) bool { return account == Juliet }

// Key is what the store is sealed with.
func Key(context.Context) ([]byte, error) {
	return []byte("golden databases have no secrets"), nil
}

// Opener opens the store of an account.
type Opener func(account string) omemo.Store

// person is an account that is open.
type person struct {
	t     testing.TB
	ctx   context.Context
	jid   string
	store omemo.Store
	m     *omemo.Manager
}

// people opens all accounts.
func people(t testing.TB, open Opener) (juliet, romeo, nurse *person) {
	t.Helper()
	one := func(jid string) *person {
		p := &person{t: t, ctx: context.Background(), jid: jid, store: open(jid)}
		var err error
		p.m, err = omemo.NewManager(p.ctx, p.store, omemo.Options{StaleAfter: -1})
		p.ok(err)
		return p
	}
	return one(Juliet), one(Romeo), one(Nurse)
}

func (p *person) ok(err error) {
	p.t.Helper()
	if err != nil {
		p.t.Fatalf("%s: %v", p.jid, err)
	}
}

// meets tells a person of the device of another one, in a version.
func (p *person) meets(other *person, v omemo.Version) *omemo.Bundle {
	p.t.Helper()
	device, err := other.m.Device(p.ctx)
	p.ok(err)
	p.ok(p.m.SetList(p.ctx, other.jid, v, []omemo.DeviceID{device.Device}))
	b, err := other.m.Bundle(p.ctx, v)
	p.ok(err)
	return b
}

// says writes a message and leaves it in the outbox.
func (p *person) says(to *person, text string, bundles ...*omemo.Bundle) *omemo.Message {
	p.t.Helper()
	sealed, err := p.m.Encrypt(p.ctx, omemo.Plaintext{Legacy: []byte(text), V2: []byte(text)}, []string{to.jid},
		func(s *omemo.Sealed) ([]omemo.Outgoing, error) {
			return []omemo.Outgoing{{ID: text, Chat: to.jid, Stanza: pack(s.Messages[0])}}, nil
		}, bundles...)
	p.ok(err)
	return sealed.Messages[0]
}

// reads opens a message and leaves it in the inbox.
func (p *person) reads(m *omemo.Message, text string) {
	p.t.Helper()
	_, err := p.m.Decrypt(p.ctx, m, func(o *omemo.Opened) (omemo.Delivery, error) {
		if string(o.Plaintext) != text {
			return omemo.Delivery{}, fmt.Errorf("opened %q, want %q", o.Plaintext, text)
		}
		return omemo.Delivery{Stanza: []byte("<message>" + text + "</message>")}, nil
	})
	p.ok(err)
}

// Write fills an empty database.
func Write(t testing.TB, open Opener) {
	juliet, romeo, nurse := people(t, open)
	for _, pair := range []struct {
		other *person
		v     omemo.Version
	}{{romeo, omemo.V2}, {nurse, omemo.Legacy}} {
		// Both begin at once: each of them archives a session.
		b := juliet.meets(pair.other, pair.v)
		mine := pair.other.meets(juliet, pair.v)
		first, second := juliet.says(pair.other, "begun by juliet", b), pair.other.says(juliet, "begun by the other", mine)
		pair.other.reads(first, "begun by juliet")
		juliet.reads(second, "begun by the other")
		pair.other.reads(juliet.says(pair.other, "settled"), "settled")
		juliet.reads(pair.other.says(juliet, "settled too"), "settled too")
		// Some messages are overtaken, and wait in the outbox.
		for from, to := range map[*person]*person{juliet: pair.other, pair.other: juliet} {
			from.says(to, "overtaken 1")
			from.says(to, "overtaken 2")
			to.reads(from.says(to, "overtakes"), "overtakes")
			from.says(to, "under way")
		}
	}
	fingerprint, err := romeo.m.Fingerprint(romeo.ctx)
	juliet.ok(err)
	juliet.ok(juliet.m.SetTrust(juliet.ctx, Romeo, fingerprint, omemo.Verified))
	when := time.Date(2026, 2, 3, 4, 5, 6, 789012000, time.UTC)
	for _, p := range []*person{juliet, romeo, nurse} {
		device, err := p.m.Device(p.ctx)
		p.ok(err)
		_, err = p.m.Keep(p.ctx, omemo.Address{JID: "tybalt@golden.example", Device: 7}, "no session", []byte("<message/>"))
		p.ok(err)
		p.ok(p.m.SetOptOut(p.ctx, "tybalt@golden.example", omemo.OptOutAccepted))
		p.ok(p.store.Commit(p.ctx, &omemo.Changes{
			Owed:      []omemo.OwedRow{{OwedID: omemo.OwedID{Kind: omemo.OwedHeartbeat, Peer: omemo.Peer{Version: omemo.V2, Address: device}, Session: 7}, Since: when}},
			Cursors:   []omemo.Cursor{{Archive: p.jid, Position: "28482-98726-73623", When: when}},
			Occupants: []omemo.OccupantRow{{OccupantID: omemo.OccupantID{Room: "hall@golden.example", Nick: "nurse"}, Account: Nurse, Since: when, Seen: when}},
			Echoes:    []omemo.EchoRow{{Hash: [32]byte{1, 2, 3}, Outbox: 4, Created: when, Content: []byte("<body/>")}},
			Statements: []omemo.StatementRow{{
				StatementID: omemo.StatementID{JID: Nurse, Fingerprint: omemo.Fingerprint{1}, Owner: Romeo, Key: omemo.Fingerprint{2}}, Trusted: true, Stated: when,
			}},
		}))
	}
}

// Use goes on with the conversations of a database that Write has filled.
func Use(t testing.TB, open Opener) {
	juliet, romeo, nurse := people(t, open)
	for _, other := range []*person{romeo, nurse} {
		for from, to := range map[*person]*person{juliet: other, other: juliet} {
			for _, text := range []string{"overtaken 2", "under way", "overtaken 1"} {
				m := from.waiting(to, text)
				to.reads(m, text)
				if _, err := to.m.Decrypt(to.ctx, m, refuse); err == nil {
					t.Errorf("%s: %q was read twice", to.jid, text)
				}
			}
		}
		for _, text := range []string{"goes on", "and on"} {
			for from, to := range map[*person]*person{juliet: other, other: juliet} {
				m := from.says(to, text)
				if m.Keys[0].Exchange {
					t.Errorf("%s begins a new session", from.jid)
				}
				to.reads(m, text)
			}
		}
	}
	fingerprint, err := romeo.m.Fingerprint(romeo.ctx)
	juliet.ok(err)
	device, err := romeo.m.Device(romeo.ctx)
	juliet.ok(err)
	if trust, err := juliet.m.TrustOf(juliet.ctx, device, fingerprint); err != nil || trust != omemo.Verified {
		t.Errorf("the decision about Romeo's key: %v, %v", trust, err)
	}
}

func refuse(*omemo.Opened) (omemo.Delivery, error) { return omemo.Delivery{}, nil }

// waiting returns a message in the outbox.
func (p *person) waiting(to *person, text string) *omemo.Message {
	p.t.Helper()
	rows, err := p.m.Outbox(p.ctx, 0, 100)
	p.ok(err)
	for _, row := range rows {
		if row.Chat == to.jid && row.ID == text {
			m, err := unpack(row.Stanza)
			p.ok(err)
			return m
		}
	}
	p.t.Fatalf("%s: %q does not wait for %s", p.jid, text, to.jid)
	return nil
}

// packed is a message as it stands in the outbox.
type packed struct {
	Version     omemo.Version
	JID         string
	Device      omemo.DeviceID
	Keys        []packedKey
	IV, Payload []byte
}

type packedKey struct {
	JID      string
	Device   omemo.DeviceID
	Exchange bool
	Data     []byte
}

func pack(m *omemo.Message) []byte {
	p := packed{Version: m.Version, JID: m.Sender.JID, Device: m.Sender.Device, IV: m.IV, Payload: m.Payload}
	for _, k := range m.Keys {
		p.Keys = append(p.Keys, packedKey{k.JID, k.Device, k.Exchange, k.Data})
	}
	b, err := json.Marshal(p)
	if err != nil {
		panic(err) // of values that can all be marshalled
	}
	return b
}

func unpack(b []byte) (*omemo.Message, error) {
	var p packed
	if err := json.Unmarshal(b, &p); err != nil {
		return nil, err
	}
	m := &omemo.Message{Version: p.Version, Sender: omemo.Address{JID: p.JID, Device: p.Device}, IV: p.IV, Payload: p.Payload}
	for _, k := range p.Keys {
		m.Keys = append(m.Keys, omemo.Key{Address: omemo.Address{JID: k.JID, Device: k.Device}, Exchange: k.Exchange, Data: k.Data})
	}
	return m, nil
}
