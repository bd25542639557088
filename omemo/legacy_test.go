package omemo_test

import (
	"crypto/aes"
	"crypto/cipher"
	"errors"
	"slices"
	"testing"

	"example.org/omellium/omemo"
)

// gcm returns AES-128-GCM with an IV of 12 or 16 bytes.
func gcm(t *testing.T, key []byte, iv int) cipher.AEAD {
	t.Helper()
	block, err := aes.NewCipher(key)
	if err != nil {
		t.Fatal(err)
	}
	aead, err := cipher.NewGCMWithNonceSize(block, iv)
	if err != nil {
		t.Fatal(err)
	}
	return aead
}

// TestOldLegacyForms reads what clients wrote before 2020, where it is safe, and
// before 2017, where an application asks for it.
func TestOldLegacyForms(t *testing.T) {
	key := []byte("0123456789abcdef")
	for name, test := range map[string]struct {
		iv       int
		tagApart bool // the tag ends the payload
		allow    bool
		material int // further bytes of key material
		want     error
		bound    bool
	}{
		"IV of 12":                            {iv: 12, bound: true},
		"IV of 16":                            {iv: 16, bound: true},
		"IV of 13":                            {iv: 13, want: omemo.ErrRefused},
		"tag in the payload":                  {iv: 16, tagApart: true, want: omemo.ErrRefused},
		"tag in the payload, allowed":         {iv: 16, tagApart: true, allow: true},
		"tag in the payload, IV 12, allowed":  {iv: 12, tagApart: true, allow: true},
		"tag with the key, allowed":           {iv: 12, allow: true, bound: true},
		"a byte too many of key material":     {iv: 12, material: 1, want: omemo.ErrRefused},
		"a byte too many, tag in the payload": {iv: 12, tagApart: true, allow: true, material: 1, want: omemo.ErrRefused},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			a, b := w.join(alice, omemo.Options{}), w.join(bob, omemo.Options{AllowUnauthenticatedLegacy: test.allow})
			w.meet(omemo.Legacy)
			b.reads(a.send("first", bob), "first")

			iv := make([]byte, test.iv)
			sealed := gcm(t, key, test.iv).Seal(nil, iv, []byte("old"), nil)
			payload, material := sealed[:3], append(slices.Clone(key), sealed[3:]...)
			if test.tagApart {
				payload, material = sealed, slices.Clone(key)
			}
			material = append(material, make([]byte, test.material)...)
			element, err := a.m.SealIn(t.Context(), b.peer(omemo.Legacy), 0, material, [32]byte{1}, false)
			a.ok(err)
			message := &omemo.Message{Version: omemo.Legacy, Sender: a.address(), Keys: []omemo.Key{element}, IV: iv, Payload: payload}
			if test.want != nil {
				b.refuses(message, test.want)
				return
			}
			o, err := b.receive(message)
			b.ok(err)
			if string(o.Plaintext) != "old" || o.Authenticated != test.bound {
				t.Errorf("%q, authenticated %t", o.Plaintext, o.Authenticated)
			}
		})
	}
}

// TestKeysOfOthersWithOurDeviceID has a legacy message carry keys for devices of
// other accounts that have our number.
func TestKeysOfOthersWithOurDeviceID(t *testing.T) {
	a, b := pair(t, omemo.Legacy)
	c := a.join(carol, omemo.Options{})
	a.lists(carol, omemo.Legacy)
	b.reads(a.send("one", bob), "one")
	foreign := c.find(a.send("for carol", carol)).Keys[0]
	message := *b.find(a.send("two", bob))
	ours := message.Keys[0]
	junk := omemo.Key{Address: b.address(), Data: []byte("junk")}
	message.Keys = []omemo.Key{junk, foreign, junk, ours, junk}
	o, err := b.receive(&omemo.Message{
		Version: message.Version, Sender: message.Sender, IV: message.IV, Payload: message.Payload,
		Keys: addressed(message.Keys, b.address()),
	})
	b.ok(err)
	if string(o.Plaintext) != "two" {
		t.Errorf("%q", o.Plaintext)
	}
	// What can be said about the one that was ours comes before what cannot.
	_, err = b.m.Decrypt(t.Context(), &message, accept)
	if !errors.Is(err, omemo.ErrDuplicate) && !errors.Is(err, omemo.ErrKeyExchange) {
		t.Error(err)
	}
}

// addressed returns the keys as they look to the device whose number they carry.
func addressed(keys []omemo.Key, to omemo.Address) []omemo.Key {
	keys = slices.Clone(keys)
	for i := range keys {
		keys[i].Address = to
	}
	return keys
}

// TestAnExchangeWithoutAPreKey is read in legacy, where an initiator may have
// found none, and consumes nothing; but not from a stranger.
func TestAnExchangeWithoutAPreKey(t *testing.T) {
	a, b := pair(t, omemo.Legacy)
	message, err := a.m.WithoutPreKey(t.Context(), b.small(omemo.Legacy))
	a.ok(err)
	message.Sender = a.address()
	b.settle()
	b.refuses(message, omemo.ErrKeyExchange)
	b.ok(b.store.Commit(t.Context(), &omemo.Changes{Contacts: []omemo.Contact{{JID: alice, Written: true}}}))
	b.restart()
	o, err := b.receive(message)
	b.ok(err)
	if o.Session.KeyExchange().HasPreKey || len(b.owed(omemo.OwedBundle)) != 0 {
		t.Error("a pre key was consumed")
	}
	b.refuses(message, omemo.ErrDuplicate)
	// It cannot begin its session again when that is gone.
	for range omemo.MaxArchived + 1 {
		sealed, err := a.m.Replace(t.Context(), b.small(omemo.Legacy), stanzas("id", bob))
		a.ok(err)
		_, err = b.receive(b.find(sealed))
		b.ok(err)
	}
	b.refuses(message, omemo.ErrDuplicate)
}
