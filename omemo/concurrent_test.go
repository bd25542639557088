package omemo_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"

	"example.org/omellium/omemo"
)

func TestWaitingForATurnEndsWithTheContext(t *testing.T) {
	a, b := pair(t, omemo.V2)
	b.reads(a.send("one", bob), "one")
	busy, done := make(chan struct{}), make(chan struct{})
	var wait, waiters sync.WaitGroup
	wait.Go(func() {
		_, err := a.m.Encrypt(t.Context(), both("two"), []string{bob}, func(*omemo.Sealed) ([]omemo.Outgoing, error) {
			close(busy)
			<-done
			return nil, nil
		})
		if err != nil {
			t.Error(err)
		}
	})
	<-busy
	ctx, cancel := context.WithCancel(t.Context())
	started := make(chan struct{})
	waiters.Go(func() {
		close(started)
		if _, err := a.m.Device(ctx); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		if _, err := a.m.Fingerprint(ctx); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		if err := a.m.CatchUp(ctx, true); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		if _, err := a.m.Owed(ctx); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
	<-started
	cancel()
	a.m.Later(nil, nil) // does not wait
	waiters.Wait()
	close(done)
	wait.Wait()
}

func TestConcurrentUse(t *testing.T) {
	versions(t, func(t *testing.T, v omemo.Version) {
		a, b := pair(t, v)
		b.reads(a.send("one", bob), "one")
		a.reads(b.send("two", alice), "two")
		const senders = 32
		sealed := make(chan *omemo.Sealed, senders)
		var wait sync.WaitGroup
		for i := range senders {
			wait.Go(func() {
				s, err := a.m.Encrypt(t.Context(), both(fmt.Sprint(i)), []string{bob}, stanzas(fmt.Sprint(i), bob))
				if err != nil {
					t.Error(err)
				}
				sealed <- s
			})
		}
		wait.Wait()
		close(sealed)
		var mu sync.Mutex
		var texts [][]byte
		for s := range sealed {
			a.tapped(s)
			message := b.find(s)
			for range 2 { // each comes twice
				wait.Go(func() {
					o, err := b.m.Decrypt(t.Context(), message, accept)
					if errors.Is(err, omemo.ErrDuplicate) {
						return
					}
					if err != nil {
						t.Error(err)
						return
					}
					mu.Lock()
					defer mu.Unlock()
					texts = append(texts, o.Plaintext)
				})
			}
		}
		wait.Wait()
		slices.SortFunc(texts, bytes.Compare)
		if texts = slices.CompactFunc(texts, bytes.Equal); len(texts) != senders {
			t.Errorf("%d texts, want %d, each once", len(texts), senders)
		}
		rows, err := b.m.Inbox(t.Context(), 0, 100)
		b.ok(err)
		if len(rows) != senders+1 {
			t.Errorf("%d rows in the inbox", len(rows))
		}
	})
}
