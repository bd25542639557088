//go:build unix && live

package omemo_test

import (
	"crypto/rand"
	"database/sql"
	"testing"

	_ "github.com/jackc/pgx/v5/stdlib" // the driver

	"example.org/omellium/omemo"
	"example.org/omellium/omemo/sqlstore"
	"example.org/omellium/omemo/sqlstore/postgres"
	"example.org/omellium/omemo/storetest/pgtest"
)

// BenchmarkStoredPostgres is BenchmarkStored on PostgreSQL, on a server that keeps
// what it was given.
func BenchmarkStoredPostgres(b *testing.B) {
	durable, err := pgtest.Start("fsync=on")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := durable.Stop(); err != nil {
			b.Error(err)
		}
	})
	benchStores(b, func(b *testing.B, opts ...sqlstore.Option) (omemo.Store, error) {
		return postgres.Open(b.Context(), durable.Database(b), alice, append(opts, sqlstore.WithAnchor(b.TempDir()))...)
	}, func(b *testing.B, devices, longer int) { benchPostgres(b, durable.Database(b), devices, longer) })
}

// benchPostgres is benchDatabase, with one statement for all sessions.
func benchPostgres(b *testing.B, url string, devices, longer int) {
	db, err := sql.Open("pgx", url)
	if err != nil {
		b.Fatal(err)
	}
	defer db.Close()
	db.SetMaxOpenConns(1)
	for _, text := range []string{
		`SET synchronous_commit = on`,
		`CREATE TABLE account (id BIGINT PRIMARY KEY, commits BIGINT)`, `INSERT INTO account VALUES (1, 0)`,
		`CREATE TABLE session (id BIGINT PRIMARY KEY, version BIGINT, jid TEXT, device BIGINT, archived BIGINT, record BYTEA)`,
		`CREATE TABLE outbox (seq BIGINT PRIMARY KEY, devices BYTEA, stanza BYTEA)`,
	} {
		if _, err := db.Exec(text); err != nil {
			b.Fatal(err)
		}
	}
	ids, records := make([]int64, devices), make([][]byte, devices)
	for i := range ids {
		var id [8]byte
		rand.Read(id[:])
		for _, b := range id {
			ids[i] = ids[i]<<7 | int64(b&0x7f)
		}
		records[i] = make([]byte, 351+longer)
		if _, err := db.Exec(`INSERT INTO session VALUES ($1, 2, $2, 1, 0, $3)`, ids[i], benchAccount(i), records[i]); err != nil {
			b.Fatal(err)
		}
	}
	names, stanza := make([]byte, 25*devices), make([]byte, len(benchStanza)+longer)
	seq := 0
	b.ReportAllocs()
	for b.Loop() {
		seq++
		tx, err := db.Begin()
		if err != nil {
			b.Fatal(err)
		}
		run := func(text string, args ...any) {
			if _, err := tx.Exec(text, args...); err != nil {
				b.Fatal(err)
			}
		}
		run(`UPDATE account SET commits = commits + 1 WHERE id = 1`)
		for _, record := range records {
			rand.Read(record[:32]) // as much randomness as a message has
		}
		run(`UPDATE session SET record = v.record FROM unnest($1::bigint[], $2::bytea[]) AS v(id, record) WHERE session.id = v.id`, ids, records)
		run(`DELETE FROM outbox WHERE seq = $1`, seq-1)
		run(`INSERT INTO outbox VALUES ($1, $2, $3)`, seq, names, stanza)
		if err := tx.Commit(); err != nil {
			b.Fatal(err)
		}
	}
}
