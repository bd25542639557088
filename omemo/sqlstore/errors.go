package sqlstore

import (
	"errors"
	"fmt"

	"example.org/omellium/omemo"
)

// Errors of opening a store at rest.
var (
	// ErrSealed: the account is sealed, and no key was given.
	ErrSealed = errors.New("sqlstore: account is sealed and no key was given")
	// ErrNotSealed: a key was given, but the account was created without one.
	ErrNotSealed = errors.New("sqlstore: account is not sealed, but a key was given")
	// ErrWrongKey: the key does not open the account.
	ErrWrongKey = errors.New("sqlstore: key does not open the account")
	// ErrTampered: rows of the account were changed, or replaced by older ones,
	// from outside.
	ErrTampered = fmt.Errorf("sqlstore: rows of the account were changed from outside: %w", omemo.ErrCorrupt)
)
