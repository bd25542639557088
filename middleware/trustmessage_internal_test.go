package middleware

import (
	"errors"
	"testing"
	"time"

	"example.org/omellium/omemo"
	"example.org/omellium/omemo/memstore"
	"example.org/omellium/stanza"
	"mellium.im/xmpp/crypto"
)

// TestTrustMessagesNeedAffixes: what would let a server deliver a trust message
// late, or to others, keeps it from being heeded; what stands beside it is read.
func TestTrustMessagesNeedAffixes(t *testing.T) {
	m, err := New(t.Context(), Config{Store: memstore.New("juliet@example.net")})
	if err != nil {
		t.Fatal(err)
	}
	statements := []omemo.Statement{{Owner: "romeo@example.net", KeyID: [32]byte{1}, Trusted: true}, {Owner: "romeo@example.net", KeyID: [32]byte{2}}}
	stated := time.Now().UTC().Truncate(time.Second)
	p, _, err := m.composeTrust(omemo.TrustMessage{To: "romeo@example.net", Statements: statements, Stated: stated})
	if err != nil {
		t.Fatal(err)
	}
	if p.Legacy != nil {
		t.Error("a trust message has a form in legacy")
	}
	for name, row := range map[string]struct {
		spoil func(*arrival, *stanza.Envelope)
		err   error
	}{
		"as written":         {func(*arrival, *stanza.Envelope) {}, nil},
		"without time":       {func(_ *arrival, e *stanza.Envelope) { e.Time = time.Time{} }, ErrTrustMessage},
		"without padding":    {func(_ *arrival, e *stanza.Envelope) { e.Padded = false }, ErrTrustMessage},
		"in a room":          {func(a *arrival, _ *stanza.Envelope) { a.room = "hall@rooms.example.net" }, ErrTrustMessage},
		"privately, through": {func(a *arrival, _ *stanza.Envelope) { a.private = true }, ErrTrustMessage},
	} {
		t.Run(name, func(t *testing.T) {
			e, err := stanza.ParseEnvelope(p.V2)
			if err != nil {
				t.Fatal(err)
			}
			body := stanza.NewText(stanza.NSClient, "body", "beside")
			e.Content = append(e.Content, body)
			a := &arrival{}
			row.spoil(a, e)
			rest, d, err := takeTrust(a, e)
			if !errors.Is(err, row.err) || len(rest) != 1 || rest[0] != body {
				t.Errorf("%v, left %v", err, rest)
			}
			if row.err != nil && (d.Statements != nil || !d.Stated.IsZero()) {
				t.Errorf("heeded: %+v", d)
			}
			if row.err == nil && (len(d.Statements) != 2 || d.Statements[0] != statements[0] || d.Statements[1] != statements[1] || !d.Stated.Equal(stated)) {
				t.Errorf("%+v", d)
			}
		})
	}
	// Every element below is in the namespace of the message: strict readers look.
	e, err := stanza.ParseEnvelope(p.V2)
	if err != nil {
		t.Fatal(err)
	}
	owner := e.Content[0].Child(crypto.NSTrust, "key-owner")
	if owner == nil || owner.Child(crypto.NSTrust, "trust") == nil || owner.Child(crypto.NSTrust, "distrust") == nil {
		t.Errorf("%s", e.Content[0].AppendXML(nil))
	}
}
