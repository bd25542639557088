package sqlstore

import (
	"database/sql"
	"strings"
	"testing"

	_ "modernc.org/sqlite"
)

var testDialect = Dialect{
	Embedded:  true,
	Bytes:     "BLOB",
	Clustered: "WITHOUT ROWID",
	HasTable:  `SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name = ?`,
	Transient: func(error) bool { return false },
	Raced:     func(error) bool { return false },
}

// TestPlans: every statement finds its rows by an index, so that nothing depends
// on how many there are.
func TestPlans(t *testing.T) {
	db, err := sql.Open("sqlite", ":memory:")
	if err != nil {
		t.Fatal(err)
	}
	db.SetMaxOpenConns(1)
	d := NewDatabase(db, testDialect, nil, Settings{})
	defer d.Close()
	if err := d.ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	tables := []*table{
		&preKeys.table, &sessions.table, &skipped.table, &ended.table, &contacts.table, &devices.table, &trust.table,
		&inbox.table, &outbox.table, &journal.table, &owed.table, &cursors.table,
		&occupants.table, &echoes.table, &statements.table,
	}
	var all []string
	for _, n := range pieces {
		for _, tab := range tables {
			all = append(all, tab.remove(n), tab.upsert(n), tab.pick(tab.key, n), tab.all())
		}
		all = append(all,
			advance(n),
			sessions.pick(sessions.fields[:3], n),
			contacts.pick([]column{jidColumn}, n),
			devices.pick([]column{jidColumn}, n),
			trust.pick([]column{jidColumn}, n),
			occupants.pick(occupants.key[:1], n),
			statements.pick([]column{jidColumn}, n),
		)
	}
	all = append(all,
		preKeys.all()+" AND version = ?",
		inbox.all()+" AND seq > ? ORDER BY seq LIMIT ?",
		journal.all()+" AND jid = ? AND device = ? ORDER BY id",
	)
	for _, statement := range all {
		text := testDialect.text(statement)
		args := make([]any, strings.Count(text, "?"))
		rows, err := db.Query("EXPLAIN QUERY PLAN "+text, args...)
		if err != nil {
			t.Fatalf("%.200s: %v", text, err)
		}
		for rows.Next() {
			var id, parent, unused int
			var detail string
			if err := rows.Scan(&id, &parent, &unused, &detail); err != nil {
				t.Fatal(err)
			}
			if strings.HasPrefix(detail, "SCAN omemo_") || strings.HasPrefix(detail, "SCAN t") {
				t.Errorf("%.200s: %s", text, detail)
			}
		}
		if err := rows.Err(); err != nil {
			t.Fatalf("%.200s: %v", text, err)
		}
	}
}
