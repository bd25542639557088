package middleware

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"

	"example.org/omellium/stanza/pep"
)

// Counters counts events by the names of their kinds ("accepted",
// "undecryptable"), from several goroutines. An *expvar.Map is one:
//
//	Config{Counters: expvar.NewMap("omemo")}
type Counters interface {
	Add(name string, n int64)
}

// LogValue is what slog writes of an event: its kind, the version and the
// reason. Whom it is about is left out.
func (e Event) LogValue() slog.Value {
	attributes := []slog.Attr{slog.String("kind", e.Kind.String())}
	if e.Version.Valid() {
		attributes = append(attributes, slog.String("version", e.Version.String()))
	}
	if e.Err != nil {
		attributes = append(attributes, slog.String("reason", reason(e.Err)))
	}
	if e.Total > 0 {
		attributes = append(attributes, slog.Int("done", e.Done), slog.Int("total", e.Total))
	}
	return slog.GroupValue(attributes...)
}

// reason returns the innermost errors of an error, which name no account: those
// around them may.
func reason(err error) string {
	switch inner := err.(type) {
	case *pep.Error:
		return inner.Error()
	case interface{ Unwrap() error }:
		if next := inner.Unwrap(); next != nil {
			return reason(next)
		}
	case interface{ Unwrap() []error }:
		var all []string
		for _, next := range inner.Unwrap() {
			all = append(all, reason(next))
		}
		return strings.Join(all, "; ")
	}
	if fmt.Sprintf("%T", err) == plainError {
		return err.Error()
	}
	return fmt.Sprintf("%T", err)
}

// plainError is the type of errors that are nothing but a constant text.
var plainError = fmt.Sprintf("%T", errors.New(""))
