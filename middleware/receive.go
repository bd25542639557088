package middleware

import (
	"context"
	"database/sql"
	"encoding/xml"
	"errors"
	"fmt"
	"time"

	"example.org/omellium/omemo"
	"example.org/omellium/stanza"
	xmppstanza "mellium.im/xmpp/stanza"
)

// Delivery is a decrypted message, as Config.Receive gets it.
type Delivery struct {
	Info Info
	// Stanza is the plain message, with Info in it, as a handler would read it.
	Stanza []byte
	// Send answers: the message is encrypted at once for the recipient's devices
	// that there are sessions with, and leaves when everything is committed. In the
	// first moments of a room, or when its members change, it is ErrRoomChanged.
	// payload holds the children of the message.
	Send func(message xmppstanza.Message, payload xml.TokenReader) error
}

var (
	errNoSQL   = errors.New("middleware: Config.Receive needs a store on database/sql")
	errReceive = errors.New("middleware: Config.Receive has panicked")
)

// receive has the message handled inside its own commit. The answers are left in
// sent, to be written once it is done.
func (l *link) receive(info Info, plain []byte, sent *[]omemo.OutboxRow) func(context.Context, any, omemo.Sealer) error {
	return func(ctx context.Context, transaction any, sealer omemo.Sealer) (err error) {
		tx, ok := transaction.(*sql.Tx)
		if !ok {
			return errNoSQL
		}
		*sent = nil    // the commit may be tried more than once
		defer func() { // a panic is an error like any other: the message is not committed
			if r := recover(); r != nil {
				l.m.config.Logger.Error("omemo: Config.Receive", "panic", fmt.Sprintf("%T", r))
				err = errReceive
			}
		}()
		return l.m.config.Receive(ctx, tx, Delivery{
			Info:   info,
			Stanza: plain,
			Send: func(message xmppstanza.Message, payload xml.TokenReader) error {
				rows, err := l.sealAnswer(message, payload, sealer)
				*sent = append(*sent, rows...)
				return err
			},
		})
	}
}

// sealAnswer encrypts a message within a commit that is under way. Nothing is
// asked of the network there.
func (l *link) sealAnswer(message xmppstanza.Message, payload xml.TokenReader, sealer omemo.Sealer) ([]omemo.OutboxRow, error) {
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
	if message.Type == xmppstanza.GroupChatMessage {
		return l.sealRoomAnswer(e, bare.String(), sealer)
	}
	if l.rooms.private(message.To) {
		if bare, err = parseBare(l.rooms.occupant(bare.String(), message.To.Resourcepart())); err != nil {
			return nil, ErrOccupant
		}
	}
	d, err := takeApart(e, l.m.own.JID, bare.String(), time.Now())
	if err != nil {
		return nil, err
	}
	sealed, err := sealer.Encrypt(d.plaintext, []string{bare.String()}, l.renderAnswer(d))
	if err != nil {
		return nil, err
	}
	return sealed.Outbox, nil
}

// sealRoomAnswer is sealAnswer for a room: for the members that are known, and
// those of their devices that there is a session with or a bundle of.
func (l *link) sealRoomAnswer(e *stanza.Element, bare string, sealer omemo.Sealer) ([]omemo.OutboxRow, error) {
	known, err := l.rooms.memory(bare)
	if err != nil {
		return nil, err
	}
	d, err := takeApart(e, l.m.own.JID, bare, time.Now())
	if err != nil {
		return nil, err
	}
	d.group = true
	render := l.forRoom(known, nil, &Result{ID: d.id}, l.renderAnswer(d))
	sealed, err := sealer.EncryptGroup(d.plaintext, known.members, render, l.ahead.of(known.members)...)
	if err != nil {
		return nil, err
	}
	return sealed.Outbox, nil
}

func (l *link) renderAnswer(d *draft) omemo.Render {
	chat, err := parseBare(d.to)
	split := err == nil && l.m.config.SplitStanzas != nil && l.m.config.SplitStanzas(chat)
	return func(s *omemo.Sealed) ([]omemo.Outgoing, error) { return l.m.assemble(d, s, split) }
}
