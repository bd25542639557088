package omemo_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"database/sql"
	"fmt"
	"path/filepath"
	"testing"

	"example.org/omellium/omemo"
	"example.org/omellium/omemo/sqlstore"
	"example.org/omellium/omemo/sqlstore/sqlite"
)

// BenchmarkStored is the fan-out of BenchmarkOp with a store on SQLite, sealed
// and not, each message one durable commit. "bare" is the database alone, with
// the same rows and bytes and without any cryptography: what Stored may cost is
// 1.3 times that, and d_enc of BenchmarkOp for each device.
func BenchmarkStored(b *testing.B) {
	sealed := sqlstore.WithKey(sqlstore.KeyFunc(func(context.Context) ([]byte, error) { return bytes.Repeat([]byte{7}, 32), nil }))
	for _, devices := range []int{10, 1000} {
		op := fmt.Sprintf("op=h_fanout%d", devices)
		for _, v := range []omemo.Version{omemo.V2, omemo.Legacy} {
			peer := "omellium-v2"
			if v == omemo.Legacy {
				peer = "omellium-legacy"
			}
			b.Run(op+"/peer="+peer+"-plain", func(b *testing.B) { benchStored(b, v, devices) })
			b.Run(op+"/peer="+peer+"-sealed", func(b *testing.B) { benchStored(b, v, devices, sealed) })
		}
		b.Run(op+"/peer=bare-plain", func(b *testing.B) { benchDatabase(b, devices, 0) })
		b.Run(op+"/peer=bare-sealed", func(b *testing.B) { benchDatabase(b, devices, sealing) })
	}
}

func benchStored(b *testing.B, v omemo.Version, devices int, opts ...sqlstore.Option) {
	store, err := sqlite.Open(b.Context(), filepath.Join(b.TempDir(), "store.db"), alice, opts...)
	if err != nil {
		b.Fatal(err)
	}
	defer store.Close()
	c, err := newBenchCrowd(v, store, devices+1)
	if err != nil {
		b.Fatal(err)
	}
	to := c.recipients(devices)
	var sealed *omemo.Sealed
	b.ReportAllocs()
	for b.Loop() {
		if sealed, err = c.send(c.m, to); err != nil {
			b.Fatal(err)
		}
	}
	b.StopTimer()
	if err := c.read(sealed, devices); err != nil {
		b.Fatal(err)
	}
}

// sealing is how much longer a sealed secret is.
const sealing = 40

// benchDatabase writes with prepared statements of its own what a message to
// devices commits: their sessions, a row of the outbox in the place of the one
// before, and the account's counters.
func benchDatabase(b *testing.B, devices, longer int) {
	path := filepath.Join(b.TempDir(), "bare.db")
	db, err := sql.Open("sqlite", "file:"+path+"?_txlock=immediate&_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)&_pragma=secure_delete(ON)")
	if err != nil {
		b.Fatal(err)
	}
	defer db.Close()
	db.SetMaxOpenConns(1)
	run := func(st *sql.Stmt, args ...any) {
		if _, err := st.Exec(args...); err != nil {
			b.Fatal(err)
		}
	}
	prepare := func(text string) *sql.Stmt {
		st, err := db.Prepare(text)
		if err != nil {
			b.Fatal(err)
		}
		return st
	}
	for _, text := range []string{
		`CREATE TABLE account (id INTEGER PRIMARY KEY, commits INTEGER)`, `INSERT INTO account VALUES (1, 0)`,
		`CREATE TABLE session (id INTEGER PRIMARY KEY, version INTEGER, jid TEXT, device INTEGER, archived INTEGER, record BLOB)`,
		`CREATE TABLE outbox (seq INTEGER PRIMARY KEY, devices BLOB, stanza BLOB)`,
	} {
		run(prepare(text))
	}
	ids := make([]int64, devices)
	record := make([]byte, 351+longer)
	for i := range ids {
		var id [8]byte
		rand.Read(id[:])
		for _, b := range id {
			ids[i] = ids[i]<<7 | int64(b&0x7f)
		}
		run(prepare(`INSERT INTO session VALUES (?, 2, ?, 1, 0, ?)`), ids[i], benchAccount(i), record)
	}
	counted := prepare(`UPDATE account SET commits = commits + 1 WHERE id = 1`)
	moved := prepare(`UPDATE session SET record = ? WHERE id = ?`)
	dropped := prepare(`DELETE FROM outbox WHERE seq = ?`)
	sent := prepare(`INSERT INTO outbox VALUES (?, ?, ?)`)
	names, stanza := make([]byte, 25*devices), make([]byte, len(benchStanza)+longer)
	seq := 0
	b.ReportAllocs()
	for b.Loop() {
		seq++
		tx, err := db.Begin()
		if err != nil {
			b.Fatal(err)
		}
		run(tx.Stmt(counted))
		move := tx.Stmt(moved)
		for i := range ids {
			rand.Read(record[:32]) // as much randomness as a message has
			run(move, record, ids[i])
		}
		run(tx.Stmt(dropped), seq-1)
		run(tx.Stmt(sent), seq, names, stanza)
		if err := tx.Commit(); err != nil {
			b.Fatal(err)
		}
	}
}
