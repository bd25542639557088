package omemo

import (
	"slices"
	"time"

	"example.org/omellium/omemo/internal/curve"
)

// PreKeyCount is how many pre keys a published bundle holds.
const PreKeyCount = 100

// account is our own device: one identity and one device id for both versions,
// and for each version signed pre keys and counters. One-time pre keys are rows
// of the store.
//
// An account is a value that is never changed in place: a new one is committed,
// then takes the place of the old.
type account struct {
	jid      string
	device   DeviceID
	identity *curve.Identity
	legacy   ownKeys
	v2       ownKeys
	// quarantined is when the sending state was last given up: see Quarantine.
	quarantined time.Time
	// advert is what the device is advertised as; nil if nothing was written down.
	advert *Advert
}

// ownKeys are the keys of one version.
type ownKeys struct {
	signed   signedPreKey
	previous signedPreKey // id 0: none; kept for one more period after a rotation
	// nextSigned and nextPreKey rise for ever: an id never names two keys.
	nextSigned, nextPreKey uint32
}

type signedPreKey struct {
	id      uint32
	key     *curve.Private
	created time.Time
}

func (a *account) keys(v Version) *ownKeys {
	if v == V2 {
		return &a.v2
	}
	return &a.legacy
}

// find returns the signed pre key of an id, current or previous.
func (k *ownKeys) find(id uint32) *curve.Private {
	switch {
	case id != 0 && k.signed.id == id:
		return k.signed.key
	case id != 0 && k.previous.id == id:
		return k.previous.key
	}
	return nil
}

// identityKey returns our identity key as it travels in a version.
func (a *account) identityKey(v Version) [32]byte {
	if v.profile().edwards {
		return a.identity.Edwards()
	}
	return a.identity.Montgomery()
}

// newAccount makes an identity and the first keys of both versions.
//
// The Ed25519 form of the identity has sign bit 0: implementations that know a
// key by its Curve25519 form alone assume so when they need the other.
func newAccount(jid string, draw func() [32]byte, now time.Time) (*account, []PreKeyRow) {
	a := &account{jid: jid}
	for {
		seed := draw()
		a.identity = curve.IdentityFromSeed(&seed)
		clear(seed[:])
		if a.identity.Edwards()[31]&0x80 == 0 {
			break
		}
	}
	a.device = newDeviceID(draw)
	var rows []PreKeyRow
	for _, v := range Versions() {
		k := a.keys(v)
		k.nextSigned, k.nextPreKey = 1, 1
		k.rotate(draw, now)
		rows = append(rows, k.refill(v, PreKeyCount, draw)...)
	}
	return a, rows
}

// newDeviceID draws a device id, uniform in 1 to 2^31-1.
func newDeviceID(draw func() [32]byte) DeviceID {
	for {
		b := draw()
		id := DeviceID(b[0]) | DeviceID(b[1])<<8 | DeviceID(b[2])<<16 | DeviceID(b[3]&0x7f)<<24
		if id != 0 {
			return id
		}
	}
}

// rotate makes a new signed pre key and keeps the one before it.
func (k *ownKeys) rotate(draw func() [32]byte, now time.Time) {
	k.previous = k.signed
	k.signed = signedPreKey{id: k.nextSigned, key: newPrivate(draw), created: now}
	k.nextSigned++
}

// refill makes n pre keys.
func (k *ownKeys) refill(v Version, n int, draw func() [32]byte) []PreKeyRow {
	rows := make([]PreKeyRow, n)
	for i := range rows {
		rows[i] = PreKeyRow{Version: v, ID: k.nextPreKey, Private: draw()}
		k.nextPreKey++
	}
	return rows
}

func newPrivate(draw func() [32]byte) *curve.Private {
	scalar := draw()
	defer clear(scalar[:])
	return curve.NewPrivate(&scalar)
}

// bundle returns the public keys of a version. The order of pre keys is the
// order of the rows.
func (a *account) bundle(v Version, rows []PreKeyRow, draw func() [32]byte) *Bundle {
	p, k := v.profile(), a.keys(v)
	b := &Bundle{
		Version:        v,
		Owner:          Address{a.jid, a.device},
		IdentityKey:    a.identityKey(v),
		SignedPreKeyID: k.signed.id,
		SignedPreKey:   k.signed.key.Public(),
	}
	var nonce [64]byte
	first, second := draw(), draw()
	copy(nonce[:32], first[:])
	copy(nonce[32:], second[:])
	b.Signature = a.identity.Sign(p.signedBytes(b.SignedPreKey), &nonce)
	if !p.edwards {
		b.Signature[63] |= a.identity.Edwards()[31] & 0x80
	}
	published := slices.DeleteFunc(slices.Clone(rows), func(r PreKeyRow) bool { return !r.Used.IsZero() })
	keys := make([]*curve.Private, len(published))
	for i := range published {
		keys[i] = curve.NewPrivate(&published[i].Private)
	}
	curve.Derive(keys...)
	for i, key := range keys {
		b.PreKeys = append(b.PreKeys, PublicPreKey{published[i].ID, key.Public()})
	}
	clear(published)
	return b
}
