package omemo_test

import (
	"bytes"
	"context"
	"fmt"
	"sync"
	"testing"

	"example.org/omellium/omemo"
	"example.org/omellium/omemo/memstore"
)

// benchDevices is how many devices an account has where many are written to.
const benchDevices = 10

// benchCrowd is a manager and the devices of those whom it writes to: the first
// account has one device, the others have ten.
type benchCrowd struct {
	v        omemo.Version
	store    omemo.Store
	m        *omemo.Manager
	self     omemo.Device
	devices  []*omemo.Bare
	sessions map[omemo.Address]*omemo.Session // of the devices
	text     omemo.Plaintext
}

// benchCrowds holds the crowd of each version, with a thousand devices.
var benchCrowds = map[omemo.Version]func() (*benchCrowd, error){
	omemo.V2:     sync.OnceValues(func() (*benchCrowd, error) { return memoryCrowd(omemo.V2) }),
	omemo.Legacy: sync.OnceValues(func() (*benchCrowd, error) { return memoryCrowd(omemo.Legacy) }),
}

func memoryCrowd(v omemo.Version) (*benchCrowd, error) {
	return newBenchCrowd(v, memstore.New(alice), 1001)
}

// newBenchCrowd makes devices and establishes a session with each.
func newBenchCrowd(v omemo.Version, store omemo.Store, devices int) (*benchCrowd, error) {
	ctx := context.Background()
	m, err := omemo.NewManager(ctx, store, omemo.Options{})
	if err != nil {
		return nil, err
	}
	c := &benchCrowd{v: v, store: store, m: m, sessions: make(map[omemo.Address]*omemo.Session)}
	if v == omemo.V2 {
		c.text.V2 = bytes.Repeat([]byte("x"), 1024)
	} else {
		c.text.Legacy = bytes.Repeat([]byte("x"), 1024)
	}
	for i := range devices {
		d, _ := omemo.NewBare(benchAccount(i), v)
		d.Keep(1)
		c.devices = append(c.devices, d)
	}
	own, err := m.Bundle(ctx, v)
	if err != nil {
		return nil, err
	}
	fingerprint, err := m.Fingerprint(ctx)
	if err != nil {
		return nil, err
	}
	c.self = omemo.Device{Peer: own.Peer(), Identity: own.IdentityKey, Fingerprint: fingerprint}
	// Account by account, since only so many are remembered that were never written
	// to.
	for from, to := 0, 0; from < devices; from = to {
		to = min(from-from%benchPiece+benchPiece+1, devices)
		if err := c.list(m, from, to); err != nil {
			return nil, err
		}
		var bundles []*omemo.Bundle
		for _, d := range c.devices[from:to] {
			bundles = append(bundles, d.Bundle(1))
		}
		sealed, err := c.send(m, c.accounts(from, to), bundles...)
		if err != nil {
			return nil, err
		}
		if err := c.read(sealed, to-from); err != nil {
			return nil, err
		}
	}
	return c, c.confirm()
}

// benchAccount returns the account of the nth device.
func benchAccount(nth int) string { return benchName((nth + benchDevices - 1) / benchDevices) }

// benchPiece is how many devices a session is established with at a time: those
// of a hundred accounts.
const benchPiece = 100 * benchDevices

// list has a manager learn devices from and up to a number.
func (c *benchCrowd) list(m *omemo.Manager, from, to int) error {
	ids := make(map[string][]omemo.DeviceID)
	for _, d := range c.devices[from:to] {
		ids[d.Peer().JID] = append(ids[d.Peer().JID], d.Peer().Address.Device)
	}
	for jid, ids := range ids {
		if err := m.SetList(context.Background(), jid, c.v, ids); err != nil {
			return err
		}
	}
	return nil
}

// accounts returns the accounts that devices from and up to a number belong to.
func (c *benchCrowd) accounts(from, to int) []string {
	var jids []string
	for i := from; i < to; i++ {
		if jid := benchAccount(i); len(jids) == 0 || jids[len(jids)-1] != jid {
			jids = append(jids, jid)
		}
	}
	return jids
}

// recipients returns accounts that have so many devices together.
func (c *benchCrowd) recipients(devices int) []string {
	if devices == 1 {
		return c.accounts(0, 1)
	}
	return c.accounts(1, 1+devices)
}

// send encrypts a message; the outbox has room again when the next one leaves.
func (c *benchCrowd) send(m *omemo.Manager, to []string, bundles ...*omemo.Bundle) (*omemo.Sealed, error) {
	sealed, err := m.Encrypt(context.Background(), c.text, to, benchRender, bundles...)
	if err == nil {
		m.Later(nil, []uint64{sealed.Outbox[0].Seq})
	}
	return sealed, err
}

var benchStanza = bytes.Repeat([]byte("x"), 1024)

// benchRender makes a stanza of the size of the text: writing XML is not part of
// the operation.
func benchRender(*omemo.Sealed) ([]omemo.Outgoing, error) {
	return []omemo.Outgoing{{ID: "id", Chat: bob, Stanza: benchStanza}}, nil
}

// read has the devices open a message.
func (c *benchCrowd) read(sealed *omemo.Sealed, devices int) error {
	keys := make(map[omemo.Address]omemo.Key)
	for _, message := range sealed.Messages {
		for _, k := range message.Keys {
			keys[k.Address] = k
		}
	}
	if len(keys) != devices {
		return fmt.Errorf("%d keys for %d devices", len(keys), devices)
	}
	var first []byte
	for _, d := range c.devices {
		k, ok := keys[d.Peer().Address]
		if !ok {
			continue
		}
		var material []byte
		s, err := c.sessions[k.Address], error(nil)
		switch {
		case k.Exchange:
			s, material, _, err = d.Accept(k, c.self)
		default:
			if s, err = d.Forward(s, k); err == nil {
				s, material, _, _, err = d.Open(s, k)
			}
		}
		if err != nil {
			return fmt.Errorf("%v: %w", d.Peer(), err)
		}
		if first == nil {
			first = material
		}
		if !bytes.Equal(material, first) {
			return fmt.Errorf("%v has other key material", d.Peer())
		}
		c.sessions[k.Address] = s
	}
	return nil
}

// confirm has each device answer, by an empty message.
func (c *benchCrowd) confirm() error {
	for _, d := range c.devices {
		next, k, _, err := d.Seal(c.sessions[d.Peer().Address], make([]byte, 32))
		if err != nil {
			return err
		}
		c.sessions[d.Peer().Address] = next
		message := &omemo.Message{Version: c.v, Sender: d.Peer().Address, Keys: []omemo.Key{k}}
		if _, err := c.m.Decrypt(context.Background(), message, accept); err != nil {
			return err
		}
	}
	// The answer began a chain on their side; ours begins with the next message.
	sealed, err := c.m.Encrypt(context.Background(), c.text, c.accounts(0, len(c.devices)), benchRender)
	if err != nil {
		return err
	}
	c.m.Later(nil, []uint64{sealed.Outbox[0].Seq})
	keys := make(map[omemo.Address]omemo.Key)
	for _, k := range sealed.Messages[0].Keys {
		keys[k.Address] = k
	}
	for _, d := range c.devices {
		next, _, _, _, err := d.Open(c.sessions[d.Peer().Address], keys[d.Peer().Address])
		if err != nil {
			return err
		}
		c.sessions[d.Peer().Address] = next
	}
	return nil
}

func benchFanOut(b *testing.B, v omemo.Version, devices int) {
	c, err := benchCrowds[v]()
	if err != nil {
		b.Fatal(err)
	}
	to := c.recipients(devices)
	var sealed *omemo.Sealed
	b.ReportAllocs()
	for b.Loop() {
		if sealed, err = c.send(c.m, to); err != nil {
			b.Fatal(err)
		}
	}
	b.StopTimer()
	if err := c.read(sealed, devices); err != nil {
		b.Fatal(err)
	}
}

// benchFanOutNew measures a message to devices whose identity keys are known and
// that there are no sessions with.
func benchFanOutNew(b *testing.B, v omemo.Version, devices int) {
	c, err := benchCrowds[v]()
	if err != nil {
		b.Fatal(err)
	}
	to := c.recipients(devices)
	known := &omemo.Changes{}
	var bundles []*omemo.Bundle
	for _, d := range c.devices[1 : 1+devices] {
		known.Devices = append(known.Devices, d.Known())
		bundles = append(bundles, d.Bundle(1))
	}
	var strangers *benchCrowd
	var sealed *omemo.Sealed
	b.ReportAllocs()
	for b.Loop() {
		b.StopTimer()
		strangers = &benchCrowd{v: v, store: memstore.New(carol), devices: c.devices, text: c.text, sessions: make(map[omemo.Address]*omemo.Session)}
		if strangers.m, err = omemo.NewManager(b.Context(), strangers.store, omemo.Options{}); err != nil {
			b.Fatal(err)
		}
		if err := strangers.store.Commit(b.Context(), known); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
		if sealed, err = strangers.send(strangers.m, to, bundles...); err != nil {
			b.Fatal(err)
		}
	}
	b.StopTimer()
	own, err := strangers.m.Bundle(b.Context(), v)
	if err != nil {
		b.Fatal(err)
	}
	strangers.self = omemo.Device{Peer: own.Peer()}
	if err := strangers.read(sealed, devices); err != nil {
		b.Fatal(err)
	}
}
