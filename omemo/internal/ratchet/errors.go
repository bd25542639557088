package ratchet

import "errors"

var (
	// ErrDuplicate says that the chain has moved past the message: it was opened before, or its skipped message key
	// is no longer there.
	ErrDuplicate = errors.New("ratchet: message key was used before")

	// ErrTooManySkipped says that more messages before this one are missing than the [Budget] has left.
	ErrTooManySkipped = errors.New("ratchet: too many skipped messages")

	// ErrNoRemote says that a passive session cannot send before it has opened its first message.
	ErrNoRemote = errors.New("ratchet: no ratchet key of the peer yet")

	// ErrExhausted says that a sending chain has reached its last message number, 2^32-1.
	ErrExhausted = errors.New("ratchet: sending chain is exhausted")

	// ErrPadding says that a ciphertext was not padded as it should be, although its MAC held.
	ErrPadding = errors.New("ratchet: malformed ciphertext")
)
