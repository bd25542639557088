package middleware

import (
	"context"
	"database/sql"
	"encoding/xml"
	"errors"
	"fmt"
	"time"

	"example.org/omellium/omemo"
	xmppstanza "mellium.im/xmpp/stanza"
)

// Delivery is a decrypted message, as Config.Receive gets it.
type Delivery struct {
	Info Info
	// Stanza is the plain message, with Info in it, as a handler would read it.
	Stanza []byte
	// Send answers: the message is encrypted at once for the recipient's devices
	// that there are sessions with, and leaves when everything is committed.
	// payload holds the children of the message.
	Send func(message xmppstanza.Message, payload xml.TokenReader) error
}

var errNoSQL = errors.New("middleware: Config.Receive needs a store on database/sql")

// receive has the message handled inside its own commit. The answers are left in
// sent, to be written once it is done.
func (l *link) receive(info Info, stanza []byte, sent *[]omemo.OutboxRow) func(context.Context, any, omemo.SealFunc) error {
	return func(ctx context.Context, transaction any, seal omemo.SealFunc) error {
		tx, ok := transaction.(*sql.Tx)
		if !ok {
			return errNoSQL
		}
		*sent = nil // the commit may be tried more than once
		return l.m.config.Receive(ctx, tx, Delivery{
			Info:   info,
			Stanza: stanza,
			Send: func(message xmppstanza.Message, payload xml.TokenReader) error {
				rows, err := l.sealAnswer(message, payload, seal)
				*sent = append(*sent, rows...)
				return err
			},
		})
	}
}

// sealAnswer encrypts a message within a commit that is under way. Nothing is
// asked of the network there.
func (l *link) sealAnswer(message xmppstanza.Message, payload xml.TokenReader, seal omemo.SealFunc) ([]omemo.OutboxRow, error) {
	if message.ID == "" {
		message.ID = newID()
	}
	if message.Type == "" {
		message.Type = xmppstanza.NormalMessage
	}
	e, err := toElement(message.Wrap(payload), l.m.config.Limits)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMessage, err)
	}
	stripInfo(e)
	bare := message.To.Bare()
	d, err := takeApart(e, l.m.own.JID, bare.String(), time.Now())
	if err != nil {
		return nil, err
	}
	split := l.m.config.SplitStanzas != nil && l.m.config.SplitStanzas(bare)
	sealed, err := seal(d.plaintext, []string{bare.String()}, func(s *omemo.Sealed) ([]omemo.Outgoing, error) {
		return l.m.assemble(d, s, split)
	})
	if err != nil {
		return nil, err
	}
	return sealed.Outbox, nil
}
