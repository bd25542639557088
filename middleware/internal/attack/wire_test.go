package attack

import (
	"fmt"
	"slices"

	"example.org/omellium/omemo"
	"example.org/omellium/stanza"
	"google.golang.org/protobuf/encoding/protowire"
)

// field is a field of a protobuf message, taken apart without any knowledge of
// what it means.
type field struct {
	number int
	typ    protowire.Type
	value  []byte // as encoded, with its length if it has one
}

func (f field) varint() uint64 {
	n, _ := protowire.ConsumeVarint(f.value)
	return n
}

// octets returns the content of a field of bytes.
func (f field) octets() []byte {
	b, _ := protowire.ConsumeBytes(f.value)
	return b
}

// octets returns a field of bytes.
func octets(number int, b []byte) field {
	return field{number, protowire.BytesType, protowire.AppendBytes(nil, b)}
}

func varint(number int, n uint64) field {
	return field{number, protowire.VarintType, protowire.AppendVarint(nil, n)}
}

func parse(b []byte) []field {
	var fields []field
	for len(b) > 0 {
		number, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			panic(fmt.Sprintf("not a protobuf: %x", b))
		}
		b = b[n:]
		if n = protowire.ConsumeFieldValue(number, typ, b); n < 0 {
			panic(fmt.Sprintf("not a protobuf: %x", b))
		}
		fields = append(fields, field{int(number), typ, slices.Clone(b[:n])})
		b = b[n:]
	}
	return fields
}

func encode(fields []field) []byte {
	var b []byte
	for _, f := range fields {
		b = protowire.AppendTag(b, protowire.Number(f.number), f.typ)
		b = append(b, f.value...)
	}
	return b
}

// exchange returns the fields of a key exchange.
func exchange(v omemo.Version, data []byte) []field {
	if v == omemo.Legacy {
		return parse(data[1:])
	}
	return parse(data)
}

// Numbers of fields.
type numbers struct {
	identity, ephemeral, message int // of a key exchange
	n, pn, ratchet, ciphertext   int // of a message
}

var layout = map[omemo.Version]numbers{
	omemo.Legacy: {identity: 3, ephemeral: 2, message: 4, ratchet: 1, n: 2, pn: 3, ciphertext: 4},
	omemo.V2:     {identity: 3, ephemeral: 4, message: 5, n: 1, pn: 2, ratchet: 3, ciphertext: 4},
}

// replaced returns fields in which the first one of a number was replaced.
func replaced(fields []field, by field) []field {
	out := slices.Clone(fields)
	for i, f := range out {
		if f.number == by.number {
			out[i] = by
			break
		}
	}
	return out
}

// rekey changes the bytes of the keys of a message.
func (s *stage) rekey(m *stanza.Element, change func(data []byte, exchange bool) []byte) *stanza.Element {
	s.t.Helper()
	e := m.Child(s.v.Namespace(), "encrypted")
	walk(e, func(c *stanza.Element) {
		if c.Name.Local != "key" {
			return
		}
		data, err := stanza.DecodeBase64(c.Text())
		ok(s.t, err)
		_, kex := c.Attribute("kex")
		_, preKey := c.Attribute("prekey")
		c.Children = []stanza.Node{{Text: stanza.EncodeBase64(change(data, kex || preKey))}}
	})
	return m
}

func walk(e *stanza.Element, f func(*stanza.Element)) {
	f(e)
	for c := range e.Elements() {
		walk(c, f)
	}
}

// rewrite changes the outermost fields of the keys of a message.
func (s *stage) rewrite(m *stanza.Element, change func([]field) []field) *stanza.Element {
	s.t.Helper()
	return s.rekey(m, func(data []byte, kex bool) []byte {
		if s.v == omemo.V2 {
			return encode(change(parse(data)))
		}
		mac := 0
		if !kex {
			mac = 8
		}
		inner := encode(change(parse(data[1 : len(data)-mac])))
		return slices.Concat(data[:1], inner, data[len(data)-mac:])
	})
}

// header changes the fields of the ratchet message in the keys of a message,
// within its key exchange if there is one.
func (s *stage) header(m *stanza.Element, change func([]field) []field) *stanza.Element {
	s.t.Helper()
	l := layout[s.v]
	bare := func(data []byte) []byte {
		if s.v == omemo.V2 {
			outer := parse(data) // MAC 1, message 2
			for _, f := range outer {
				if f.number == 2 {
					outer = replaced(outer, octets(2, encode(change(parse(f.octets())))))
				}
			}
			return encode(outer)
		}
		return slices.Concat(data[:1], encode(change(parse(data[1:len(data)-8]))), data[len(data)-8:])
	}
	return s.rekey(m, func(data []byte, kex bool) []byte {
		if !kex {
			return bare(data)
		}
		prefix := data[:0]
		if s.v == omemo.Legacy {
			prefix = data[:1]
		}
		fields := exchange(s.v, data)
		for _, f := range fields {
			if f.number == l.message {
				fields = replaced(fields, octets(l.message, bare(f.octets())))
			}
		}
		return slices.Concat(prefix, encode(fields))
	})
}
