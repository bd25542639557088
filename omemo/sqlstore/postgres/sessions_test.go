//go:build unix && live

package postgres_test

import (
	"testing"

	"example.org/omellium/omemo/sqlstore/internal/load"
)

// TestMoved: sessions that are moved on leave the indexes as they are, because
// their pages have room for the next state, and are as many as they were.
func TestMoved(t *testing.T) {
	url := server.Database(t)
	s := open(t, url, account)
	m := load.NewMessage(200)
	ok(t, s.Commit(t.Context(), &m.Changes))
	indexes := func() (bytes int) {
		server.Query(t, url, `SELECT pg_indexes_size('omemo_session')`, &bytes)
		return bytes
	}
	before := indexes()
	for range 30 {
		m.Next()
		ok(t, s.Commit(t.Context(), &m.Changes))
	}
	if after := indexes(); after > before*5/4 {
		t.Errorf("the indexes had %d bytes and have %d", before, after)
	}
	var rows int
	server.Query(t, url, `SELECT count(*) FROM omemo_session`, &rows)
	if rows != len(m.Sessions) {
		t.Errorf("%d sessions are %d rows", len(m.Sessions), rows)
	}
}
