package attack

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"example.org/omellium/middleware"
	"example.org/omellium/omemo"
)

func c8(t *testing.T, v omemo.Version) {
	s := newScene(t, v)
	s.romeo.publish(s, v)
	first := s.romeo.text(s, v, "the first of all")
	s.send(first)
	s.answered(s.romeo)
	for range 50 {
		s.honest(s.romeo)
	}
	s.settle()
	for _, way := range ways {
		s.in(t, "the first key exchange, "+way, func() {
			for range 34 {
				s.repels(s.by(way, first.Clone().SetAttribute("id", s.id("replay"))), middleware.Duplicate)
			}
		})
	}
	s.honest(s.romeo)
	s.in(t, "when its session has been replaced", func() {
		// A new session, five times: the first one is gone for good.
		for range omemo.MaxArchived + 1 {
			sealed, err := s.romeo.m.Replace(context.Background(), s.bundle(v), func(*omemo.Sealed) ([]omemo.Outgoing, error) { return nil, nil })
			ok(s.t, err)
			s.send(s.romeo.stanza(s, juliet, element(sealed.Messages[0])))
			s.settle()
		}
		for range 20 {
			s.repels(string(first.Clone().SetAttribute("id", s.id("replay")).AppendXML(nil)))
		}
	})
	s.honest(s.romeo)
}

// c9 announces message numbers that nobody has reached.
func c9(t *testing.T, v omemo.Version) {
	s := newStage(t, v)
	l := layout[v]
	for _, way := range ways {
		for _, n := range []uint64{1001, 1002, 2000, 1 << 16, 1 << 24, 1<<31 - 1, 1 << 31, 1<<32 - 2, 1<<32 - 1, 1 << 32, 1<<64 - 1} {
			for name, number := range map[string]int{"n": l.n, "pn": l.pn} {
				for _, ratchet := range []string{"known", "new"} {
					s.in(t, fmt.Sprintf("%s %d, %s ratchet key, %s", name, n, ratchet, way), func() {
						m := s.header(s.romeo.text(s, v, canary), func(f []field) []field {
							if ratchet == "new" {
								f = replaced(f, octets(l.ratchet, point(v, [32]byte{9, byte(n)})))
							}
							return replaced(f, varint(number, n))
						})
						began := time.Now()
						s.repels(s.by(way, m), middleware.Undecryptable)
						if took := time.Since(began); took > time.Second {
							s.t.Errorf("took %v", took)
						}
					})
				}
			}
		}
	}
	s.honest(s.romeo)
}

func c14(t *testing.T, v omemo.Version) {
	s := newStage(t, v)
	for _, first := range ways {
		s.in(t, "first "+first, func() {
			for range 5 {
				text := s.id("once ")
				m := s.romeo.text(s, v, text)
				w := s.watch()
				s.inject(s.by(first, m))
				if _, delivered := s.since(w); len(delivered) != 1 {
					s.t.Fatalf("%d delivered", len(delivered))
				}
				s.settle()
				for _, again := range append(slices.Clone(ways), first) {
					events := s.repels(s.by(again, m.Clone()), middleware.Duplicate)
					if has(events, middleware.Undecryptable, romeo) {
						s.t.Error("a duplicate gave a warning")
					}
				}
			}
		})
	}
	s.honest(s.romeo)
}

func c15(t *testing.T, v omemo.Version) {
	s := newStage(t, v)
	l := layout[v]
	group := func(number int) []byte {
		return []byte{byte(number<<3 | 3), 8, 1, byte(number<<3 | 4)}
	}
	// Each change is of the ratchet message; its MAC then does not hold in any
	// case: what is looked for is a crash, a change of state, or work.
	headers := map[string]func([]field) []field{
		"n twice":              func(f []field) []field { return append(f, varint(l.n, 1)) },
		"ratchet key twice":    func(f []field) []field { return append(f, octets(l.ratchet, point(v, [32]byte{9}))) },
		"ciphertext twice":     func(f []field) []field { return append(f, octets(l.ciphertext, make([]byte, 16))) },
		"overlong n":           func(f []field) []field { return replaced(f, field{l.n, 0, []byte{0x80, 0x80, 0x80, 0x00}}) },
		"n of 2^63":            func(f []field) []field { return replaced(f, varint(l.n, 1<<63)) },
		"n as bytes":           func(f []field) []field { return replaced(f, octets(l.n, []byte{1})) },
		"n as fixed32":         func(f []field) []field { return replaced(f, field{l.n, 5, []byte{1, 0, 0, 0}}) },
		"ratchet key as n":     func(f []field) []field { return replaced(f, varint(l.ratchet, 1)) },
		"ratchet key empty":    func(f []field) []field { return replaced(f, octets(l.ratchet, nil)) },
		"ratchet key 31 bytes": func(f []field) []field { return replaced(f, octets(l.ratchet, make([]byte, 31))) },
		"ratchet key 34 bytes": func(f []field) []field { return replaced(f, octets(l.ratchet, make([]byte, 34))) },
		"no ciphertext":        func(f []field) []field { return replaced(f, octets(l.ciphertext, nil)) },
		"ciphertext 15 bytes":  func(f []field) []field { return replaced(f, octets(l.ciphertext, make([]byte, 15))) },
		"5 KiB":                func(f []field) []field { return append(f, octets(15, make([]byte, 5<<10))) },
		"unknown field":        func(f []field) []field { return append(f, varint(99, 1)) },
		"a group":              func(f []field) []field { return append(f, field{12, 3, []byte{8, 1, 12<<3 | 4}}) },
		"nothing":              func([]field) []field { return nil },
		"reversed":             func(f []field) []field { slices.Reverse(f); return f },
	}
	raw := map[string]func([]byte) []byte{
		"trailing byte":  func(b []byte) []byte { return append(b, 0) },
		"trailing group": func(b []byte) []byte { return append(b, group(7)...) },
		"length 2^31":    func(b []byte) []byte { return append(b, 0x2a, 0x80, 0x80, 0x80, 0x80, 0x08) },
		"length 2^63": func(b []byte) []byte {
			return append(b, 0x2a, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x01)
		},
		"unfinished tag":   func(b []byte) []byte { return append(b, 0x80) },
		"field number 0":   func(b []byte) []byte { return append(b, 0x00, 0x00) },
		"one byte":         func([]byte) []byte { return []byte{0x33} },
		"zeros":            func([]byte) []byte { return make([]byte, 200) },
		"ones":             func([]byte) []byte { return bytes.Repeat([]byte{0xff}, 200) },
		"twice the same":   func(b []byte) []byte { return append(b, b...) },
		"first half":       func(b []byte) []byte { return b[:len(b)/2] },
		"without the last": func(b []byte) []byte { return b[:len(b)-1] },
		"4097 bytes":       func(b []byte) []byte { return append(b, make([]byte, 4097)...) },
	}
	for _, way := range ways {
		for _, d := range []string{"session", "key exchange"} {
			sender := func() *device {
				if d == "session" {
					return s.romeo
				}
				return newDevice(s.t, mallory)
			}
			for name, change := range headers {
				s.in(t, name+", "+d+", "+way, func() {
					s.repels(s.by(way, s.header(sender().text(s, v, canary), change)))
				})
			}
			for name, change := range raw {
				s.in(t, name+", "+d+", "+way, func() {
					s.repels(s.by(way, s.rekey(sender().text(s, v, canary), func(b []byte, _ bool) []byte { return change(b) })))
				})
			}
		}
	}
	s.honest(s.romeo)
}

func c16(t *testing.T, v omemo.Version) {
	s := newStage(t, v)
	for _, way := range ways {
		s.in(t, way, func() {
			s.openQuery()
			var forged []string
			for first := range 256 {
				if v == omemo.Legacy && first>>4 == 3 {
					continue
				}
				m := s.rekey(s.romeo.text(s, v, canary), func(b []byte, _ bool) []byte {
					if v == omemo.V2 && byte(first) == b[0] {
						b = b[1:] // there is no version in omemo:2; what is there must be right
					}
					return append([]byte{byte(first)}, b[1:]...)
				})
				raw := string(m.AppendXML(nil))
				switch way {
				case "carbon":
					raw = carbon(juliet, "received", raw)
				case "archive":
					raw = archived(juliet, s.query, raw)
				}
				forged = append(forged, raw)
			}
			s.repelsAll(forged)
			s.inject(s.closeQuery())
		})
	}
	s.honest(s.romeo)
}
