package omemo_test

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"errors"
	"fmt"
	"testing"
	"time"

	"example.org/omellium/omemo"
)

// TestAttack holds those rows of the catalogue of attacks that are about
// sessions and keys alone, by their ids. The others, and the list of all, are in
// middleware/internal/attack.
func TestAttack(t *testing.T) {
	for _, row := range []struct {
		name string
		run  func(t *testing.T, v omemo.Version)
	}{
		{"C9_jumps_with_a_right_MAC", attackJumps},
		{"C11_key_material", attackMaterial},
		{"C12_lengths", attackLengths},
		{"C13_padding", attackPadding},
		{"C19_fresh_keys", attackFresh},
		{"E3_agreements", attackAgreements},
		{"E4_heartbeats", attackHeartbeats},
		{"E7_strangers", attackStrangers},
		{"E7_senders", attackSenders},
		{"B12_shared_identity", attackShared},
		{"B2_devices_remembered", attackDevices},
	} {
		t.Run(row.name, func(t *testing.T) { versions(t, row.run) })
	}
	t.Run("C10_constant_time", attackComparisons)
	t.Run("C17_equivocation_is_documented", attackEquivocation)
	t.Run("C18_randomness", attackRandomness)
}

// talked returns two devices with confirmed sessions in one version.
func talked(t *testing.T, v omemo.Version) (a, b *party) {
	t.Helper()
	a, b = pair(t, v)
	b.reads(a.send("one", bob), "one")
	a.reads(b.send("two", alice), "two")
	b.reads(a.send("three", bob), "three")
	a.settle()
	return a, b
}

// with returns a message of a whose key material and payload are given, sealed
// in the session with b as a does.
func (p *party) with(b *party, v omemo.Version, material, iv, payload []byte) *omemo.Message {
	p.Helper()
	k, err := p.m.SealIn(p.ctx, b.peer(v), 0, material, [32]byte{7}, false)
	p.ok(err)
	return &omemo.Message{Version: v, Sender: p.address(), Keys: []omemo.Key{k}, IV: iv, Payload: payload}
}

func attackJumps(t *testing.T, v omemo.Version) {
	for i, gap := range []int{0, 1, 998, 999, 1000, 1001, 1002, 0, 1, 998, 999, 1000, 1001, 1002} {
		begun := i >= 7
		t.Run(fmt.Sprintf("%d missing, in a chain that has begun: %t", gap, begun), func(t *testing.T) {
			a, b := talked(t, v)
			if begun {
				b.reads(a.send("in the chain", bob), "in the chain")
			}
			for range gap {
				a.with(b, v, make([]byte, 32), nil, nil)
			}
			sealed := a.send("after the gap", bob)
			if gap > 1000 {
				began := time.Now()
				b.refuses(b.find(sealed), omemo.ErrRefused)
				if took := time.Since(began); took > time.Second {
					t.Errorf("took %v", took)
				}
				return
			}
			b.reads(sealed, "after the gap")
			a.reads(b.send("answer", alice), "answer")
			b.reads(a.send("next chain", bob), "next chain")
		})
	}
}

// legacyPayload encrypts with given key and IV of 12 bytes, and returns
// ciphertext and tag.
func legacyPayload(t *testing.T, key, iv []byte, text string) (ciphertext, tag []byte) {
	t.Helper()
	block, err := aes.NewCipher(key)
	if err != nil {
		t.Fatal(err)
	}
	gcm, err := cipher.NewGCMWithNonceSize(block, len(iv))
	if err != nil {
		t.Fatal(err)
	}
	sealed := gcm.Seal(nil, iv, []byte(text), nil)
	return sealed[:len(text)], sealed[len(text):]
}

// v2Payload encrypts padded plain text, and returns ciphertext and the whole MAC.
func v2Payload(t *testing.T, key, padded []byte) (ciphertext, mac []byte) {
	t.Helper()
	b, err := hkdf.Key(sha256.New, key, make([]byte, 32), "OMEMO Payload", 80)
	if err != nil {
		t.Fatal(err)
	}
	block, err := aes.NewCipher(b[:32])
	if err != nil {
		t.Fatal(err)
	}
	ciphertext = make([]byte, len(padded))
	cipher.NewCBCEncrypter(block, b[64:]).CryptBlocks(ciphertext, padded)
	h := hmac.New(sha256.New, b[32:64])
	h.Write(ciphertext)
	return ciphertext, h.Sum(nil)
}

// attackMaterial tries the old key form of legacy, in which every recipient can
// write the text anew, and forms between.
func attackMaterial(t *testing.T, v omemo.Version) {
	a, b := talked(t, v)
	key, iv := bytes.Repeat([]byte{3}, 16), make([]byte, 12)
	text, tag := legacyPayload(t, key, iv, "canary")
	forms := map[string]*omemo.Message{
		"16 bytes, tag in the payload": a.with(b, v, key, iv, append(bytes.Clone(text), tag...)),
		"16 bytes, no tag":             a.with(b, v, key, iv, text),
		"31 bytes":                     a.with(b, v, append(bytes.Clone(key), tag[:15]...), iv, text),
		"33 bytes":                     a.with(b, v, append(append(bytes.Clone(key), tag...), 0), iv, text),
		"48 bytes":                     a.with(b, v, append(append(bytes.Clone(key), tag...), tag...), iv, text),
		"tag twice":                    a.with(b, v, append(bytes.Clone(key), tag...), iv, append(bytes.Clone(text), tag...)),
		"nothing":                      a.with(b, v, nil, iv, text),
	}
	for name, message := range forms {
		t.Run(name, func(t *testing.T) { b.refuses(message, omemo.ErrRefused) })
	}
	b.reads(a.send("honest", bob), "honest")
}

func attackLengths(t *testing.T, v omemo.Version) {
	a, b := talked(t, v)
	key, iv := bytes.Repeat([]byte{3}, 32), make([]byte, 12)
	payload := make([]byte, 16)
	right := 48
	full := make([]byte, 128)
	if v == omemo.Legacy {
		ciphertext, tag := legacyPayload(t, key[:16], iv, "canary")
		payload, right = ciphertext, 32
		copy(full, key[:16])
		copy(full[16:], tag)
	} else {
		padded := append([]byte("canary"), bytes.Repeat([]byte{10}, 10)...)
		ciphertext, mac := v2Payload(t, key, padded)
		payload = ciphertext
		copy(full, key)
		copy(full[32:], mac) // the whole MAC: no more of it than 16 bytes is taken
		iv = nil
	}
	for n := range 65 {
		t.Run(fmt.Sprint("material of ", n), func(t *testing.T) {
			message := a.with(b, v, full[:n], iv, payload)
			if n != right {
				b.refuses(message, omemo.ErrRefused)
				return
			}
			o, err := b.receive(message)
			b.ok(err)
			if string(o.Plaintext) != "canary" {
				t.Errorf("%q", o.Plaintext)
			}
		})
	}
	if v == omemo.V2 {
		b.reads(a.send("honest", bob), "honest")
		return
	}
	for n := range 65 {
		t.Run(fmt.Sprint("IV of ", n), func(t *testing.T) {
			long := bytes.Repeat([]byte{9}, n)
			ciphertext, tag := payload, full[16:32]
			if n > 0 {
				ciphertext, tag = legacyPayload(t, key[:16], long, "canary")
			}
			message := a.with(b, v, append(bytes.Clone(key[:16]), tag...), long, ciphertext)
			if n != 12 && n != 16 {
				b.refuses(message, omemo.ErrRefused)
				return
			}
			_, err := b.receive(message)
			b.ok(err)
		})
	}
	b.reads(a.send("honest", bob), "honest")
}

// attackPadding compares what is said about a wrong MAC with what is said about
// wrong padding.
func attackPadding(t *testing.T, v omemo.Version) {
	a, b := talked(t, v)
	key := bytes.Repeat([]byte{3}, 32)
	said := make(map[string]bool)
	try := func(material, payload []byte) {
		t.Helper()
		var iv []byte
		if v == omemo.Legacy {
			iv, material = make([]byte, 12), material[:32]
		}
		message := a.with(b, v, material, iv, payload)
		before := b.store.dump()
		_, err := b.receive(message)
		if !errors.Is(err, omemo.ErrRefused) || b.store.dump() != before {
			t.Fatalf("error %v", err)
		}
		said[err.Error()] = true
	}
	for last := range 256 {
		if last == 1 {
			continue // that is padding
		}
		padded := append(bytes.Repeat([]byte{0}, 15), byte(last))
		ciphertext, mac := v2Payload(t, key, padded)
		try(append(bytes.Clone(key), mac[:16]...), ciphertext) // the MAC holds
	}
	good, mac := v2Payload(t, key, bytes.Repeat([]byte{16}, 16))
	mac[0] ^= 1
	try(append(bytes.Clone(key), mac[:16]...), good)                // the padding holds
	try(append(bytes.Clone(key), mac[:16]...), good[:15])           // not a block
	try(append(bytes.Clone(key), make([]byte, 16)...), []byte{})    // nothing
	try(append(bytes.Clone(key), make([]byte, 16)...), good[:0:16]) // nothing, with room behind it
	if len(said) != 1 {
		t.Errorf("%d different errors: %v", len(said), said)
	}
	b.reads(a.send("honest", bob), "honest")
}

// attackFresh sends one text many times and watches keys, IVs and bytes.
func attackFresh(t *testing.T, v omemo.Version) {
	a, b := talked(t, v)
	used := make(map[string]bool)
	for range 100 {
		sealed := a.send("the same text", bob)
		m := b.find(sealed)
		material, err := b.m.Material(t.Context(), m)
		b.ok(err)
		for _, once := range [][]byte{material[:16], m.IV, m.Payload} {
			if once != nil && used[string(once)] {
				t.Fatalf("%x was used before", once)
			}
			used[string(once)] = true
		}
		b.reads(sealed, "the same text")
	}
	// What is sent again is what was sent.
	rows, err := a.m.Outbox(t.Context(), 0, 1000)
	a.ok(err)
	a.restart()
	again, err := a.m.Outbox(t.Context(), 0, 1000)
	a.ok(err)
	if len(rows) == 0 || fmt.Sprint(rows) != fmt.Sprint(again) {
		t.Error("the outbox has changed")
	}
}
