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
	"example.org/omellium/omemo/memstore"
	"example.org/omellium/omemo/sqlstore"
	"example.org/omellium/omemo/sqlstore/sqlite"
)

// BenchmarkStored is the fan-out of BenchmarkOp with a store on SQLite, and a
// message that is read, sealed and not. Each message is one durable commit, as
// commits/op shows. "bare" is the database alone, with the same rows and bytes and
// without any cryptography: what Stored may cost is 1.3 times that, and d_enc of
// BenchmarkOp for each device.
func BenchmarkStored(b *testing.B) {
	benchStores(b, func(b *testing.B, opts ...sqlstore.Option) (omemo.Store, error) {
		return sqlite.Open(b.Context(), filepath.Join(b.TempDir(), "store.db"), alice, opts...)
	}, benchDatabase)
}

// benchStores runs BenchmarkStored on a kind of store, beside the bare database.
func benchStores(b *testing.B, open func(*testing.B, ...sqlstore.Option) (omemo.Store, error), bare func(b *testing.B, devices, longer int)) {
	sealed := sqlstore.WithKey(sqlstore.KeyFunc(func(context.Context) ([]byte, error) { return bytes.Repeat([]byte{7}, 32), nil }))
	stored := func(b *testing.B, run func(*testing.B, *countedStore) (commits int), opts ...sqlstore.Option) {
		store, err := open(b, opts...)
		if err != nil {
			b.Fatal(err)
		}
		defer store.Close()
		b.ReportAllocs()
		commits := run(b, &countedStore{Store: store})
		b.ReportMetric(float64(commits)/float64(b.N), "commits/op")
		if commits != b.N {
			b.Errorf("%d commits for %d messages", commits, b.N)
		}
	}
	for _, devices := range []int{0, 1, 10, 1000} {
		op := fmt.Sprintf("op=h_fanout%d", devices)
		if devices == 0 {
			op = "op=i_read"
		}
		for _, v := range []omemo.Version{omemo.V2, omemo.Legacy} {
			peer := "omellium-v2"
			if v == omemo.Legacy {
				peer = "omellium-legacy"
			}
			run := func(b *testing.B, s *countedStore) int { return benchStored(b, v, devices, s) }
			if devices == 0 {
				run = func(b *testing.B, s *countedStore) int { return benchRead(b, v, s) }
			}
			b.Run(op+"/peer="+peer+"-plain", func(b *testing.B) { stored(b, run) })
			b.Run(op+"/peer="+peer+"-sealed", func(b *testing.B) { stored(b, run, sealed) })
		}
		// What is read moves one session on, too, and its row is in the inbox.
		b.Run(op+"/peer=bare-plain", func(b *testing.B) { bare(b, max(1, devices), 0) })
		b.Run(op+"/peer=bare-sealed", func(b *testing.B) { bare(b, max(1, devices), sealing) })
	}
}

// countedStore counts commits.
type countedStore struct {
	omemo.Store
	commits int
}

func (s *countedStore) Commit(ctx context.Context, c *omemo.Changes) error {
	s.commits++
	return s.Store.Commit(ctx, c)
}

func benchStored(b *testing.B, v omemo.Version, devices int, store *countedStore) (commits int) {
	c, err := newBenchCrowd(v, store, devices+1)
	if err != nil {
		b.Fatal(err)
	}
	to := c.recipients(devices)
	var sealed *omemo.Sealed
	before := store.commits
	for b.Loop() {
		if sealed, err = c.send(c.m, to); err != nil {
			b.Fatal(err)
		}
	}
	b.StopTimer()
	commits = store.commits - before
	if err := c.read(sealed, devices); err != nil {
		b.Fatal(err)
	}
	return commits
}

// benchRead measures a message that is read: it is in the inbox with its commit, and
// out of it with the next.
func benchRead(b *testing.B, v omemo.Version, store *countedStore) (commits int) {
	ctx := b.Context()
	must := func(err error) {
		b.Helper()
		if err != nil {
			b.Fatal(err)
		}
	}
	reader, err := omemo.NewManager(ctx, store, omemo.Options{})
	must(err)
	writer, err := omemo.NewManager(ctx, memstore.New(bob), omemo.Options{})
	must(err)
	devices := make(map[*omemo.Manager]omemo.Address)
	for _, m := range []*omemo.Manager{reader, writer} {
		devices[m], err = m.Device(ctx)
		must(err)
	}
	text := omemo.Plaintext{Legacy: bytes.Repeat([]byte("x"), 1024), V2: bytes.Repeat([]byte("x"), 1024)}
	write := func(from, to *omemo.Manager, bundles ...*omemo.Bundle) *omemo.Message {
		sealed, err := from.Encrypt(ctx, text, []string{devices[to].JID}, benchRender, bundles...)
		must(err)
		from.Later(nil, []uint64{sealed.Outbox[0].Seq})
		return sealed.Messages[0]
	}
	read := func(to *omemo.Manager, message *omemo.Message) {
		opened, err := to.Decrypt(ctx, message, accept)
		must(err)
		to.Later([]uint64{opened.Delivery.Seq}, nil)
	}
	must(reader.SetList(ctx, bob, v, []omemo.DeviceID{devices[writer].Device}))
	must(writer.SetList(ctx, alice, v, []omemo.DeviceID{devices[reader].Device}))
	bundle, err := reader.Bundle(ctx, v)
	must(err)
	read(reader, write(writer, reader, bundle))
	read(writer, write(reader, writer))
	read(reader, write(writer, reader)) // and with it what was left of the outbox
	before := store.commits
	for b.Loop() {
		b.StopTimer()
		message := write(writer, reader)
		b.StartTimer()
		read(reader, message)
	}
	b.StopTimer()
	return store.commits - before
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
