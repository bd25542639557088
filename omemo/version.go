package omemo

import (
	"fmt"

	"example.org/omellium/omemo/internal/ratchet"
	"example.org/omellium/omemo/internal/wire"
)

// Version is a version of the protocol.
type Version int

// The two versions in use. Their values are stored: they never change.
const (
	Legacy Version = 1 // eu.siacs.conversations.axolotl, XEP-0384 before 0.4
	V2     Version = 2 // urn:xmpp:omemo:2, XEP-0384 since 0.8
)

// Versions lists both versions, the newer first.
func Versions() []Version { return []Version{V2, Legacy} }

// Namespace returns the XML namespace of the version.
func (v Version) Namespace() string { return v.profile().namespace }

// Valid reports whether v is one of the versions of this package.
func (v Version) Valid() bool { return v == Legacy || v == V2 }

// String returns a short name for logs and tables.
func (v Version) String() string {
	switch v {
	case Legacy:
		return "legacy"
	case V2:
		return "omemo:2"
	}
	return fmt.Sprintf("version(%d)", int(v))
}

// profile is all that differs between the versions below the XML. Everything
// else in this package is written once.
type profile struct {
	namespace string
	x3dh      string         // label of the key derivation of a new session
	ratchet   ratchet.Params // labels and MAC length of the Double Ratchet
	format    wire.Format    // protobuf and framing
	byRole    bool           // associated data by session role (omemo:2), else by direction of the message
	prefix    []byte         // stands before a public key where it is signed or authenticated
	edwards   bool           // the identity key travels in its Ed25519 form
	material  int            // bytes of key material of an empty message
}

var profiles = map[Version]*profile{
	Legacy: {
		namespace: "eu.siacs.conversations.axolotl",
		x3dh:      "WhisperText",
		ratchet:   ratchet.Params{Root: "WhisperRatchet", Message: "WhisperMessageKeys", MACSize: 8},
		format:    wire.Legacy,
		prefix:    []byte{0x05},
		material:  32, // as libsignal clients do; Profanity discards 16
	},
	V2: {
		namespace: "urn:xmpp:omemo:2",
		x3dh:      "OMEMO X3DH",
		ratchet:   ratchet.Params{Root: "OMEMO Root Chain", Message: "OMEMO Message Key Material", MACSize: 16},
		format:    wire.V2,
		byRole:    true,
		edwards:   true,
		material:  32,
	},
}

// none serves values that are not a version, so that printing never panics.
var none profile

func (v Version) profile() *profile {
	if p, ok := profiles[v]; ok {
		return p
	}
	return &none
}
