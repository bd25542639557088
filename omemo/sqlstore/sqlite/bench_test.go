package sqlite_test

import (
	"database/sql"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"example.org/omellium/omemo"
	"example.org/omellium/omemo/sqlstore"
	"example.org/omellium/omemo/sqlstore/internal/load"
)

// BenchmarkCommit measures a commit that moves sessions on and writes an outbox
// row, as a message to that many devices does, plain and sealed; "bare" is the
// database alone, writing the same rows and bytes.
func BenchmarkCommit(b *testing.B) {
	for _, devices := range []int{1, 10, 1000} {
		m := load.NewMessage(devices)
		for name, opts := range map[string][]sqlstore.Option{"plain": nil, "sealed": {sqlstore.WithKey(testKey(1))}} {
			b.Run(fmt.Sprintf("devices=%d/%s", devices, name), func(b *testing.B) {
				s := open(b, filepath.Join(b.TempDir(), "store.db"), account, opts...)
				commit(b, s, &m.Changes)
				b.ReportAllocs()
				for b.Loop() {
					m.Next()
					commit(b, s, &m.Changes)
				}
				b.StopTimer()
				if err := s.Close(); err != nil {
					b.Fatal(err)
				}
			})
		}
		b.Run(fmt.Sprintf("devices=%d/bare", devices), func(b *testing.B) {
			bare(b, m)
		})
	}
}

// bare writes what a commit writes by statements of its own.
func bare(b *testing.B, m *load.Message) {
	c := &m.Changes
	path := filepath.Join(b.TempDir(), "bare.db")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		b.Fatal(err)
	}
	db, err := sql.Open("sqlite", "file:"+path+"?_txlock=immediate&_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)&_pragma=secure_delete(ON)")
	if err != nil {
		b.Fatal(err)
	}
	defer db.Close()
	db.SetMaxOpenConns(1)
	execute(b, db,
		`CREATE TABLE account (id INTEGER PRIMARY KEY, commits INTEGER)`, `INSERT INTO account VALUES (1, 0)`,
		`CREATE TABLE session (id INTEGER PRIMARY KEY, version INTEGER, jid TEXT, device INTEGER, archived INTEGER, record BLOB)`,
		`CREATE TABLE outbox (seq INTEGER PRIMARY KEY, devices BLOB, stanza BLOB)`)
	prepare := func(text string) *sql.Stmt {
		st, err := db.Prepare(text)
		if err != nil {
			b.Fatal(err)
		}
		return st
	}
	counted := prepare(`UPDATE account SET commits = commits + 1 WHERE id = 1`)
	for i := range c.Sessions {
		r := &c.Sessions[i]
		if _, err := db.Exec(`INSERT INTO session VALUES (?, ?, ?, ?, 0, ?)`, int64(r.ID), int(r.Version), r.JID, int64(r.Device), r.Record); err != nil {
			b.Fatal(err)
		}
	}
	moved := prepare(`UPDATE session SET record = ? WHERE id = ?`)
	dropped := prepare(`DELETE FROM outbox WHERE seq = ?`)
	sent := prepare(`INSERT INTO outbox VALUES (?, ?, ?)`)
	devices := make([]byte, 25*len(c.Sessions))
	write := func() {
		tx, err := db.Begin()
		if err != nil {
			b.Fatal(err)
		}
		run := func(st *sql.Stmt, args ...any) {
			if _, err := st.Exec(args...); err != nil {
				b.Fatal(err)
			}
		}
		run(tx.Stmt(counted))
		st := tx.Stmt(moved)
		for i := range c.Sessions {
			run(st, c.Sessions[i].Record, int64(c.Sessions[i].ID))
		}
		run(tx.Stmt(dropped), int64(c.DropOutbox[0]))
		run(tx.Stmt(sent), int64(c.Outbox[0].Seq), devices, c.Outbox[0].Stanza)
		if err := tx.Commit(); err != nil {
			b.Fatal(err)
		}
	}
	write()
	b.ReportAllocs()
	for b.Loop() {
		m.Next()
		write()
	}
}

// BenchmarkSessions measures reading the sessions with devices.
func BenchmarkSessions(b *testing.B) {
	s := open(b, filepath.Join(b.TempDir(), "store.db"), account)
	var c omemo.Changes
	var peers []omemo.Peer
	for i := range 1000 {
		peer := omemo.Peer{Version: omemo.V2, Address: omemo.Address{JID: fmt.Sprintf("user%d@example.org", i), Device: 1}}
		peers = append(peers, peer)
		c.Sessions = append(c.Sessions, omemo.SessionRow{ID: uint64(i + 1), Peer: peer, Record: make([]byte, 300)})
	}
	commit(b, s, &c)
	for _, n := range []int{1, 10, 1000} {
		b.Run(fmt.Sprintf("devices=%d", n), func(b *testing.B) {
			for b.Loop() {
				if rows, err := s.Sessions(b.Context(), peers[:n]); err != nil || len(rows) != n {
					b.Fatal(len(rows), err)
				}
			}
		})
	}
}
