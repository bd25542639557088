package curve

import (
	"fmt"
	"io"
	"log/slog"
)

const redacted = "redacted"

// Format prints "redacted" whatever the verb.
func (p *Private) Format(s fmt.State, _ rune) { _, _ = io.WriteString(s, redacted) }

// GoString returns "redacted".
func (p *Private) GoString() string { return redacted }

// LogValue returns "redacted".
func (p *Private) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalText returns "redacted", so that no encoder writes the key by accident.
func (p *Private) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// Format prints "redacted" whatever the verb.
func (id Identity) Format(s fmt.State, _ rune) { _, _ = io.WriteString(s, redacted) }

// GoString returns "redacted".
func (id Identity) GoString() string { return redacted }

// LogValue returns "redacted".
func (id Identity) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalText returns "redacted", so that no encoder writes the key by accident.
func (id Identity) MarshalText() ([]byte, error) { return []byte(redacted), nil }
