package sqlstore

import (
	"context"
	"database/sql"
	"strconv"
	"strings"
)

// Dialect is what differs between databases. Everything else is common SQL.
type Dialect struct {
	// Embedded: the database runs in this process. It has one writer at a
	// time, its statements are prepared once, and a context is looked at
	// between statements: each takes milliseconds at most.
	Embedded bool
	// Numbered: placeholders are $1, $2, …, else ?.
	Numbered bool
	// Arrays: rows are written by one array for each column, whatever their
	// number, else by a list of values.
	Arrays bool
	// Bytes is the type of byte strings.
	Bytes string
	// Clustered is appended to the definition of a table that is best kept in
	// the order of its primary key.
	Clustered string
	// Sparse is a statement that has the pages of omemo_session keep room for
	// the next state of their rows. Empty: rows are written over in place.
	Sparse string
	// HasTable is a query for the number of tables of a name.
	HasTable string
	// Begin is run first in every writing transaction, unless empty.
	Begin string
	// Now is the database's clock in milliseconds since 1970, a BIGINT. Empty:
	// there are no leases, because the operating system keeps other processes
	// out.
	Now string
	// Place names where the database stands, so that a copy that was put
	// somewhere else is told from it. It is empty where that cannot be found
	// out. Nil: there is no such name.
	Place func(context.Context, *sql.DB) (string, error)
	// Transient reports whether a transaction that failed with an error was
	// undone by the database and should be tried again.
	Transient func(error) bool
	// Raced reports whether a step of the schema failed because another
	// process did it at the same time.
	Raced func(error) bool
}

// text puts a statement into the words of the database.
func (d *Dialect) text(query string) string {
	query = strings.NewReplacer("{bytes}", d.Bytes, "{clustered}", d.Clustered, "{now}", d.Now, "{sparse}", d.Sparse).Replace(query)
	if !d.Numbered {
		return query
	}
	var b strings.Builder
	n := 0
	for part := range strings.SplitSeq(query, "?") {
		if n > 0 {
			b.WriteByte('$')
			b.WriteString(strconv.Itoa(n))
		}
		b.WriteString(part)
		n++
	}
	return b.String()
}
