package middleware

import (
	"context"
	"fmt"

	"example.org/omellium/omemo"
	"example.org/omellium/stanza"
)

// ownCopy looks at a message that this device has sent, as an archive or a
// carbon shows it. Its keys tell in clear how far our sessions have come; if they
// are further than the store says, the store was put back, or another program
// runs on a copy of it.
func (l *link) ownCopy(ctx context.Context, a *arrival, found []*stanza.Element) {
	for _, account := range []string{a.recipient, l.m.own.JID} {
		_, devices, err := l.m.manager.Account(ctx, account)
		if err != nil {
			l.trouble(err)
			return
		}
		for _, d := range devices {
			for _, element := range found {
				behind, err := l.behind(ctx, a, d.Peer, element)
				if err != nil {
					l.trouble(err)
					return
				}
				if behind {
					l.fellBack(ctx)
					return
				}
			}
		}
	}
}

// behind looks at what a message of ours holds for a device.
func (l *link) behind(ctx context.Context, a *arrival, p omemo.Peer, element *stanza.Element) (bool, error) {
	if element.Name.Space != p.Version.Namespace() {
		return false, nil
	}
	e, err := stanza.ParseEncrypted(element, stanza.OwnKey{JID: p.JID, Device: uint32(p.Address.Device)})
	if err != nil {
		return false, nil // not as we write it
	}
	for _, k := range e.Keys {
		behind, err := l.m.manager.Behind(ctx, p, omemo.Key{Exchange: k.Exchange, Data: k.Data}, a.sent)
		if behind || err != nil {
			return behind, err
		}
	}
	return false, nil
}

// fellBack gives the sending state up in the middle of a connection. What waits
// to leave was sealed with it; so the stream ends, and the program connects
// again.
func (l *link) fellBack(ctx context.Context) {
	done, err := l.quarantine(ctx)
	if err != nil {
		l.trouble(err)
		return
	}
	if done {
		l.front.Fail(fmt.Errorf("%w: connect again", ErrRolledBack))
	}
}

// quarantine gives the sending state up, unless that was done within a day, and
// tells the application.
func (l *link) quarantine(ctx context.Context, published ...*omemo.Bundle) (done bool, err error) {
	dropped, done, err := l.m.manager.Quarantine(ctx, published...)
	if err != nil || !done {
		return false, err
	}
	l.m.emit(Event{Kind: StateRolledBack})
	for _, row := range dropped {
		l.m.emit(Event{Kind: SendFailed, Account: row.Chat, ID: row.ID, Err: ErrRolledBack})
	}
	return true, nil
}
