//go:build unix && live

package postgres_test

import (
	"database/sql"
	"fmt"
	"testing"

	"example.org/omellium/omemo/sqlstore"
	"example.org/omellium/omemo/sqlstore/internal/load"
	"example.org/omellium/omemo/storetest/pgtest"
)

// BenchmarkCommit measures a commit that moves sessions on and writes an outbox
// row, as a message to that many devices does, plain and sealed, on a server
// that keeps what it was given; "bare" is the database alone, writing the same
// rows and bytes in one statement a table.
func BenchmarkCommit(b *testing.B) {
	durable, err := pgtest.Start("fsync=on")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := durable.Stop(); err != nil {
			b.Error(err)
		}
	})
	for _, devices := range []int{1, 1000} {
		for _, way := range []struct {
			name string
			opts []sqlstore.Option
		}{{"plain", nil}, {"sealed", []sqlstore.Option{sqlstore.WithKey(testKey)}}} {
			b.Run(fmt.Sprintf("devices=%d/%s", devices, way.name), func(b *testing.B) {
				m := load.NewMessage(devices)
				s := open(b, durable.Database(b), account, way.opts...)
				write := func() {
					if err := s.Commit(b.Context(), &m.Changes); err != nil {
						b.Fatal(err)
					}
					m.Next()
				}
				write()
				b.ReportAllocs()
				for b.Loop() {
					write()
				}
			})
		}
		b.Run(fmt.Sprintf("devices=%d/bare", devices), func(b *testing.B) { bare(b, durable.Database(b), load.NewMessage(devices)) })
	}
}

// bare writes what a commit writes by statements of its own.
func bare(b *testing.B, url string, m *load.Message) {
	db, err := sql.Open("pgx", url)
	if err != nil {
		b.Fatal(err)
	}
	defer db.Close()
	db.SetMaxOpenConns(1)
	execute := func(statement string, args ...any) {
		if _, err := db.Exec(statement, args...); err != nil {
			b.Fatal(err)
		}
	}
	execute(`SET synchronous_commit = on`)
	execute(`CREATE TABLE account (id BIGINT PRIMARY KEY, commits BIGINT)`)
	execute(`INSERT INTO account VALUES (1, 0)`)
	execute(`CREATE TABLE session (id BIGINT PRIMARY KEY, version BIGINT, jid TEXT, device BIGINT, archived BIGINT, record BYTEA)`)
	execute(`CREATE TABLE outbox (seq BIGINT PRIMARY KEY, devices BYTEA, stanza BYTEA)`)
	var ids []int64
	var records [][]byte
	for _, r := range m.Sessions {
		execute(`INSERT INTO session VALUES ($1, $2, $3, $4, 0, $5)`, int64(r.ID), int(r.Version), r.JID, int64(r.Device), r.Record)
		ids, records = append(ids, int64(r.ID)), append(records, r.Record)
	}
	devices := make([]byte, 25*len(m.Sessions))
	write := func() {
		tx, err := db.Begin()
		if err != nil {
			b.Fatal(err)
		}
		run := func(statement string, args ...any) {
			if _, err := tx.Exec(statement, args...); err != nil {
				b.Fatal(err)
			}
		}
		run(`UPDATE account SET commits = commits + 1 WHERE id = 1`)
		run(`UPDATE session SET record = v.record FROM unnest($1::bigint[], $2::bytea[]) AS v(id, record) WHERE session.id = v.id`, ids, records)
		run(`DELETE FROM outbox WHERE seq = $1`, int64(m.DropOutbox[0]))
		run(`INSERT INTO outbox VALUES ($1, $2, $3)`, int64(m.Outbox[0].Seq), devices, m.Outbox[0].Stanza)
		if err := tx.Commit(); err != nil {
			b.Fatal(err)
		}
		m.Next()
	}
	write()
	b.ReportAllocs()
	for b.Loop() {
		write()
	}
}
