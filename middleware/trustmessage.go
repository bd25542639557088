package middleware

import (
	"encoding/xml"
	"errors"
	"fmt"

	"example.org/omellium/omemo"
	"example.org/omellium/stanza"
	"mellium.im/xmpp/crypto"
	"mellium.im/xmpp/jid"
)

// nsAutomaticTrust says that a trust message is meant for XEP-0450.
const nsAutomaticTrust = "urn:xmpp:atm:1"

// ErrTrustMessage: a trust message that is not as it should be, and was ignored.
var ErrTrustMessage = errors.New("middleware: trust message refused")

// takeTrust takes trust messages (XEP-0434) out of the content of an envelope:
// nobody but us has to read them. What is wrong with one keeps it from being
// heeded, not the message from being read.
func takeTrust(a *arrival, envelope *stanza.Envelope) (rest []*stanza.Element, d omemo.Delivery, err error) {
	var found []*stanza.Element
	for _, c := range envelope.Content {
		if c.Is(crypto.NSTrust, "trust-message") {
			found = append(found, c)
			continue
		}
		rest = append(rest, c)
	}
	if len(found) == 0 {
		return rest, d, nil
	}
	// The affixes keep a server from delivering it late, or to somebody else
	// (XEP-0434, section 6.2.1).
	if len(found) > 1 || a.room != "" || a.private || envelope.Time.IsZero() || !envelope.Padded {
		return rest, d, ErrTrustMessage
	}
	var m crypto.TrustMessage
	// mellium looks at the text of keys as it was written: tokens do not have it.
	if err := xml.Unmarshal(found[0].AppendXML(nil), &m); err != nil {
		return rest, d, fmt.Errorf("%w: %w", ErrTrustMessage, err)
	}
	if m.Usage != nsAutomaticTrust || m.Encryption != omemo.V2.Namespace() {
		return rest, d, nil // for others
	}
	for _, owned := range m.Keys {
		for _, k := range owned.Keys {
			if len(k.KeyID) != 32 || owned.Owner.Localpart() == "" {
				return rest, omemo.Delivery{}, ErrTrustMessage
			}
			d.Statements = append(d.Statements, omemo.Statement{
				Owner: owned.Owner.Bare().String(), KeyID: [32]byte(k.KeyID), Trusted: k.Trusted,
			})
		}
	}
	d.Stated = envelope.Time
	return rest, d, nil
}

// composeTrust makes the stanza of a trust message.
func (m *Middleware) composeTrust(t omemo.TrustMessage) (p omemo.Plaintext, r omemo.Render, err error) {
	message := crypto.TrustMessage{Usage: nsAutomaticTrust, Encryption: omemo.V2.Namespace()}
	index := make(map[string]int)
	for _, s := range t.Statements {
		i, known := index[s.Owner]
		if !known {
			owner, err := jid.Parse(s.Owner)
			if err != nil {
				return p, nil, fmt.Errorf("middleware: owner of a key: %w", err)
			}
			i = len(message.Keys)
			index[s.Owner] = i
			message.Keys = append(message.Keys, crypto.OwnedKeys{Owner: owner})
		}
		message.Keys[i].Keys = append(message.Keys[i].Keys, crypto.Key{Trusted: s.Trusted, KeyID: s.KeyID[:]})
	}
	element, err := toElement(message.TokenReader(), m.config.Limits)
	if err != nil {
		return p, nil, fmt.Errorf("middleware: trust message: %w", err)
	}
	qualifyTrust(element)
	envelope := stanza.Envelope{Content: []*stanza.Element{element}, From: m.own.JID, To: t.To, Time: t.Stated}
	if p.V2, err = envelope.Marshal(); err != nil {
		return p, nil, fmt.Errorf("middleware: trust message: %w", err)
	}
	d := &draft{
		shell: stanza.NewElement(stanza.NSClient, "message").SetAttribute("type", "chat").SetAttribute("to", t.To),
		id:    newID(), to: t.To,
	}
	return p, func(s *omemo.Sealed) ([]omemo.Outgoing, error) { return m.assemble(d, s, false) }, nil
}

// qualifyTrust gives the elements below a trust message its namespace: mellium
// leaves it to the encoder.
func qualifyTrust(e *stanza.Element) {
	e.Name.Space = crypto.NSTrust
	for c := range e.Elements() {
		qualifyTrust(c)
	}
}
