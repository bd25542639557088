package omemo_test

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"testing"

	"example.org/omellium/omemo"
)

// BenchmarkOp measures the operations that implementations of the Double Ratchet
// are compared by:
//
//	a  a bundle: identity, signed pre key, 100 pre keys
//	b  an active session from a bundle, with its first message
//	c  a passive session, and its first message opened
//	d  a key sealed in an established session
//	e  a key opened in an established session
//	f  a key sealed and opened, with a ratchet step on either side
//	g1 a message opened that skips 1,000 before it
//	g2 each of the skipped ones opened
//	h  a message of 1 KiB to devices that there are sessions with, by a manager
//	   with a store in memory; new: to devices that there are none with
//
// a to g are on one session and include its record. In b and c the identity key
// was seen before; it is new in b_first and c_first. What an operation yields is
// checked before or after it is timed.
func BenchmarkOp(b *testing.B) {
	for _, v := range []omemo.Version{omemo.V2, omemo.Legacy} {
		peer := "omellium-v2"
		if v == omemo.Legacy {
			peer = "omellium-legacy"
		}
		for _, op := range []struct {
			name string
			run  func(b *testing.B, v omemo.Version)
		}{
			{"a_bundle", benchBundle},
			{"b_active", func(b *testing.B, v omemo.Version) { benchActive(b, v, true) }},
			{"b_first", func(b *testing.B, v omemo.Version) { benchActive(b, v, false) }},
			{"c_passive", func(b *testing.B, v omemo.Version) { benchPassive(b, v, true) }},
			{"c_first", func(b *testing.B, v omemo.Version) { benchPassive(b, v, false) }},
			{"d_enc", benchSeal},
			{"e_dec", benchOpen},
			{"f_pingpong", benchSteps},
			{"g1_skip1000", benchSkip},
			{"g2_skipped_each", benchSkipped},
			{"h_fanout1", func(b *testing.B, v omemo.Version) { benchFanOut(b, v, 1) }},
			{"h_fanout10", func(b *testing.B, v omemo.Version) { benchFanOut(b, v, 10) }},
			{"h_fanout100", func(b *testing.B, v omemo.Version) { benchFanOut(b, v, 100) }},
			{"h_fanout1000", func(b *testing.B, v omemo.Version) { benchFanOut(b, v, 1000) }},
			{"h_fanout1000_new", func(b *testing.B, v omemo.Version) { benchFanOutNew(b, v, 1000) }},
		} {
			b.Run("op="+op.name+"/peer="+peer, func(b *testing.B) { op.run(b, v) })
		}
	}
}

// benchPair is two devices with a session on which a message has gone each way.
type benchPair struct {
	testing.TB
	active, passive    *omemo.Bare
	sending, receiving *omemo.Session // of the active and of the passive side
	material           []byte
}

func (p *benchPair) must(err error) {
	p.Helper()
	if err != nil {
		p.Fatal(err)
	}
}

// same checks what a key held.
func (p *benchPair) same(material []byte) {
	p.Helper()
	if !bytes.Equal(material, p.material) {
		p.Fatalf("%d bytes of key material are not what was sealed", len(material))
	}
}

// material returns key material as a message of the version has it.
func material(v omemo.Version) []byte {
	m := make([]byte, 32)
	if v == omemo.V2 {
		m = make([]byte, 48)
	}
	rand.Read(m)
	return m
}

func newBenchPair(b testing.TB, v omemo.Version) *benchPair {
	b.Helper()
	p := &benchPair{TB: b, material: material(v)}
	p.active, _ = omemo.NewBare(alice, v)
	p.passive, _ = omemo.NewBare(bob, v)
	s, err := p.active.Initiate(p.passive.Bundle(1), p.passive.Known())
	p.must(err)
	s, first, _, err := p.active.Seal(s, p.material)
	p.must(err)
	r, opened, _, err := p.passive.Accept(first, p.active.Known())
	p.must(err)
	p.same(opened)
	p.sending, p.receiving = s, r
	p.step(true)
	p.step(false)
	if !p.sending.Confirmed() {
		b.Fatal("the session is not confirmed")
	}
	return p
}

// step has one side seal a message and the other open it.
func (p *benchPair) step(fromPassive bool) {
	p.Helper()
	from, to, sending, receiving := p.active, p.passive, &p.sending, &p.receiving
	if fromPassive {
		from, to, sending, receiving = p.passive, p.active, &p.receiving, &p.sending
	}
	next, key, _, err := from.Seal(*sending, p.material)
	p.must(err)
	*sending = next
	next, opened, _, _, err := to.Open(*receiving, key)
	p.must(err)
	*receiving = next
	p.same(opened)
}

func benchBundle(b *testing.B, v omemo.Version) {
	var bundle *omemo.Bundle
	b.ReportAllocs()
	for b.Loop() {
		device, _ := omemo.NewBare(alice, v)
		bundle = device.Bundle(omemo.PreKeyCount)
	}
	b.StopTimer()
	if err := bundle.Verify(); err != nil || len(bundle.PreKeys) != omemo.PreKeyCount {
		b.Fatal(len(bundle.PreKeys), err)
	}
	seen := make(map[[32]byte]bool)
	for _, k := range bundle.PreKeys {
		seen[k.Key] = true
	}
	if len(seen) != omemo.PreKeyCount {
		b.Fatalf("%d different pre keys", len(seen))
	}
}

func benchActive(b *testing.B, v omemo.Version, known bool) {
	p := newBenchPair(b, v)
	bundle := p.passive.Bundle(1)
	device := omemo.Device{}
	if known {
		device = p.passive.Known()
	}
	var key omemo.Key
	b.ReportAllocs()
	for b.Loop() {
		s, err := p.active.Initiate(bundle, device)
		if err != nil {
			b.Fatal(err)
		}
		if _, key, _, err = p.active.Seal(s, p.material); err != nil {
			b.Fatal(err)
		}
	}
	b.StopTimer()
	_, opened, _, err := p.passive.Accept(key, p.active.Known())
	p.must(err)
	p.same(opened)
}

func benchPassive(b *testing.B, v omemo.Version, known bool) {
	p := newBenchPair(b, v)
	bundle := p.passive.Bundle(omemo.PreKeyCount)
	var keys []omemo.Key
	for i := range bundle.PreKeys {
		one := *bundle
		one.PreKeys = bundle.PreKeys[i : i+1]
		s, err := p.active.Initiate(&one, p.passive.Known())
		p.must(err)
		_, key, _, err := p.active.Seal(s, p.material)
		p.must(err)
		_, opened, _, err := p.passive.Accept(key, p.active.Known())
		p.must(err)
		p.same(opened)
		keys = append(keys, key)
	}
	device := omemo.Device{Peer: p.active.Peer()}
	if known {
		device = p.active.Known()
	}
	var opened []byte
	i := 0
	b.ReportAllocs()
	for b.Loop() {
		var err error
		if _, opened, _, err = p.passive.Accept(keys[i%len(keys)], device); err != nil {
			b.Fatal(err)
		}
		i++
	}
	b.StopTimer()
	p.same(opened)
}

// benchChain is how many messages of a chain are sealed or opened before it
// starts anew: what a session is allowed to skip.
const benchChain = 1000

func benchSeal(b *testing.B, v omemo.Version) {
	p := newBenchPair(b, v)
	s, i := p.sending, 0
	var key omemo.Key
	b.ReportAllocs()
	for b.Loop() {
		if i++; i%benchChain == 0 {
			s = p.sending
		}
		var err error
		if s, key, _, err = p.active.Seal(s, p.material); err != nil {
			b.Fatal(err)
		}
	}
	b.StopTimer()
	_, opened, _, _, err := p.passive.Open(p.receiving, key)
	p.must(err)
	p.same(opened)
}

// chain seals the next n messages of the active side.
func (p *benchPair) chain(n int) []omemo.Key {
	p.Helper()
	keys := make([]omemo.Key, n)
	s := p.sending
	for i := range keys {
		var err error
		s, keys[i], _, err = p.active.Seal(s, p.material)
		p.must(err)
	}
	return keys
}

func benchOpen(b *testing.B, v omemo.Version) {
	p := newBenchPair(b, v)
	keys := p.chain(benchChain)
	s, i := p.receiving, 0
	var opened []byte
	b.ReportAllocs()
	for b.Loop() {
		if i == len(keys) {
			s, i = p.receiving, 0
		}
		var err error
		if s, opened, _, _, err = p.passive.Open(s, keys[i]); err != nil {
			b.Fatal(err)
		}
		i++
	}
	b.StopTimer()
	p.same(opened)
}

func benchSteps(b *testing.B, v omemo.Version) {
	p := newBenchPair(b, v)
	from, to, sending, receiving := p.passive, p.active, p.receiving, p.sending
	var opened []byte
	b.ReportAllocs()
	for b.Loop() {
		next, key, _, err := from.Seal(sending, p.material)
		if err != nil {
			b.Fatal(err)
		}
		sending = next
		if receiving, opened, _, _, err = to.Open(receiving, key); err != nil {
			b.Fatal(err)
		}
		from, to, sending, receiving = to, from, receiving, sending
	}
	b.StopTimer()
	p.same(opened)
}

func benchSkip(b *testing.B, v omemo.Version) {
	p := newBenchPair(b, v)
	keys := p.chain(benchChain + 1)
	var opened []byte
	var rows []omemo.SkippedRow
	b.ReportAllocs()
	for b.Loop() {
		var err error
		if _, opened, _, rows, err = p.passive.Open(p.receiving, keys[benchChain]); err != nil {
			b.Fatal(err)
		}
	}
	b.StopTimer()
	p.same(opened)
	if len(rows) != benchChain {
		b.Fatalf("%d skipped message keys", len(rows))
	}
}

func benchSkipped(b *testing.B, v omemo.Version) {
	p := newBenchPair(b, v)
	keys := p.chain(benchChain + 1)
	s, _, _, rows, err := p.passive.Open(p.receiving, keys[benchChain])
	p.must(err)
	for i := range rows {
		opened, err := p.passive.OpenSkipped(s, keys[i], &rows[i])
		p.must(err)
		p.same(opened)
	}
	var opened []byte
	i := 0
	b.ReportAllocs()
	for b.Loop() {
		if opened, err = p.passive.OpenSkipped(s, keys[i], &rows[i]); err != nil {
			b.Fatal(err)
		}
		if i++; i == len(rows) {
			i = 0
		}
	}
	b.StopTimer()
	p.same(opened)
}

// name returns the address of the nth account of a benchmark.
func benchName(nth int) string { return fmt.Sprintf("user%d@example.org", nth) }
