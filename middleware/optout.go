package middleware

import (
	"context"

	"example.org/omellium/omemo"
	"example.org/omellium/stanza"
	"mellium.im/xmpp/jid"
	xmppstanza "mellium.im/xmpp/stanza"
)

// AnswerOptOut answers a contact's wish to go on in plain text, which came with
// OptOutAsked. If it is accepted, messages to and from the contact are not
// encrypted any more, whatever the policy, until the contact writes encrypted
// again or AnswerOptOut takes it back. Only a person should accept.
func (m *Middleware) AnswerOptOut(ctx context.Context, contact jid.JID, accept bool) error {
	state := omemo.OptOutNone
	if accept {
		state = omemo.OptOutAccepted
	}
	return m.manager.SetOptOut(ctx, contact.Bare().String(), state)
}

// OptOut asks a contact to go on in plain text (XEP-0384, section 5.9), and does
// so itself as if AnswerOptOut had accepted. The reason may be empty. Only
// omemo:2 has a form for it: if no device of the contact is served in omemo:2,
// the error is omemo.ErrNoForm, and nothing has changed.
func (m *Middleware) OptOut(ctx context.Context, contact jid.JID, reason string) (*Result, error) {
	message := xmppstanza.Message{To: contact, Type: xmppstanza.ChatMessage}
	result, err := m.Send(ctx, message, stanza.OptOut(reason).TokenReader())
	if err != nil {
		return result, err
	}
	return result, m.AnswerOptOut(ctx, contact, true)
}

// optedOut reports whether the application goes on in plain text with a contact.
func (l *link) optedOut(ctx context.Context, account string) (bool, error) {
	contact, err := l.m.manager.Contact(ctx, account)
	return contact.OptOut == omemo.OptOutAccepted, err
}

// heedOptOut has a contact's wish put to the application, or refused.
func (l *link) heedOptOut(a *arrival, o *omemo.Opened) {
	e := Event{Kind: OptOutRefused, Account: a.sender, Device: o.Sender.Device, Version: o.Version}
	if o.Delivery.OptOut {
		e.Kind = OptOutAsked
	}
	l.m.emit(e)
}
