package wire

import (
	"example.org/omellium/omemo/internal/curve"
	"example.org/omellium/omemo/internal/ratchet"
	"google.golang.org/protobuf/encoding/protowire"
)

const (
	// legacyVersion begins both kinds of messages: version 3 in the high nibble; the low one is the highest version
	// that the sender knows.
	legacyVersion = 0x33

	// keyPrefix begins every public key in libsignal's encoding: the type Curve25519.
	keyPrefix = 0x05

	legacyMACSize = 8
)

// Field numbers of SignalMessage and PreKeySignalMessage.
const (
	legacyKey        = 1
	legacyN          = 2
	legacyPN         = 3
	legacyCiphertext = 4

	legacyPreKeyID       = 1
	legacyEphemeral      = 2
	legacyIdentity       = 3
	legacyMessage        = 4
	legacyRegistrationID = 5 // of no meaning in OMEMO: read and dropped, not written
	legacySignedPreKeyID = 6
)

var (
	legacyMessageLayout  = layout{legacyKey: octets, legacyN: number, legacyPN: number, legacyCiphertext: octets}
	legacyExchangeLayout = layout{
		legacyPreKeyID: number, legacyEphemeral: octets, legacyIdentity: octets, legacyMessage: octets,
		legacyRegistrationID: number, legacySignedPreKeyID: number,
	}
)

func parseLegacyMessage(b []byte) (Message, error) {
	if !legacyFrame(b) || len(b) < 1+legacyMACSize {
		return Message{}, ErrMalformed
	}
	signed, mac := b[:len(b)-legacyMACSize], b[len(b)-legacyMACSize:]
	var f fields
	if err := legacyMessageLayout.parse(signed[1:], &f); err != nil {
		return Message{}, err
	}
	key, ok := prefixedKey(f[legacyKey].octets)
	if !ok || len(f[legacyCiphertext].octets) == 0 {
		return Message{}, ErrMalformed
	}
	return Message{
		Header:     ratchet.Header{Key: key, N: f[legacyN].number, PN: f[legacyPN].number},
		Ciphertext: f[legacyCiphertext].octets,
		MAC:        mac,
		Signed:     signed,
	}, nil
}

func parseLegacyExchange(b []byte) (Exchange, error) {
	if !legacyFrame(b) {
		return Exchange{}, ErrMalformed
	}
	var f fields
	if err := legacyExchangeLayout.parse(b[1:], &f); err != nil {
		return Exchange{}, err
	}
	identity, identityOK := prefixedKey(f[legacyIdentity].octets)
	ephemeral, ephemeralOK := prefixedKey(f[legacyEphemeral].octets)
	if !identityOK || !ephemeralOK || !f[legacySignedPreKeyID].present || len(f[legacyMessage].octets) == 0 {
		return Exchange{}, ErrMalformed
	}
	return Exchange{
		SignedPreKeyID: f[legacySignedPreKeyID].number,
		PreKeyID:       f[legacyPreKeyID].number,
		HasPreKey:      f[legacyPreKeyID].present,
		Identity:       identity,
		Ephemeral:      ephemeral,
		Message:        f[legacyMessage].octets,
	}, nil
}

// legacyFrame checks the size and the version byte.
func legacyFrame(b []byte) bool {
	return len(b) > 0 && len(b) <= MaxSize && b[0]>>4 == legacyVersion>>4
}

func appendLegacySigned(dst []byte, h ratchet.Header, ciphertext []byte) []byte {
	dst = append(dst, legacyVersion)
	dst = appendPrefixedKey(dst, legacyKey, h.Key)
	dst = appendNumber(dst, legacyN, h.N)
	dst = appendNumber(dst, legacyPN, h.PN)
	return appendOctets(dst, legacyCiphertext, ciphertext)
}

func appendLegacyExchange(dst []byte, x Exchange) []byte {
	dst = append(dst, legacyVersion)
	if x.HasPreKey {
		dst = appendNumber(dst, legacyPreKeyID, x.PreKeyID)
	}
	dst = appendPrefixedKey(dst, legacyEphemeral, x.Ephemeral)
	dst = appendPrefixedKey(dst, legacyIdentity, x.Identity)
	dst = appendOctets(dst, legacyMessage, x.Message)
	return appendNumber(dst, legacySignedPreKeyID, x.SignedPreKeyID)
}

// prefixedKey takes the prefix from a key of 33 bytes.
func prefixedKey(b []byte) (curve.Montgomery, bool) {
	if len(b) != 33 || b[0] != keyPrefix {
		return curve.Montgomery{}, false
	}
	return curve.Montgomery(b[1:]), true
}

func appendPrefixedKey(dst []byte, num protowire.Number, key [32]byte) []byte {
	dst = protowire.AppendTag(dst, num, protowire.BytesType)
	dst = append(dst, 33, keyPrefix)
	return append(dst, key[:]...)
}
