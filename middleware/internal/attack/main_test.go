package attack

import (
	"os"
	"testing"

	"example.org/omellium/middleware/internal/logscan"
)

func TestMain(m *testing.M) {
	logscan.Text(canary)
	os.Exit(logscan.Main(m))
}
