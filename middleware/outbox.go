package middleware

import (
	"bytes"
	"context"
	"encoding/xml"
	"errors"
	"sync"
	"time"

	"example.org/omellium/omemo"
	"example.org/omellium/stanza"
)

const (
	// outboxAge is how long a stanza waits to be sent.
	outboxAge = 7 * 24 * time.Hour
	// outboxBatch is how many rows are read at once.
	outboxBatch = 64
	// flushIdle is how long marks wait for a commit to ride with.
	flushIdle = 100 * time.Millisecond
	nsPing    = "urn:xmpp:ping"
)

// resend writes what earlier sessions have left in the outbox: the same bytes,
// never sealed again. Receivers drop what they have seen. What was sealed for a
// device that is distrusted now does not leave.
func (l *link) resend(ctx context.Context) error {
	var after uint64
	for {
		rows, err := l.m.manager.Outbox(ctx, after, outboxBatch)
		if err != nil {
			return err
		}
		for _, row := range rows {
			after = row.Seq
			if time.Since(row.Created) > outboxAge {
				l.m.manager.Later(nil, []uint64{row.Seq})
				l.m.emit(Event{Kind: SendFailed, Account: row.Chat, ID: row.ID, Err: context.DeadlineExceeded})
				continue
			}
			if l.isForRoom(row) {
				l.rooms.postpone(row)
				continue
			}
			l.transmit(ctx, l.stillFor(ctx, row))
		}
		if len(rows) < outboxBatch {
			return nil
		}
	}
}

// stillFor returns those of rows that have waited which may leave now: decisions
// about keys may have been made since they were sealed. If that cannot be told,
// they stay in the outbox.
func (l *link) stillFor(ctx context.Context, rows ...omemo.OutboxRow) []omemo.OutboxRow {
	kept, withheld, err := l.m.manager.Withhold(ctx, rows...)
	if err != nil {
		l.trouble(err)
		return nil
	}
	for _, row := range withheld {
		l.m.traces.note(row.ID, "withheld: a key was distrusted")
		l.m.emit(Event{Kind: SendFailed, Account: row.Chat, ID: row.ID, Err: ErrDistrusted})
	}
	return kept
}

// isForRoom reports whether a stanza is for all in a room: a room takes it only
// from those who are in it, and the application has yet to join.
func (l *link) isForRoom(row omemo.OutboxRow) bool {
	d := xml.NewDecoder(bytes.NewReader(row.Stanza))
	for {
		token, err := d.Token()
		if err != nil {
			return false
		}
		if start, ok := token.(xml.StartElement); ok {
			return attribute(&stanza.Element{Attr: start.Attr}, "type") == "groupchat"
		}
	}
}

// settler removes stanzas from the outbox that the server has: servers process a
// stream in order (RFC 6120, section 10.1), so the answer to a ping answers for
// everything written before it.
type settler struct {
	l    *link
	wake chan struct{}

	mu   sync.Mutex
	rows []uint64
}

func (s *settler) init(l *link) {
	s.l = l
	s.wake = make(chan struct{}, 1)
}

// sent notes a row that has been written.
func (s *settler) sent(seq uint64) {
	s.mu.Lock()
	s.rows = append(s.rows, seq)
	s.mu.Unlock()
	signal(s.wake)
}

func (s *settler) run() {
	ping := stanza.NewElement(stanza.NSClient, "iq", stanza.NewElement(nsPing, "ping")).
		SetAttribute("type", "get").SetAttribute("to", s.l.m.account.Domainpart())
	for {
		select {
		case <-s.wake:
		case <-s.l.ctx.Done():
			return
		}
		s.mu.Lock()
		rows := s.rows
		s.rows = nil
		s.mu.Unlock()
		if len(rows) == 0 {
			continue
		}
		// Any answer will do: that there is no ping is an answer, too.
		if _, err := s.l.Request(s.l.ctx, ping); err != nil {
			return
		}
		s.l.m.manager.Later(nil, rows)
		signal(s.l.marked)
	}
}

// flush commits marks that found no commit to ride with.
func (l *link) flush() {
	for {
		select {
		case <-l.marked:
		case <-l.ctx.Done():
			return
		}
		select {
		case <-time.After(flushIdle):
		case <-l.ctx.Done():
			return
		}
		if err := l.m.manager.Flush(l.ctx); err != nil && !errors.Is(err, context.Canceled) {
			l.trouble(err)
		}
	}
}
