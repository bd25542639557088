package omemo

import (
	"fmt"
	"io"
)

const redacted = "redacted"

// Format prints "redacted" whatever the verb: with some, fmt follows pointers
// into what a manager has cached.
func (*Manager) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, redacted) }

// Format prints "redacted" whatever the verb.
func (account) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, redacted) }

// Format prints the peer and who started the session, whatever the verb: never
// a key.
func (s Session) Format(f fmt.State, _ rune) {
	_, _ = fmt.Fprintf(f, "%v session with %v", s.initiation, s.peer)
}

// Format prints "redacted" whatever the verb.
func (PreKeyRow) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, redacted) }

// MarshalText returns "redacted", so that no encoder writes secrets by accident.
func (PreKeyRow) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// Format prints "redacted" whatever the verb.
func (SessionRow) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, redacted) }

// MarshalText returns "redacted", so that no encoder writes secrets by accident.
func (SessionRow) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// Format prints "redacted" whatever the verb.
func (SkippedRow) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, redacted) }

// MarshalText returns "redacted", so that no encoder writes secrets by accident.
func (SkippedRow) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// Format prints "redacted" whatever the verb.
func (InboxRow) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, redacted) }

// MarshalText returns "redacted", so that no encoder writes secrets by accident.
func (InboxRow) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// Format prints "redacted" whatever the verb.
func (EchoRow) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, redacted) }

// MarshalText returns "redacted", so that no encoder writes secrets by accident.
func (EchoRow) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// Format prints "redacted" whatever the verb.
func (Echo) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, redacted) }

// MarshalText returns "redacted", so that no encoder writes secrets by accident.
func (Echo) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// Format prints "redacted" whatever the verb.
func (State) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, redacted) }

// MarshalText returns "redacted", so that no encoder writes secrets by accident.
func (State) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// Format prints "redacted" whatever the verb.
func (Changes) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, redacted) }

// MarshalText returns "redacted", so that no encoder writes secrets by accident.
func (Changes) MarshalText() ([]byte, error) { return []byte(redacted), nil }
