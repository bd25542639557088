package crash

import (
	"errors"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
)

// sector is what a drive writes as a whole or not at all, in bytes.
const sector = 512

// drive is a drive with a cache, and a database on it. When the power fails,
// what was synced is there; of what was written after that, each sector may be
// there or not, whatever the order it was written in.
type drive struct {
	path        string     // of the database
	anchors     string     // directory of its anchors; may be empty
	dice        *rand.Rand // says what survives; nil: nothing that was not synced
	step        func()     // called before each change, if it is set
	synchronous string     // that SQLite is told instead of what the store says; empty: that
	mu          sync.Mutex
	files       map[string]*cached
	left        *remains // what is left after the power has failed
}

// cached is a file on a drive.
type cached struct {
	synced  []byte
	exists  bool // under this name, when the power has failed
	deleted bool // which the directory on the drive does not say yet
	pending []change
}

// change is a write, or a truncation if there is no data.
type change struct {
	at   int64
	data []byte
}

// remains is what is left after the power has failed.
type remains struct {
	files   map[string][]byte
	anchors map[string][]byte // as they are: nothing says when they reach the drive
}

// newDrive returns a drive for a database that does not exist yet.
func newDrive(t testing.TB, path, anchors string, dice *rand.Rand) *drive {
	t.Helper()
	ok(t, registerVFS())
	// SQLite follows the links of a name.
	dir, err := filepath.EvalSymlinks(filepath.Dir(path))
	ok(t, err)
	d := &drive{path: filepath.Join(dir, filepath.Base(path)), anchors: anchors, dice: dice, files: make(map[string]*cached)}
	drives.mount(d)
	t.Cleanup(func() { drives.unmount(d) })
	return d
}

// names returns the names of the files of a database. The index of the log is
// not among them: it is made anew when the first connection opens.
func (d *drive) names() []string { return []string{d.path, d.path + "-wal", d.path + "-journal"} }

// opened takes note of a file that was opened.
func (d *drive) opened(name string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if f := d.files[name]; f != nil && !f.deleted {
		return
	}
	f := &cached{exists: name == d.path} // which the store has created
	if old := d.files[name]; old != nil {
		// Under this name the old file may be found, or the new one. That a part of
		// each is found is worse than either.
		f.synced, f.pending = old.synced, append(old.pending, change{at: 0})
	}
	d.files[name] = f
}

// changing takes note of what is about to be done to a file.
func (d *drive) changing(name string, what change) {
	d.tell()
	d.mu.Lock()
	defer d.mu.Unlock()
	f := d.files[name]
	f.pending = append(f.pending, what)
}

// synced takes note of a file that was synced. With the first sync of a new log
// or journal, SQLite has the directory written as well.
func (d *drive) synced(name string) {
	d.tell()
	d.mu.Lock()
	defer d.mu.Unlock()
	f := d.files[name]
	for _, c := range f.pending {
		f.synced = c.apply(f.synced, nil)
	}
	f.pending = nil
	if f.exists {
		return
	}
	for name, f := range d.files {
		f.exists = true
		if f.deleted {
			delete(d.files, name)
		}
	}
}

// deleting takes note of a file that is about to be deleted.
func (d *drive) deleting(name string, sync bool) {
	d.tell()
	d.mu.Lock()
	defer d.mu.Unlock()
	f := d.files[name]
	switch {
	case f == nil:
	case sync:
		delete(d.files, name)
	default:
		f.deleted = true
	}
}

func (d *drive) tell() {
	if d.step != nil {
		d.step()
	}
}

// apply returns a file after a change of which each sector survives, or not, as
// the dice fall; all of them without dice.
func (c change) apply(file []byte, dice *rand.Rand) []byte {
	if c.data == nil {
		if dice != nil && dice.IntN(2) == 0 {
			return file
		}
		if int64(len(file)) > c.at {
			return file[:c.at]
		}
		return grow(file, c.at)
	}
	for from := int64(0); from < int64(len(c.data)); {
		to := min((c.at+from)/sector*sector+sector-c.at, int64(len(c.data)))
		if dice == nil || dice.IntN(2) == 0 {
			file = grow(file, c.at+to)
			copy(file[c.at+from:], c.data[from:to])
		}
		from = to
	}
	return file
}

// grow returns a file that has at least a size, in bytes.
func grow(file []byte, size int64) []byte {
	if missing := size - int64(len(file)); missing > 0 {
		return append(file, make([]byte, missing)...)
	}
	return file
}

// loss returns what were left if the power failed now.
func (d *drive) loss() (*remains, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	left := &remains{files: make(map[string][]byte), anchors: make(map[string][]byte)}
	for _, name := range slices.Sorted(maps.Keys(d.files)) {
		f := d.files[name]
		survives := func() bool { return d.dice != nil && d.dice.IntN(2) == 0 }
		if !f.exists && !survives() || f.deleted && survives() {
			continue
		}
		file := slices.Clone(f.synced)
		if d.dice != nil {
			for _, c := range f.pending {
				file = c.apply(file, d.dice)
			}
		}
		left.files[name] = file
	}
	if d.anchors == "" {
		return left, nil
	}
	entries, err := os.ReadDir(d.anchors)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		name := filepath.Join(d.anchors, e.Name())
		if left.anchors[name], err = os.ReadFile(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	return left, nil
}

// cut has the power fail. What is written from then on is not on the drive when
// it is back.
func (d *drive) cut() error {
	left, err := d.loss()
	if err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.left == nil {
		d.left = left
	}
	return nil
}

// back makes the files what is left of them, if the power has failed. They are
// not open.
func (d *drive) back() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	left := d.left
	if left == nil {
		return nil
	}
	d.left = nil
	for _, name := range append(d.names(), d.path+"-shm") {
		if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	clear(d.files)
	for name, content := range left.files {
		d.files[name] = &cached{synced: content, exists: true}
	}
	return left.write(func(name string) string { return name })
}

// write writes what is left, under other names.
func (r *remains) write(name func(string) string) error {
	for _, files := range []map[string][]byte{r.files, r.anchors} {
		for file, content := range files {
			if err := os.WriteFile(name(file), content, 0o600); err != nil {
				return err
			}
		}
	}
	return nil
}
