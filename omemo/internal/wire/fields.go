package wire

import (
	"math"

	"google.golang.org/protobuf/encoding/protowire"
)

// maxField is the highest field number in use.
const maxField = 6

// kind is the type that a field must have.
type kind int

const (
	unknown kind = iota
	number       // uint32
	octets       // bytes, or a message within
)

// layout gives the kind of every known field, by its number.
type layout [maxField + 1]kind

// fields holds the values of one parsed message, by field number.
type fields [maxField + 1]struct {
	present bool
	number  uint32
	octets  []byte
}

// parse reads all of b into empty fields. Values that are missing are zero.
func (l *layout) parse(b []byte, f *fields) error {
	for len(b) > 0 {
		tag, n := varint(b)
		if n == 0 {
			return ErrMalformed
		}
		b = b[n:]
		num, typ := protowire.Number(tag>>3), protowire.Type(tag&7)
		if num == 0 || typ == protowire.StartGroupType || typ == protowire.EndGroupType {
			return ErrMalformed
		}
		if num > maxField || l[num] == unknown {
			if n = protowire.ConsumeFieldValue(num, typ, b); n < 0 {
				return ErrMalformed
			}
			b = b[n:]
			continue
		}

		field := &f[num]
		if field.present {
			return ErrMalformed
		}
		field.present = true
		switch {
		case l[num] == number && typ == protowire.VarintType:
			if field.number, n = varint(b); n == 0 {
				return ErrMalformed
			}
		case l[num] == octets && typ == protowire.BytesType:
			if field.octets, n = protowire.ConsumeBytes(b); n < 0 {
				return ErrMalformed
			}
		default:
			return ErrMalformed
		}
		b = b[n:]
	}
	return nil
}

// varint reads a uint32 in its shortest form. The number of bytes is 0 if there is none.
func varint(b []byte) (uint32, int) {
	v, n := protowire.ConsumeVarint(b)
	if n != protowire.SizeVarint(v) || v > math.MaxUint32 {
		return 0, 0
	}
	return uint32(v), n
}

func appendNumber(dst []byte, num protowire.Number, v uint32) []byte {
	dst = protowire.AppendTag(dst, num, protowire.VarintType)
	return protowire.AppendVarint(dst, uint64(v))
}

func appendOctets(dst []byte, num protowire.Number, v []byte) []byte {
	dst = protowire.AppendTag(dst, num, protowire.BytesType)
	return protowire.AppendBytes(dst, v)
}
