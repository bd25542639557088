// Package verify holds what people need in order to compare keys: colours that
// stand for texts on every client (XEP-0392), addresses that name the keys of an
// account (xmpp: URIs), and QR codes of them.
//
// A URI that was read says what somebody has shown. Only the person who has seen
// from whom it came can say that it is true: middleware.VerifyURI marks exactly the
// keys that it names.
package verify
