package crash

import (
	"context"
	"database/sql"
	"fmt"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"example.org/omellium/middleware/xmpptest"
	"example.org/omellium/omemo"
	"example.org/omellium/omemo/sqlstore"
	"example.org/omellium/omemo/sqlstore/postgres"
	"example.org/omellium/omemo/sqlstore/sqlite"
)

// storeKind is a kind of store that several processes can open.
type storeKind struct {
	open func(ctx context.Context, o order) (omemo.Store, error)
	// fresh returns where a new store is.
	fresh func(t *testing.T) string
	// sound checks the database from outside.
	sound func(t *testing.T, where string)
}

var storeKinds = map[string]*storeKind{
	"SQLite": {
		open: func(ctx context.Context, o order) (omemo.Store, error) {
			return sqlite.Open(ctx, o.Where, romeo, sqlstore.WithAnchor(o.Anchors), sqlstore.WithWait())
		},
		fresh: func(t *testing.T) string { return filepath.Join(t.TempDir(), "store.db") },
		sound: func(t *testing.T, where string) {
			t.Helper()
			ok(t, integrity(where))
		},
	},
	"PostgreSQL": {
		open: func(ctx context.Context, o order) (omemo.Store, error) {
			return postgres.Open(ctx, o.Where, romeo, sqlstore.WithAnchor(o.Anchors),
				sqlstore.WithLease(time.Duration(o.Lease)*time.Millisecond), sqlstore.WithInstance(o.Instance))
		},
		fresh: postgresDatabase,
		sound: func(t *testing.T, where string) {
			db, err := sql.Open("pgx", where)
			ok(t, err)
			defer db.Close()
			_, err = db.Exec(`CREATE EXTENSION amcheck`)
			ok(t, err)
			_, err = db.Exec(`SELECT bt_index_check(c.oid, true) FROM pg_class c JOIN pg_am m ON c.relam = m.oid
				WHERE m.amname = 'btree' AND c.relkind = 'i' AND c.relpersistence = 'p'`)
			ok(t, err)
		},
	},
}

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
	lifetime time.Duration     // of a child, at most: some are killed before they get online
	adapted  int               // lives when that was last looked at
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
	} {
		if c.store == "PostgreSQL" && !withPostgres {
			continue
		}
		name := c.store + " handlers"
		if c.answer {
			name = c.store + " Receive"
		}
		t.Run(name, func(t *testing.T) {
			kills := knob(t, c.knob, c.standard, 10)
			if c.store == "SQLite" {
				kills = (kills + 1) / 2 // half of them for each of the two ways to receive
			}
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
	srv.SetFilter(w.tap.filter(srv))
	for _, account := range []string{romeo, juliet} {
		ok(t, srv.AddAccount(account, password))
	}
	ok(t, srv.Befriend(romeo, juliet))
	address, err := srv.Addr()
	ok(t, err)
	w.order = order{
		Do: "chat", Store: store, Where: storeKinds[store].fresh(t), Anchors: t.TempDir(), Server: address, Answer: answer, Version: v,
		Lease: 300, Instance: "romeo", // so that the next child takes over at once
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
		c, err := start(o, w.romeoPrints)
		ok(w.t, err)
		w.await("romeo gets online", func() bool { return w.lives > round })
		w.lifetime = min(3*time.Since(begin), time.Second)
		ok(w.t, c.end())
	}
}

// fight starts children and kills them.
func (w *war) fight(kills int) {
	begin := time.Now()
	for range kills {
		o := w.order
		o.Next = w.next
		c, err := start(o, w.romeoPrints)
		ok(w.t, err)
		timeout := time.After(rand.N(w.lifetime))
		for dying := false; !dying; {
			w.speak()
			select {
			case <-timeout:
				dying = true
			case <-time.After(2 * time.Millisecond):
			}
		}
		c.kill()
		w.adapt()
		if w.t.Failed() {
			w.t.FailNow()
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	keys, resent := w.tap.used()
	if w.lives-2 < kills/5 {
		w.t.Errorf("%d of %d children were killed before they got online", kills-w.lives+2, kills)
	}
	w.t.Logf("%d kills in %v, %d of them online; %d messages accepted, %d said to it, %d message keys, %d stanzas sent again",
		kills, time.Since(begin).Round(time.Millisecond), w.lives-2, len(w.accepted), w.said, keys, resent)
}

// adapt lets children live longer if too few get online, and shorter if nearly
// all do: other work on the machine comes and goes.
func (w *war) adapt() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.lives == w.adapted {
		w.lifetime = min(w.lifetime*11/10, 2*time.Second)
	} else {
		w.lifetime = w.lifetime * 24 / 25
	}
	w.adapted = w.lives
}

// peace lets a last child live until nothing is left to do, and draws up the
// account.
func (w *war) peace() {
	t := w.t
	o := w.order
	o.Next, o.Idle = w.next, true
	c, err := start(o, w.romeoPrints)
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
	db, err := sql.Open("sqlite", w.order.Where)
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
