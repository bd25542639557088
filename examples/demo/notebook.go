package main

import (
	"context"
	"fmt"
	"sync"

	"example.org/omellium/middleware"
)

// notebook keeps the events that a program is told.
type notebook struct {
	mu     sync.Mutex
	events []middleware.Event
	more   chan struct{} // closed with the next event
}

func newNotebook() *notebook { return &notebook{more: make(chan struct{})} }

func (n *notebook) add(e middleware.Event) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.events = append(n.events, e)
	close(n.more)
	n.more = make(chan struct{})
}

// find returns the first event for which match returns true.
func (n *notebook) find(match func(middleware.Event) bool) (e middleware.Event, ok bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, e := range n.events {
		if match(e) {
			return e, true
		}
	}
	return e, false
}

// await waits for an event.
func (n *notebook) await(ctx context.Context, what string, match func(middleware.Event) bool) (middleware.Event, error) {
	for {
		n.mu.Lock()
		more := n.more
		n.mu.Unlock()
		if e, ok := n.find(match); ok {
			return e, nil
		}
		select {
		case <-more:
		case <-ctx.Done():
			return middleware.Event{}, fmt.Errorf("waiting for %s: %w", what, ctx.Err())
		}
	}
}

// mishap returns the first event that has no place where everything goes well.
func (n *notebook) mishap() (e middleware.Event, ok bool) {
	return n.find(func(e middleware.Event) bool {
		switch e.Kind {
		case middleware.SendFailed, middleware.NotForUs, middleware.Undecryptable, middleware.PlaintextReceived,
			middleware.Refused, middleware.DeadLetter, middleware.IdentityChanged, middleware.OwnDeviceRemoved, middleware.Trouble:
			return true
		}
		return false
	})
}
