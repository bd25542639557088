package crash

import (
	"sync"
	"testing"

	_ "github.com/jackc/pgx/v5/stdlib" // the driver, to look at databases from outside

	"example.org/omellium/omemo/storetest/pgtest"
)

// postgresServer is started when it is first needed, as one that is meant to
// keep what it was given.
var postgresServer struct {
	sync.Mutex
	running *pgtest.Server
}

// postgresDatabase returns the URL of a new database.
func postgresDatabase(t *testing.T) string {
	t.Helper()
	postgresServer.Lock()
	defer postgresServer.Unlock()
	if postgresServer.running == nil {
		var err error
		postgresServer.running, err = pgtest.Start("fsync=on")
		ok(t, err)
	}
	return postgresServer.running.Database(t)
}

// stopPostgres stops the server, if there is one, and removes what it wrote.
func stopPostgres() error {
	if postgresServer.running == nil {
		return nil
	}
	return postgresServer.running.Stop()
}
