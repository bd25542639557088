// Package curve holds the keys of OMEMO: X25519 key agreement, Ed25519 and XEdDSA signatures, and the conversions
// between the two forms of one identity key (XEP-0384 section 4.1, and the XEdDSA specification).
//
// Identity keys are checked strictly, because they are compared, signed with and shown to people: the encoding has
// to be canonical, the point on the curve and in the subgroup of prime order. Ratchet keys and pre keys are only
// ever used for X25519, which accepts any 32 bytes (RFC 7748 section 5) and here refuses results that are all zero.
//
// The package draws no randomness: seeds, scalars and nonces are handed in. Secret keys print as "redacted".
package curve
