package ratchet

import "example.org/omellium/omemo/internal/curve"

// MaxSkip is how many skipped message keys are derived for one message at most, those of the chain that ends and
// those of the chain that begins together. See [Budget] for what is derived before it is authenticated.
const MaxSkip = 1000

// Params holds what differs between the versions of OMEMO.
type Params struct {
	Root    string // KDF label of the root chain
	Message string // KDF label of the message keys
	MACSize int    // length of a MAC in bytes: 8 or 16
}

// Header names the key of a message.
type Header struct {
	Key curve.Montgomery // the sender's ratchet key
	N   uint32           // number of the message in its chain, from 0
	PN  uint32           // number of messages in the sender's chain before
}

// Skipped is the key of a message that has not arrived yet.
type Skipped struct {
	Key  curve.Montgomery // the sender's ratchet key
	N    uint32           // number of the message in its chain
	Seed [32]byte         // the message key, see [Expand]
}
