package middleware

import (
	"context"
	"fmt"
	"sync"

	"example.org/omellium/omemo"
)

// exchangeSize is what a key exchange adds to the key of a device in a stanza, in
// characters: two public keys, ids and the framing, about 90 bytes in base64, and
// an attribute.
const exchangeSize = 150

// sizeError is an encrypted stanza that is too large. Without the key exchanges
// that it carries it would have some least size.
type sizeError struct{ size, least int }

func (e *sizeError) Error() string { return fmt.Sprintf("%v: %d bytes", ErrTooLarge, e.size) }

// Unwrap returns ErrTooLarge.
func (e *sizeError) Unwrap() error { return ErrTooLarge }

// openFirst makes a message to many devices smaller: each session that is not
// confirmed yet gets an empty message of its own, and is confirmed when the
// device has answered. It does not wait longer than for bundles.
func (l *link) openFirst(ctx context.Context, devices []omemo.DeviceResult, bundles []*omemo.Bundle) error {
	ctx, cancel := context.WithTimeout(ctx, l.m.config.FetchTimeout)
	defer cancel()
	var opened []omemo.Peer
	for _, d := range devices {
		if d.Err != nil || !d.Exchange {
			continue
		}
		if err := l.answer(ctx, omemo.OwedID{Kind: omemo.OwedSession, Peer: d.Peer}, omemo.Plaintext{}, bundles); err != nil {
			return err
		}
		opened = append(opened, d.Peer)
	}
	for _, p := range opened {
		for {
			news := l.confirmed.wait()
			sessions, err := l.m.manager.Sessions(ctx, p)
			if err != nil {
				return err
			}
			if len(sessions) == 0 || sessions[0].Confirmed() {
				break
			}
			select {
			case <-news:
			case <-ctx.Done():
				return nil // perhaps enough have answered
			}
		}
	}
	return nil
}

// broadcast tells all who wait that something has happened.
type broadcast struct {
	mu sync.Mutex
	c  chan struct{}
}

// wait returns a channel that is closed when something happens next.
func (b *broadcast) wait() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.c == nil {
		b.c = make(chan struct{})
	}
	return b.c
}

func (b *broadcast) send() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.c != nil {
		close(b.c)
		b.c = nil
	}
}
