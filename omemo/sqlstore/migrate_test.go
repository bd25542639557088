package sqlstore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
)

// openAt opens a database file whose schema has the steps that are given.
func openAt(t *testing.T, path string, with [][]string) (*Database, *sql.DB) {
	t.Helper()
	before := steps
	steps = with
	t.Cleanup(func() { steps = before })
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	d := NewDatabase(db, testDialect, nil, Settings{})
	t.Cleanup(func() { d.Close() })
	return d, db
}

// contentOf returns the schema and the rows that steps of this test touch.
func contentOf(t *testing.T, db *sql.DB) string {
	t.Helper()
	var all strings.Builder
	for _, query := range []string{
		`SELECT name || coalesce(sql, '') FROM sqlite_master ORDER BY name`,
		`SELECT step || checksum FROM omemo_schema ORDER BY step`,
		`SELECT id || name FROM omemo_account ORDER BY id`,
	} {
		rows, err := db.Query(query)
		if err != nil {
			t.Fatal(err)
		}
		for rows.Next() {
			var line string
			if err := rows.Scan(&line); err != nil {
				t.Fatal(err)
			}
			fmt.Fprintln(&all, line)
		}
		if err := rows.Err(); err != nil {
			t.Fatal(err)
		}
	}
	return all.String()
}

// TestFailedStep: a step that fails wherever it fails, or is interrupted, leaves
// the schema and the rows as they were; the steps before it stay. It is taken
// when it has been mended.
func TestFailedStep(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store.db")
	d, db := openAt(t, path, steps)
	if err := d.ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := db.Exec(`INSERT INTO omemo_account (id, name, store, fence, commits, inbox, outbox, written)
		VALUES (1, 'juliet@capulet.example', x'00', 0, 0, 0, 0, 0)`); err != nil {
		t.Fatal(err)
	}
	sound := []string{
		`CREATE TABLE omemo_new (account BIGINT NOT NULL)`,
		`INSERT INTO omemo_new SELECT id FROM omemo_account`,
		`UPDATE omemo_account SET name = 'changed@capulet.example'`,
		`ALTER TABLE omemo_account ADD COLUMN new TEXT`,
	}
	before := contentOf(t, db)
	for at := range len(sound) + 1 {
		broken := append(append(append([]string{}, sound[:at]...), `INSERT INTO omemo_nowhere VALUES (1)`), sound[at:]...)
		d, db := openAt(t, path, append(steps[:len(steps):len(steps)], broken))
		for range 2 {
			if err := d.ready(t.Context()); err == nil {
				t.Fatal("a broken step was taken")
			}
			if after := contentOf(t, db); after != before {
				t.Fatalf("a step that failed at statement %d has left something:\n%s\nbefore:\n%s", at, after, before)
			}
		}
		steps = steps[:len(steps)-1]
	}
	d, db = openAt(t, path, append(steps[:len(steps):len(steps)], sound))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := d.ready(ctx); !errors.Is(err, context.Canceled) || contentOf(t, db) != before {
		t.Fatalf("interrupted: %v", err)
	}
	if err := d.ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	if after := contentOf(t, db); !strings.Contains(after, "changed@capulet.example") || !strings.Contains(after, "omemo_new") {
		t.Errorf("after all steps: %s", after)
	}
}
