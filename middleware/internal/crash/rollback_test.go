package crash

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"

	"example.org/omellium/middleware"
	"example.org/omellium/omemo"
	"example.org/omellium/omemo/memstore"
)

// files is the content of a directory.
type files map[string][]byte

func copyOf(t *testing.T, dir string) files {
	t.Helper()
	entries, err := os.ReadDir(dir)
	ok(t, err)
	all := make(files)
	for _, e := range entries {
		b, err := os.ReadFile(filepath.Join(dir, e.Name()))
		ok(t, err)
		all[e.Name()] = b
	}
	return all
}

// restore puts a directory back into the state of a copy.
func (f files) restore(t *testing.T, dir string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	ok(t, err)
	for _, e := range entries {
		ok(t, os.Remove(filepath.Join(dir, e.Name())))
	}
	for name, b := range f {
		ok(t, os.WriteFile(filepath.Join(dir, name), b, 0o600))
	}
}

// stranded is a world in which the subject has a past, on SQLite.
func stranded(t *testing.T, v omemo.Version) *world {
	t.Helper()
	w := newWorld(t, &scenario{devices: 1}, v, onSQLite)
	ok(t, w.up())
	w.talk(texts("romeo", 0, 2), texts("juliet", 0, 2))
	return w
}

func (w *world) database() string { return filepath.Dir(w.subject.file) }

// rollbacks returns how often the subject has found out that its state is older
// than it was.
func (w *world) rollbacks() int {
	p := w.subject
	p.mu.Lock()
	defer p.mu.Unlock()
	n := 0
	for _, e := range p.events {
		if e.Kind == middleware.StateRolledBack {
			n++
		}
	}
	return n
}

// goesOn checks that after all that was done to the subject both sides still
// read each other, and that no message key was used twice.
func (w *world) goesOn(rollbacks int, mark string) {
	t := w.t
	t.Helper()
	if got := w.rollbacks(); got != rollbacks {
		t.Errorf("%s: %d rollbacks were detected, want %d", mark, got, rollbacks)
	}
	w.talk(texts("romeo "+mark, 0, 3), nil)
	w.talk(nil, texts("juliet "+mark, 0, 3))
	for _, text := range texts("romeo "+mark, 0, 3) {
		if times, _ := w.peers[0].heard(text); times != 1 {
			t.Errorf("%q was read %d times", text, times)
		}
	}
	for _, text := range texts("juliet "+mark, 0, 3) {
		if times, _ := w.subject.heard(text); times != 1 {
			t.Errorf("%q was read %d times", text, times)
		}
	}
	for _, c := range w.peers[0].complaints() {
		t.Errorf("juliet: %s", c)
	}
	if err := w.tap.verdict(); err != nil {
		t.Errorf("%s: %v", mark, err)
	}
}

// TestRestoredBackup copies the database, sends 20 messages, and restores the
// copy: that is noticed before anything leaves.
func TestRestoredBackup(t *testing.T) {
	for _, v := range omemo.Versions() {
		for _, c := range []struct {
			name string
			// between happens after the copy was made.
			between func(w *world)
			// harm is done to what is outside the database.
			harm func(w *world)
		}{
			{"the anchor tells", nil, nil},
			{
				"the bundle tells",
				func(w *world) { w.stranger(v, w.settle) }, // takes a pre key: a new bundle is published
				func(w *world) { files{}.restore(w.t, w.subject.anchors) },
			},
		} {
			t.Run(v.String()+"/"+c.name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					w := stranded(t, v)
					defer w.close()
					w.stop()
					backup := copyOf(t, w.database())
					ok(t, w.up())
					if c.between != nil {
						c.between(w)
					}
					w.talk(texts("romeo", 2, 20), nil)
					w.stop()
					backup.restore(t, w.database())
					if c.harm != nil {
						c.harm(w)
					}
					identity := w.identity()
					ok(t, w.up())
					w.settle()
					w.goesOn(1, "restored")
					if w.identity() != identity {
						t.Error("the identity has changed")
					}
					// It settles: the next start finds nothing wrong.
					w.stop()
					ok(t, w.up())
					w.goesOn(1, "restarted")
				})
			})
		}
	}
}

// stranger has somebody else write to romeo and wait, and go again.
func (w *world) stranger(v omemo.Version, wait func()) {
	const mercutio = "mercutio@example.net"
	ok(w.t, w.srv.AddAccount(mercutio, password))
	p := newProgram(mercutio, v, w.srv.Dial)
	onMemory(w.t, p)
	ok(w.t, p.live(w.ctx))
	ok(w.t, p.say(w.ctx, romeo, texts("mercutio", 0, 1)...))
	wait()
	ok(w.t, p.die())
}

// identity returns the fingerprint that juliet knows of romeo.
func (w *world) identity() omemo.Fingerprint {
	_, devices, err := w.peers[0].om.Manager().Account(w.ctx, romeo)
	ok(w.t, err)
	for _, d := range devices {
		if !d.Fingerprint.IsZero() {
			return d.Fingerprint
		}
	}
	w.t.Error("juliet knows no identity of romeo's")
	return omemo.Fingerprint{}
}

// TestRestoredTwiceInADay restores copies one after the other: the anchor is
// evidence of our own, which is heeded however often it comes.
func TestRestoredTwiceInADay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := stranded(t, omemo.V2)
		defer w.close()
		for round, mark := range []string{"first", "second", "third"} {
			w.stop()
			backup := copyOf(t, w.database())
			ok(t, w.up())
			w.talk(texts("romeo "+mark, 100, 20), nil)
			w.stop()
			backup.restore(t, w.database())
			ok(t, w.up())
			w.settle()
			w.goesOn(round+1, mark)
		}
	})
}

// TestRestoredOutbox restores a copy that was made while messages waited to
// leave. They are dropped, and the application is told.
func TestRestoredOutbox(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := stranded(t, omemo.Legacy)
		defer w.close()
		w.tap.setSwallow(true)
		w.talk(texts("romeo", 2, 5), nil)
		w.stop()
		backup := copyOf(t, w.database())
		w.tap.setSwallow(false)
		ok(t, w.up())
		w.talk(texts("romeo", 7, 20), nil)
		w.stop()
		_, before := w.tap.used()
		backup.restore(t, w.database())
		ok(t, w.up())
		w.settle()
		w.goesOn(1, "restored")
		if _, after := w.tap.used(); after != before {
			t.Errorf("%d messages of the copy have left", after-before)
		}
		dropped := 0
		for _, e := range w.subject.events {
			if e.Kind == middleware.SendFailed {
				dropped++
			}
		}
		if dropped != 5 {
			t.Errorf("%d messages were reported as dropped, want 5", dropped)
		}
	})
}

// TestRollbackThenCrash has the program die at each step of the start at which
// it finds out about the rollback, and start again.
func TestRollbackThenCrash(t *testing.T) {
	stride := knob(t, "OMELLIUM_FAILPOINTS", 8, 40)
	silent := 0
	for step := stride; ; step += stride {
		hit := false
		synctest.Test(t, func(t *testing.T) {
			w := stranded(t, omemo.V2)
			defer w.close()
			w.stop()
			backup := copyOf(t, w.database())
			ok(t, w.up())
			w.talk(texts("romeo", 2, 20), nil)
			// What comes when the copy is restored takes a pre key.
			w.stop()
			w.stranger(omemo.V2, func() {})
			backup.restore(t, w.database())
			w.subject.m.plan = []point{{step, after}}
			w.subject.m.start()
			_ = w.up() // it may die
			w.settle()
			_, hit, _ = w.subject.m.disarm()
			if hit {
				w.stop()
				w.subject.m.start()
				w.subject.m.disarm()
				ok(t, w.up())
				w.settle()
			}
			if w.rollbacks() == 0 {
				silent++
			}
			w.goesOn(w.rollbacks(), "restored")
			if t.Failed() {
				t.Fatalf("step %d", step)
			}
		})
		if !hit {
			t.Logf("%d steps", step)
			break
		}
	}
	// It may die between giving its sending state up and telling so; what counts
	// is that no message key was used twice.
	if silent > 1 {
		t.Errorf("%d rollbacks were not detected", silent)
	}
}

// TestPowerLoss puts an older anchor back: the file is not synced, and so a
// power failure makes it lower, which says nothing.
func TestPowerLoss(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := stranded(t, omemo.V2)
		defer w.close()
		w.stop()
		anchor := copyOf(t, w.subject.anchors)
		ok(t, w.up())
		w.talk(texts("romeo", 2, 20), texts("juliet", 2, 20))
		w.stop()
		anchor.restore(t, w.subject.anchors)
		ok(t, w.up())
		w.goesOn(0, "lower")
		w.stop()
		files{}.restore(t, w.subject.anchors)
		ok(t, w.up())
		w.goesOn(0, "missing")
		missing := 0
		for _, e := range w.subject.events {
			if e.Kind == middleware.AnchorMissing {
				missing++
			}
		}
		if missing != 1 {
			t.Errorf("%d times the anchor was reported as missing", missing)
		}
	})
}

// TestImport makes the account anew from its export, in an empty store: the same
// identity, and no key a second time.
func TestImport(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := stranded(t, omemo.V2)
		defer w.close()
		export, err := w.subject.om.Manager().Export(w.ctx)
		ok(t, err)
		w.talk(texts("romeo", 2, 20), nil)
		w.stop()
		identity := w.identity()
		store := memstore.New(romeo)
		ok(t, omemo.Import(w.ctx, store, export))
		w.subject.open = func(context.Context) (omemo.Store, error) {
			store = store.Reopen()
			return store, nil
		}
		ok(t, w.up())
		w.settle()
		w.goesOn(1, "imported")
		if w.identity() != identity {
			t.Error("the identity has changed")
		}
	})
}
