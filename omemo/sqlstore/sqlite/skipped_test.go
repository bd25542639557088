package sqlite_test

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"testing"

	"example.org/omellium/omemo"
	"example.org/omellium/omemo/sqlstore"
)

// TestSkippedSize holds a skipped message key to the room that it may take: for
// what is its own (number, place in the order of writing, key), and in the file,
// where its row also names account, session and ratchet key, which have 48 bytes.
// Sealing adds 40.
func TestSkippedSize(t *testing.T) {
	for _, test := range []struct {
		name        string
		opts        []sqlstore.Option
		own, stored int64 // bytes, at most
	}{
		{"plain", nil, 40, 120},
		{"sealed", []sqlstore.Option{sqlstore.WithKey(testKey(1))}, 80, 170},
	} {
		t.Run(test.name, func(t *testing.T) {
			const keys, chains = 1000, 5
			path := filepath.Join(t.TempDir(), "store.db")
			empty := sizeAfter(t, path, &omemo.Changes{}, test.opts...)
			c := &omemo.Changes{}
			for i := range chains * keys {
				row := omemo.SkippedRow{SkippedID: omemo.SkippedID{Session: 1<<62 + 1, N: uint32(i % keys)}}
				binary.LittleEndian.PutUint64(row.Ratchet[:], uint64(1+i/keys)*0x9e3779b97f4a7c15)
				c.Skipped = append(c.Skipped, row)
			}
			full := sizeAfter(t, path, c, test.opts...)
			if each := (full - empty) / (chains * keys); each > test.stored {
				t.Errorf("%d bytes of the file for each key, at most %d", each, test.stored)
			}
			var n, seq, key int64
			err := raw(t, path).QueryRow(`SELECT max(n), max(seq), max(length(secret)) FROM omemo_skipped`).Scan(&n, &seq, &key)
			if err != nil {
				t.Fatal(err)
			}
			if own := integerSize(n) + integerSize(seq) + key; own > test.own {
				t.Errorf("%d bytes are a key's own, at most %d", own, test.own)
			}
		})
	}
}

// sizeAfter returns the size of a database file after a commit, with the log
// moved into it.
func sizeAfter(t *testing.T, path string, c *omemo.Changes, opts ...sqlstore.Option) int64 {
	t.Helper()
	s := open(t, path, account, opts...)
	commit(t, s, c)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return info.Size()
}

// integerSize is how many bytes SQLite stores a number in (the record format of
// its file format, section 2.1).
func integerSize(n int64) int64 {
	for _, size := range []int64{1, 2, 3, 4, 6} {
		if n>>(8*size-1) == 0 {
			return size
		}
	}
	return 8
}
