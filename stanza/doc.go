// Package stanza reads and writes the XML of OMEMO messages: the <encrypted/>
// element of both versions (XEP-0384 0.3 and since 0.8), the envelope that
// omemo:2 encrypts (XEP-0420), and what stands beside them: explicit message
// encryption (XEP-0380), processing hints (XEP-0334) and origin ids (XEP-0359).
//
// It knows no cryptography. Key material and payloads pass through it as bytes.
//
// Reading is tolerant where clients differ in the wild (order of children,
// unknown elements and attributes, white space in base64) and strict where
// tolerance would let one message mean two things. Writing adds nothing that a
// client with a strict schema refuses.
//
// All of it works on Element, a small tree. Trees are built under Limits, which
// are enforced while reading.
package stanza

// Namespaces used by this package.
const (
	NSLegacy = "eu.siacs.conversations.axolotl" // OMEMO before XEP-0384 0.4
	NSV2     = "urn:xmpp:omemo:2"               // OMEMO since XEP-0384 0.8
	NSSCE    = "urn:xmpp:sce:1"                 // XEP-0420
	NSEME    = "urn:xmpp:eme:0"                 // XEP-0380
	NSHints  = "urn:xmpp:hints"                 // XEP-0334
	NSSID    = "urn:xmpp:sid:0"                 // XEP-0359
	NSDelay  = "urn:xmpp:delay"                 // XEP-0203
	NSClient = "jabber:client"                  // RFC 6120
)
