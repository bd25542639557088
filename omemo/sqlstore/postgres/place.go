package postgres

import (
	"context"
	"database/sql"
	"strings"
)

// Error codes of functions that a server does not have, or does not let its
// users call (appendix A of PostgreSQL's manual).
const (
	undefinedFunction     = "42883"
	undefinedTable        = "42P01"
	insufficientPrivilege = "42501"
	featureNotSupported   = "0A000"
)

// place names the cluster, its timeline, the database in it, and the table of
// accounts in that. A dump that is restored has another table, and mostly
// another database or cluster; a backup that was rolled forward to some point
// and a standby that was promoted are on another timeline.
//
// Databases that only speak PostgreSQL's protocol have no such names, or one for
// every node: there, it is empty.
func place(ctx context.Context, db *sql.DB) (string, error) {
	var version string
	if err := db.QueryRowContext(ctx, `SELECT version()`).Scan(&version); err != nil {
		return "", err
	}
	if !strings.HasPrefix(version, "PostgreSQL ") || strings.Contains(version, "-YB-") {
		return "", nil
	}
	var name string
	err := db.QueryRowContext(ctx, `SELECT concat_ws('/',
		system_identifier,
		substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8),
		(SELECT oid FROM pg_database WHERE datname = current_database()),
		CAST(CAST('omemo_account' AS regclass) AS oid))
		FROM pg_control_system()`).Scan(&name)
	if hasCode(err, undefinedFunction, undefinedTable, insufficientPrivilege, featureNotSupported) {
		return "", nil
	}
	return name, err
}
