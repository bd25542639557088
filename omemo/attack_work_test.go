package omemo_test

import (
	"bytes"
	"runtime"
	"testing"

	"example.org/omellium/omemo"
	"example.org/omellium/omemo/internal/curve"
	"example.org/omellium/omemo/internal/ratchet"
	"example.org/omellium/omemo/internal/wire"
)

// What one try costs in HMACs besides the steps of the chain that are skipped: the
// message key and the next chain key, the keys made of it, its MAC; and with a new
// ratchet key the root key.
const (
	tryHMACs  = 2 + 4 + 1
	turnHMACs = 3
)

// work is what one message has a device do before it is refused.
type work struct {
	agreements, hmacs uint64
}

var formats = map[omemo.Version]wire.Format{omemo.Legacy: wire.Legacy, omemo.V2: wire.V2}

// refusing counts what it takes to refuse a message, which changes nothing.
func (p *party) refusing(message *omemo.Message) (w work, allocated uint64) {
	p.Helper()
	p.refuses(message, omemo.ErrRefused)
	agreements, hmacs := curve.Agreements(), ratchet.HMACs()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, err := p.m.Decrypt(p.ctx, message, accept)
	runtime.ReadMemStats(&after)
	if err == nil {
		p.Errorf("accepted")
	}
	return work{curve.Agreements() - agreements, ratchet.HMACs() - hmacs}, after.TotalAlloc - before.TotalAlloc
}

// crowded returns two devices of which the second holds as many sessions with the
// first as can be, each with a sending chain of its own.
func crowded(t *testing.T, v omemo.Version) (a, b *party) {
	t.Helper()
	a, b = talked(t, v)
	for range omemo.MaxArchived + 3 {
		sealed, err := a.m.Replace(t.Context(), b.bundle(v), stanzas("replaced", bob))
		a.ok(err)
		_, err = b.receive(b.find(sealed))
		b.ok(err)
	}
	if n := len(b.sessions(a.peer(v))); n != omemo.MaxArchived+1 {
		t.Fatalf("%d sessions", n)
	}
	return a, b
}

// attackAgreements counts the key agreements and the HMACs that one message can
// cause: with all sessions that can be held, and all keys that are tried.
func attackAgreements(t *testing.T, v omemo.Version) {
	const sessions = omemo.MaxArchived + 1
	a, b := crowded(t, v)
	honest := b.find(a.send("honest", bob))
	known := honest.Keys[0].Bare(v)
	h, err := known.Header(v)
	a.ok(err)
	next := uint32(b.session(a.peer(v)).ReceivingChain())
	if h.N != next || next == 0 {
		t.Fatalf("number %d, expected %d", h.N, next)
	}
	// fresh returns a message of keys with new ratchet keys and these numbers.
	fresh := func(numbers ...uint32) *omemo.Message {
		m := b.spoiled(known, v, 1, a.address())
		m.Keys = nil
		for i, n := range numbers {
			m.Keys = append(m.Keys, b.spoiled(b.jumped(known, v, n, a.address()).Keys[0], v, i+1, a.address()).Keys[i])
		}
		return m
	}
	// again returns a message of n keys of the chain that is open.
	again := func(n int, number uint32) *omemo.Message {
		m := b.jumped(known, v, number, a.address())
		for len(m.Keys) < n {
			m.Keys = append(m.Keys, m.Keys[0])
		}
		return m
	}
	// exchanges returns a message of n key exchanges, each with a message of this number.
	exchanges := func(n int, number uint32) *omemo.Message {
		attacker := newWorld(t).join(carol, omemo.Options{})
		attacker.ok(attacker.m.SetList(t.Context(), bob, v, []omemo.DeviceID{b.device}))
		format := formats[v]
		m := b.jumped(known, v, number, attacker.address())
		message := m.Keys[0].Data
		m.Keys = nil
		for i := range n {
			sealed, err := attacker.m.Replace(t.Context(), b.small(v), stanzas("x", bob))
			attacker.ok(err)
			k := b.find(sealed).Keys[0]
			x, err := format.ParseExchange(k.Data)
			attacker.ok(err)
			x.Message = b.spoiled(omemo.Key{Data: message}, v, i+1, attacker.address()).Keys[i].Data
			k.Data = format.AppendExchange(nil, x)
			m.Keys = append(m.Keys, k)
		}
		return m
	}
	receive := func(m *omemo.Message) {
		t.Helper()
		_, err := b.receive(m)
		b.ok(err)
	}
	type row struct {
		message *omemo.Message
		want    work
	}
	turns := func(n uint64) work { return work{n, n * (tryHMACs + turnHMACs)} }
	plus := func(w work, hmacs uint64) work { return work{w.agreements, w.hmacs + hmacs} }
	rows := map[string]row{
		"a new ratchet key":                 {fresh(0), turns(sessions)},
		"the greatest gap":                  {fresh(1000), plus(turns(1), 1000)},
		"a greater one":                     {fresh(1001), work{}},
		"2^31 missing":                      {fresh(1 << 31), work{}},
		"2^32-1 missing":                    {fresh(1<<32 - 1), work{}},
		"a gap for all sessions":            {fresh(166), plus(turns(sessions), 996)},
		"a gap for all sessions but one":    {fresh(200), plus(turns(sessions-1), 1000)},
		"a gap in the chain":                {again(1, next+1000), work{0, 1000 + tryHMACs}},
		"a greater gap in the chain":        {again(1, next+1001), work{}},
		"a key exchange":                    {exchanges(1, 1000), plus(work{5, turns(1).hmacs}, 1000)},
		"nine keys, which are too many":     {fresh(make([]uint32, omemo.MaxCandidates+1)...), work{}},
		"1,000 missing in the chain before": {b.announced(fresh(0), v, 1000), turns(sessions)},
	}
	if v == omemo.Legacy { // in omemo:2 more than one key is refused before
		rows["eight new ratchet keys"] = row{fresh(make([]uint32, omemo.MaxCandidates)...), turns(omemo.MaxCandidates * sessions)}
		// SECURITY.md names these figures: the most of both.
		rows["the worst of all"] = row{fresh(20, 20, 21, 21, 21, 21, 21, 21), plus(turns(omemo.MaxCandidates*sessions), 996)}
		rows["the greatest gap eight times"] = row{fresh(1000, 1000, 1000, 1000, 1000, 1000, 1000, 1000), plus(turns(1), 1000)}
		rows["eight gaps in the chain"] = row{again(omemo.MaxCandidates, next+1000), work{0, 1000 + tryHMACs}}
		rows["eight gaps in the chain, of 125"] = row{again(omemo.MaxCandidates, next+125), work{0, 1000 + omemo.MaxCandidates*tryHMACs}}
		rows["eight key exchanges"] = row{exchanges(omemo.MaxCandidates, 125), plus(work{5 * omemo.MaxCandidates, turns(omemo.MaxCandidates).hmacs}, 1000)}
	}
	for name, row := range rows {
		t.Run(name, func(t *testing.T) {
			did, allocated := b.refusing(row.message)
			t.Logf("%d agreements, %d HMACs, %d bytes", did.agreements, did.hmacs, allocated)
			if did != row.want {
				t.Errorf("%d agreements and %d HMACs, want %d and %d", did.agreements, did.hmacs, row.want.agreements, row.want.hmacs)
			}
			if allocated > 1<<20 {
				t.Errorf("%d bytes allocated", allocated)
			}
		})
	}
	t.Run("keys for others", func(t *testing.T) {
		agreements, hmacs := curve.Agreements(), ratchet.HMACs()
		b.refuses(&omemo.Message{Version: v, Sender: a.address(), Payload: []byte("x")}, omemo.ErrNotForUs)
		if n, m := curve.Agreements()-agreements, ratchet.HMACs()-hmacs; n+m > 0 {
			t.Errorf("%d agreements, %d HMACs", n, m)
		}
	})
	if v == omemo.V2 {
		receive(honest)
		return
	}
	// With one key that is true, as only its sender can make it, what stands beside it
	// is tried once more when the session has moved on.
	numbers := []uint32{11, 11, 11, 11, 11, 11, 11}
	honest.Keys = append(honest.Keys, fresh(numbers...).Keys...)
	agreements, hmacs := curve.Agreements(), ratchet.HMACs()
	receive(honest)
	n, m := curve.Agreements()-agreements, ratchet.HMACs()-hmacs
	t.Logf("with a true key: %d agreements, %d HMACs", n, m)
	if tries := uint64(2 * sessions * len(numbers)); n != tries || m > 1000+(tries+1)*(tryHMACs+turnHMACs) {
		t.Errorf("with a true key: %d agreements, %d HMACs", n, m)
	}
}

// spoiled returns a message of n keys, each under another ratchet key, of which
// none opens.
func (p *party) spoiled(k omemo.Key, v omemo.Version, n int, from omemo.Address) *omemo.Message {
	p.Helper()
	m := &omemo.Message{Version: v, Sender: from, IV: make([]byte, 12), Payload: []byte("x")}
	h, err := k.Header(v)
	p.ok(err)
	for i := range n {
		other := h.Key
		other[0] ^= byte(i + 1)
		m.Keys = append(m.Keys, omemo.Key{Address: p.address(), Data: bytes.ReplaceAll(bytes.Clone(k.Data), h.Key[:], other[:])})
	}
	return m
}

// jumped returns a message that claims to be another one of its chain.
func (p *party) jumped(k omemo.Key, v omemo.Version, n uint32, from omemo.Address) *omemo.Message {
	p.Helper()
	h, err := k.Header(v)
	p.ok(err)
	h.N = n
	return &omemo.Message{
		Version: v, Sender: from, IV: make([]byte, 12), Payload: []byte("x"),
		Keys: []omemo.Key{p.forged(h, v)},
	}
}

// announced returns a message that claims that pn messages of the chain before were
// sent.
func (p *party) announced(m *omemo.Message, v omemo.Version, pn uint32) *omemo.Message {
	p.Helper()
	h, err := m.Keys[0].Header(v)
	p.ok(err)
	h.PN = pn
	return &omemo.Message{Version: v, Sender: m.Sender, IV: m.IV, Payload: m.Payload, Keys: []omemo.Key{p.forged(h, v)}}
}

// forged returns a key with a header, of which nothing else is true.
func (p *party) forged(h ratchet.Header, v omemo.Version) omemo.Key {
	format := formats[v]
	signed := format.AppendSigned(nil, h, make([]byte, 48))
	return omemo.Key{Address: p.address(), Data: format.AppendMessage(nil, signed, make([]byte, []int{8, 16}[format]))}
}
