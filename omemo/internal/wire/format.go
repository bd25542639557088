package wire

import (
	"errors"

	"example.org/omellium/omemo/internal/curve"
	"example.org/omellium/omemo/internal/ratchet"
)

// Format is the byte layout of one version of OMEMO.
type Format int

// The two formats.
const (
	Legacy Format = iota // eu.siacs.conversations.axolotl
	V2                   // urn:xmpp:omemo:2
)

// MaxSize is the size of a message or key exchange in bytes that is read at most. An honest one has about 250.
const MaxSize = 4096

var (
	// ErrMalformed says that bytes are not a message or key exchange of the format.
	ErrMalformed = errors.New("wire: malformed message")

	// ErrNoPreKey says that an omemo:2 key exchange names no pre key, which the specification forbids.
	ErrNoPreKey = errors.New("wire: key exchange without pre key")
)

// Message is an encrypted message of an established session. Its slices share memory with the bytes that were parsed.
type Message struct {
	Header     ratchet.Header
	Ciphertext []byte // not empty
	MAC        []byte // legacy: 8 bytes, V2: 16
	Signed     []byte // what the MAC covers after the associated data, as it was received
}

// Exchange is a key exchange: what the passive side needs for the session, and its first message.
type Exchange struct {
	SignedPreKeyID uint32
	PreKeyID       uint32
	HasPreKey      bool             // always true when read as V2
	Identity       [32]byte         // legacy: Curve25519 form, V2: Ed25519 form
	Ephemeral      curve.Montgomery // X3DH key of the active side
	Message        []byte           // the framed message, for ParseMessage; when parsed it shares the memory
}

// ParseMessage reads a message. It returns [ErrMalformed].
func (f Format) ParseMessage(b []byte) (Message, error) {
	if f == Legacy {
		return parseLegacyMessage(b)
	}
	return parseV2Message(b)
}

// ParseExchange reads a key exchange; the message in it is not parsed yet. It returns [ErrMalformed] or [ErrNoPreKey].
func (f Format) ParseExchange(b []byte) (Exchange, error) {
	if f == Legacy {
		return parseLegacyExchange(b)
	}
	return parseV2Exchange(b)
}

// AppendSigned appends the part of a message that its MAC covers after the associated data.
func (f Format) AppendSigned(dst []byte, h ratchet.Header, ciphertext []byte) []byte {
	if f == Legacy {
		return appendLegacySigned(dst, h, ciphertext)
	}
	return appendV2Signed(dst, h, ciphertext)
}

// AppendMessage appends a message of the signed part, see [Format.AppendSigned], and its MAC.
func (f Format) AppendMessage(dst, signed, mac []byte) []byte {
	if f == Legacy {
		return append(append(dst, signed...), mac...)
	}
	return appendV2Message(dst, signed, mac)
}

// AppendExchange appends a key exchange.
func (f Format) AppendExchange(dst []byte, x Exchange) []byte {
	if f == Legacy {
		return appendLegacyExchange(dst, x)
	}
	return appendV2Exchange(dst, x)
}
