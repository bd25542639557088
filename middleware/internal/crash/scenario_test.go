package crash

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"example.org/omellium/middleware/xmpptest"
	"example.org/omellium/omemo"
	"example.org/omellium/omemo/memstore"
	"example.org/omellium/omemo/sqlstore"
	"example.org/omellium/omemo/sqlstore/sqlite"
)

// scenario is a piece of the life of a program, romeo's, with one or more
// devices of juliet's, which never die.
type scenario struct {
	name    string
	devices int
	answers bool // romeo's handler answers each message
	receive bool // romeo has no handler but Config.Receive, which answers
	short   bool // short enough for pairs of crashes
	written bool // romeo writes to the session, and hears of it by events
	room    bool // what is said is said in a room that both are in
	catches bool // the middleware catches up with the archive, not romeo's program; all is delivered in order
	// before brings the world to where the scenario begins. Nothing dies in it.
	// It may leave romeo's program ended.
	before func(w *world)
	// romeo and juliet are said when it has begun, at the same time.
	romeo, juliet []string
}

// world is a server, the program that dies, and those that do not.
type world struct {
	t       *testing.T
	ctx     context.Context
	srv     *xmpptest.Server
	tap     *wiretap
	subject *program
	peers   []*program
	room    bool
	down    bool // the subject is not running
	sent    bool // juliet has said what she has to say
}

// opener gives a program a store that it finds again whenever it is opened.
type opener func(t *testing.T, p *program)

// stores are what the subject runs on.
var stores = []struct {
	name string
	open opener
}{{"memory", onMemory}, {"SQLite", onSQLite}}

func onMemory(_ *testing.T, p *program) { p.open = inMemory(p.account) }

func onSQLite(t *testing.T, p *program) {
	p.file, p.anchors = filepath.Join(t.TempDir(), "store.db"), t.TempDir()
	p.open = func(ctx context.Context) (omemo.Store, error) {
		return sqlite.Open(ctx, p.file, p.account, sqlstore.WithAnchor(p.anchors))
	}
}

func inMemory(account string) func(context.Context) (omemo.Store, error) {
	store := memstore.New(account)
	return func(context.Context) (omemo.Store, error) {
		store = store.Reopen()
		return store, nil
	}
}

func newWorld(t *testing.T, s *scenario, v omemo.Version, open opener) *world {
	t.Helper()
	archived, options := romeo, []xmpptest.Option(nil)
	if s.catches {
		archived, options = "", []xmpptest.Option{xmpptest.Archives()}
	}
	srv, err := xmpptest.NewServer(options...)
	ok(t, err)
	w := &world{t: t, ctx: t.Context(), srv: srv, tap: newWiretap(archived), room: s.room, down: true}
	srv.SetFilter(w.tap.filter(srv))
	for _, account := range []string{romeo, juliet} {
		ok(t, srv.AddAccount(account, password))
	}
	ok(t, srv.Befriend(romeo, juliet))
	if s.room {
		c := xmpptest.RoomConfig{MembersOnly: true, NonAnonymous: true, History: 50}
		ok(t, srv.AddRooms("rooms.example.net", c))
		ok(t, srv.AddRoom(hall, c, map[string]string{romeo: "member", juliet: "owner"}))
	}
	w.subject = newProgram(romeo, v, srv.Dial)
	w.subject.nick = s.nick("romeo")
	open(t, w.subject)
	w.subject.catchUp, w.subject.catches = !s.catches, s.catches
	w.subject.answers = s.answers
	if s.receive {
		w.subject.receive = receiveInto(storeKinds["SQLite"].values)
	}
	for range s.devices {
		w.peers = append(w.peers, newProgram(juliet, v, srv.Dial))
	}
	for i, p := range w.peers {
		p.nick = s.nick(fmt.Sprint("juliet", i))
		onMemory(t, p)
		ok(t, p.live(w.ctx))
		synctest.Wait() // two that change one device list at once can undo each other
	}
	return w
}

// close ends everything, so that no goroutine is left.
func (w *world) close() {
	for _, p := range append(w.peers, w.subject) {
		ok(w.t, p.die())
	}
	ok(w.t, w.srv.Close())
}

// settle lets everybody do what there is to do, until nothing happens any more:
// longer than any timer that is set for a message.
func (w *world) settle() {
	for _, pause := range []time.Duration{time.Second, 3 * time.Minute} {
		synctest.Wait()
		time.Sleep(pause)
	}
	synctest.Wait()
}

// up starts the subject if it is not running.
func (w *world) up() error {
	if !w.down {
		return nil
	}
	w.down = false
	return w.subject.live(w.ctx)
}

// stop ends the subject in the middle of what it does.
func (w *world) stop() {
	ok(w.t, w.subject.die())
	w.down = true
}

// talk has both sides say texts and waits until all is done.
func (w *world) talk(romeos, juliets []string) {
	w.t.Helper()
	ok(w.t, w.subject.say(w.ctx, w.place(juliet), romeos...))
	ok(w.t, w.peers[0].say(w.ctx, w.place(romeo), juliets...))
	w.settle()
}

// place is where something is said to an account.
func (w *world) place(account string) string {
	if w.room {
		return hall
	}
	return account
}

// nick returns a nick to have in the room, if there is one.
func (s *scenario) nick(nick string) string {
	if s.room {
		return nick
	}
	return ""
}

// outcome is what a run has shown.
type outcome struct {
	steps  [][]kind // of each life
	hits   int      // points that were reached
	resent int      // stanzas that were sent again
	again  int      // messages that a handler was given again
}

// run plays a scenario in a world of its own with its own time, in which the
// subject dies as planned, and checks that nothing was lost, nothing was used
// twice and nothing was shown.
func (s *scenario) run(t *testing.T, v omemo.Version, open opener, plan ...point) (out outcome) {
	t.Helper()
	description := fmt.Sprintf("%s, %v: %v", s.name, v, plan)
	synctest.Test(t, func(t *testing.T) {
		t.Helper()
		w := newWorld(t, s, v, open)
		defer w.close()
		if s.before != nil {
			ok(t, w.up())
			s.before(w)
		}
		w.subject.m.plan = plan
		for life := 0; ; life++ {
			w.subject.m.start()
			err := w.act(s)
			steps, hit, dead := w.subject.m.disarm()
			out.steps = append(out.steps, steps)
			if s.written && !dead {
				for _, text := range w.subject.unheardOf() {
					t.Errorf("%s: life %d: %q was neither accepted nor did it fail", description, life, text)
				}
			}
			if !hit {
				if err != nil {
					t.Fatalf("%s: life %d: %v", description, life, err)
				}
				break
			}
			out.hits++
			if dead {
				w.stop()
			}
		}
		w.check(s, description, &out)
	})
	return out
}

// act does what is left to do of a scenario.
func (w *world) act(s *scenario) error {
	err := w.up()
	if err == nil && w.subject.m.offline() {
		err = w.subject.connect(w.ctx)
	}
	if w.room {
		synctest.Wait() // Send does not wait for what was written to the session
	}
	if !w.sent && err == nil {
		w.sent = true
		ok(w.t, w.peers[0].say(w.ctx, w.place(romeo), s.juliet...))
	}
	switch {
	case err != nil:
	case s.written:
		w.subject.write(w.ctx, w.place(juliet), s.romeo...)
	default:
		err = w.subject.say(w.ctx, w.place(juliet), s.romeo...)
	}
	w.settle()
	return err
}

// check looks at all that can be seen from outside.
func (w *world) check(s *scenario, description string, out *outcome) {
	t := w.t
	if err := w.tap.verdict(); err != nil {
		t.Errorf("%s: %v", description, err)
	}
	_, out.resent = w.tap.used()
	romeos := s.romeo
	if s.answers || s.receive {
		for _, text := range s.juliet {
			romeos = append(romeos[:len(romeos):len(romeos)], answerTo(text))
		}
	}
	for _, text := range romeos {
		for i, p := range w.peers {
			times, _ := p.heard(text)
			attempts := w.subject.attempts[text]
			if s.receive {
				attempts = 1
			}
			if times < 1 || times > attempts {
				t.Errorf("%s: device %d has %q %d times, it was sent %d times", description, i, text, times, attempts)
			}
		}
	}
	if s.room { // its own come back
		for _, text := range s.romeo {
			if times, events := w.subject.heard(text); times < 1 || events > w.subject.attempts[text] {
				t.Errorf("%s: its own %q came back %d times, as %d messages", description, text, times, events)
			}
		}
	}
	for _, text := range s.juliet {
		times, events := w.subject.heard(text)
		if s.receive {
			times, events = w.subject.stored(w.t, text)
		}
		if times < 1 || events != 1 || s.receive && times != 1 {
			t.Errorf("%s: %q was delivered %d times, as %d messages", description, text, times, events)
		}
		out.again += times - 1
	}
	if order := w.subject.order(); s.catches && !s.receive && !slices.Equal(order[len(order)-len(s.juliet):], s.juliet) {
		t.Errorf("%s: delivered in the order %q", description, order)
	}
	for _, p := range append(w.peers, w.subject) {
		for _, c := range p.complaints() {
			t.Errorf("%s: %s: %s", description, p.account, c)
		}
		left, err := p.left(w.ctx)
		ok(t, err)
		if left != "" {
			t.Errorf("%s: %s: left: %s", description, p.account, left)
		}
	}
	if t.Failed() {
		for _, p := range append(w.peers, w.subject) {
			for _, e := range p.events {
				t.Logf("%s: %v %s/%d %v id=%s err=%v", p.account, e.Kind, e.Account, e.Device, e.Version, e.ID, e.Err)
			}
		}
		t.FailNow()
	}
}
