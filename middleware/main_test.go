package middleware_test

import (
	"os"
	"testing"

	"example.org/omellium/middleware/internal/logscan"
)

func TestMain(m *testing.M) { os.Exit(logscan.Main(m)) }
