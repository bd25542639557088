package wire

import (
	"example.org/omellium/omemo/internal/curve"
	"example.org/omellium/omemo/internal/ratchet"
)

const v2MACSize = 16

// Field numbers of OMEMOMessage, OMEMOAuthenticatedMessage and OMEMOKeyExchange.
const (
	v2N          = 1
	v2PN         = 2
	v2Key        = 3
	v2Ciphertext = 4

	v2MAC    = 1
	v2Signed = 2

	v2PreKeyID       = 1
	v2SignedPreKeyID = 2
	v2Identity       = 3
	v2Ephemeral      = 4
	v2Message        = 5
)

var (
	v2MessageLayout       = layout{v2N: number, v2PN: number, v2Key: octets, v2Ciphertext: octets}
	v2AuthenticatedLayout = layout{v2MAC: octets, v2Signed: octets}
	v2ExchangeLayout      = layout{v2PreKeyID: number, v2SignedPreKeyID: number, v2Identity: octets, v2Ephemeral: octets, v2Message: octets}
)

func parseV2Message(b []byte) (Message, error) {
	if len(b) > MaxSize {
		return Message{}, ErrMalformed
	}
	var outer fields
	if err := v2AuthenticatedLayout.parse(b, &outer); err != nil {
		return Message{}, err
	}
	signed, mac := outer[v2Signed].octets, outer[v2MAC].octets
	if len(mac) != v2MACSize {
		return Message{}, ErrMalformed
	}
	var f fields
	if err := v2MessageLayout.parse(signed, &f); err != nil {
		return Message{}, err
	}
	key, ok := plainKey(f[v2Key].octets)
	if !ok || len(f[v2Ciphertext].octets) == 0 {
		return Message{}, ErrMalformed
	}
	return Message{
		Header:     ratchet.Header{Key: key, N: f[v2N].number, PN: f[v2PN].number},
		Ciphertext: f[v2Ciphertext].octets,
		MAC:        mac,
		Signed:     signed,
	}, nil
}

func parseV2Exchange(b []byte) (Exchange, error) {
	if len(b) > MaxSize {
		return Exchange{}, ErrMalformed
	}
	var f fields
	if err := v2ExchangeLayout.parse(b, &f); err != nil {
		return Exchange{}, err
	}
	identity, identityOK := plainKey(f[v2Identity].octets)
	ephemeral, ephemeralOK := plainKey(f[v2Ephemeral].octets)
	if !identityOK || !ephemeralOK || !f[v2SignedPreKeyID].present || len(f[v2Message].octets) == 0 {
		return Exchange{}, ErrMalformed
	}
	if !f[v2PreKeyID].present {
		return Exchange{}, ErrNoPreKey
	}
	return Exchange{
		SignedPreKeyID: f[v2SignedPreKeyID].number,
		PreKeyID:       f[v2PreKeyID].number,
		HasPreKey:      true,
		Identity:       identity,
		Ephemeral:      ephemeral,
		Message:        f[v2Message].octets,
	}, nil
}

func appendV2Signed(dst []byte, h ratchet.Header, ciphertext []byte) []byte {
	dst = appendNumber(dst, v2N, h.N)
	dst = appendNumber(dst, v2PN, h.PN)
	dst = appendOctets(dst, v2Key, h.Key[:])
	return appendOctets(dst, v2Ciphertext, ciphertext)
}

func appendV2Message(dst, signed, mac []byte) []byte {
	dst = appendOctets(dst, v2MAC, mac)
	return appendOctets(dst, v2Signed, signed)
}

func appendV2Exchange(dst []byte, x Exchange) []byte {
	dst = appendNumber(dst, v2PreKeyID, x.PreKeyID)
	dst = appendNumber(dst, v2SignedPreKeyID, x.SignedPreKeyID)
	dst = appendOctets(dst, v2Identity, x.Identity[:])
	dst = appendOctets(dst, v2Ephemeral, x.Ephemeral[:])
	return appendOctets(dst, v2Message, x.Message)
}

// plainKey takes a key of 32 bytes. QUIRK: QXmpp has written keys of 33 bytes, with the legacy prefix.
func plainKey(b []byte) (curve.Montgomery, bool) {
	if len(b) == 32 {
		return curve.Montgomery(b), true
	}
	return prefixedKey(b)
}
