package middleware

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"example.org/omellium/omemo"
	"example.org/omellium/stanza"
	"mellium.im/xmpp/jid"
)

// parallelMembers bounds the members of a room whose lists and bundles are asked
// for at once. It is large: those whose server does not answer must not keep the
// others waiting.
const parallelMembers = 128

// roomAttempts is how often a message is begun anew because its room has changed
// while devices were asked for.
const roomAttempts = 10

// sealRoom encrypts a message for all members of a room and our own other
// devices, and commits it.
func (l *link) sealRoom(ctx context.Context, e *stanza.Element, bare jid.JID, kind class, result *Result) ([]omemo.OutboxRow, error) {
	if err := l.wait(ctx); err != nil {
		return nil, err
	}
	for attempt := 1; ; attempt++ {
		rows, err := l.sealRoomOnce(ctx, e, bare, kind, result)
		switch {
		case errors.Is(err, ErrRoomChanged) && attempt < roomAttempts:
			*result = Result{ID: result.ID}
			continue
		case kind == signalling && (isUnfit(err) || errors.Is(err, ErrNotJoined)):
			l.m.emit(Event{Kind: NotSent, Account: bare.String(), ID: result.ID})
			return nil, nil
		}
		if err == nil { // in the room now: what was left of earlier sessions comes first
			rows = append(l.stillFor(ctx, l.rooms.due(bare.String())...), rows...)
		}
		return rows, err
	}
}

func (l *link) sealRoomOnce(ctx context.Context, e *stanza.Element, bare jid.JID, kind class, result *Result) ([]omemo.OutboxRow, error) {
	known, err := l.rooms.members(ctx, bare.String())
	if err != nil {
		return nil, err
	}
	draft, err := takeApart(e, l.m.own.JID, bare.String(), time.Now())
	if err != nil {
		return nil, err
	}
	draft.group = true
	if kind == signalling {
		draft.plaintext.Legacy = nil
	}
	reached, missed, bundles, err := l.prepareRoom(ctx, draft.plaintext, bare.String(), known.members)
	if err != nil {
		return nil, err
	}
	if len(reached) == 0 && len(missed) > 0 {
		result.Unserved = missed
		return nil, missed[0]
	}
	return l.sealWith(ctx, draft, kind, result, &supply{reached, bundles}, func(render omemo.Render, bundles ...*omemo.Bundle) (*omemo.Sealed, error) {
		return l.m.manager.EncryptGroup(ctx, draft.plaintext, reached, l.forRoom(known, missed, result, render), bundles...)
	})
}

// forRoom is the last look before a message to a room is committed: it is for
// those who are members now, and it may be that it has to be for all of them.
func (l *link) forRoom(known *membership, missed []*omemo.RecipientError, result *Result, render omemo.Render) omemo.Render {
	return func(s *omemo.Sealed) ([]omemo.Outgoing, error) {
		if !l.rooms.hold(known) {
			return nil, ErrRoomChanged
		}
		result.Unserved = slices.Concat(missed, s.Unserved)
		if l.m.config.StrictRooms && len(result.Unserved) > 0 {
			return nil, fmt.Errorf("%w: %w", ErrRoomMember, result.Unserved[0])
		}
		return render(s)
	}
}

// aheadOf fetches what the next message to a room will need.
func (l *link) aheadOf(ctx context.Context, bare string, known *membership) error {
	_, _, bundles, err := l.prepareRoom(ctx, omemo.Plaintext{Legacy: []byte{}, V2: []byte{}}, bare, known.members)
	l.ahead.put(bundles)
	return err
}

// prepareRoom is prepare for the members of a room: those who cannot be reached
// in time are left out, each with the reason.
func (l *link) prepareRoom(ctx context.Context, p omemo.Plaintext, bare string, members []string) (reached []string, missed []*omemo.RecipientError, bundles []*omemo.Bundle, err error) {
	if err := l.directory.lists(ctx, l.m.own.JID); err != nil {
		return nil, nil, nil, err
	}
	failures := make([]error, len(members))
	l.each(bare, len(members), func(i int) {
		if failures[i] = l.rooms.unreachable.check(members[i]); failures[i] != nil {
			return
		}
		if failures[i] = l.directory.lists(ctx, members[i]); failures[i] != nil && ctx.Err() == nil {
			l.rooms.unreachable.note(members[i], failures[i])
		}
	})
	if ctx.Err() != nil || l.ctx.Err() != nil {
		return nil, nil, nil, ErrOffline
	}
	for i, account := range members {
		if failures[i] != nil {
			missed = append(missed, &omemo.RecipientError{JID: account, Err: failures[i]})
			continue
		}
		reached = append(reached, account)
	}
	missing, err := l.m.manager.Missing(ctx, p, reached)
	if err != nil {
		return nil, nil, nil, err
	}
	bundles, err = l.bundlesOfMany(ctx, bare, missing)
	return reached, missed, bundles, err
}

// bundlesOfMany asks for bundles, those of each account within the time for one
// recipient. chat is what they are for.
func (l *link) bundlesOfMany(ctx context.Context, chat string, missing []omemo.Peer) ([]*omemo.Bundle, error) {
	byAccount := make(map[string][]omemo.Peer)
	var accounts []string
	for _, peer := range missing {
		if byAccount[peer.JID] == nil {
			accounts = append(accounts, peer.JID)
		}
		byAccount[peer.JID] = append(byAccount[peer.JID], peer)
	}
	found := make([][]*omemo.Bundle, len(accounts))
	errs := make([]error, len(accounts))
	l.each(chat, len(accounts), func(i int) { found[i], errs[i] = l.bundles(ctx, byAccount[accounts[i]]) })
	return slices.Concat(found...), errors.Join(errs...)
}

// each does something for each of n members, many at once, and tells how far it
// is if that takes long.
func (l *link) each(bare string, n int, f func(i int)) {
	slots := make(chan struct{}, parallelMembers)
	var wg sync.WaitGroup
	var mu sync.Mutex
	began, done := time.Now(), 0
	for i := range n {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			f(i)
			mu.Lock()
			defer mu.Unlock()
			if done++; time.Since(began) > time.Second {
				l.m.emit(Event{Kind: Progress, Account: bare, Done: done, Total: n})
			}
		})
	}
	wg.Wait()
}

// pauses remember what has failed, for listPause.
type pauses struct {
	mu     sync.Mutex
	failed map[string]pause
}

type pause struct {
	until time.Time
	err   error
}

// check returns why something failed, as long as it should not be tried again.
func (p *pauses) check(key string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	f, ok := p.failed[key]
	if ok && time.Now().After(f.until) {
		delete(p.failed, key)
		return nil
	}
	return f.err
}

func (p *pauses) note(key string, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.failed == nil || len(p.failed) >= maxMembers {
		p.failed = make(map[string]pause)
	}
	p.failed[key] = pause{time.Now().Add(listPause), err}
}
