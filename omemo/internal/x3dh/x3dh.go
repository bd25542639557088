// Package x3dh derives the shared secret of a new session: Extended Triple Diffie-Hellman (XEP-0384 section 4.3)
// with SHA-256 on Curve25519. Signatures, associated data and the encoding of keys are the caller's.
package x3dh

import (
	"bytes"
	"crypto/hkdf"
	"crypto/sha256"
	"fmt"

	"example.org/omellium/omemo/internal/curve"
)

// Initiate derives the secret on the active side. The info string names the version of the protocol; id and
// ephemeral are own, peer, signedPreKey and preKey are the identity key and the pre keys of the peer's bundle.
// A nil preKey leaves the one-time pre key out.
func Initiate(info string, id *curve.Identity, ephemeral *curve.Private, peer, signedPreKey curve.Montgomery, preKey *curve.Montgomery) ([32]byte, error) {
	agreements := []curve.Agreement{
		{Own: id.Private(), Peer: signedPreKey},
		{Own: ephemeral, Peer: peer},
		{Own: ephemeral, Peer: signedPreKey},
	}
	if preKey != nil {
		agreements = append(agreements, curve.Agreement{Own: ephemeral, Peer: *preKey})
	}
	return derive(info, agreements)
}

// Accept derives the secret on the passive side. The identity and the pre keys are own, peer and ephemeral come
// from the key exchange message. A nil preKey means that the exchange names none.
func Accept(info string, id *curve.Identity, signedPreKey, preKey *curve.Private, peer, ephemeral curve.Montgomery) ([32]byte, error) {
	agreements := []curve.Agreement{
		{Own: signedPreKey, Peer: peer},
		{Own: id.Private(), Peer: ephemeral},
		{Own: signedPreKey, Peer: ephemeral},
	}
	if preKey != nil {
		agreements = append(agreements, curve.Agreement{Own: preKey, Peer: ephemeral})
	}
	return derive(info, agreements)
}

// derive makes the agreements DH1 to DH4, from either side.
func derive(info string, agreements []curve.Agreement) ([32]byte, error) {
	var secrets [4][32]byte
	defer clear(secrets[:])
	if err := curve.Agree(secrets[:len(agreements)], agreements...); err != nil {
		return [32]byte{}, fmt.Errorf("x3dh: %w", err)
	}
	ikm := bytes.Repeat([]byte{0xff}, 32) // F of the specification: keeps X25519 and XEdDSA apart
	for i := range agreements {
		ikm = append(ikm, secrets[i][:]...)
	}
	secret, err := hkdf.Key(sha256.New, ikm, make([]byte, sha256.Size), info, 32)
	clear(ikm)
	if err != nil {
		return [32]byte{}, fmt.Errorf("x3dh: %w", err)
	}
	return [32]byte(secret), nil
}
