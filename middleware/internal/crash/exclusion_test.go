package crash

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"example.org/omellium/omemo"
	"example.org/omellium/omemo/memstore"
)

// contend is a process that wants to serve romeo's account: as soon as it has
// it, it sends, and prints what stands on the wire then, after each commit. Now
// and then it gives the account back, or ends without a word.
func contend(ctx context.Context, o order) error {
	ctx, cancel := context.WithCancel(ctx)
	go func() {
		defer cancel()
		_, _ = io.Copy(io.Discard, os.Stdin)
	}()
	for ctx.Err() == nil {
		switch err := serve(ctx, o); {
		case errors.Is(err, omemo.ErrFenced), errors.Is(err, omemo.ErrClosed):
			fmt.Println("fenced") // somebody else has the account
		case err != nil && ctx.Err() == nil:
			return err
		}
		time.Sleep(rand.N(200 * time.Millisecond)) // it is somebody else's turn
	}
	return nil
}

// serve serves the account once.
func serve(ctx context.Context, o order) error {
	store, err := storeKinds[o.Store].open(ctx, o)
	if err != nil {
		return err
	}
	defer store.Close()
	m, err := omemo.NewManager(ctx, store, omemo.Options{})
	if err != nil {
		return err
	}
	for range 1 + rand.IntN(400) {
		sealed, err := m.Encrypt(ctx, plaintext("something"), []string{juliet}, transient)
		if err != nil {
			return err
		}
		printSent(sealed)
	}
	if rand.IntN(20) == 0 {
		os.Exit(3)
	}
	return nil
}

// printSent prints what stands on the wire now, a line for each key.
func printSent(sealed *omemo.Sealed) {
	for _, message := range sealed.Messages {
		for _, k := range message.Keys {
			fmt.Println("sent", message.Version.Namespace(), k.Exchange, base64.StdEncoding.EncodeToString(k.Data))
		}
	}
}

// parseSent reads a line of printSent.
func parseSent(line string) (tappedKey, error) {
	f := strings.Fields(line)
	if len(f) != 4 || f[0] != "sent" {
		return tappedKey{}, fmt.Errorf("a child prints %q", line)
	}
	b, err := base64.StdEncoding.DecodeString(f[3])
	if err != nil {
		return tappedKey{}, fmt.Errorf("a child prints %q: %w", line, err)
	}
	return parseKey(f[1], f[2] == "true", b)
}

func plaintext(text string) omemo.Plaintext {
	return omemo.Plaintext{Legacy: []byte(text), V2: []byte("<envelope>" + text + "</envelope>")}
}

// transient makes a stanza that is not kept in the outbox.
func transient(*omemo.Sealed) ([]omemo.Outgoing, error) {
	return []omemo.Outgoing{{ID: "id", Chat: juliet, Stanza: []byte("<message/>"), Transient: true}}, nil
}

// acquaint gives romeo's account, in a new store, a session with juliet.
func acquaint(t *testing.T, o order) {
	t.Helper()
	ctx := t.Context()
	store, err := storeKinds[o.Store].open(ctx, o)
	ok(t, err)
	defer store.Close()
	m, err := omemo.NewManager(ctx, store, omemo.Options{})
	ok(t, err)
	other, err := omemo.NewManager(ctx, memstore.New(juliet), omemo.Options{})
	ok(t, err)
	device, err := other.Device(ctx)
	ok(t, err)
	ok(t, m.SetList(ctx, juliet, omemo.V2, []omemo.DeviceID{device.Device}))
	b, err := other.Bundle(ctx, omemo.V2)
	ok(t, err)
	_, err = m.Encrypt(ctx, plaintext("first"), []string{juliet}, transient, b)
	ok(t, err)
}

// contest is a wire that contenders write to.
type contest struct {
	t   *testing.T
	tap *wiretap

	mu        sync.Mutex
	sent      int
	by        []int // messages of each contender
	fenced    int   // times that one found out that it had lost the account
	owner     int   // the last one to send
	killed    time.Time
	victim    int
	takeovers []time.Duration
}

// told takes a line of a contender.
func (c *contest) told(who int, line string) {
	if line == "fenced" {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.fenced++
		return
	}
	k, err := parseSent(line)
	if err != nil {
		c.t.Error(err)
		return
	}
	c.tap.use(k)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sent++
	c.by[who]++
	if !c.killed.IsZero() && who != c.victim {
		c.takeovers = append(c.takeovers, time.Since(c.killed))
		c.killed = time.Time{}
	}
	c.owner = who
}

// TestExclusion has several processes serve one account at a time: no two of
// them ever use the same message key.
func TestExclusion(t *testing.T) {
	sends := knob(t, "OMELLIUM_EXCLUSION_SENDS", 3000, 1000)
	for _, c := range []struct {
		store     string
		processes int
	}{
		{"SQLite", 4},
		{"PostgreSQL", 8},
	} {
		if c.store == "PostgreSQL" && !withPostgres {
			continue
		}
		t.Run(c.store, func(t *testing.T) { contestFor(t, c.store, c.processes, sends) })
	}
}

func contestFor(t *testing.T, store string, processes, sends int) {
	o := order{Do: "contender", Store: store, Where: storeKinds[store].fresh(t), Anchors: t.TempDir(), Lease: 300}
	acquaint(t, o)
	c := &contest{t: t, tap: newWiretap(""), by: make([]int, processes), owner: -1}
	contenders := make([]*child, processes)
	begin := func(who int) {
		var err error
		contenders[who], err = start(o, func(line string) { c.told(who, line) })
		ok(t, err)
	}
	for who := range contenders {
		begin(who)
	}
	defer func() {
		for _, child := range contenders {
			child.kill()
		}
	}()
	kills := 0
	deadline := time.Now().Add(10 * time.Minute)
	for {
		time.Sleep(time.Duration(50+rand.IntN(200)) * time.Millisecond) // not a wait for anything: the time between blows
		c.mu.Lock()
		sent, owner := c.sent, c.owner
		c.mu.Unlock()
		if sent >= sends {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d sends only", sent)
		}
		switch who := rand.IntN(processes); rand.IntN(4) {
		case 0: // the owner is killed
			if owner < 0 {
				continue
			}
			c.mu.Lock()
			c.killed, c.victim = time.Now(), owner
			c.mu.Unlock()
			contenders[owner].kill()
			begin(owner)
			kills++
		case 1: // somebody is stopped for longer than a lease lasts, and goes on
			if rand.IntN(2) == 0 && owner >= 0 {
				who = owner
			}
			contenders[who].pause(time.Duration(o.Lease*2) * time.Millisecond)
		}
		for who, child := range contenders {
			if child.gone() {
				child.kill()
				begin(who)
			}
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	ok(t, c.tap.verdict())
	keys, _ := c.tap.used()
	if keys != c.sent {
		t.Errorf("%d message keys for %d messages", keys, c.sent)
	}
	slices.Sort(c.takeovers)
	text := "none measured"
	if n := len(c.takeovers); n > 0 {
		text = fmt.Sprintf("%v to %v, median %v", c.takeovers[0].Round(time.Millisecond), c.takeovers[n-1].Round(time.Millisecond), c.takeovers[n/2].Round(time.Millisecond))
	}
	t.Logf("%d sends by %d processes %v, %d kills of the owner, fenced %d times, takeover after a kill: %s",
		c.sent, len(c.by), c.by, kills, c.fenced, text)
	if served := len(slices.DeleteFunc(slices.Clone(c.by), func(n int) bool { return n == 0 })); served < 2 {
		t.Errorf("%d processes have ever had the account", served)
	}
}
