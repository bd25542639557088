// Package ratchet is the Double Ratchet (XEP-0384 section 4.3.2, and the Double Ratchet specification) as values.
//
// [State.Seal] and [State.Open] return the next state and never touch the old one: a caller of Open verifies the MAC,
// and whatever else the message has to satisfy, and only then keeps the next state. What differs between the versions
// of OMEMO is in [Params]. Skipped message keys are not part of the state: Open returns the new ones, the caller
// stores them and looks there first.
//
// The package draws no randomness, knows no encoding of messages, and holds no lock: a state belongs to one goroutine.
package ratchet
