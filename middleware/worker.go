package middleware

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"example.org/omellium/bundle"
	"example.org/omellium/omemo"
	"example.org/omellium/stanza"
	"example.org/omellium/stanza/pep"
	"mellium.im/xmpp/jid"
)

const (
	// workPause is how long the worker waits after something failed, doubled
	// with each failure up to workPauseLimit.
	workPause      = 5 * time.Second
	workPauseLimit = 10 * time.Minute
	nsRoster       = "jabber:iq:roster"
)

// work does what is owed: whenever something new is, and now and then. Owed work
// is kept in the store until it is done, so a crash delays it only.
func (l *link) work() {
	pause := workPause
	for {
		next, err := l.doOwed(l.ctx)
		if err != nil {
			if l.ctx.Err() != nil {
				return
			}
			l.trouble(err)
			next, pause = pause, min(2*pause, workPauseLimit)
		} else {
			pause = workPause
		}
		timer := time.NewTimer(next)
		select {
		case <-l.wake:
		case <-timer.C:
		case <-l.ctx.Done():
		}
		timer.Stop()
		if l.ctx.Err() != nil {
			return
		}
	}
}

// doOwed does all that is owed, and returns when to look again by itself. What
// fails keeps nothing else from being done.
func (l *link) doOwed(ctx context.Context) (time.Duration, error) {
	l.rooms.refresh()
	l.tryAgain(ctx)
	failures := []error{l.reannounce(ctx), l.tell(ctx)}
	wait, again, err := l.catchingUp(ctx)
	failures = append(failures, err)
	due, err := l.m.manager.Upkeep(ctx)
	if err != nil {
		return 0, errors.Join(append(failures, err)...)
	}
	for _, row := range due.Owed {
		if wait && (row.Kind == omemo.OwedCompletion || row.Kind == omemo.OwedHeartbeat) {
			continue
		}
		if err := l.do(ctx, row.OwedID); err != nil {
			failures = append(failures, fmt.Errorf("owed %d to %v: %w", row.Kind, row.Peer, err))
		}
	}
	if again == 0 {
		again = workPauseLimit
	}
	for _, t := range l.publishing {
		again = min(again, max(time.Until(t.after), time.Second))
	}
	again = min(again, max(time.Until(due.Again), workPause))
	if left, ok := l.retrial.left(); ok {
		again = min(again, left)
	}
	return again, errors.Join(failures...)
}

// do does one piece of owed work.
func (l *link) do(ctx context.Context, id omemo.OwedID) error {
	ctx, cancel := context.WithTimeout(ctx, 2*l.m.config.FetchTimeout)
	defer cancel()
	switch id.Kind {
	case omemo.OwedBundle:
		return l.republish(ctx, id.Version)
	case omemo.OwedDevices:
		return l.compare(ctx, id)
	case omemo.OwedCompletion, omemo.OwedHeartbeat:
		visible, err := l.mayAnswer(ctx, id.JID)
		if err != nil {
			return err
		}
		if !visible || !l.answers.allow(id.Address) {
			if id.Kind == omemo.OwedHeartbeat {
				return nil // owed once for a chain: it waits
			}
			return l.m.manager.Strike(ctx, id) // the next exchange of the device brings it up again
		}
		return l.answer(ctx, id, omemo.Plaintext{}, nil)
	case omemo.OwedInvite, omemo.OwedSession:
		bundles, err := l.bundleFor(ctx, id.Peer)
		if err != nil {
			return err
		}
		var p omemo.Plaintext
		if id.Kind == omemo.OwedInvite {
			envelope := stanza.Envelope{From: l.m.own.JID, To: id.JID, Time: time.Now()}
			if p.V2, err = envelope.Marshal(); err != nil {
				return err
			}
		}
		return l.answer(ctx, id, p, bundles)
	}
	return l.m.manager.Strike(ctx, id)
}

// answer sends a message that is owed to one device.
func (l *link) answer(ctx context.Context, id omemo.OwedID, p omemo.Plaintext, bundles []*omemo.Bundle) error {
	d := &draft{
		shell: stanza.NewElement(stanza.NSClient, "message").SetAttribute("type", "chat").SetAttribute("to", id.JID),
		id:    newID(), to: id.JID,
	}
	sealed, err := l.m.manager.Answer(ctx, id, p, func(s *omemo.Sealed) ([]omemo.Outgoing, error) {
		return l.m.assemble(d, s, false)
	}, bundles...)
	switch {
	case errors.Is(err, omemo.ErrNoSession), errors.Is(err, omemo.ErrVersion):
		return nil // and it is struck off
	case errors.Is(err, omemo.ErrNoBundle), errors.Is(err, omemo.ErrBundle),
		errors.Is(err, omemo.ErrIdentityChanged), errors.Is(err, omemo.ErrUntrusted):
		return l.m.manager.Strike(ctx, id) // not to be had, or not wanted: nothing is lost
	case err != nil:
		return err
	}
	l.m.coreEvents(sealed.Events)
	l.transmit(ctx, sealed.Outbox)
	return nil
}

// bundleFor returns the bundle of a device that we have no session with.
func (l *link) bundleFor(ctx context.Context, p omemo.Peer) ([]*omemo.Bundle, error) {
	sessions, err := l.m.manager.Sessions(ctx, p)
	if err != nil || len(sessions) > 0 && !sessions[0].Archived() {
		return nil, err
	}
	return l.bundles(ctx, []omemo.Peer{p})
}

// compare fetches the device lists of an account and the bundle of a device that
// has written to us, and compares its identity key. What cannot be read says
// nothing: some clients let only their contacts read their bundle.
func (l *link) compare(ctx context.Context, id omemo.OwedID) error {
	if err := l.directory.lists(ctx, id.JID); err != nil && !errors.Is(err, pep.ErrNone) {
		l.trouble(err)
	}
	address := id.Address
	address.JID = l.directory.address(address.JID)
	b, err := bundle.Fetch(ctx, l, address, id.Version)
	if errors.Is(err, ErrOffline) {
		return err
	}
	if err == nil {
		b.Owner = id.Address
		events, err := l.m.manager.Compare(ctx, &b)
		if err != nil && !errors.Is(err, omemo.ErrBundle) {
			return err
		}
		l.m.coreEvents(events)
	}
	if err := l.m.manager.Strike(ctx, id); err != nil {
		return err
	}
	l.reopen(ctx, id.Address) // what came from the past under a nick: see inquire
	return nil
}

// mayAnswer reports whether an account may learn that we are online: it may if
// it sees our presence, or if we have written to it.
func (l *link) mayAnswer(ctx context.Context, account string) (bool, error) {
	if l.m.config.AnswerStrangers || account == l.m.own.JID {
		return true, nil
	}
	contact, _, err := l.m.manager.Account(ctx, account)
	if err != nil || contact.Written {
		return contact.Written, err
	}
	return l.roster.sees(ctx, l, account)
}

// roster knows who may see our presence. It is asked for once in a connection,
// and only if it is needed. Nothing about trust rests on it.
type roster struct {
	mu   sync.Mutex
	from map[string]bool
}

func (r *roster) sees(ctx context.Context, l *link, account string) (bool, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.from != nil {
		return r.from[account], nil
	}
	iq := stanza.NewElement(stanza.NSClient, "iq", stanza.NewElement(nsRoster, "query")).SetAttribute("type", "get")
	reply, err := l.Request(ctx, iq)
	if err != nil {
		return false, err
	}
	r.from = make(map[string]bool)
	if query := reply.Child(nsRoster, "query"); query != nil {
		for item := range query.Elements() {
			subscription := attribute(item, "subscription")
			if j, err := jid.Parse(attribute(item, "jid")); err == nil && (subscription == "from" || subscription == "both") {
				r.from[j.Bare().String()] = true
			}
		}
	}
	return r.from[account], nil
}
