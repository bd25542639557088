//go:build live

package interop

import (
	"os"
	"testing"

	"example.org/omellium/middleware/internal/lab"
	"example.org/omellium/middleware/internal/logscan"
)

func TestMain(m *testing.M) {
	status := logscan.Check(lab.Main(m))
	removeBinary()
	os.Exit(status)
}

// versions are what a Python client can be told to speak.
var versions = map[string][]string{
	"legacy":  {lab.Legacy},
	"omemo:2": {lab.V2},
	"both":    {lab.V2, lab.Legacy},
}

// eachVersion runs a test with Python clients of each kind on both servers.
func eachVersion(t *testing.T, test func(t *testing.T, s *lab.Server, versions []string)) {
	for name, v := range versions {
		t.Run(name, func(t *testing.T) {
			lab.Each(t, func(t *testing.T, s *lab.Server) { test(t, s, v) })
		})
	}
}
