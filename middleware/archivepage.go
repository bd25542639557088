package middleware

import (
	"context"
	"errors"
	"slices"

	"example.org/omellium/omemo"
	"example.org/omellium/stanza"
)

// errLost: a message could neither be dealt with nor be kept.
var errLost = errors.New("middleware: message of an archive is not committed")

// batch is the part of a page that is committed at once.
type batch struct {
	l       *link
	in      *intake
	items   []omemo.PageItem
	entries []entry // of each item
	cursor  omemo.Cursor
}

// entry is what stands behind an item.
type entry struct {
	arrival *arrival
	answers *[]omemo.OutboxRow
}

// readPage deals with a page: all that can be opened is, in order, and committed
// together with the position; then it is delivered.
func (l *link) readPage(ctx context.Context, in *intake, results []*result) error {
	b := &batch{l: l, in: in}
	for _, r := range results {
		b.cursor = omemo.Cursor{Archive: in.archive, Position: r.id, When: r.stamp}
		before := len(b.items)
		if err := b.read(ctx, r); err != nil {
			return err
		}
		if len(b.items) == before { // nothing to deliver, but a position
			b.add(omemo.PageItem{}, nil)
		}
	}
	return b.commit(ctx)
}

func (b *batch) add(item omemo.PageItem, a *arrival) {
	item.Cursor = b.cursor
	b.items = append(b.items, item)
	b.entries = append(b.entries, entry{arrival: a})
}

// read decides about one message, as incoming does about one that comes live.
func (b *batch) read(ctx context.Context, r *result) error {
	l := b.l
	if r.message == nil {
		return nil
	}
	a, err := l.unpack(b.in.archive, r)
	if err != nil {
		l.refused(r.message, err)
		return nil
	}
	if a.lost {
		return errLost
	}
	class := classify(a.message, attribute(a.message, "from") == l.m.account.Domainpart())
	inRoom := b.in.archive != l.m.own.JID
	switch {
	case class == failure, class == empty, class == event && child(a.message, "body") == nil:
		return nil // of no use any more
	case class == event, class == roomSignal && !inRoom: // word from the server; an invitation
		if !b.knows(a, r.id) {
			b.clear(a, r.id)
		}
		return nil
	case class == roomSignal, inRoom != (a.room != ""):
		return nil
	}
	found, err := stanza.Find(a.message)
	if err != nil || len(found) > 0 {
		l.heard(ctx, a.sender)
	}
	switch {
	case err != nil:
		l.refused(a.message, err)
	case len(found) == 0:
		if !b.knows(a, r.id) && l.admitted(ctx, a) {
			b.clear(a, r.id)
		}
	case inRoom && a.sender == l.m.own.JID:
		// It may be what this device has sent: that is looked up by itself.
		if err := b.commit(ctx); err != nil {
			return err
		}
		fallthrough
	default:
		l.openOne(ctx, a, found, b.open)
	}
	if a.lost {
		return errLost
	}
	return nil
}

// knows reports whether the application has a message that was not encrypted: it was
// delivered before, or it was sent here.
func (b *batch) knows(a *arrival, id string) bool {
	return b.in.wasInClear(id) || b.l.isOwnClear(a)
}

// clear has a message delivered that was not encrypted.
func (b *batch) clear(a *arrival, id string) {
	b.add(omemo.PageItem{Stanza: a.outer.AppendXML(nil), Event: b.in.archive + "/" + id}, a)
}

// open has an encrypted message opened.
func (b *batch) open(_ context.Context, a *arrival, msg *omemo.Message) {
	answers := new([]omemo.OutboxRow)
	b.add(omemo.PageItem{
		Message: msg,
		Verify: func(o *omemo.Opened) (omemo.Delivery, error) {
			return b.l.verify(a, o, answers)
		},
		Stanza: a.outer.AppendXML(nil),
	}, a)
	b.entries[len(b.entries)-1].answers = answers
}

// commit opens and commits what was read so far, and delivers it.
func (b *batch) commit(ctx context.Context) error {
	l, items, entries := b.l, b.items, b.entries
	b.items, b.entries = nil, nil
	if len(items) == 0 {
		return nil
	}
	results, err := l.m.manager.DecryptPage(ctx, items)
	for i, r := range results {
		a, msg := entries[i].arrival, items[i].Message
		switch {
		case r.Opened != nil:
			l.opened(ctx, a, msg, r.Opened, *entries[i].answers)
		case r.Err != nil:
			l.undecryptable(ctx, a, msg, r.Err)
			if r.Kept && passes(r.Err) {
				l.postponed()
			}
		case r.Seq != 0:
			b.in.inClear(a, b.in.position(a))
			l.deliver(r.Seq, false)
		}
	}
	if errors.Is(err, omemo.ErrFenced) || errors.Is(err, omemo.ErrClosed) {
		l.trouble(err)
	}
	return err
}

// unpack makes of a message in an archive what the application would have got
// had it been there: the message with its time and its id in the archive; what
// another device of our account has sent, as a carbon.
func (l *link) unpack(archive string, r *result) (*arrival, error) {
	m := r.message.Clone()
	without(m, func(c *stanza.Element) bool {
		return c.Is(stanza.NSSID, "stanza-id") && bareOf(attribute(c, "by")) == archive
	})
	m.Append(stanza.NewElement(stanza.NSSID, "stanza-id").SetAttribute("by", archive).SetAttribute("id", r.id))
	from, to := l.account(attribute(m, "from")), l.account(attribute(m, "to"))
	var delay *stanza.Element
	if !r.stamp.IsZero() {
		delay = stanza.NewElement(stanza.NSDelay, "delay").
			SetAttribute("from", archive).SetAttribute("stamp", r.stamp.UTC().Format(stampFormat))
	}
	own := l.m.own.JID
	switch {
	case archive != own && (from != archive || attribute(m, "type") != "groupchat"):
		return nil, errOrigin // a room knows what was said there, and nothing else
	case archive == own && from == own && to != own:
		forwarded := stanza.NewElement(nsForward, "forwarded")
		if delay != nil {
			forwarded.Append(delay)
		}
		forwarded.Append(m)
		sent := stanza.NewElement(stanza.NSClient, "message", stanza.NewElement(nsCarbons, "sent", forwarded)).
			SetAttribute("from", own).SetAttribute("to", l.full.String())
		if typ, ok := m.Attribute("type"); ok {
			sent.SetAttribute("type", typ)
		}
		return l.arrivePast(sent)
	case archive == own && to != own:
		return nil, errOrigin
	}
	if delay != nil {
		without(m, func(c *stanza.Element) bool { return c.Is(stanza.NSDelay, "delay") })
		m.Append(delay)
	}
	return l.arrivePast(m)
}

// without removes children.
func without(e *stanza.Element, drop func(*stanza.Element) bool) {
	e.Children = slices.DeleteFunc(e.Children, func(n stanza.Node) bool { return n.Element != nil && drop(n.Element) })
}

// stampFormat is the form of times in stanzas (XEP-0082).
const stampFormat = "2006-01-02T15:04:05.000Z"
