package wire_test

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"testing"

	"example.org/omellium/omemo/internal/curve"
	"example.org/omellium/omemo/internal/ratchet"
	"example.org/omellium/omemo/internal/recorded"
	"example.org/omellium/omemo/internal/wire"
	"example.org/omellium/omemo/internal/x3dh"
)

// octets is a byte string, in hexadecimal digits in the vector files.
type octets []byte

func (o *octets) UnmarshalText(text []byte) (err error) {
	*o, err = hex.DecodeString(string(text))
	return err
}

type keyPair struct {
	ID   uint32 `json:"id"`
	Priv octets `json:"priv"`
	Pub  octets `json:"pub"`
}

type party struct {
	Identity struct {
		Priv  octets `json:"priv"`
		Ed    octets `json:"ed25519_pub"`
		Curve octets `json:"curve25519_pub"`
	} `json:"identity"`
	SignedPreKeys []keyPair `json:"signed_pre_keys"`
	PreKeys       []keyPair `json:"pre_keys"`
}

type step struct {
	Op       string `json:"op"`
	By       string `json:"by"`
	Msg      string `json:"msg"`
	Kex      bool   `json:"kex"`
	Key      octets `json:"key_bytes_hex"`
	Material octets `json:"key_material_hex"`
	N        uint32 `json:"n"`
	PN       uint32 `json:"pn"`
	DH       octets `json:"dh_pub"`
	Seed     octets `json:"message_key"`
	Expect   string `json:"expect"`
	Random   *struct {
		Ratchet []octets `json:"ratchet_privs"`
	} `json:"rng"`
}

// version is what the package omemo knows of a version, as far as this test needs it.
type version struct {
	format wire.Format
	info   string
	params ratchet.Params
}

var (
	legacy = version{wire.Legacy, "WhisperText", ratchet.Params{Root: "WhisperRatchet", Message: "WhisperMessageKeys", MACSize: 8}}
	v2     = version{wire.V2, "OMEMO X3DH", ratchet.Params{Root: "OMEMO Root Chain", Message: "OMEMO Message Key Material", MACSize: 16}}
)

// TestLibomemo replays conversations of libomemo-c with Bob's keys: every message of either side, byte by byte.
// libomemo-c announces its chains one message short.
func TestLibomemo(t *testing.T) {
	for file, version := range map[string]version{
		"libomemo_oldmemo_bobsign0.json": legacy,
		"libomemo_oldmemo_bobsign1.json": legacy,
		"libomemo_twomemo_bobsign0.json": v2,
		"libomemo_twomemo_bobsign1.json": v2,
	} {
		t.Run(file, func(t *testing.T) { replay(t, file, version) })
	}
}

func replay(t *testing.T, file string, version version) {
	b := recorded.File(t, file)
	var v struct {
		Parties struct{ Alice, Bob party } `json:"parties"`
		Steps   []step                     `json:"steps"`
	}
	if err := json.Unmarshal(b, &v); err != nil {
		t.Fatal(err)
	}
	bob := &bob{t: t, version: version, self: v.Parties.Bob, peer: v.Parties.Alice, skipped: map[ratchet.Header][32]byte{}}
	messages := map[string]step{}
	for i, s := range v.Steps {
		switch {
		case s.Op == "encrypt" && s.By == "alice":
			messages[s.Msg] = s
		case s.Op == "encrypt" && s.By == "bob":
			bob.encrypt(s)
		case s.Op == "decrypt" && s.By == "bob" && s.Expect == "ok":
			if s.Random != nil {
				bob.random = append(bob.random, s.Random.Ratchet...)
			}
			bob.decrypt(messages[s.Msg], s.Material)
			if again := bob.state; bob.open(messages[s.Msg]) == nil || bob.state != again {
				t.Errorf("step %d: opens twice", i)
			}
		case s.Op == "decrypt" && s.By == "alice" && s.Expect == "ok": // what libomemo-c took from us
		default:
			t.Fatalf("step %d: %s by %s is unknown", i, s.Op, s.By)
		}
		if t.Failed() {
			t.Fatalf("at step %d", i)
		}
	}
	if !bob.state.ShortPN {
		t.Error("the short count of libomemo-c is not noticed")
	}
}

type bob struct {
	t       *testing.T
	version version
	self    party
	peer    party
	state   ratchet.State
	built   bool
	skipped map[ratchet.Header][32]byte // PN is zero
	random  []octets                    // ratchet keys, in the order of the vectors

	plaintext []byte
}

func (b *bob) draw() *curve.Private {
	next := b.random[0]
	b.random = b.random[1:]
	return curve.NewPrivate((*[32]byte)(next))
}

// associated returns the associated data of a message that the peer or this party sends.
func (b *bob) associated(fromPeer bool) []byte {
	if b.version.format == wire.V2 { // initiator, responder
		return append(bytes.Clone(b.peer.Identity.Ed), b.self.Identity.Ed...)
	}
	from, to := b.self.Identity.Curve, b.peer.Identity.Curve
	if fromPeer {
		from, to = to, from
	}
	return append(append(append([]byte{5}, from...), 5), to...)
}

func (b *bob) accept(x wire.Exchange) {
	peer, err := curve.Montgomery(x.Identity), error(nil)
	if b.version.format == wire.V2 {
		peer, err = curve.Edwards(x.Identity).Montgomery()
	}
	if err != nil || !bytes.Equal(peer[:], b.peer.Identity.Curve) || peer.CheckIdentity() != nil {
		b.t.Fatalf("identity %x: %v", x.Identity, err)
	}
	signedPreKey, preKey := b.self.SignedPreKeys[0], b.self.PreKeys[0]
	if x.SignedPreKeyID != signedPreKey.ID || x.PreKeyID != preKey.ID || !x.HasPreKey {
		b.t.Fatalf("exchange %+v", x)
	}
	id := curve.IdentityFromScalar((*[32]byte)(b.self.Identity.Priv))
	own := curve.NewPrivate((*[32]byte)(signedPreKey.Priv))
	secret, err := x3dh.Accept(b.version.info, id, own, curve.NewPrivate((*[32]byte)(preKey.Priv)), peer, x.Ephemeral)
	if err != nil {
		b.t.Fatal(err)
	}
	b.state, b.built = ratchet.Accept(b.version.params, secret, own), true
}

// open is what a session does with the bytes of a message. What it decrypts is in b.plaintext.
func (b *bob) open(s step) error {
	framed := []byte(s.Key)
	if s.Kex {
		x, err := b.version.format.ParseExchange(framed)
		if err != nil {
			return err
		}
		if !b.built {
			b.accept(x)
		}
		framed = x.Message
		if again := b.version.format.AppendExchange(nil, x); b.version.format == wire.V2 && !bytes.Equal(again, s.Key) {
			b.t.Errorf("exchange written as %x", again)
		} else if y, err := b.version.format.ParseExchange(again); err != nil || !equal(x, y) {
			b.t.Errorf("exchange read back as %+v, %v", y, err)
		}
	}
	m, err := b.version.format.ParseMessage(framed)
	if err != nil {
		return err
	}
	if want := (ratchet.Header{Key: curve.Montgomery(s.DH), N: s.N, PN: s.PN}); m.Header != want {
		b.t.Errorf("header %+v, want %+v", m.Header, want)
	}
	if again := b.version.format.AppendSigned(nil, m.Header, m.Ciphertext); !bytes.Equal(again, m.Signed) {
		b.t.Errorf("signed part written as %x", again)
	}
	if again := b.version.format.AppendMessage(nil, m.Signed, m.MAC); !bytes.Equal(again, framed) {
		b.t.Errorf("message written as %x", again)
	}

	at := ratchet.Header{Key: m.Header.Key, N: m.Header.N}
	key, late := b.skipped[at]
	var opening ratchet.Opening
	if !late {
		if opening, err = b.state.Open(b.version.params, m.Header, new(ratchet.Budget)); err != nil {
			return err
		}
		key = opening.Key
	}
	keys := ratchet.Expand(b.version.params, &key)
	if !keys.Verify(b.version.params, m.MAC, b.associated(true), m.Signed) {
		return errors.New("MAC does not hold")
	}
	if b.plaintext, err = ratchet.Decrypt(&keys, m.Ciphertext); err != nil {
		return err
	}
	delete(b.skipped, at)
	if late {
		return nil
	}
	var skipped []ratchet.Skipped
	b.state, skipped = opening.Keep()
	for _, k := range skipped {
		b.skipped[ratchet.Header{Key: k.Key, N: k.N}] = k.Seed
	}
	return nil
}

func (b *bob) decrypt(s step, material octets) {
	if err := b.open(s); err != nil {
		b.t.Fatalf("%s: %v", s.Msg, err)
	}
	if !bytes.Equal(b.plaintext, material) || !bytes.Equal(b.plaintext, s.Material) {
		b.t.Fatalf("%s: %x", s.Msg, b.plaintext)
	}
}

func (b *bob) encrypt(s step) {
	h, key, err := b.state.Seal(b.version.params, b.draw)
	if err != nil {
		b.t.Fatal(err)
	}
	if want := (ratchet.Header{Key: curve.Montgomery(s.DH), N: s.N, PN: s.PN}); h != want || !bytes.Equal(key[:], s.Seed) {
		b.t.Fatalf("%s: header %+v, key %x", s.Msg, h, key)
	}
	keys := ratchet.Expand(b.version.params, &key)
	signed := b.version.format.AppendSigned(nil, h, ratchet.Encrypt(nil, &keys, s.Material))
	tag := keys.Tag(b.version.params, b.associated(false), signed)
	if framed := b.version.format.AppendMessage(nil, signed, tag[:b.version.params.MACSize]); !bytes.Equal(framed, s.Key) {
		b.t.Fatalf("%s: %x, want %x", s.Msg, framed, s.Key)
	}
}

func equal(x, y wire.Exchange) bool {
	same := bytes.Equal(x.Message, y.Message)
	x.Message, y.Message = nil, nil
	return same && x.SignedPreKeyID == y.SignedPreKeyID && x.PreKeyID == y.PreKeyID && x.HasPreKey == y.HasPreKey &&
		x.Identity == y.Identity && x.Ephemeral == y.Ephemeral
}
