package ratchet

import (
	"fmt"
	"io"
	"log/slog"
)

const redacted = "redacted"

// Format prints "redacted" whatever the verb.
func (State) Format(s fmt.State, _ rune) { _, _ = io.WriteString(s, redacted) }

// LogValue returns "redacted".
func (State) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalText returns "redacted", so that no encoder writes keys by accident.
func (State) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// Format prints "redacted" whatever the verb.
func (Chain) Format(s fmt.State, _ rune) { _, _ = io.WriteString(s, redacted) }

// LogValue returns "redacted".
func (Chain) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalText returns "redacted", so that no encoder writes keys by accident.
func (Chain) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// Format prints "redacted" whatever the verb.
func (Skipped) Format(s fmt.State, _ rune) { _, _ = io.WriteString(s, redacted) }

// LogValue returns "redacted".
func (Skipped) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalText returns "redacted", so that no encoder writes keys by accident.
func (Skipped) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// Format prints "redacted" whatever the verb.
func (Keys) Format(s fmt.State, _ rune) { _, _ = io.WriteString(s, redacted) }

// LogValue returns "redacted".
func (Keys) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalText returns "redacted", so that no encoder writes keys by accident.
func (Keys) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// Format prints "redacted" whatever the verb.
func (Opening) Format(s fmt.State, _ rune) { _, _ = io.WriteString(s, redacted) }

// LogValue returns "redacted".
func (Opening) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalText returns "redacted", so that no encoder writes keys by accident.
func (Opening) MarshalText() ([]byte, error) { return []byte(redacted), nil }
