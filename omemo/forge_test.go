package omemo_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"

	"filippo.io/edwards25519/field"

	"example.org/omellium/omemo"
	"example.org/omellium/omemo/internal/wire"
)

func formatOf(v omemo.Version) wire.Format {
	if v == omemo.V2 {
		return wire.V2
	}
	return wire.Legacy
}

// forgery changes something in a message.
type forgery struct {
	name  string
	apply func(r *rand.Rand, m *omemo.Message) bool // false: there is nothing to change
}

func flip(r *rand.Rand, b []byte) []byte {
	b = slices.Clone(b)
	b[r.IntN(len(b))] ^= 1 << r.IntN(8)
	return b
}

// inExchange changes a key exchange.
func inExchange(name string, change func(r *rand.Rand, x *wire.Exchange)) forgery {
	return forgery{name, func(r *rand.Rand, m *omemo.Message) bool {
		if !m.Keys[0].Exchange {
			return false
		}
		f := formatOf(m.Version)
		x, err := f.ParseExchange(m.Keys[0].Data)
		if err != nil {
			return false
		}
		change(r, &x)
		m.Keys[0].Data = f.AppendExchange(nil, x)
		return true
	}}
}

// inMessage changes a message, within its key exchange if there is one.
func inMessage(name string, change func(r *rand.Rand, in *wire.Message)) forgery {
	return forgery{name, func(r *rand.Rand, m *omemo.Message) bool {
		f := formatOf(m.Version)
		again := func(data []byte) ([]byte, bool) {
			in, err := f.ParseMessage(data)
			if err != nil {
				return nil, false
			}
			change(r, &in)
			return f.AppendMessage(nil, f.AppendSigned(nil, in.Header, in.Ciphertext), in.MAC), true
		}
		key := &m.Keys[0]
		if !key.Exchange {
			data, ok := again(key.Data)
			key.Data = data
			return ok
		}
		x, err := f.ParseExchange(key.Data)
		if err != nil {
			return false
		}
		var ok bool
		x.Message, ok = again(x.Message)
		key.Data = f.AppendExchange(nil, x)
		return ok
	}}
}

// forgeries are changes of every field of a message, and of its bytes.
var forgeries = []forgery{
	{"bit of the key element", func(r *rand.Rand, m *omemo.Message) bool { m.Keys[0].Data = flip(r, m.Keys[0].Data); return true }},
	{"key element cut off", func(r *rand.Rand, m *omemo.Message) bool {
		m.Keys[0].Data = m.Keys[0].Data[:r.IntN(len(m.Keys[0].Data))]
		return true
	}},
	{"byte after the key element", func(r *rand.Rand, m *omemo.Message) bool {
		m.Keys[0].Data = append(slices.Clone(m.Keys[0].Data), byte(r.Uint32()))
		return true
	}},
	{"key exchange or not", func(_ *rand.Rand, m *omemo.Message) bool { m.Keys[0].Exchange = !m.Keys[0].Exchange; return true }},
	{"bit of the payload", func(r *rand.Rand, m *omemo.Message) bool {
		if len(m.Payload) == 0 {
			return false
		}
		m.Payload = flip(r, m.Payload)
		return true
	}},
	{"payload cut off", func(r *rand.Rand, m *omemo.Message) bool {
		if len(m.Payload) == 0 {
			return false
		}
		m.Payload = m.Payload[:r.IntN(len(m.Payload))]
		return true
	}},
	{"bit of the IV", func(r *rand.Rand, m *omemo.Message) bool {
		if len(m.Payload) == 0 || m.IV == nil {
			return false
		}
		m.IV = flip(r, m.IV)
		return true
	}},
	{"IV cut off", func(r *rand.Rand, m *omemo.Message) bool {
		if len(m.Payload) == 0 || m.IV == nil {
			return false
		}
		m.IV = m.IV[:r.IntN(len(m.IV))]
		return true
	}},
	{"sending device", func(_ *rand.Rand, m *omemo.Message) bool { m.Sender.Device++; return !m.Keys[0].Exchange }},
	{"sending account", func(_ *rand.Rand, m *omemo.Message) bool {
		m.Sender.JID = "eve@example.org"
		return !m.Keys[0].Exchange
	}},
	{"version", func(_ *rand.Rand, m *omemo.Message) bool { m.Version = 3 - m.Version; return true }},
	inExchange("signed pre key id", func(r *rand.Rand, x *wire.Exchange) { x.SignedPreKeyID ^= 1 << r.IntN(32) }),
	inExchange("pre key id", func(r *rand.Rand, x *wire.Exchange) { x.PreKeyID ^= 1 << r.IntN(32) }),
	inExchange("no pre key", func(_ *rand.Rand, x *wire.Exchange) { x.HasPreKey = false }),
	inExchange("identity key", func(r *rand.Rand, x *wire.Exchange) { x.Identity[r.IntN(32)] ^= 1 << r.IntN(8) }),
	inExchange("identity key of small order", func(_ *rand.Rand, x *wire.Exchange) { clear(x.Identity[:]) }),
	inExchange("ephemeral key", func(r *rand.Rand, x *wire.Exchange) { x.Ephemeral[r.IntN(31)] ^= 1 << r.IntN(8) }),
	inExchange("ephemeral key of small order", func(_ *rand.Rand, x *wire.Exchange) { clear(x.Ephemeral[:]) }),
	inExchange("ephemeral key in another encoding", func(_ *rand.Rand, x *wire.Exchange) { x.Ephemeral[31] ^= 0x80 }),
	inExchange("ephemeral key with a point of order 2 added", func(_ *rand.Rand, x *wire.Exchange) {
		u, err := new(field.Element).SetBytes(x.Ephemeral[:])
		if err == nil {
			copy(x.Ephemeral[:], u.Invert(u).Bytes())
		}
	}),
	inExchange("empty message", func(_ *rand.Rand, x *wire.Exchange) { x.Message = nil }),
	inMessage("number", func(r *rand.Rand, in *wire.Message) { in.Header.N ^= 1 << r.IntN(32) }),
	inMessage("next number", func(_ *rand.Rand, in *wire.Message) { in.Header.N++ }),
	inMessage("highest number", func(_ *rand.Rand, in *wire.Message) { in.Header.N = 1<<32 - 1 }),
	inMessage("length of the chain before", func(r *rand.Rand, in *wire.Message) { in.Header.PN ^= 1 << r.IntN(32) }),
	inMessage("ratchet key", func(r *rand.Rand, in *wire.Message) { in.Header.Key[r.IntN(31)] ^= 1 << r.IntN(8) }),
	inMessage("ratchet key of small order", func(_ *rand.Rand, in *wire.Message) { clear(in.Header.Key[:]) }),
	inMessage("ciphertext", func(r *rand.Rand, in *wire.Message) { in.Ciphertext = flip(r, in.Ciphertext) }),
	inMessage("ciphertext cut off", func(_ *rand.Rand, in *wire.Message) { in.Ciphertext = in.Ciphertext[16:] }),
	inMessage("MAC", func(r *rand.Rand, in *wire.Message) { in.MAC = flip(r, in.MAC) }),
}

// forge returns a changed message, or nil if the forgery does not apply.
func (f *forgery) forge(r *rand.Rand, message *omemo.Message) *omemo.Message {
	changed := *message
	changed.Keys = slices.Clone(message.Keys)
	if !f.apply(r, &changed) || same(&changed, message) {
		return nil
	}
	return &changed
}

// same reports whether a message says the same after a change: nothing
// authenticates the bytes of a key exchange, only what it is read as.
func same(a, b *omemo.Message) bool {
	if reflect.DeepEqual(a, b) {
		return true
	}
	x, y := *a, *b
	if !x.Keys[0].Exchange || !y.Keys[0].Exchange || x.Version != y.Version {
		return false
	}
	one, err := formatOf(x.Version).ParseExchange(x.Keys[0].Data)
	other, err2 := formatOf(y.Version).ParseExchange(y.Keys[0].Data)
	x.Keys, y.Keys = nil, nil
	return err == nil && err2 == nil && reflect.DeepEqual(one, other) && reflect.DeepEqual(x, y)
}

// resists has p decrypt n forged variants of a message. They fail and change
// nothing, except that a key exchange around a message of a session that is held
// already does not count: then the message itself is read. resists reports
// whether it was.
func (p *party) resists(r *rand.Rand, message *omemo.Message, text string, n int) (read bool) {
	p.Helper()
	for range n {
		f := &forgeries[r.IntN(len(forgeries))]
		changed := f.forge(r, message)
		if changed == nil {
			continue
		}
		commits := p.store.commits
		o, err := p.m.Decrypt(p.ctx, changed, accept)
		if err != nil {
			if p.store.commits != commits {
				p.Fatalf("%s: forged %s: the store has changed", p.jid, f.name)
			}
			continue
		}
		if !changed.Keys[0].Exchange || string(o.Plaintext) != text || hasEvent(o.Events, omemo.SessionBuilt, omemo.SessionReplaced) {
			p.Fatalf("%s: forged %s: decrypted to %q", p.jid, f.name, o.Plaintext)
		}
		return true
	}
	return false
}

func TestForgedVariantsChangeNothing(t *testing.T) {
	t.Parallel()
	versions(t, func(t *testing.T, v omemo.Version) {
		a, b := pair(t, v)
		r := rand.New(rand.NewPCG(1, uint64(v)))
		late := a.send("late", bob)
		for i, sealed := range []*omemo.Sealed{
			a.send("text", bob), late, // a key exchange; one of a session that is held
			nil, nil, // in a chain, and in the next
		} {
			text := "text"
			switch {
			case sealed == late:
				text = "late"
			case sealed == nil:
				a.reads(b.send("answer", alice), "answer")
				sealed = a.send(text, bob)
			}
			message := b.find(sealed)
			read := false
			for n := range forgeries {
				f := &forgeries[n]
				before := b.store.dump()
				for range 8 {
					changed := f.forge(r, message)
					if changed == nil || read {
						continue
					}
					o, err := b.m.Decrypt(t.Context(), changed, accept)
					if err != nil {
						continue
					}
					// Around a message of a session that is held, the exchange says nothing.
					if sealed != late || string(o.Plaintext) != text {
						t.Fatalf("message %d, forged %s: decrypted to %q", i, f.name, o.Plaintext)
					}
					read = true
				}
				if after := b.store.dump(); before != after && !read {
					t.Fatalf("message %d, forged %s: the store has changed:\n%s\n---\n%s", i, f.name, before, after)
				}
			}
			if !read {
				b.reads(sealed, text)
			}
			b.refuses(message, omemo.ErrDuplicate)
		}
	})
}

// TestForgedExchangesBurnNoPreKeys sends many exchanges that name a pre key and
// hold nothing that decrypts.
func TestForgedExchangesBurnNoPreKeys(t *testing.T) {
	t.Parallel()
	versions(t, func(t *testing.T, v omemo.Version) {
		a, b := pair(t, v)
		sealed := a.send("text", bob)
		message := b.find(sealed)
		before := b.store.dump()
		f := formatOf(v)
		for id := range uint32(omemo.PreKeyCount) {
			x, err := f.ParseExchange(message.Keys[0].Data)
			if err != nil {
				t.Fatal(err)
			}
			if x.PreKeyID == id {
				continue
			}
			forged := *message
			x.PreKeyID = id
			forged.Keys = []omemo.Key{{Address: b.address(), Exchange: true, Data: f.AppendExchange(nil, x)}}
			if _, err := b.receive(&forged); !errors.Is(err, omemo.ErrRefused) && !errors.Is(err, omemo.ErrKeyExchange) {
				t.Fatal(err)
			}
		}
		if b.store.dump() != before {
			t.Error("the store has changed")
		}
		b.reads(sealed, "text")
	})
}

// TestJumps tries gaps in a chain at the limit, and far beyond it.
func TestJumps(t *testing.T) {
	versions(t, func(t *testing.T, v omemo.Version) {
		a, b := pair(t, v)
		b.reads(a.send("one", bob), "one")
		a.reads(b.send("two", alice), "two")
		skip := func(n int) {
			for range n {
				_, err := a.m.SealIn(t.Context(), b.peer(v), 0, make([]byte, 32), [32]byte{1}, false)
				a.ok(err)
			}
		}
		skip(1000)
		b.reads(a.send("after 1000", bob), "after 1000")
		skip(1001)
		b.refuses(b.find(a.send("after 1001", bob)), omemo.ErrRefused)
		a.reads(b.send("new chain", alice), "new chain")
		b.reads(a.send("works again", bob), "works again")
	})
}

// TestSkippedKeysAreKeptOldestOutFirst lets more messages be missing than are
// kept.
func TestSkippedKeysAreKeptOldestOutFirst(t *testing.T) {
	versions(t, func(t *testing.T, v omemo.Version) {
		a, b := pair(t, v)
		b.reads(a.send("one", bob), "one")
		a.reads(b.send("two", alice), "two")
		var missing []*omemo.Sealed
		for i := range 3 {
			missing = append(missing, a.send(fmt.Sprint("missing ", i), bob))
			for range 499 {
				_, err := a.m.SealIn(t.Context(), b.peer(v), 0, make([]byte, 32), [32]byte{1}, false)
				a.ok(err)
			}
			b.reads(a.send("next", bob), "next")
		}
		b.restart()
		b.reads(missing[2], "missing 2")
		b.reads(missing[1], "missing 1")
		b.refuses(b.find(missing[0]), omemo.ErrDuplicate) // its key is no longer there
	})
}
