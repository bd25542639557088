//go:build live

package crash

// withPostgres: the tests run on PostgreSQL, too.
const withPostgres = true
