package attack

import (
	"math/rand/v2"
	"slices"
	"strings"

	"example.org/omellium/omemo"
	"example.org/omellium/stanza"
	"google.golang.org/protobuf/encoding/protowire"
)

// mutation is a change of bytes that is the same in every run.
func mutation(r *rand.Rand, b []byte) []byte {
	b = slices.Clone(b)
	for range 1 + r.IntN(3) {
		if len(b) < 2 {
			return b
		}
		at, to := r.IntN(len(b)), r.IntN(len(b))
		if at > to {
			at, to = to, at
		}
		switch r.IntN(7) {
		case 0:
			b[at] ^= 1 << r.IntN(8)
		case 1:
			b = b[:to]
		case 2:
			b = slices.Delete(b, at, min(to, at+20))
		case 3:
			b = slices.Insert(b, at, b[at:min(to, at+40)]...)
		case 4:
			b[at] = byte(r.UintN(256))
		case 5:
			b = slices.Insert(b, at, []byte([]string{"<", ">", "&", "'", "\"", "\x00", "\xff", "/>", "xmlns=''", "-1", "0"}[r.IntN(11)])...)
		default:
			b[at], b[to] = b[to], b[at]
		}
	}
	return b
}

// values stand in attributes and texts where they do not belong.
var values = []string{
	"", "0", "-1", "+1", "01", " 1", "1 ", "1.0", "2147483648", "4294967296", "18446744073709551617", "true", "false", "1", "2",
	"AAAA", "====", "\u00a0", "\u202e", "x@example.net", "example.net", "@", "x@y/z", "current", "urn:xmpp:omemo:2", "\U0010ffff",
}

// mutatedElement changes an element, something in it, or how it is written:
// names, attributes, texts, order and number of children. What stands in Base64
// is changed in its bytes, and with proto, in the fields of its protobuf.
func mutatedElement(r *rand.Rand, e *stanza.Element, proto bool) []byte {
	if r.IntN(12) == 0 {
		return mutation(r, e.AppendXML(nil))
	}
	e = e.Clone()
	for range 1 + r.IntN(2) {
		byName := make(map[string][]*stanza.Element)
		var names []string
		walk(e, func(c *stanza.Element) {
			if byName[c.Name.Local] == nil {
				names = append(names, c.Name.Local)
			}
			byName[c.Name.Local] = append(byName[c.Name.Local], c)
		})
		same := byName[names[r.IntN(len(names))]] // a pre key is no likelier than the signature
		mutateNode(r, same[r.IntN(len(same))], proto)
	}
	return e.AppendXML(nil)
}

func mutateNode(r *rand.Rand, c *stanza.Element, proto bool) {
	if text := c.Text(); text != "" && r.IntN(4) != 0 {
		b, err := stanza.DecodeBase64(text)
		switch {
		case err != nil || r.IntN(10) == 0:
			text = strings.ToValidUTF8(string(mutation(r, []byte(text))), "?")
		case proto && r.IntN(2) == 0:
			text = stanza.EncodeBase64(mutatedProto(r, b))
		case r.IntN(2) == 0:
			b[r.IntN(len(b))] ^= 1 << r.IntN(8)
			text = stanza.EncodeBase64(b)
		default:
			text = stanza.EncodeBase64(mutation(r, b))
		}
		c.Children = []stanza.Node{{Text: text}}
		return
	}
	switch n := r.IntN(8); {
	case n == 0:
		c.Name.Local = []string{"x", "key", "device", "item", "items", "list", "iv", "body"}[r.IntN(8)]
	case n == 1:
		c.Name.Space = []string{"urn:xmpp:omemo:2", "eu.siacs.conversations.axolotl", "jabber:client", "x"}[r.IntN(4)]
	case n == 2:
		c.Children = []stanza.Node{{Text: values[r.IntN(len(values))]}}
	case len(c.Children) > 0 && n == 3:
		i := r.IntN(len(c.Children))
		c.Children = slices.Delete(c.Children, i, i+1)
	case len(c.Children) > 0 && n == 4:
		i := r.IntN(len(c.Children))
		c.Children = slices.Insert(c.Children, i, c.Children[i])
	case len(c.Attr) > 0 && n == 5:
		i := r.IntN(len(c.Attr))
		c.Attr = slices.Delete(c.Attr, i, i+1)
	case len(c.Attr) > 0:
		a := &c.Attr[r.IntN(len(c.Attr))]
		if a.Value = values[r.IntN(len(values))]; r.IntN(3) == 0 {
			a.Value = strings.ToValidUTF8(string(mutation(r, []byte(a.Value+"12"))), "?")
		}
	default:
		c.SetAttribute([]string{"id", "rid", "sid", "kex", "prekey", "jid", "node"}[r.IntN(7)], values[r.IntN(len(values))])
	}
}

// mutatedProto changes fields of a protobuf at any depth: values, types, order,
// number. What is none has its bytes changed.
func mutatedProto(r *rand.Rand, b []byte) []byte {
	prefix, suffix := 0, 0
	fields, whole := fieldsOf(b)
	if !whole && len(b) > 9 { // legacy: the version in front, and perhaps the MAC behind
		prefix = 1
		if fields, whole = fieldsOf(b[1:]); !whole {
			suffix = 8
			fields, whole = fieldsOf(b[1 : len(b)-8])
		}
	}
	if !whole || len(fields) == 0 {
		return mutation(r, b)
	}
	i := r.IntN(len(fields))
	f := &fields[i]
	switch n := r.IntN(9); {
	case n == 0:
		fields = slices.Delete(fields, i, i+1)
	case n == 1:
		fields = slices.Insert(fields, i, *f)
	case n == 2:
		f.number = 1 + r.IntN(9)
	case n == 3:
		j := r.IntN(len(fields))
		*f, fields[j] = fields[j], *f
	case f.typ == protowire.VarintType && n < 6:
		*f = varint(f.number, f.varint()^1<<r.IntN(64))
	case f.typ == protowire.VarintType:
		*f = varint(f.number, []uint64{0, 1, 1000, 1001, 1 << 31, 1<<32 - 1, 1 << 32, 1<<64 - 1}[r.IntN(8)])
	case f.typ == protowire.BytesType && n < 6:
		*f = octets(f.number, mutatedProto(r, f.octets()))
	case f.typ == protowire.BytesType && len(f.octets()) > 0:
		o := slices.Clone(f.octets())
		o[r.IntN(len(o))] ^= 1 << r.IntN(8)
		*f = octets(f.number, o)
	default:
		*f = octets(f.number, nil)
	}
	return slices.Concat(b[:prefix], encode(fields), b[len(b)-suffix:])
}

// fieldsOf takes a protobuf apart, if it is one.
func fieldsOf(b []byte) (fields []field, whole bool) {
	for rest := b; len(rest) > 0; {
		_, _, size := protowire.ConsumeField(rest)
		if size < 0 {
			return nil, false
		}
		rest = rest[size:]
	}
	return parse(b), true
}

// sameKeys reports whether two bundles say the same in all that is signed, or
// signs: pre keys and ids are not.
func sameKeys(a, b *omemo.Bundle) bool {
	return a.IdentityKey == b.IdentityKey && a.SignedPreKey == b.SignedPreKey && a.Signature == b.Signature
}
