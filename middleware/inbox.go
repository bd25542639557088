package middleware

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"example.org/omellium/omemo"
	"mellium.im/xmpp/jid"
)

const (
	// maxAttempts is how often a message is handed over again that no handler
	// has finished with.
	maxAttempts = 5
	// inboxBatch is how many rows are read at once.
	inboxBatch = 256
	// siblingWait is how long the other half of a message may take that was sent
	// in two stanzas, one for each version.
	siblingWait = 10 * time.Second
	// maxSiblings bounds the devices that are remembered for it, and the messages
	// that wait.
	maxSiblings = 1024
	// inboxPause is how long it takes until a message is read again that the store
	// did not give, doubled up to inboxPauseLimit.
	inboxPause      = 100 * time.Millisecond
	inboxPauseLimit = 10 * time.Second
)

var errAttempts = errors.New("middleware: message was handed over too often")

// redeliver hands over what earlier sessions have left in the inbox, before
// anything new. The first of them may be what ended the program: it is given up
// after some attempts.
func (l *link) redeliver(ctx context.Context) error {
	var after uint64
	first := true
	for {
		rows, err := l.m.manager.Inbox(ctx, after, inboxBatch)
		if err != nil {
			return err
		}
		for _, row := range rows {
			after = row.Seq
			switch {
			case row.Dead:
				continue
			case row.Attempts >= maxAttempts:
				row.Dead = true
				if err := l.m.manager.Attempt(ctx, row); err != nil {
					return err
				}
				l.m.emit(Event{Kind: DeadLetter, Err: fmt.Errorf("%w: %s", errAttempts, row.Event)})
				continue
			}
			l.deliver(row.Seq, first)
			first = false
		}
		if len(rows) < inboxBatch {
			return nil
		}
	}
}

// deliver queues a message of the inbox for the application. Only its number is
// kept in memory; when the application asks for the next stanza, it has read
// this one. If the stream has ended by then, the message is for the next one: an
// answer to it could not leave. count writes down that it was handed over.
//
// While the store fails, the message waits, and what comes after it with it.
func (l *link) deliver(seq uint64, count bool) {
	l.front.DeliverLazily(func() ([]byte, func(), bool) {
		rows, ok := l.readInbox(seq, count)
		if !ok || len(rows) == 0 || rows[0].Seq != seq {
			return nil, nil, false
		}
		return rows[0].Stanza, func() {
			l.m.manager.Later([]uint64{seq}, nil)
			signal(l.marked)
		}, true
	})
}

// readInbox reads a row, and counts the attempt; ok is false if the link has ended
// before the store gave it.
func (l *link) readInbox(seq uint64, count bool) (rows []omemo.InboxRow, ok bool) {
	for pause := inboxPause; ; pause = min(2*pause, inboxPauseLimit) {
		rows, err := l.m.manager.Inbox(l.ctx, seq-1, 1)
		if err == nil && count && len(rows) > 0 && rows[0].Seq == seq {
			rows[0].Attempts++
			err = l.m.manager.Attempt(l.ctx, rows[0])
		}
		if err == nil {
			return rows, true
		}
		l.trouble(err)
		if errors.Is(err, omemo.ErrFenced) || errors.Is(err, omemo.ErrClosed) {
			return nil, false
		}
		select {
		case <-time.After(pause):
		case <-l.ctx.Done():
			return nil, false
		}
	}
}

// siblings waits, for messages without a key for us, whether the same device
// sends another stanza that has one: contacts with mixed devices get one for
// each version, in whatever order.
type siblings struct {
	mu      sync.Mutex
	opened  map[omemo.Address]time.Time
	waiting map[omemo.Address][]*time.Timer
	timers  int // that are waiting
}

// missing reports NotForUs, unless a sibling was found lately or is in time.
func (s *siblings) missing(l *link, from omemo.Address, id string) {
	report := func() {
		if l.ctx.Err() == nil {
			l.m.emit(Event{Kind: NotForUs, Account: from.JID, Device: from.Device, ID: id})
			l.doubtOwnLists()
		}
	}
	if !s.await(from, report) {
		report()
	}
}

// await has a message reported in a while, unless a sibling was found lately. It
// reports whether it does: in a flood, it is not worth the wait.
func (s *siblings) await(from omemo.Address, report func()) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if time.Since(s.opened[from]) < siblingWait {
		return true
	}
	if s.timers >= maxSiblings {
		return false
	}
	if s.waiting == nil {
		s.waiting = make(map[omemo.Address][]*time.Timer)
	}
	var timer *time.Timer
	timer = time.AfterFunc(siblingWait, func() {
		s.mu.Lock()
		s.timers--
		s.waiting[from] = slices.DeleteFunc(s.waiting[from], func(t *time.Timer) bool { return t == timer })
		if len(s.waiting[from]) == 0 {
			delete(s.waiting, from)
		}
		s.mu.Unlock()
		report()
	})
	s.timers++
	s.waiting[from] = append(s.waiting[from], timer)
	return true
}

// found notes that a message of the device was for us.
func (s *siblings) found(from omemo.Address) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.opened == nil || len(s.opened) >= maxSiblings {
		s.opened = make(map[omemo.Address]time.Time)
	}
	s.opened[from] = time.Now()
	for _, timer := range s.waiting[from] {
		if timer.Stop() { // else it counts itself
			s.timers--
		}
	}
	delete(s.waiting, from)
}

func parseBare(account string) (jid.JID, error) {
	j, err := jid.Parse(account)
	return j.Bare(), err
}
