package middleware

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"example.org/omellium/omemo"
	"example.org/omellium/omemo/memstore"
	"example.org/omellium/stanza"
)

const flooded = "juliet@example.net"

// unconnected returns a link without a connection.
func unconnected(t *testing.T, store omemo.Store) *link {
	t.Helper()
	m, err := New(t.Context(), Config{Store: store, CatchUp: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	l := &link{m: m, full: m.account, marked: make(chan struct{}, 1), wake: make(chan struct{}, 1)}
	l.life, l.endLife = context.WithCancel(t.Context())
	l.ctx, l.cancel = context.WithCancel(l.life)
	l.rooms.init(l)
	return l
}

// flooding returns a message of romeo's.
func flooding(t *testing.T, l *link, typ, inner string) *arrival {
	t.Helper()
	e, err := stanza.ParseElement([]byte(`<message xmlns="jabber:client" type="`+typ+`" from="romeo@example.net/1" to="`+flooded+`">`+inner+`</message>`), stanza.DefaultLimits)
	if err != nil {
		t.Fatal(err)
	}
	a, err := l.arrive(e, "")
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// TestThePositionDoesNotPassWhatCouldNotBeHeld: of what comes in a flood while what
// was held is dealt with, the archive is asked once more; until then the position
// stays. The same holds for what was said while we were out of a room.
func TestThePositionDoesNotPassWhatCouldNotBeHeld(t *testing.T) {
	for name, row := range map[string]struct {
		held    int
		more    func(*intake)
		err     error
		final   bool
		missed  bool
		reached bool
	}{
		"all are held":        {held: 3, final: true, reached: true},
		"more than can wait":  {held: maxHeld + 1, missed: true},
		"joined once more":    {held: 3, more: func(in *intake) { in.enter() }, missed: true},
		"no archive":          {held: maxHeld + 1, err: errNoArchive, final: true, missed: true},
		"not to be had now":   {held: 3, err: errServer},
		"a flood, and no end": {held: maxHeld + 1, err: errServer, missed: true},
	} {
		t.Run(name, func(t *testing.T) {
			l := unconnected(t, memstore.New(flooded))
			m := l.m
			in := l.intakes.open(flooded)
			in.place()
			if !in.enter() || l.intakes.open(flooded) != in {
				t.Fatal("it is caught up with already")
			}
			for i := range row.held {
				if !in.hold(flooding(t, l, "chat", fmt.Sprintf(`<body>text</body><stanza-id xmlns="urn:xmpp:sid:0" by="juliet@example.net" id="%d"/>`, i))) {
					t.Fatal("not held")
				}
			}
			if row.more != nil {
				row.more(in)
			}
			final, missed := in.release(t.Context(), l, nil, row.err == nil, row.err)
			if final != row.final || missed != row.missed || in.running == final || in.holding || in.following != row.reached {
				t.Errorf("final %t, missed %t, %+v", final, missed, in)
			}
			if err := m.manager.Flush(t.Context()); err != nil && !errors.Is(err, context.Canceled) {
				t.Fatal(err)
			}
			c, known, err := m.manager.Cursor(t.Context(), flooded)
			if err != nil || known != row.reached || known && c.Position != "2" {
				t.Errorf("position %+v, %v", c, err)
			}
		})
	}
}

// TestNothingIsPutBackWithoutAPosition: as long as the archive has no position, it
// brings nothing that could not be held.
func TestNothingIsPutBackWithoutAPosition(t *testing.T) {
	l := unconnected(t, memstore.New(flooded))
	in := l.intakes.open(flooded)
	in.enter()
	a := flooding(t, l, "chat", `<body>text</body><stanza-id xmlns="urn:xmpp:sid:0" by="juliet@example.net" id="1"/>`)
	for range maxHeld {
		if !in.hold(a) {
			t.Fatal("not held")
		}
	}
	if in.hold(a) || in.missed {
		t.Error("it is dropped")
	}
}

// TestWhatNoArchiveBringsIsCommitted: encrypted messages without a place in the
// archive are dealt with though the link has ended.
func TestWhatNoArchiveBringsIsCommitted(t *testing.T) {
	l := unconnected(t, memstore.New(flooded))
	in := l.intakes.open(flooded)
	in.enter()
	message := append([]byte{0x33, 0x0a, 33, 5, 9}, make([]byte, 31)...) // version, ratchet key
	message = append(message, 0x10, 0, 0x18, 0, 0x22, 16)                // counters, ciphertext
	message = append(message, make([]byte, 16+8)...)
	key := fmt.Sprintf(`<key rid="%d">%s</key>`, l.m.own.Device(), base64.StdEncoding.EncodeToString(message))
	const payload = `<iv>AAAAAAAAAAAAAAAAAAAAAA==</iv>`
	encrypted := `<encrypted xmlns="eu.siacs.conversations.axolotl"><header sid="7">` + key + payload + `</header><payload>AAAA</payload></encrypted>`
	in.hold(flooding(t, l, "chat", encrypted))
	in.hold(flooding(t, l, "chat", encrypted+`<stanza-id xmlns="urn:xmpp:sid:0" by="juliet@example.net" id="1"/>`))
	l.endLife()
	in.release(l.life, l, nil, false, ErrOffline)
	// It has no session: it is in the journal.
	if rows, err := l.m.manager.Kept(t.Context(), omemo.Address{}); err != nil || len(rows) != 1 {
		t.Errorf("%d rows, %v", len(rows), err)
	}
}

// watched is a store that says when pre keys are read.
type watched struct {
	omemo.Store
	read func()
}

func (w *watched) PreKeys(ctx context.Context, v omemo.Version, ids ...uint32) ([]omemo.PreKeyRow, error) {
	if w.read != nil {
		w.read()
	}
	return w.Store.PreKeys(ctx, v, ids...)
}

// TestPreKeysAreKeptThroughout: one archive begins to be caught up with in the moment
// in which another one has been, or in which the application says that it has.
func TestPreKeysAreKeptThroughout(t *testing.T) {
	store := &watched{Store: memstore.New(flooded)}
	m := unconnected(t, store).m
	keep := func(on bool) {
		t.Helper()
		if err := m.keep(t.Context(), on); err != nil {
			t.Fatal(err)
		}
	}
	keep(true)
	m.catchUp.begin()
	keep(false)
	if err := m.CatchUp(t.Context(), false); err != nil || !m.catchUp.active {
		t.Errorf("used pre keys are deleted while an archive is caught up with: %v", err)
	}
	m.catchUp.running--
	begun := make(chan error, 1)
	var once sync.Once
	store.read = func() {
		once.Do(func() {
			m.catchUp.begin()
			if m.catchUp.change.TryLock() {
				m.catchUp.change.Unlock()
				t.Error("two changes at once")
			}
			go func() { begun <- m.keep(t.Context(), true) }()
		})
	}
	keep(false)
	if err := <-begun; err != nil || !m.catchUp.active {
		t.Errorf("used pre keys are deleted while an archive is caught up with: %v", err)
	}
}

// TestCaughtUpMayCatchUpAgain: the application may answer the event.
func TestCaughtUpMayCatchUpAgain(t *testing.T) {
	m := unconnected(t, memstore.New(flooded)).m
	told := make(chan error, 2)
	m.config.OnEvent = func(e Event) {
		if e.Kind == CaughtUp {
			told <- m.CatchUp(t.Context(), true)
		}
	}
	go func() {
		err := m.CatchUp(t.Context(), true)
		if err == nil {
			err = m.CatchUp(t.Context(), false)
		}
		told <- err
	}()
	for range 2 {
		select {
		case err := <-told:
			if err != nil {
				t.Error(err)
			}
		case <-time.After(time.Minute):
			t.Fatal("it waits for itself")
		}
	}
	if !m.catchUp.active {
		t.Error("used pre keys are not kept")
	}
}
