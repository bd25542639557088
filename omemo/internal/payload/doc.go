// Package payload seals and opens the body of a message: AES-128-GCM in the legacy version, AES-256-CBC with
// HMAC-SHA-256 in omemo:2 (XEP-0384 section 4.4). What it returns as key material travels through the ratchet of
// every recipient device. It draws no randomness.
package payload

import "errors"

var (
	// ErrAuth says that a payload is not what its sender encrypted. It is the only answer to whatever fails from the
	// authentication on.
	ErrAuth = errors.New("payload: authentication failed")

	// ErrLength says that key material, IV or payload have a length that no sender produces.
	ErrLength = errors.New("payload: wrong length")
)

// must returns the value of a constructor whose only errors are about lengths that are fixed here.
func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}
