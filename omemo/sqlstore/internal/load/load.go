// Package load makes the commits that benchmarks measure.
package load

import (
	"crypto/rand"
	"encoding/binary"
	"fmt"

	"example.org/omellium/omemo"
)

// Message is the commit of a message to a number of devices: it moves their
// sessions on and writes an outbox row, in the place of the one before.
type Message struct {
	omemo.Changes
	count uint64
}

// NewMessage returns the commit of a message to so many devices, with 300 bytes
// a session and 500 + 300 bytes a device of stanza.
func NewMessage(devices int) *Message {
	m := &Message{Changes: omemo.Changes{
		Sessions: make([]omemo.SessionRow, devices),
		Outbox:   []omemo.OutboxRow{{ID: "id", Chat: "room@example.org", Stanza: random(500 + 300*devices)}},
	}}
	for i := range m.Sessions {
		peer := omemo.Peer{Version: omemo.V2, Address: omemo.Address{JID: fmt.Sprintf("user%d@example.org", i), Device: 1}}
		m.Sessions[i] = omemo.SessionRow{ID: binary.BigEndian.Uint64(random(8)) >> 1, Peer: peer, Record: random(300)}
		m.Outbox[0].Devices = append(m.Outbox[0].Devices, peer)
	}
	m.Next()
	return m
}

func random(n int) []byte {
	b := make([]byte, n)
	rand.Read(b)
	return b
}

// Next makes it another message, with every row another one: a database may
// leave alone what does not change.
func (m *Message) Next() {
	m.count++
	for i := range m.Sessions {
		binary.LittleEndian.PutUint64(m.Sessions[i].Record, m.count*0x9e3779b97f4a7c15)
	}
	m.DropOutbox = append(m.DropOutbox[:0], m.count-1)
	m.Outbox[0].Seq = m.count
}
