package middleware_test

import (
	"context"
	"slices"
	"sync/atomic"
	"testing"

	"example.org/omellium/omemo"
	"example.org/omellium/omemo/memstore"
	"example.org/omellium/omemo/storetest"
)

// A store that does not give what is in the inbox.
type inboxFails struct {
	omemo.Store
	left atomic.Int32 // that fail
}

func (s *inboxFails) Inbox(ctx context.Context, after uint64, limit int) ([]omemo.InboxRow, error) {
	if s.left.Add(-1) >= 0 {
		return nil, storetest.ErrInjected
	}
	return s.Store.Inbox(ctx, after, limit)
}

// A message waits for a store that does not give it, and later ones do not
// overtake it.
func TestInboxWaitsForTheStore(t *testing.T) {
	srv := network(t, romeo, juliet)
	b := connected(t, srv, juliet, chat(omemo.V2))
	c := chat(omemo.V2)
	store := &inboxFails{Store: memstore.New(romeo)}
	c.Store = store
	a := connected(t, srv, romeo, c)
	b.say(romeo, "hello")
	a.awaitText("hello")
	store.left.Store(3)
	for _, body := range []string{"canary 1", "canary 2", "canary 3"} {
		b.say(romeo, body)
	}
	a.awaitText("canary 3")
	if got, want := a.bodies(), []string{"hello", "canary 1", "canary 2", "canary 3"}; !slices.Equal(got, want) {
		t.Errorf("delivered %q, want %q", got, want)
	}

	// A connection that ends meanwhile does not wait for it.
	store.left.Store(1 << 30)
	b.say(romeo, "canary 4")
	until(t, "it was asked for", func() bool { return store.left.Load() < 1<<30 })
	ok(t, srv.Disconnect(romeo))
	<-a.done
	store.left.Store(0)
	a.attach(login(t, srv, romeo), nil)
	a.awaitText("canary 4")
}
