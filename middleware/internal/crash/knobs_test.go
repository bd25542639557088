package crash

import (
	"os"
	"strconv"
	"testing"
)

// knob returns a number from the environment, or a standard that keeps a plain
// "go test" short, and one for "go test -short" and for the race detector.
//
//	OMELLIUM_FAILPOINTS       every n-th crash point and power failure is tried; 1: all of them
//	OMELLIUM_KILLS_SQLITE     kills of a program on SQLite
//	OMELLIUM_KILLS_POSTGRES   kills of a program on PostgreSQL
//	OMELLIUM_EXCLUSION_SENDS  messages of processes that contend for one account
//	OMELLIUM_SEEDS            lives that the simulation plays
//	OMELLIUM_SEED             the one that it plays
func knob(t testing.TB, name string, standard, short int) int {
	t.Helper()
	text := os.Getenv(name)
	switch {
	case text != "":
	case testing.Short() || raceEnabled:
		return short
	default:
		return standard
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		t.Fatalf("%s=%q is not a number from 1", name, text)
	}
	return n
}
