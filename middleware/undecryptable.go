package middleware

import (
	"context"
	"errors"

	"example.org/omellium/omemo"
)

// undecryptable reports a message that could not be opened. Nothing is answered
// but for one case: a live omemo:2 message without any session, from a listed
// device, is answered by a new session, once a day.
func (l *link) undecryptable(ctx context.Context, a *arrival, msg *omemo.Message, err error) {
	e := Event{
		Kind: Undecryptable, Account: msg.Sender.JID, Device: msg.Sender.Device, Version: msg.Version,
		ID: attribute(a.message, "id"), Err: err,
	}
	a.lost = !omemo.IsVerdict(err)
	switch {
	case errors.Is(err, omemo.ErrOwnMessage):
		return
	case errors.Is(err, omemo.ErrDuplicate):
		if l.recall(a, nameOf(a, msg.Sender.Device, msg.Version.Namespace(), msg.IV, msg.Payload, msg.Keys)) {
			return
		}
		e.Kind = Duplicate
	case errors.Is(err, omemo.ErrIdentityChanged):
		e.Kind = IdentityChanged
	case errors.Is(err, omemo.ErrFenced), errors.Is(err, omemo.ErrClosed), errors.Is(err, context.Canceled):
		l.trouble(err) // it says nothing about the message: whoever owns the store now will get it
		return
	}
	if a.journal != 0 { // it was reported when it came
		if passes(err) {
			l.postponed()
		}
		return
	}
	if a.past && errors.Is(err, ErrOccupant) {
		l.inquire(ctx, a, msg)
		return
	}
	l.m.emit(e)
	if !a.live || !errors.Is(err, omemo.ErrNoSession) && !passes(err) {
		return // an archive has it still, or nothing helps
	}
	a.lost = !l.retain(ctx, msg.Sender, err, a.outer)
	if passes(err) && !a.lost {
		l.postponed()
	}
	if errors.Is(err, omemo.ErrNoSession) {
		owed, err := l.m.manager.Introduce(ctx, omemo.Peer{Version: msg.Version, Address: msg.Sender})
		if err != nil {
			l.trouble(err)
		}
		if owed {
			signal(l.wake)
		}
	}
}
