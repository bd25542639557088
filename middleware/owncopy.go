package middleware

import (
	"context"
	"errors"
	"fmt"

	"example.org/omellium/omemo"
	"example.org/omellium/stanza"
)

// In a room, so many other accounts and so many devices are looked at, which differ
// from message to message: a message of a copy is ahead of us for each of them, and
// looking at all in a large room would hold up what comes after it.
const (
	ownCopyAccounts = 8
	ownCopyDevices  = 32
)

// ownCopy looks at a message that this device has sent, as an archive, a carbon or
// a room shows it. Its keys tell in clear how far our sessions have come; if they
// are further than the store says, the store was put back, or another program
// runs on a copy of it.
func (l *link) ownCopy(ctx context.Context, a *arrival, found []*stanza.Element) {
	accounts := []string{l.m.own.JID}
	if a.room != "" {
		accounts = append(accounts, l.rooms.some(a.room, ownCopyAccounts)...)
	} else if a.recipient != l.m.own.JID {
		accounts = append(accounts, a.recipient)
	}
	var all []omemo.Device
	holders := make(map[omemo.DeviceID]int) // of a device id in legacy
	for _, account := range accounts {
		_, devices, err := l.m.manager.Account(ctx, account)
		if err != nil {
			l.trouble(err)
			return
		}
		for _, d := range devices {
			if d.Version == omemo.Legacy {
				holders[d.Address.Device]++
			}
		}
		all = append(all, devices...)
	}
	if a.room != "" {
		all = all[:min(len(all), ownCopyDevices)]
	}
	for _, d := range all {
		// Legacy does not say whose device a key is for, and everybody chooses his
		// ids: the key exchange for another device of that id shows nothing.
		sure := d.Version == omemo.V2 || a.room == "" && holders[d.Address.Device] == 1
		for _, element := range found {
			behind, err := l.behind(ctx, a, d.Peer, element, sure)
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

// behind looks at what a message of ours holds for a device. exchanges: at key
// exchanges, too.
func (l *link) behind(ctx context.Context, a *arrival, p omemo.Peer, element *stanza.Element, exchanges bool) (bool, error) {
	if element.Name.Space != p.Version.Namespace() {
		return false, nil
	}
	e, err := stanza.ParseEncrypted(element, stanza.OwnKey{JID: p.JID, Device: uint32(p.Address.Device)})
	if err != nil {
		return false, nil // not as we write it
	}
	for _, k := range e.Keys {
		if k.Exchange && !exchanges {
			continue
		}
		behind, err := l.m.manager.Behind(ctx, p, omemo.Key{Exchange: k.Exchange, Data: k.Data}, a.sent)
		if behind || err != nil {
			return behind, err
		}
	}
	return false, nil
}

// fellBack is fallBack for those who have nothing to stop.
func (l *link) fellBack(ctx context.Context) {
	if err := l.fallBack(ctx); err != nil && !errors.Is(err, ErrRolledBack) {
		l.trouble(err)
	}
}

// fallBack gives the sending state up in the middle of a connection. What waits
// to leave was sealed with it; so the stream ends, with ErrRolledBack, and the
// program connects again.
func (l *link) fallBack(ctx context.Context, published ...*omemo.Bundle) error {
	done, err := l.quarantine(ctx, published...)
	if err != nil || !done {
		return err
	}
	err = fmt.Errorf("%w: connect again", ErrRolledBack)
	l.front.Fail(err)
	return err
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
