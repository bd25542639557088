package sqlstore

import (
	"fmt"
	"strings"
)

// kind is the type of a column.
type kind int

const (
	integer kind = iota
	text
	octets
)

// String returns the name of the type, for Dialect.text.
func (k kind) String() string { return [...]string{"BIGINT", "TEXT", "{bytes}"}[k] }

// column is a column of a table.
type column struct {
	name string
	kind kind
}

// table describes rows that belong to an account, for the statements that all
// tables have in common. A secret column comes last: the columns before it are
// bound to it where it is sealed.
type table struct {
	name   string
	key    []column // after the account
	fields []column
}

// columns returns all columns but the account.
func (t *table) columns() []column {
	return append(t.key[:len(t.key):len(t.key)], t.fields...)
}

// Statements name the rows they work on by lists of these lengths; longer lists
// are cut into pieces. Short lists of statements can be prepared once.
var pieces = [...]int{100, 10, 1}

// upsert returns a statement that writes n rows over what is there.
func (t *table) upsert(n int) string {
	var set []string
	for _, c := range t.fields {
		set = append(set, c.name+" = excluded."+c.name)
	}
	return t.insert(n) + " DO UPDATE SET " + strings.Join(set, ", ")
}

// insert returns the beginning of a statement that inserts n rows, up to what
// is done if a row exists.
func (t *table) insert(n int) string {
	rows := t.unnest()
	if n != asArrays {
		rows = "VALUES " + list("(?"+strings.Repeat(", ?", len(t.columns()))+")", n)
	}
	return fmt.Sprintf("INSERT INTO %s (account, %s) %s ON CONFLICT (account, %s)",
		t.name, names("", t.columns()), rows, names("", t.key))
}

// remove returns a statement that deletes n rows by their keys.
func (t *table) remove(n int) string {
	if len(t.key) == 1 {
		return fmt.Sprintf("DELETE FROM %s WHERE account = ? AND %s IN (%s)", t.name, t.key[0].name, list(cast(t.key[0]), n))
	}
	return fmt.Sprintf("DELETE FROM %s WHERE account = ? AND (%s) IN (VALUES %s)",
		t.name, names("", t.key), list(tuple(t.key), n))
}

// all returns a query for every row of an account.
func (t *table) all() string {
	return fmt.Sprintf("SELECT %s FROM %s WHERE account = ?", names("", t.columns()), t.name)
}

// pick returns a query for the rows whose columns by have one of n values. The
// account comes last among its arguments. CROSS JOIN makes SQLite begin with
// the values, whatever it believes about the table.
func (t *table) pick(by []column, n int) string {
	where := []string{"t.account = ?"}
	for _, c := range by {
		where = append(where, fmt.Sprintf("t.%s = wanted.%s", c.name, c.name))
	}
	return fmt.Sprintf("WITH wanted (%s) AS (VALUES %s) SELECT %s FROM wanted CROSS JOIN %s t WHERE %s",
		names("", by), list(tuple(by), n), names("t.", t.columns()), t.name, strings.Join(where, " AND "))
}

// names joins the names of columns.
func names(prefix string, columns []column) string {
	var all []string
	for _, c := range columns {
		all = append(all, prefix+c.name)
	}
	return strings.Join(all, ", ")
}

// tuple returns a row of typed placeholders.
func tuple(columns []column) string {
	var all []string
	for _, c := range columns {
		all = append(all, cast(c))
	}
	return "(" + strings.Join(all, ", ") + ")"
}

// cast returns a placeholder with its type, which a database cannot guess in a
// list of values.
func cast(c column) string { return "CAST(? AS " + c.kind.String() + ")" }

// list repeats an element.
func list(element string, n int) string {
	return element + strings.Repeat(", "+element, n-1)
}
