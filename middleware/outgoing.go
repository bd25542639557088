package middleware

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"example.org/omellium/omemo"
	"example.org/omellium/stanza"
	"mellium.im/xmpp/jid"
)

// enqueue puts a message into its recipient's queue.
func (l *link) enqueue(ctx context.Context, j *job) error {
	e := j.message
	stripInfo(e)
	if id, _ := e.Attribute("id"); id == "" {
		e.SetAttribute("id", newID()) // before encrypting: errors and receipts name it
	}
	if typ, ok := e.Attribute("type"); ok && typ == "" {
		e.SetAttribute("type", "normal") // mellium writes type="" for a message without type
	}
	j.size = len(e.AppendXML(nil))
	l.m.traces.note(attribute(e, "id"), "queued")
	to, _ := e.Attribute("to")
	if err := l.queue.add(ctx, bareOf(to), j); err != nil {
		return fmt.Errorf("middleware: %w", err)
	}
	return nil
}

// process sends one message, in clear if it may, encrypted if it must.
func (l *link) process(j *job) {
	if j.row != nil {
		if l.wait(l.life) == nil {
			l.transmit(l.life, l.stillFor(l.life, *j.row))
		}
		return
	}
	if j.room != "" {
		if l.wait(l.life) == nil {
			l.transmit(l.life, l.stillFor(l.life, l.rooms.due(j.room)...))
		}
		return
	}
	ctx, cancel := context.WithCancel(l.life)
	defer cancel()
	if j.caller != nil {
		if !j.begin() {
			return // nobody waits any more
		}
		defer context.AfterFunc(j.caller.ctx, cancel)()
	}
	result, rows, err := l.send(ctx, j.message)
	if err != nil && l.ctx.Err() != nil {
		err = fmt.Errorf("%w: %w", ErrOffline, err)
	}
	if j.caller != nil {
		j.caller.sealed <- outcome{result, err}
	}
	l.transmit(l.life, rows)
	switch {
	case j.caller != nil:
		close(j.caller.done)
	case err != nil:
		l.failed(j.message, result, err)
	}
}

// send decides about a message, and encrypts it if it must. The rows are
// committed, and left to be written.
func (l *link) send(ctx context.Context, e *stanza.Element) (result *Result, rows []omemo.OutboxRow, err error) {
	defer func() {
		if r := recover(); r != nil {
			l.m.config.Logger.Error("omemo: internal error", "panic", fmt.Sprintf("%T", r))
			err = errPanic
		}
	}()
	id, _ := e.Attribute("id")
	result = &Result{ID: id}
	to := l.m.account
	if value, ok := e.Attribute("to"); ok && value != "" {
		if to, err = jid.Parse(value); err != nil {
			return result, nil, fmt.Errorf("%w: %w", ErrMessage, err)
		}
	}
	bare := to.Bare()
	kind := classify(e, false)
	switch kind {
	case failure:
		// It may quote what it answers, and that was decrypted.
		result.Plain = true
		return result, nil, l.front.SendElement(ctx, onlyError(e))
	case event, roomSignal, empty:
		if l.m.config.policy(bare) != Off {
			if e, err = unencrypted(e); err != nil {
				return result, nil, err
			}
		}
		result.Plain = true
		return result, nil, l.sendClear(ctx, e)
	}
	switch typ, _ := e.Attribute("type"); {
	case typ == "groupchat" && l.m.config.policy(bare) != Off:
		rows, err = l.sealRoom(ctx, e, bare, kind, result)
		return result, rows, err
	case typ != "groupchat" && l.rooms.private(to) && l.m.config.policy(bare) != Off:
		if bare, err = parseBare(l.rooms.occupant(bare.String(), to.Resourcepart())); err != nil {
			return result, nil, ErrOccupant
		}
	}
	if result.Plain, err = l.optedOut(ctx, bare.String()); err == nil && !result.Plain {
		result.Plain, err = l.mayBePlain(ctx, bare)
	}
	if err != nil {
		return result, nil, err
	}
	if result.Plain {
		return result, nil, l.sendClear(ctx, e)
	}
	rows, err = l.seal(ctx, e, bare, kind, result)
	return result, rows, err
}

// sendClear writes a message as it is.
func (l *link) sendClear(ctx context.Context, e *stanza.Element) error {
	if l.m.config.CatchUp {
		l.m.ownClear.note(l.full, e)
	}
	return l.front.SendElement(ctx, e)
}

// onlyError returns an error stanza without what it answers.
func onlyError(e *stanza.Element) *stanza.Element {
	out := &stanza.Element{Name: e.Name, Attr: attributes(e)}
	if c := child(e, "error"); c != nil {
		out.Append(c)
	}
	return out
}

// mayBePlain applies the policy. Opportunistic needs certainty: if it cannot be
// found out whether the account has devices, nothing leaves.
func (l *link) mayBePlain(ctx context.Context, bare jid.JID) (bool, error) {
	switch l.m.config.policy(bare) {
	case Off:
		return true, nil
	case Required:
		return false, nil
	}
	if err := l.wait(ctx); err != nil {
		return false, err
	}
	if err := l.directory.certain(ctx, bare.String()); err != nil {
		return false, err
	}
	contact, _, err := l.m.manager.Account(ctx, bare.String())
	return err == nil && !contact.Seen, err
}

// wait waits until our own device is in order, which takes a wire.
func (l *link) wait(ctx context.Context) error {
	select {
	case <-l.ready:
		return nil
	case <-l.ctx.Done():
	case <-ctx.Done():
	}
	select {
	case <-l.ready:
		return ctx.Err()
	default:
		return ErrOffline
	}
}

// seal encrypts a message for a recipient and our own other devices, and commits
// it.
func (l *link) seal(ctx context.Context, e *stanza.Element, bare jid.JID, kind class, result *Result) ([]omemo.OutboxRow, error) {
	if err := l.wait(ctx); err != nil {
		return nil, err
	}
	draft, err := takeApart(e, l.m.own.JID, bare.String(), time.Now())
	if err != nil {
		return nil, err
	}
	if kind == signalling {
		draft.plaintext.Legacy = nil
	}
	to := []string{bare.String()}
	bundles, err := l.prepare(ctx, draft.plaintext, to[0])
	if err != nil {
		return nil, err
	}
	return l.sealWith(ctx, draft, kind, result, &supply{to, bundles}, func(r omemo.Render, bundles ...*omemo.Bundle) (*omemo.Sealed, error) {
		return l.m.manager.Encrypt(ctx, draft.plaintext, to, r, bundles...)
	})
}

// supply is what was fetched to seal a message for accounts.
type supply struct {
	accounts []string // bare JIDs, beside our own
	bundles  []*omemo.Bundle
}

// complete fetches the bundles that are wanted besides: those of devices whose keys
// were known, and not trusted when the others were fetched.
func (l *link) complete(ctx context.Context, draft *draft, s *supply) error {
	missing, err := l.m.manager.Missing(ctx, draft.plaintext, s.accounts)
	if err != nil {
		return err
	}
	missing = slices.DeleteFunc(missing, func(p omemo.Peer) bool {
		return slices.ContainsFunc(s.bundles, func(b *omemo.Bundle) bool { return b.Peer() == p })
	})
	more, err := l.bundlesOfMany(ctx, draft.to, missing)
	s.bundles = append(s.bundles, more...)
	return err
}

// sealWith has a message encrypted and committed, in smaller steps if it is too
// large.
func (l *link) sealWith(
	ctx context.Context, draft *draft, kind class, result *Result, s *supply,
	encrypt func(omemo.Render, ...*omemo.Bundle) (*omemo.Sealed, error),
) ([]omemo.OutboxRow, error) {
	chat, err := parseBare(draft.to)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMessage, err)
	}
	split := l.m.config.SplitStanzas != nil && l.m.config.SplitStanzas(chat)
	render := func(s *omemo.Sealed) ([]omemo.Outgoing, error) { return l.m.assemble(draft, s, split) }
	seal := func(r omemo.Render) (*omemo.Sealed, error) { return encrypt(r, s.bundles...) }
	if kind != signalling {
		seal = l.asking(ctx, chat, draft.id, seal, func() error { return l.complete(ctx, draft, s) })
	}
	sealed, err := seal(render)
	var size *sizeError
	if errors.As(err, &size) && size.least <= l.m.config.MaxStanza {
		if err := l.openFirst(ctx, sealed.Devices, s.bundles); err != nil {
			return nil, err
		}
		sealed, err = seal(render)
	}
	if sealed != nil {
		result.Devices = sealed.Devices
	}
	var refused *omemo.RecipientError
	switch {
	case kind == signalling && errors.As(err, &refused):
		l.m.emit(Event{Kind: NotSent, Account: draft.to, ID: draft.id})
		return nil, nil
	case errors.Is(err, omemo.ErrIdentityChanged), errors.Is(err, omemo.ErrUntrusted):
		l.compareAll(ctx, s.bundles)
		return nil, err
	case err != nil:
		return nil, err
	}
	l.m.coreEvents(sealed.Events)
	l.m.traces.sealed(draft.id, sealed.Devices)
	if sealed.Owed {
		signal(l.wake)
	}
	l.keepSent(draft, sealed)
	if !draft.transient {
		l.m.emit(Event{Kind: Accepted, Account: draft.to, ID: draft.id, Result: result})
	}
	return sealed.Outbox, nil
}

// compareAll writes down the identity keys that have kept a message from being
// sent, so that somebody can decide about them.
func (l *link) compareAll(ctx context.Context, bundles []*omemo.Bundle) {
	for _, b := range bundles {
		events, err := l.m.manager.Compare(ctx, b)
		if err != nil {
			l.trouble(err)
		}
		l.m.coreEvents(events)
	}
}

// transmit writes committed stanzas. What cannot be written stays in the outbox,
// and leaves after the next Wrap.
func (l *link) transmit(ctx context.Context, rows []omemo.OutboxRow) {
	for _, row := range rows {
		if err := l.front.Send(ctx, row.Stanza); err != nil {
			l.m.config.Logger.Info("omemo: not written", "error", err)
			l.m.traces.note(row.ID, "not written: %s", reason(err))
			return
		}
		l.m.traces.note(row.ID, "written")
		if row.Seq != 0 {
			l.settler.sent(row.Seq)
		}
	}
}
