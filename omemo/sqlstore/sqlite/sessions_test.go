package sqlite_test

import (
	"bytes"
	"encoding/binary"
	"path/filepath"
	"testing"

	"example.org/omellium/omemo"
	"example.org/omellium/omemo/sqlstore"
	"example.org/omellium/omemo/sqlstore/internal/load"
)

// TestManySessions: a commit of more sessions than one statement takes, of which
// some exist, leaves each with its own record, sealed or not.
func TestManySessions(t *testing.T) {
	for name, opts := range map[string][]sqlstore.Option{"plain": nil, "sealed": {sqlstore.WithKey(testKey(1))}} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "store.db")
			s := open(t, path, account, opts...)
			all := load.NewMessage(357).Sessions
			var peers []omemo.Peer
			for i := range all {
				peers = append(peers, all[i].Peer)
				binary.BigEndian.PutUint64(all[i].Record[8:], uint64(i))
			}
			commit(t, s, &omemo.Changes{Sessions: all[120:230]})
			for i := range all {
				binary.BigEndian.PutUint64(all[i].Record, uint64(i))
			}
			commit(t, s, &omemo.Changes{Sessions: all})
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			got, err := open(t, path, account, opts...).Sessions(t.Context(), peers)
			if err != nil || len(got) != len(all) {
				t.Fatalf("%d of %d sessions, %v", len(got), len(all), err)
			}
			want := make(map[uint64]omemo.SessionRow)
			for _, row := range all {
				want[row.ID] = row
			}
			for _, row := range got {
				if w := want[row.ID]; w.Peer != row.Peer || !bytes.Equal(w.Record, row.Record) {
					t.Errorf("session with %v is another's", row.Peer)
				}
			}
		})
	}
}
