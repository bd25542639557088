package omemo_test

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"testing"

	"example.org/omellium/omemo"
)

// FuzzSchedule has two devices do what the input says: send, lose, reorder,
// repeat, restart, begin anew. Whatever arrives is right and arrives once, and no
// message key is used twice.
func FuzzSchedule(f *testing.F) {
	f.Add(false, []byte("\x00\x00\x00\x00\x00\x00\x00\x01sdsdsdsd"))
	f.Add(true, []byte("\x00\x00\x00\x00\x00\x00\x00\x02ssssddddrrxaadsdsd"))
	f.Add(false, []byte("\x00\x00\x00\x00\x00\x00\x00\x03ssnsnsddlldddRRsdadsd"))
	f.Add(true, []byte("\x00\x00\x00\x00\x00\x00\x00\x04snsnRdRdRdadadsssxd"))
	f.Fuzz(func(t *testing.T, legacy bool, input []byte) {
		if len(input) < 8 {
			return
		}
		v := omemo.V2
		if legacy {
			v = omemo.Legacy
		}
		s := &schedule{
			world: newWorld(t), v: v, r: rand.New(rand.NewPCG(binary.BigEndian.Uint64(input), 1)),
			replaced: make(map[[2]string]int),
		}
		s.join(alice, omemo.Options{})
		s.join(bob, omemo.Options{})
		s.meet(v)
		for _, c := range input[8:min(len(input), 60)] {
			switch c {
			case 's':
				s.send()
			case 'r':
				s.repeat()
			case 'l':
				s.take()
			case 'a':
				s.answer()
			case 'R':
				s.pick().restart()
			case 'n':
				s.replace()
			default:
				s.deliver()
			}
		}
		for len(s.transit) > 0 {
			s.deliver()
		}
	})
}

// FuzzForged delivers messages that the input has changed before the honest ones
// that they were made from: they fail without a trace, and the honest ones are
// read. An exception is a message that says the same as the honest one.
func FuzzForged(f *testing.F) {
	f.Add(false, []byte{0, 1, 10, 0x80, 40, 1, 100, 0xff})
	f.Add(true, []byte{0, 0x10, 3, 1, 33, 0x80, 60, 2})
	f.Add(false, bytes.Repeat([]byte{7, 3}, 20))
	f.Add(true, []byte{255, 255})
	f.Fuzz(func(t *testing.T, legacy bool, input []byte) {
		v := omemo.V2
		if legacy {
			v = omemo.Legacy
		}
		a, b := pair(t, v)
		for round := range 4 {
			text := string(rune('a' + round))
			honest := b.find(a.send(text, bob))
			forged := *honest
			forged.Keys = []omemo.Key{honest.Keys[0]}
			forged.Keys[0].Data = change(honest.Keys[0].Data, input)
			if round%2 == 1 {
				forged.Payload = change(honest.Payload, input)
			}
			before := b.store.dump()
			o, err := b.receive(&forged)
			switch {
			case err != nil:
				if b.store.dump() != before {
					t.Fatal("a forged message has left a trace")
				}
				o, err = b.receive(honest)
				if err != nil || string(o.Plaintext) != text {
					t.Fatalf("the honest message was lost: %v", err)
				}
			case string(o.Plaintext) != text:
				t.Fatalf("a forged message was read as %q", o.Plaintext)
			}
			if round == 1 { // a ratchet step, and no key exchange any more
				a.reads(b.send("answer", alice), "answer")
			}
		}
	})
}

// change applies pairs of a place and bits to flip, and then cuts or lengthens.
func change(b, input []byte) []byte {
	b = bytes.Clone(b)
	for i := 0; i+1 < len(input) && len(b) > 0; i += 2 {
		b[int(input[i])%len(b)] ^= input[i+1]
	}
	if len(input)%2 == 1 {
		switch last := int(input[len(input)-1]); {
		case last < 128:
			b = b[:max(0, len(b)-last)]
		default:
			b = append(b, make([]byte, last-127)...)
		}
	}
	return b
}
