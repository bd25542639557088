package wire

import (
	"bytes"
	"errors"
	"math"
	"reflect"
	"slices"
	"testing"

	"example.org/omellium/omemo/internal/curve"
	"example.org/omellium/omemo/internal/ratchet"
	"google.golang.org/protobuf/encoding/protowire"
)

var (
	testKey    = curve.Montgomery(bytes.Repeat([]byte{0xab}, 32))
	prefixed   = append([]byte{5}, testKey[:]...)
	ciphertext = bytes.Repeat([]byte{0xcd}, 48)
	testHeader = ratchet.Header{Key: testKey, N: 7, PN: 300}
)

// message returns a message of the format, and exchange a key exchange around it.
func message(f Format) []byte {
	return f.AppendMessage(nil, f.AppendSigned(nil, testHeader, ciphertext), make([]byte, macSize(f)))
}

func exchange(f Format) Exchange {
	return Exchange{
		SignedPreKeyID: 3, PreKeyID: math.MaxUint32, HasPreKey: true,
		Identity: [32]byte{1}, Ephemeral: testKey, Message: message(f),
	}
}

func macSize(f Format) int {
	if f == Legacy {
		return legacyMACSize
	}
	return v2MACSize
}

func TestRoundTrip(t *testing.T) {
	for _, f := range []Format{Legacy, V2} {
		for _, h := range []ratchet.Header{
			{Key: testKey}, testHeader, {Key: testKey, N: 127, PN: 128}, {Key: testKey, N: math.MaxUint32, PN: math.MaxUint32},
		} {
			signed := f.AppendSigned([]byte("before"), h, ciphertext)[6:]
			mac := bytes.Repeat([]byte{9}, macSize(f))
			framed := f.AppendMessage([]byte("before"), signed, mac)[6:]
			m, err := f.ParseMessage(framed)
			if err != nil || m.Header != h || !bytes.Equal(m.Ciphertext, ciphertext) || !bytes.Equal(m.MAC, mac) || !bytes.Equal(m.Signed, signed) {
				t.Errorf("%d: %+v, %v", f, m, err)
			}

			x := exchange(f)
			x.Message = framed
			got, err := f.ParseExchange(f.AppendExchange([]byte("before"), x)[6:])
			if err != nil || !reflect.DeepEqual(got, x) {
				t.Errorf("%d: %+v, %v", f, got, err)
			}
		}
	}
	x := exchange(Legacy)
	x.HasPreKey, x.PreKeyID = false, 0
	if got, err := Legacy.ParseExchange(Legacy.AppendExchange(nil, x)); err != nil || got.HasPreKey {
		t.Errorf("legacy without pre key: %+v, %v", got, err)
	}
}

// TestBytes has the exact bytes of a message: zeros in full, fields in ascending order (WIRE 4.4).
func TestBytes(t *testing.T) {
	h := ratchet.Header{Key: testKey}
	tests := []struct {
		name      string
		got, want []byte
	}{
		{"legacy message", Legacy.AppendSigned(nil, h, []byte{1, 2}),
			slices.Concat([]byte{0x33, 0x0a, 33}, prefixed, []byte{0x10, 0, 0x18, 0, 0x22, 2, 1, 2})},
		{"legacy framing", Legacy.AppendMessage(nil, []byte{1}, []byte{2, 3}), []byte{1, 2, 3}},
		{"legacy exchange", Legacy.AppendExchange(nil, Exchange{HasPreKey: true, Identity: testKey, Ephemeral: testKey, Message: []byte{1}}),
			slices.Concat([]byte{0x33, 0x08, 0, 0x12, 33}, prefixed, []byte{0x1a, 33}, prefixed, []byte{0x22, 1, 1, 0x30, 0})},
		{"message", V2.AppendSigned(nil, h, []byte{1, 2}),
			slices.Concat([]byte{0x08, 0, 0x10, 0, 0x1a, 32}, testKey[:], []byte{0x22, 2, 1, 2})},
		{"framing", V2.AppendMessage(nil, []byte{1}, []byte{2, 3}), []byte{0x0a, 2, 2, 3, 0x12, 1, 1}},
		{"exchange", V2.AppendExchange(nil, Exchange{HasPreKey: true, Identity: testKey, Ephemeral: testKey, Message: []byte{1}}),
			slices.Concat([]byte{0x08, 0, 0x10, 0, 0x1a, 32}, testKey[:], []byte{0x22, 32}, testKey[:], []byte{0x2a, 1, 1})},
	}
	for _, test := range tests {
		if !bytes.Equal(test.got, test.want) {
			t.Errorf("%s: %x, want %x", test.name, test.got, test.want)
		}
	}
}

// TestVersionByte is attack C16: legacy reads version 3, whatever the sender knows besides.
func TestVersionByte(t *testing.T) {
	m, x := message(Legacy), Legacy.AppendExchange(nil, exchange(Legacy))
	for version := range 256 {
		m[0], x[0] = byte(version), byte(version)
		want := version>>4 == 3
		got, err := Legacy.ParseMessage(m)
		if (err == nil) != want || want && got.Signed[0] != byte(version) {
			t.Errorf("message %#x: %v", version, err)
		}
		if _, err := Legacy.ParseExchange(x); (err == nil) != want {
			t.Errorf("exchange %#x: %v", version, err)
		}
	}
}

// fieldBytes builds protobuf by hand.
type fieldBytes []byte

func (b fieldBytes) num(n protowire.Number, v uint64) fieldBytes {
	return protowire.AppendVarint(protowire.AppendTag(b, n, protowire.VarintType), v)
}

func (b fieldBytes) oct(n protowire.Number, v []byte) fieldBytes {
	return protowire.AppendBytes(protowire.AppendTag(b, n, protowire.BytesType), v)
}

func (b fieldBytes) raw(v ...byte) fieldBytes { return append(b, v...) }

func build(v ...byte) fieldBytes { return v }

func TestParseMessage(t *testing.T) {
	tests := []struct {
		name string
		body fieldBytes // the fields of OMEMOMessage
		ok   bool
	}{
		{"plain", build().num(1, 7).num(2, 300).oct(3, testKey[:]).oct(4, ciphertext), true},
		{"any order", build().oct(4, ciphertext).oct(3, testKey[:]).num(2, 300).num(1, 7), true},
		{"unknown fields", build().num(9, 1).oct(1000, []byte("x")).num(1, 7).num(2, 300).oct(3, testKey[:]).oct(4, ciphertext).raw(0x3d, 1, 2, 3, 4).raw(0x41, 1, 2, 3, 4, 5, 6, 7, 8), true},
		{"unknown field twice", build().num(9, 1).num(9, 2).num(1, 7).num(2, 300).oct(3, testKey[:]).oct(4, ciphertext), true},
		{"QXmpp, prefix", build().num(1, 7).num(2, 300).oct(3, prefixed).oct(4, ciphertext), true},
		{"empty", build(), false},
		{"no key", build().num(1, 7).num(2, 300).oct(4, ciphertext), false},
		{"no ciphertext", build().num(1, 7).num(2, 300).oct(3, testKey[:]), false},
		{"empty ciphertext", build().num(1, 7).num(2, 300).oct(3, testKey[:]).oct(4, nil), false},
		{"31 bytes", build().num(1, 7).num(2, 300).oct(3, testKey[:31]).oct(4, ciphertext), false},
		{"33 bytes, other prefix", build().num(1, 7).num(2, 300).oct(3, append([]byte{6}, testKey[:]...)).oct(4, ciphertext), false},
		{"n twice", build().num(1, 7).num(1, 7).num(2, 300).oct(3, testKey[:]).oct(4, ciphertext), false},
		{"n twice, zero first", build().num(1, 0).num(1, 7).num(2, 300).oct(3, testKey[:]).oct(4, ciphertext), false},
		{"key twice", build().num(1, 7).num(2, 300).oct(3, testKey[:]).oct(3, testKey[:]).oct(4, ciphertext), false},
		{"key twice, empty first", build().num(1, 7).num(2, 300).oct(3, nil).oct(3, testKey[:]).oct(4, ciphertext), false},
		{"n as bytes", build().oct(1, []byte{7}).num(2, 300).oct(3, testKey[:]).oct(4, ciphertext), false},
		{"n as fixed32", build().raw(0x0d, 7, 0, 0, 0).num(2, 300).oct(3, testKey[:]).oct(4, ciphertext), false},
		{"key as varint", build().num(1, 7).num(2, 300).num(3, 1).oct(4, ciphertext), false},
		{"n = 2^32", build().num(1, 1<<32).num(2, 300).oct(3, testKey[:]).oct(4, ciphertext), false},
		{"n = -1", build().num(1, math.MaxUint64).num(2, 300).oct(3, testKey[:]).oct(4, ciphertext), false},
		{"long varint", build().raw(0x08, 0x87, 0).num(2, 300).oct(3, testKey[:]).oct(4, ciphertext), false},
		{"varint of 11 bytes", build().raw(0x08, 0x87, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0).oct(3, testKey[:]).oct(4, ciphertext), false},
		{"long tag", build().raw(0x88, 0, 7).num(2, 300).oct(3, testKey[:]).oct(4, ciphertext), false},
		{"field 0", build().num(1, 7).num(2, 300).oct(3, testKey[:]).oct(4, ciphertext).raw(0, 1), false},
		{"reserved type", build().num(1, 7).num(2, 300).oct(3, testKey[:]).oct(4, ciphertext).raw(0x4e, 1), false},
		{"group", build().num(1, 7).num(2, 300).oct(3, testKey[:]).oct(4, ciphertext).raw(0x4b, 0x4c), false},
		{"end of group", build().num(1, 7).num(2, 300).oct(3, testKey[:]).oct(4, ciphertext).raw(0x4c), false},
		{"trailing zero", build().num(1, 7).num(2, 300).oct(3, testKey[:]).oct(4, ciphertext).raw(0), false},
		{"tag without value", build().num(1, 7).num(2, 300).oct(3, testKey[:]).oct(4, ciphertext).raw(0x48), false},
		{"bytes too long", build().num(1, 7).num(2, 300).oct(3, testKey[:]).raw(0x22, 49).raw(ciphertext...), false},
		{"length 2^31", build().num(1, 7).num(2, 300).oct(3, testKey[:]).raw(0x22, 0x80, 0x80, 0x80, 0x80, 0x08), false},
		{"length 2^64-1", build().num(1, 7).num(2, 300).oct(3, testKey[:]).raw(0x22, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01), false},
		{"unknown field too long", build().num(1, 7).num(2, 300).oct(3, testKey[:]).oct(4, ciphertext).raw(0x4a, 1), false},
	}
	for _, test := range tests {
		m, err := V2.ParseMessage(build().oct(1, make([]byte, 16)).oct(2, test.body))
		if !test.ok {
			if err != ErrMalformed || m.Ciphertext != nil {
				t.Errorf("%s: %+v, %v", test.name, m, err)
			}
		} else if err != nil || m.Header != testHeader || !bytes.Equal(m.Ciphertext, ciphertext) || !bytes.Equal(m.Signed, test.body) {
			t.Errorf("%s: %+v, %v", test.name, m, err)
		}
	}

	// Counters that a proto3 encoder leaves out are zero.
	m, err := V2.ParseMessage(build().oct(1, make([]byte, 16)).oct(2, build().oct(3, testKey[:]).oct(4, ciphertext)))
	if err != nil || m.Header != (ratchet.Header{Key: testKey}) {
		t.Errorf("without counters: %+v, %v", m, err)
	}
	body := build(0x33).oct(1, prefixed).oct(4, ciphertext).raw(make([]byte, 8)...)
	if m, err = Legacy.ParseMessage(body); err != nil || m.Header != (ratchet.Header{Key: testKey}) {
		t.Errorf("legacy without counters: %+v, %v", m, err)
	}
}

func TestParseFrames(t *testing.T) {
	inner := V2.AppendSigned(nil, testHeader, ciphertext)
	legacyInner := Legacy.AppendSigned(nil, testHeader, ciphertext)
	tests := []struct {
		name string
		f    Format
		b    []byte
	}{
		{"nothing", V2, nil},
		{"no message", V2, build().oct(1, make([]byte, 16))},
		{"no MAC", V2, build().oct(2, inner)},
		{"MAC of 8 bytes", V2, build().oct(1, make([]byte, 8)).oct(2, inner)},
		{"MAC of 32 bytes", V2, build().oct(1, make([]byte, 32)).oct(2, inner)},
		{"message twice", V2, build().oct(1, make([]byte, 16)).oct(2, inner).oct(2, inner)},
		{"legacy bytes", V2, message(Legacy)},
		{"nothing, legacy", Legacy, nil},
		{"version only", Legacy, []byte{0x33}},
		{"MAC only", Legacy, append([]byte{0x33}, make([]byte, 8)...)},
		{"MAC cut", Legacy, append(legacyInner, make([]byte, 7)...)},
		{"key without prefix", Legacy, build(0x33).oct(1, testKey[:]).oct(4, ciphertext).raw(make([]byte, 8)...)},
		{"no ciphertext, legacy", Legacy, build(0x33).oct(1, prefixed).raw(make([]byte, 8)...)},
		{"omemo:2 bytes", Legacy, message(V2)},
	}
	for _, test := range tests {
		if m, err := test.f.ParseMessage(test.b); err != ErrMalformed {
			t.Errorf("%s: %+v, %v", test.name, m, err)
		}
	}
	for _, f := range []Format{Legacy, V2} {
		long := message(f)
		padding := make([]byte, MaxSize-len(long)-4)
		at := len(long)
		if f == Legacy {
			at -= legacyMACSize // an unknown field between the others and the MAC
		}
		long = slices.Concat(long[:at], build().oct(15, padding), long[at:])
		if pad := MaxSize - len(long); pad != 1 {
			t.Fatalf("%d: the test message is %d bytes below the limit", f, pad)
		}
		if _, err := f.ParseMessage(long); err != nil {
			t.Errorf("%d: %d bytes: %v", f, len(long), err)
		}
		long = slices.Concat(long[:at], build(0x68, 1), long[at:])
		if _, err := f.ParseMessage(long); err != ErrMalformed {
			t.Errorf("%d: %d bytes: %v", f, len(long), err)
		}

		// Every way to cut a message or exchange short.
		m, x := message(f), f.AppendExchange(nil, exchange(f))
		for n := range len(m) {
			if _, err := f.ParseMessage(m[:n]); err != ErrMalformed {
				t.Errorf("%d: message cut to %d bytes: %v", f, n, err)
			}
		}
		for n := range len(x) {
			if got, err := f.ParseExchange(x[:n]); !errors.Is(err, ErrMalformed) {
				t.Errorf("%d: exchange cut to %d bytes: %+v, %v", f, n, got, err)
			}
		}
	}
}

func TestParseExchange(t *testing.T) {
	inner, legacyInner := message(V2), message(Legacy)
	tests := []struct {
		name string
		f    Format
		b    fieldBytes
		err  error
	}{
		{"plain", V2, build().num(1, 0).num(2, 3).oct(3, testKey[:]).oct(4, testKey[:]).oct(5, inner), nil},
		{"QXmpp, prefix", V2, build().num(1, 0).num(2, 3).oct(3, prefixed).oct(4, prefixed).oct(5, inner), nil},
		{"no pre key", V2, build().num(2, 3).oct(3, testKey[:]).oct(4, testKey[:]).oct(5, inner), ErrNoPreKey},
		{"no signed pre key", V2, build().num(1, 0).oct(3, testKey[:]).oct(4, testKey[:]).oct(5, inner), ErrMalformed},
		{"no identity", V2, build().num(1, 0).num(2, 3).oct(4, testKey[:]).oct(5, inner), ErrMalformed},
		{"no ephemeral", V2, build().num(1, 0).num(2, 3).oct(3, testKey[:]).oct(5, inner), ErrMalformed},
		{"no message", V2, build().num(1, 0).num(2, 3).oct(3, testKey[:]).oct(4, testKey[:]), ErrMalformed},
		{"pre key twice", V2, build().num(1, 0).num(1, 0).num(2, 3).oct(3, testKey[:]).oct(4, testKey[:]).oct(5, inner), ErrMalformed},
		{"message twice", V2, build().num(1, 0).num(2, 3).oct(3, testKey[:]).oct(4, testKey[:]).oct(5, inner).oct(5, inner), ErrMalformed},
		{"too long", V2, build().num(1, 0).num(2, 3).oct(3, testKey[:]).oct(4, testKey[:]).oct(5, make([]byte, MaxSize)), ErrMalformed},

		{"legacy", Legacy, build(0x33).num(1, 0).oct(2, prefixed).oct(3, prefixed).oct(4, legacyInner).num(5, 99).num(6, 3), nil},
		{"legacy, no pre key", Legacy, build(0x33).oct(2, prefixed).oct(3, prefixed).oct(4, legacyInner).num(6, 3), nil},
		{"legacy, order of others", Legacy, build(0x33).num(6, 3).oct(4, legacyInner).num(1, 0).oct(3, prefixed).oct(2, prefixed), nil},
		{"legacy, no prefix", Legacy, build(0x33).num(1, 0).oct(2, testKey[:]).oct(3, prefixed).oct(4, legacyInner).num(6, 3), ErrMalformed},
		{"legacy, no prefix of identity", Legacy, build(0x33).num(1, 0).oct(2, prefixed).oct(3, testKey[:]).oct(4, legacyInner).num(6, 3), ErrMalformed},
		{"legacy, no signed pre key", Legacy, build(0x33).num(1, 0).oct(2, prefixed).oct(3, prefixed).oct(4, legacyInner), ErrMalformed},
		{"legacy, no message", Legacy, build(0x33).num(1, 0).oct(2, prefixed).oct(3, prefixed).num(6, 3), ErrMalformed},
		{"legacy, registration id twice", Legacy, build(0x33).num(1, 0).oct(2, prefixed).oct(3, prefixed).oct(4, legacyInner).num(5, 1).num(5, 1).num(6, 3), ErrMalformed},
		{"legacy, trailing byte", Legacy, build(0x33).num(1, 0).oct(2, prefixed).oct(3, prefixed).oct(4, legacyInner).num(6, 3).raw(1), ErrMalformed},
		{"legacy, nothing", Legacy, build(), ErrMalformed},
	}
	for _, test := range tests {
		x, err := test.f.ParseExchange(test.b)
		if err != test.err {
			t.Errorf("%s: %v", test.name, err)
		}
		if err == nil && (x.SignedPreKeyID != 3 || x.Identity != testKey || x.Ephemeral != testKey || len(x.Message) == 0) {
			t.Errorf("%s: %+v", test.name, x)
		}
		if err != nil && !reflect.DeepEqual(x, Exchange{}) {
			t.Errorf("%s: an exchange comes with the error", test.name)
		}
	}
}

func fuzz(f *testing.F, format Format) {
	f.Add(message(format))
	f.Add(format.AppendExchange(nil, exchange(format)))
	f.Fuzz(func(t *testing.T, b []byte) {
		before := bytes.Clone(b)
		if m, err := format.ParseMessage(b); err == nil {
			if len(m.Ciphertext) == 0 || len(m.MAC) != macSize(format) || !bytes.Contains(b, m.Signed) {
				t.Fatalf("%+v", m)
			}
			again, err := format.ParseMessage(format.AppendMessage(nil, format.AppendSigned(nil, m.Header, m.Ciphertext), m.MAC))
			if err != nil && len(b) < MaxSize-10 || err == nil && again.Header != m.Header {
				t.Fatalf("%+v comes back as %+v, %v", m, again, err)
			}
		} else if !errors.Is(err, ErrMalformed) {
			t.Fatal(err)
		}
		if x, err := format.ParseExchange(b); err == nil {
			again, err := format.ParseExchange(format.AppendExchange(nil, x))
			if err != nil && len(b) < MaxSize-10 || err == nil && !reflect.DeepEqual(again, x) {
				t.Fatalf("%+v comes back as %+v, %v", x, again, err)
			}
		} else if !errors.Is(err, ErrMalformed) && !errors.Is(err, ErrNoPreKey) {
			t.Fatal(err)
		}
		if !bytes.Equal(b, before) {
			t.Fatal("reading changed the bytes")
		}
	})
}

func FuzzLegacy(f *testing.F) { fuzz(f, Legacy) }

func FuzzV2(f *testing.F) { fuzz(f, V2) }

func BenchmarkParseMessage(b *testing.B) {
	for name, f := range map[string]Format{"legacy": Legacy, "v2": V2} {
		b.Run(name, func(b *testing.B) {
			m := message(f)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := f.ParseMessage(m); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkAppendMessage(b *testing.B) {
	for name, f := range map[string]Format{"legacy": Legacy, "v2": V2} {
		b.Run(name, func(b *testing.B) {
			buf := make([]byte, 0, 256)
			mac := make([]byte, macSize(f))
			b.ReportAllocs()
			for b.Loop() {
				signed := f.AppendSigned(buf, testHeader, ciphertext)
				f.AppendMessage(signed, signed, mac)
			}
		})
	}
}
