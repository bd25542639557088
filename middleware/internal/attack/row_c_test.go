package attack

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"example.org/omellium/devicelist"
	"example.org/omellium/middleware"
	"example.org/omellium/middleware/xmpptest"
	"example.org/omellium/omemo"
	"example.org/omellium/stanza"
)

// smallOrder are the points of small order and their other encodings: u
// coordinates with which every agreement is zero.
var smallOrder = [][32]byte{
	{},
	{1},
	hex32("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"),
	hex32("5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157"),
	hex32("ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"), // p-1
	hex32("edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"), // p
	hex32("eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"), // p+1
	hex32("0000000000000000000000000000000000000000000000000000000000000080"),
	hex32("0100000000000000000000000000000000000000000000000000000000000080"),
}

// notCanonical are other encodings of points, and points of the twist.
var notCanonical = [][32]byte{
	hex32("f0ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
	hex32("f6ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
	hex32("ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
	hex32("0900000000000000000000000000000000000000000000000000000000000080"),
	{2}, {3}, {5},
}

func hex32(s string) [32]byte {
	b, err := hex.DecodeString(s)
	if err != nil {
		panic(err)
	}
	return [32]byte(b)
}

// point returns a public key as a field of a version's protobuf holds it.
func point(v omemo.Version, k [32]byte) []byte {
	if v == omemo.Legacy {
		return append([]byte{5}, k[:]...)
	}
	return k[:]
}

// repelsAll injects many stanzas at once. All of them are one case.
func (s *stage) repelsAll(raws []string) {
	s.t.Helper()
	for batch := range slices.Chunk(raws, 50) {
		s.settle()
		before := s.store.dump()
		w := s.watch()
		s.inject(strings.Join(batch, ""))
		events, delivered := s.since(w)
		s.unharmed(events, delivered)
		for _, e := range delivered {
			if innermost(e).Child(middleware.NSInfo, "info") != nil {
				s.t.Errorf("delivered: %s", e.AppendXML(nil))
			}
		}
		if after := s.store.dump(); after != before {
			s.t.Fatalf("the store has changed:\n%s", difference(before, after))
		}
	}
}

func c1(t *testing.T, v omemo.Version) {
	s := newStage(t, v)
	for _, way := range ways {
		for i, k := range smallOrder {
			s.in(t, fmt.Sprintf("ratchet key %d, %s", i, way), func() {
				m := s.header(s.romeo.text(s, v, canary), func(f []field) []field {
					return replaced(f, octets(layout[v].ratchet, point(v, k)))
				})
				s.repels(s.by(way, m), middleware.Undecryptable)
			})
			for name, number := range map[string]int{"identity": layout[v].identity, "ephemeral": layout[v].ephemeral} {
				s.in(t, fmt.Sprintf("%s %d, %s", name, i, way), func() {
					m := s.rewrite(newDevice(s.t, mallory).text(s, v, canary), func(f []field) []field {
						return replaced(f, octets(number, point(v, k)))
					})
					s.repels(s.by(way, m), middleware.Undecryptable)
				})
			}
		}
	}
	// Bundles: the identity key, the signed pre key with a signature that holds,
	// the pre keys.
	for i, k := range smallOrder {
		for _, where := range []string{"identity", "signed pre key", "pre keys"} {
			s.in(t, fmt.Sprintf("bundle, %s %d", where, i), func() {
				account := fmt.Sprintf("zero%d-%s@example.net", i, strings.ReplaceAll(where, " ", "-"))
				ok(s.t, s.srv.AddAccount(account, "secret"))
				d := newDevice(s.t, account)
				ok(s.t, s.srv.Publish(account, devicelist.Node(v), "current", list(v, d.Device)))
				b := d.bundle(v)
				switch where {
				case "identity":
					b.IdentityKey = k
				case "signed pre key":
					b.SignedPreKey, b.Signature = k, newSigner().sign(b, k)
				default:
					b.PreKeys = b.PreKeys[:1]
					b.PreKeys[0].Key = k
				}
				d.publishBundle(s, b)
				if _, err := s.say(account, canary); err == nil {
					s.t.Error("sent")
				}
				s.silent(canary)
			})
		}
	}
	s.settle()
	s.honest(s.romeo)
}

func c2(t *testing.T, v omemo.Version) {
	s := newStage(t, v)
	for i, k := range notCanonical {
		for _, way := range ways {
			s.in(t, fmt.Sprintf("identity %d, %s", i, way), func() {
				m := s.rewrite(newDevice(s.t, mallory).text(s, v, canary), func(f []field) []field {
					return replaced(f, octets(layout[v].identity, point(v, k)))
				})
				s.repels(s.by(way, m), middleware.Undecryptable)
			})
		}
		s.in(t, fmt.Sprintf("bundle %d", i), func() {
			b := s.romeo.bundle(v)
			b.IdentityKey = k
			if err := b.Verify(); !errors.Is(err, omemo.ErrBundle) {
				s.t.Errorf("error %v", err)
			}
		})
	}
	s.honest(s.romeo)
}

// c5 announces one identity key in the bundle and uses another.
func c5(t *testing.T, v omemo.Version) {
	s := newStage(t, v)
	s.in(t, "unknown device", func() {
		ok(s.t, s.srv.AddAccount("rosaline@example.net", "secret"))
		d := newDevice(s.t, "rosaline@example.net")
		ok(s.t, s.srv.Publish(d.account, devicelist.Node(v), "current", list(v, d.Device)))
		other := newDevice(s.t, d.account).bundle(v)
		other.Owner.Device = d.Device
		d.publishBundle(s, other)
		w := s.watch()
		s.honest(d)
		s.await("conflict", func() bool { return has(s.events[w.events:], middleware.IdentityChanged, d.account) })
		s.settle()
		f, err := d.m.Fingerprint(context.Background())
		ok(s.t, err)
		_, devices, err := s.om.Manager().Account(context.Background(), d.account)
		ok(s.t, err)
		for _, known := range devices {
			if known.Version == v && (known.Fingerprint != f || known.Conflict.IsZero()) {
				s.t.Errorf("%+v", known)
			}
		}
	})
	for _, way := range ways {
		s.in(t, "known device, "+way, func() {
			evil := newDevice(s.t, romeo)
			m := evil.text(s, v, canary)
			m.Child(v.Namespace(), "encrypted").Child(v.Namespace(), "header").SetAttribute("sid", fmt.Sprint(s.romeo.Device))
			s.repels(s.by(way, m), middleware.IdentityChanged)
		})
	}
	s.honest(s.romeo)
}

// mutate returns a forged variant of a message: something in the key, the
// payload, the IV or the header is not what it was.
func (s *stage) mutate(r *rand.Rand, m *stanza.Element) *stanza.Element {
	s.t.Helper()
	m = m.Clone().SetAttribute("id", s.id("forged"))
	flip := func(b []byte) []byte {
		b = slices.Clone(b)
		b[r.IntN(len(b))] ^= byte(1 << r.IntN(8))
		return b
	}
	l := layout[s.v]
	fields := []int{l.ratchet, l.n, l.pn, l.ciphertext}
	switch n := r.IntN(7); n {
	case 0, 1:
		return s.rekey(m, func(b []byte, _ bool) []byte {
			// Not the part of a legacy message that is not authenticated: the
			// version that the sender could speak.
			for {
				if c := flip(b); s.v != omemo.Legacy || c[0] == b[0] {
					return c
				}
			}
		})
	case 2:
		return s.rekey(m, func(b []byte, _ bool) []byte { return b[:r.IntN(len(b)-1)+1] })
	case 3:
		return s.header(m, func(f []field) []field {
			number := fields[r.IntN(len(fields))]
			for i := range f {
				if f[i].number != number {
					continue
				}
				if number == l.n || number == l.pn {
					f[i] = varint(number, uint64(r.Uint32()>>(r.IntN(32)))+f[i].varint()+1)
				} else {
					f[i] = octets(number, flip(f[i].octets()))
				}
			}
			return f
		})
	case 4:
		return s.header(m, func(f []field) []field { return slices.Delete(f, r.IntN(len(f)), len(f)) })
	default:
		part := []string{"payload", "iv"}[r.IntN(2)]
		if s.v == omemo.V2 {
			part = "payload"
		}
		walk(m, func(c *stanza.Element) {
			if c.Name.Local == part && len(c.Children) > 0 {
				b, err := stanza.DecodeBase64(c.Text())
				ok(s.t, err)
				c.Children = []stanza.Node{{Text: stanza.EncodeBase64(flip(b))}}
			}
		})
		return m
	}
}

func c6(t *testing.T, v omemo.Version) {
	s := newStage(t, v)
	r := rand.New(rand.NewPCG(6, uint64(v)))
	for i := range 6 {
		way := ways[i%len(ways)]
		s.in(t, fmt.Sprintf("message %d, %s", i, way), func() {
			text := s.id("honest after forged ")
			honest := s.romeo.text(s, v, text)
			forged := make([]string, 200)
			s.openQuery()
			for n := range forged {
				raw := string(s.mutate(r, honest).AppendXML(nil))
				switch way {
				case "carbon":
					raw = carbon(juliet, "received", raw)
				case "archive":
					raw = archived(juliet, s.query, raw)
				}
				forged[n] = raw
			}
			s.repelsAll(forged)
			s.inject(s.closeQuery())
			w := s.watch()
			s.inject(s.by(way, honest))
			if _, delivered := s.since(w); len(delivered) != 1 || innermost(delivered[0]).Child(stanza.NSClient, "body").Text() != text {
				s.t.Errorf("the honest message was lost: %v", delivered)
			}
			s.settle()
		})
	}
}

func c7(t *testing.T, v omemo.Version) {
	s := newStage(t, v)
	r := rand.New(rand.NewPCG(7, uint64(v)))
	for _, way := range ways {
		s.in(t, way, func() {
			s.srv.ForgetWire()
			evil := newDevice(s.t, mallory)
			honest := evil.text(s, v, "from a stranger")
			var forged []string
			s.openQuery()
			for len(forged) < 334 {
				m := s.mutate(r, honest)
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
			for _, st := range s.srv.Wire() {
				if st.Direction == xmpptest.FromClient && bytes.Contains(st.XML, []byte("<publish")) {
					s.t.Errorf("published: %s", st.XML)
				}
			}
			// The pre key is still there for the honest one.
			w := s.watch()
			s.inject(s.by(way, honest))
			if _, delivered := s.since(w); len(delivered) != 1 {
				s.t.Errorf("the honest message: %d delivered", len(delivered))
			}
			s.settle()
		})
	}
	s.honest(s.romeo)
}
