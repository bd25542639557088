package crash

import (
	"bytes"
	"slices"
	"testing"
	"testing/synctest"

	"example.org/omellium/omemo"
)

// keySize is the length of every key.
const keySize = 32

// secrets are what a store holds of one conversation.
type secrets struct {
	preKeys map[uint32][]byte
	records [][]byte // of the sessions
}

func (w *world) secrets(v omemo.Version) secrets {
	t, store := w.t, w.subject.store
	rows, err := store.PreKeys(w.ctx, v)
	ok(t, err)
	s := secrets{preKeys: make(map[uint32][]byte)}
	for _, r := range rows {
		s.preKeys[r.ID] = bytes.Clone(r.Private[:])
	}
	accounts, err := store.Accounts(w.ctx)
	ok(t, err)
	var peers []omemo.Peer
	for _, d := range accounts.Devices {
		peers = append(peers, d.Peer)
	}
	sessions, err := store.Sessions(w.ctx, peers)
	ok(t, err)
	for _, r := range sessions {
		s.records = append(s.records, r.Record)
	}
	return s
}

// gone returns the keys that were there before and are not any more: pre keys
// that were used, and whatever a session held and holds no longer, in pieces of
// the length of a key.
func (s secrets) gone(now secrets) (preKeys, pieces [][]byte) {
	for id, key := range s.preKeys {
		if now.preKeys[id] == nil {
			preKeys = append(preKeys, key)
		}
	}
	all := bytes.Join(now.records, nil)
	for _, record := range s.records {
		for i := 0; i+keySize <= len(record); i++ {
			piece := record[i : i+keySize]
			// Pieces that mix what is gone with much of what is not tell nothing.
			if !bytes.Contains(all, piece[:keySize/2]) && !bytes.Contains(all, piece[keySize/2:]) {
				pieces = append(pieces, piece)
			}
		}
	}
	return preKeys, pieces
}

// TestScan looks for what must be gone in every file of the database: while the
// program runs on, and when it has ended.
func TestScan(t *testing.T) {
	for _, v := range omemo.Versions() {
		t.Run(v.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, &scenario{devices: 1}, v, onSQLite)
				defer w.close()
				ok(t, w.up())
				w.settle()
				first := w.secrets(v)
				// The search finds what there is to be found.
				if !slices.ContainsFunc(w.files(), func(b []byte) bool { return bytes.Contains(b, first.preKeys[1]) }) {
					t.Fatal("a pre key that is in use was not found in the files")
				}
				w.talk(nil, texts("juliet", 0, 3))
				second := w.secrets(v)
				w.talk(texts("romeo", 0, 3), nil)
				w.talk(nil, texts("juliet", 3, 3))
				third := w.secrets(v)
				preKeys, _ := first.gone(second)
				_, pieces := second.gone(third)
				if len(preKeys) != 1 || len(pieces) < keySize {
					t.Fatalf("%d pre keys and %d pieces of sessions are gone", len(preKeys), len(pieces))
				}
				for _, text := range texts("juliet", 0, 6) {
					if times, _ := w.subject.heard(text); times != 1 {
						t.Errorf("%q was delivered %d times", text, times)
					}
				}
				w.scan("running", preKeys, pieces)
				w.stop()
				w.scan("ended", preKeys, pieces)
				ok(t, w.up())
			})
		})
	}
}

// files returns the content of the files of the database.
func (w *world) files() [][]byte {
	var all [][]byte
	for _, b := range copyOf(w.t, w.database()) {
		all = append(all, b)
	}
	return all
}

func (w *world) scan(when string, preKeys, pieces [][]byte) {
	w.t.Helper()
	for name, b := range copyOf(w.t, w.database()) {
		if bytes.Contains(b, []byte(canary)) {
			w.t.Errorf("%s: a text that was delivered stands in %s", when, name)
		}
		for _, needles := range [][][]byte{preKeys, pieces} {
			for _, needle := range needles {
				if bytes.Contains(b, needle) {
					w.t.Errorf("%s: a key that was used stands in %s", when, name)
					break
				}
			}
		}
	}
}
