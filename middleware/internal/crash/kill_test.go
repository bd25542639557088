package crash

import (
	"context"
	"database/sql"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"example.org/omellium/middleware/xmpptest"
	"example.org/omellium/omemo"
)

const (
	// backlog is how many messages of juliet's wait for romeo at most.
	backlog = 20
	// patience is how long something may take that is bound to happen.
	patience = 2 * time.Minute
)

// war is a server, juliet's program, and children that are killed.
type war struct {
	t      *testing.T
	ctx    context.Context
	tap    *wiretap
	juliet *program
	order  order

	mu       sync.Mutex
	changed  *sync.Cond
	accepted map[string]bool   // romeo's texts that were accepted
	heard    map[string]int    // romeo's texts, as juliet has read them
	open     map[string]string // juliet's texts that romeo has not reported → stanza id
	said     int               // by juliet
	lives    int               // children that got online
	written  int               // stanzas of the present child
	last     int               // of them: then it is killed
	reached  chan struct{}     // closed with that
	opening  int               // stanzas before a child is online
	prelude  time.Duration     // that it takes to get online
	next     int
}

// TestSIGKILL kills a program that sends and receives, and starts it again, and
// again.
func TestSIGKILL(t *testing.T) {
	for _, c := range []struct {
		store, knob string
		standard    int
		answer      bool
		version     omemo.Version
	}{
		{"SQLite", "OMELLIUM_KILLS_SQLITE", 50, false, omemo.V2},
		{"SQLite", "OMELLIUM_KILLS_SQLITE", 50, true, omemo.Legacy},
		{"PostgreSQL", "OMELLIUM_KILLS_POSTGRES", 10, false, omemo.Legacy},
		{"PostgreSQL", "OMELLIUM_KILLS_POSTGRES", 10, true, omemo.V2},
	} {
		if c.store == "PostgreSQL" && !withPostgres {
			continue
		}
		name := c.store + " handlers"
		if c.answer {
			name = c.store + " Receive"
		}
		t.Run(name, func(t *testing.T) {
			kills := (knob(t, c.knob, c.standard, 10) + 1) / 2 // half of them for each of the two ways to receive
			w := newWar(t, c.store, c.answer, c.version)
			w.meet()
			w.fight(kills)
			w.peace()
		})
	}
}

func newWar(t *testing.T, store string, answer bool, v omemo.Version) *war {
	t.Helper()
	srv, err := xmpptest.NewServer()
	ok(t, err)
	t.Cleanup(func() { srv.Close() })
	w := &war{
		t: t, ctx: t.Context(), tap: newWiretap(romeo),
		accepted: make(map[string]bool), heard: make(map[string]int), open: make(map[string]string),
	}
	w.changed = sync.NewCond(&w.mu)
	tap := w.tap.filter(srv)
	srv.SetFilter(func(ctx context.Context, st xmpptest.Stanza) [][]byte {
		passed := tap(ctx, st)
		if st.Direction == xmpptest.FromClient && strings.HasPrefix(st.Session, romeo) {
			w.mu.Lock()
			if w.written++; w.written == w.last {
				close(w.reached)
			}
			w.mu.Unlock()
		}
		return passed
	})
	for _, account := range []string{romeo, juliet} {
		ok(t, srv.AddAccount(account, password))
	}
	ok(t, srv.Befriend(romeo, juliet))
	address, err := srv.Addr()
	ok(t, err)
	w.order = order{
		Do: "chat", Store: store, Where: storeKinds[store].fresh(t), Anchors: t.TempDir(), Server: address, Answer: answer, Version: v,
		Lease: 5000, Instance: "romeo", // under this name the next child takes over at once
	}
	w.juliet = newProgram(juliet, v, srv.Dial)
	onMemory(t, w.juliet)
	w.juliet.tell = w.julietReads
	ok(t, w.juliet.live(w.ctx))
	t.Cleanup(func() { _ = w.juliet.die() })
	stop := make(chan struct{})
	var forgetting sync.WaitGroup
	forgetting.Go(func() {
		for {
			select {
			case <-stop:
				return
			case <-time.After(100 * time.Millisecond):
				srv.ForgetWire() // the tap has seen it
			}
		}
	})
	t.Cleanup(func() { close(stop); forgetting.Wait() })
	return w
}

// julietReads takes note of what juliet's handler reads. An answer tells that
// romeo has the text that it answers.
func (w *war) julietReads(text string) {
	w.mu.Lock()
	w.heard[text]++
	w.mu.Unlock()
	if asked, isAnswer := strings.CutPrefix(text, answerTo("")); isAnswer {
		w.romeoHas(asked)
	}
	w.changed.Broadcast()
}

// romeoHas takes note of a text that romeo has, so that the archive need not
// keep it.
func (w *war) romeoHas(text string) {
	w.mu.Lock()
	id, isOpen := w.open[text]
	delete(w.open, text)
	w.changed.Broadcast()
	w.mu.Unlock()
	if isOpen {
		w.forget(id)
	}
}

// forget has the archive forget a message, but nothing that is unread.
func (w *war) forget(id string) {
	w.mu.Lock()
	keep := make(map[string]bool)
	for id := range maps.Values(w.open) {
		keep[id] = true
	}
	w.mu.Unlock()
	w.tap.forget(id, keep)
}

// romeoPrints takes note of what a child prints.
func (w *war) romeoPrints(line string) {
	verb, rest, _ := strings.Cut(line, " ")
	switch verb {
	case "online":
		w.mu.Lock()
		w.lives++
		w.opening = max(w.written, 1)
		w.changed.Broadcast()
		w.mu.Unlock()
	case "got":
		w.romeoHas(rest)
	case "accepted":
		n, err := strconv.Atoi(rest)
		if err != nil {
			w.t.Errorf("child prints %q", line)
			return
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		w.accepted[numbered(n)] = true
		w.next = max(w.next, n+1)
		w.changed.Broadcast()
	}
}

// speak has juliet say something, unless much of it is unread.
func (w *war) speak() {
	w.mu.Lock()
	full := len(w.open) >= backlog
	text := fmt.Sprintf("%s juliet %d", canary, w.said)
	if !full {
		w.said++
		w.open[text] = ""
	}
	w.mu.Unlock()
	if full {
		return
	}
	if err := w.juliet.trySend(w.ctx, romeo, text); err != nil {
		w.t.Errorf("juliet: %v", err)
	}
	w.juliet.mu.Lock()
	id := w.juliet.ids[text]
	w.juliet.mu.Unlock()
	w.mu.Lock()
	_, isOpen := w.open[text]
	if isOpen {
		w.open[text] = id
	}
	w.mu.Unlock()
	if !isOpen {
		w.forget(id) // romeo was faster
	}
}

// meet lets a child live until its device can be written to, and finds out how
// long it takes to get online.
func (w *war) meet() {
	o := w.order
	o.Idle = true
	for round := range 2 { // the first one makes the account
		begin := time.Now()
		c, err := w.start(o, 0)
		ok(w.t, err)
		w.await("romeo gets online", func() bool { return w.lives > round })
		w.prelude = time.Since(begin)
		ok(w.t, c.end())
	}
}

// start starts a child, and has it noted when it has written so many stanzas.
func (w *war) start(o order, stanzas int) (*child, error) {
	w.mu.Lock()
	o.Next = w.next
	w.written, w.last, w.reached = 0, stanzas, make(chan struct{})
	w.mu.Unlock()
	return start(o, w.romeoPrints)
}

const (
	// killEarly is how many of the children are killed as soon as they have written
	// one of the stanzas with which they get online, and killBlind how many at any
	// time before they are. The others get online, and are killed as soon as they have
	// written one more, of killAfter.
	killEarly = 0.25
	killBlind = 0.10
	killAfter = 40
)

// fight starts children and kills them. How many stanzas each is to write, and how
// much later it is killed, is the same in each fight.
func (w *war) fight(kills int) {
	begin := time.Now()
	for n := range kills {
		fate, when := odds(1, "fate", n), odds(1, "when", n)
		stanzas := w.opening + 1 + int(when*killAfter)
		if fate < killEarly {
			stanzas = 1 + int(when*float64(w.opening))
		}
		c, err := w.start(w.order, stanzas)
		ok(w.t, err)
		reached := w.reached
		var timeout <-chan time.Time
		if fate >= killEarly && fate < killEarly+killBlind {
			timeout, reached = time.After(time.Duration(when*float64(w.prelude))), nil
		}
		deadline := time.After(patience)
		for dying := false; !dying; {
			w.speak()
			select {
			case <-reached:
				// Somewhere between this stanza and the next ones.
				timeout, reached = time.After(time.Duration(odds(1, "then", n)*float64(2*time.Millisecond))), nil
			case <-timeout:
				dying = true
			case <-c.silent:
				w.t.Fatalf("child %d has ended by itself: %v", n, c.end())
			case <-deadline:
				w.t.Fatalf("child %d has not written %d stanzas", n, stanzas)
			case <-time.After(2 * time.Millisecond):
			}
		}
		c.kill()
		if w.t.Failed() {
			w.t.FailNow()
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	keys, resent := w.tap.used()
	if w.lives-2 < kills/2-2 { // of a few, chance may take two more
		w.t.Errorf("%d of %d children were killed before they got online", kills-w.lives+2, kills)
	}
	w.t.Logf("%d kills in %v, %d of them online; %d messages accepted, %d said to it, %d message keys, %d stanzas sent again",
		kills, time.Since(begin).Round(time.Millisecond), w.lives-2, len(w.accepted), w.said, keys, resent)
}

// peace lets a last child live until nothing is left to do, and draws up the
// account.
func (w *war) peace() {
	t := w.t
	o := w.order
	o.Idle = true
	c, err := w.start(o, 0)
	ok(t, err)
	w.await("everything was read", func() bool {
		return len(w.open) == 0 && !slices.ContainsFunc(slices.Collect(maps.Keys(w.accepted)), func(text string) bool {
			return w.heard[text] == 0
		})
	})
	ok(t, c.end())
	ok(t, w.tap.verdict())
	for _, complaint := range w.juliet.complaints() {
		t.Errorf("juliet: %s", complaint)
	}
	storeKinds[w.order.Store].sound(t, w.order.Where)
	if w.order.Answer {
		w.exactlyOnce()
	}
}

// exactlyOnce checks what Config.Receive has written and answered.
func (w *war) exactlyOnce() {
	db, err := sql.Open(storeKinds[w.order.Store].driver, w.order.Where)
	ok(w.t, err)
	defer db.Close()
	rows, err := db.Query(`SELECT text, count(*) FROM heard GROUP BY text`)
	ok(w.t, err)
	defer rows.Close()
	stored := make(map[string]int)
	for rows.Next() {
		var text string
		var times int
		ok(w.t, rows.Scan(&text, &times))
		stored[text] = times
	}
	ok(w.t, rows.Err())
	for n := range w.said {
		text := fmt.Sprintf("%s juliet %d", canary, n)
		if stored[text] != 1 || w.heard[answerTo(text)] != 1 {
			w.t.Errorf("%q is stored %d times and was answered %d times", text, stored[text], w.heard[answerTo(text)])
		}
	}
}

// await waits for a condition that is checked under the lock.
func (w *war) await(what string, condition func() bool) {
	w.t.Helper()
	deadline := time.Now().Add(patience)
	wake := time.AfterFunc(patience, w.changed.Broadcast)
	defer wake.Stop()
	w.mu.Lock()
	defer w.mu.Unlock()
	for !condition() {
		if time.Now().After(deadline) {
			w.t.Fatalf("timeout: %s; %d texts not read by romeo", what, len(w.open))
		}
		w.changed.Wait()
	}
}
