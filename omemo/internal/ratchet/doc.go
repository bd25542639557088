// Package ratchet is the Double Ratchet (XEP-0384 section 4.3.2, and the Double Ratchet specification) as values.
//
// [State.Seal] returns the next state and [State.Open] an [Opening], and neither touches the old state: a caller of Open
// verifies the MAC, has [Opening.Keep] derive the next state, and keeps it if the message satisfies whatever else it
// has to. What differs between the versions of OMEMO is in [Params]. Skipped message keys are not part of the state:
// Keep returns the new ones, the caller stores them and looks there first.
//
// The package draws no randomness, knows no encoding of messages, and holds no lock: a state belongs to one goroutine.
package ratchet
