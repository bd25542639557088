package middleware

import (
	"context"
	"fmt"
	"slices"

	"example.org/omellium/devicelist"
	"example.org/omellium/omemo"
	"example.org/omellium/stanza"
)

// incoming decides about a message that has come.
func (l *link) incoming(ctx context.Context, e *stanza.Element) {
	if l.collect(e) {
		return
	}
	a, err := l.arrive(e, "")
	if err != nil {
		l.refused(e, err)
		return
	}
	if a.outer == a.message {
		l.rooms.news(e)
	}
	fromServer := a.outer == a.message && attribute(e, "from") == l.m.account.Domainpart()
	switch classify(a.message, fromServer) {
	case event:
		if a.outer == a.message {
			l.listEvent(ctx, e)
		}
		a.word = true
	case failure:
		// It may quote our own ciphertext: never decrypted, no evidence of anything.
		// And what it quotes in clear anybody can have written.
		a.message.Children = slices.DeleteFunc(a.message.Children, func(n stanza.Node) bool {
			return n.Element != nil && n.Element != child(a.message, "error") &&
				(n.Element.Name.Local == "encrypted" || !stanza.Outside(n.Element))
		})
		l.pass(e)
		return
	case roomSignal:
		a.word = true
	case empty:
		l.pass(e)
		return
	}
	in := l.intakes.of(a, l.m.own.JID)
	// What is not fetched from an archive waits for none.
	if in == nil || a.asked || a.word && (a.room != "" || in.position(a) == "") {
		l.take(ctx, a)
		return
	}
	if !in.hold(a) {
		l.take(ctx, a)
		in.reached(l, a)
	}
}

// take deals with a message that holds something for the application.
func (l *link) take(ctx context.Context, a *arrival) {
	if a.word {
		l.pass(a.outer)
		return
	}
	found, err := stanza.Find(a.message)
	if err != nil || len(found) > 0 {
		l.heard(ctx, a.sender)
	}
	if err != nil {
		l.refused(a.message, err)
		return
	}
	if len(found) == 0 {
		l.inClear(ctx, a)
		return
	}
	l.openOne(ctx, a, found, l.decrypt)
}

// heard remembers that an account uses OMEMO, whether what it has sent can be
// read or not, if it could otherwise be written to in clear.
func (l *link) heard(ctx context.Context, account string) {
	bare, err := parseBare(account)
	if err != nil || account == l.m.own.JID || l.m.config.policy(bare) != Opportunistic {
		return
	}
	if err := l.m.manager.Heard(ctx, account); err != nil {
		l.trouble(err)
	}
}

// refused drops a message that breaks a rule.
func (l *link) refused(e *stanza.Element, err error) {
	l.m.emit(Event{Kind: Refused, Account: bareOf(attribute(e, "from")), ID: attribute(e, "id"), Err: err})
}

// inClear passes a message on that is not encrypted, if it may be so.
func (l *link) inClear(ctx context.Context, a *arrival) {
	if !l.isOwnClear(a) && l.admitted(ctx, a) {
		l.pass(a.outer)
	}
}

// admitted applies the policy to a message that is not encrypted.
func (l *link) admitted(ctx context.Context, a *arrival) bool {
	partner := a.sender
	if partner == l.m.own.JID {
		partner = a.recipient // the copy of a message that we have sent elsewhere
	}
	if a.room != "" {
		partner = a.room
	}
	if partner == "" {
		partner = bareOf(attribute(a.message, "from"))
	}
	signal := classify(a.message, false) == signalling
	allowed := signal && onlyBeside(a.message, l.m.config.AllowPlain...)
	if !allowed {
		var err error
		if allowed, err = l.clearFrom(ctx, partner, a.room != ""); err != nil {
			l.trouble(err)
		}
	}
	e := Event{Kind: PlaintextReceived, Account: a.sender, Room: a.room, ID: attribute(a.message, "id")}
	switch {
	case allowed:
	case signal: // legacy has no other way to say it: nothing to worry about
		e.Kind = SignallingDropped
		l.m.emit(e)
	default:
		l.m.emit(e)
	}
	return allowed
}

// clearFrom reports whether the policy lets an account, or those in a room, write
// in clear.
func (l *link) clearFrom(ctx context.Context, account string, room bool) (bool, error) {
	if optedOut, err := l.optedOut(ctx, account); err != nil || optedOut {
		return optedOut, err
	}
	bare, err := parseBare(account)
	if err != nil {
		return false, err
	}
	switch policy := l.m.config.policy(bare); {
	case policy == Off:
		return true, nil
	case policy == Required, room: // a room has no devices that could be looked for
		return false, nil
	}
	contact, _, err := l.m.manager.Account(ctx, account)
	return err == nil && !contact.Seen, err
}

// listEvent takes over a device list that its account has changed.
func (l *link) listEvent(ctx context.Context, e *stanza.Element) {
	change, err := devicelist.ParseEvent(e)
	if err != nil {
		l.refused(e, err)
		return
	}
	if change == nil {
		return
	}
	k := listKey{l.account(change.Account), change.List.Version}
	if change.Refetch {
		l.directory.doubt(k)
		signal(l.wake)
		return
	}
	if err := l.directory.set(ctx, k, change.List, true); err != nil {
		l.trouble(err)
		return
	}
	if k.account == l.m.own.JID {
		l.overlap.event(l.directory.heard(k), change.List)
		if !change.List.Contains(l.m.own.Device()) {
			l.directory.doubt(k)
		}
		l.seenOn(change.List)
	}
	signal(l.wake) // a device that lists both versions now may be owed an invitation
}

// openOne decrypts a message. Of two elements, one for each version, the one that
// carries our key counts, omemo:2 first; never both.
func (l *link) openOne(ctx context.Context, a *arrival, found []*stanza.Element, open func(context.Context, *arrival, *omemo.Message)) {
	id := attribute(a.message, "id")
	var notOurs *stanza.Encrypted
	for _, element := range found {
		e, err := stanza.ParseEncrypted(element, stanza.OwnKey{JID: l.m.own.JID, Device: uint32(l.m.own.Device())})
		if err != nil {
			l.m.emit(Event{Kind: Refused, Account: a.sender, ID: id, Err: err})
			return
		}
		if a.sender == "" {
			account := bareOf(attribute(a.message, "from"))
			l.m.emit(Event{Kind: UnknownOccupant, Account: account, Device: omemo.DeviceID(e.Sender), ID: id, Err: ErrOccupant})
			return
		}
		if l.reflected(a, e, element) {
			return
		}
		if len(e.Keys) == 0 {
			if l.recallOwn(a, e, element) {
				return
			}
			if element.Child(e.Namespace, "payload") != nil {
				notOurs = e // an empty message is for one device, and tells others nothing
			}
			continue
		}
		msg := message(e, a.sender)
		msg.Journal = a.journal
		open(ctx, a, msg)
		return
	}
	if notOurs == nil {
		return
	}
	from := omemo.Address{JID: a.sender, Device: omemo.DeviceID(notOurs.Sender)}
	if from == l.m.own.Address() {
		l.ownCopy(ctx, a, found)
		return
	}
	l.siblings.missing(l, from, id)
}

// message turns the XML form of an encrypted message into the core's.
func message(e *stanza.Encrypted, sender string) *omemo.Message {
	m := &omemo.Message{
		Version: omemo.Legacy, Sender: omemo.Address{JID: sender, Device: omemo.DeviceID(e.Sender)},
		IV: e.IV, Payload: e.Payload,
	}
	if e.Namespace == stanza.NSV2 {
		m.Version = omemo.V2
	}
	for _, k := range e.Keys {
		m.Keys = append(m.Keys, omemo.Key{Exchange: k.Exchange, Data: k.Data})
	}
	return m
}

func (l *link) decrypt(ctx context.Context, a *arrival, msg *omemo.Message) {
	var answers []omemo.OutboxRow
	opened, err := l.m.manager.Decrypt(ctx, msg, func(o *omemo.Opened) (omemo.Delivery, error) {
		return l.verify(a, o, &answers)
	})
	if err != nil {
		l.undecryptable(ctx, a, msg, err)
		return
	}
	l.opened(ctx, a, msg, opened, answers)
}

// opened delivers what was decrypted and committed.
func (l *link) opened(ctx context.Context, a *arrival, msg *omemo.Message, opened *omemo.Opened, answers []omemo.OutboxRow) {
	l.keepReceived(a, msg)
	for _, e := range a.events {
		l.m.emit(e)
	}
	l.siblings.found(msg.Sender)
	l.m.coreEvents(opened.Events)
	l.m.traces.note(attribute(a.message, "id"), "decrypted in %v, %v session, live: %t, for a handler: %t",
		opened.Version, opened.Session.Initiation(), a.live, opened.Delivery.Seq != 0)
	if a.optOut {
		l.heedOptOut(a, opened)
	}
	l.confirmed.send()
	if opened.Owed {
		signal(l.wake)
	}
	if opened.Delivery.Seq != 0 {
		l.deliver(opened.Delivery.Seq, false)
	}
	l.push(answers)
	if opened.Built {
		l.reopen(ctx, msg.Sender)
	}
}

// push queues what is sealed and committed already.
func (l *link) push(rows []omemo.OutboxRow) {
	for _, row := range rows {
		l.queue.push(row.Chat, &job{row: &row})
	}
}

// reopen tries what the journal holds of a device that has begun a new session,
// or, if none is named, of all.
func (l *link) reopen(ctx context.Context, from omemo.Address) {
	rows, err := l.m.manager.Kept(ctx, from)
	if err != nil {
		l.trouble(err)
		l.postponed()
		return
	}
	for _, row := range rows {
		e, err := stanza.ParseElement(row.Stanza, l.m.config.Limits)
		if err != nil {
			continue
		}
		a, err := l.arrive(e, row.From.JID)
		if err != nil {
			continue
		}
		a.live, a.journal = false, row.ID
		if a.sent.After(row.Received) {
			a.sent = row.Received
		}
		if found, err := stanza.Find(a.message); err == nil && len(found) > 0 {
			l.openOne(ctx, a, found, l.decrypt)
		}
	}
}

// verify checks what a message holds and makes the stanza that the application
// gets. It runs before anything is committed.
func (l *link) verify(a *arrival, o *omemo.Opened, answers *[]omemo.OutboxRow) (omemo.Delivery, error) {
	a.events, a.text = nil, nil
	if a.past && o.FirstSeen {
		// The nick may have been another account's when this was said. Only a key
		// that is known to be the account's shows that it was not.
		return omemo.Delivery{}, ErrOccupant
	}
	info := Info{
		Account: a.sender, Device: o.Sender.Device, Version: o.Version, Fingerprint: o.Fingerprint, Trust: o.Trust,
		Event: o.Event, First: o.FirstSeen, Authenticated: o.Authenticated,
	}
	var content []*stanza.Element
	var d omemo.Delivery
	switch o.Version {
	case omemo.V2:
		envelope, err := stanza.ParseEnvelope(o.Plaintext)
		if err != nil {
			return omemo.Delivery{}, err
		}
		expect := stanza.Expect{From: a.sender, To: a.recipient, Group: a.room != "", Time: a.sent, Window: TimeWindow}
		switch err := envelope.Verify(expect); {
		case err == stanza.ErrTime: // clocks are wrong more often than servers hold back messages
			info.Skewed = true
		case err != nil:
			return omemo.Delivery{}, err
		}
		info.Bound, info.Padded = envelope.From != "" && envelope.To != "", envelope.Padded
		_, a.optOut = envelope.OptOut()
		content = envelope.Content
		if l.m.config.AutomaticTrust {
			if content, d, err = takeTrust(a, envelope); err != nil {
				a.events = append(a.events, Event{Kind: Refused, Account: a.sender, Device: o.Sender.Device, ID: attribute(a.message, "id"), Err: err})
			}
		}
	default:
		body := stanza.NewText(stanza.NSClient, "body", string(o.Plaintext))
		if !stanza.ValidText(string(o.Plaintext)) {
			return omemo.Delivery{}, fmt.Errorf("%w: text of a body", stanza.ErrMarkup)
		}
		content = []*stanza.Element{body}
	}
	if len(content) == 0 {
		return d, nil
	}
	if a.private {
		content = append(content, stanza.NewElement(nsRoomUser, "x"))
	}
	if o.Trust == omemo.Distrusted || o.Trust < l.m.config.MinTrust {
		a.events = append(a.events, Event{
			Kind: Untrusted, Account: a.sender, Device: o.Sender.Device, Version: o.Version, Fingerprint: o.Fingerprint,
			ID: attribute(a.message, "id"),
		})
		return d, nil
	}
	if l.m.config.Archive != nil {
		a.text = keptForm(content, info)
	}
	d.Stanza = a.with(plain(a.message, content, info))
	a.optOut = a.optOut && o.Trust.Sendable() && a.sender != l.m.own.JID
	d.OptOut = a.optOut && l.m.config.AskOptOut
	if l.m.config.Receive != nil {
		d.Within = l.receive(info, d.Stanza, answers)
	}
	return d, nil
}
