package main

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestPasswordIsNotLogged: whatever is wrong with a URL, neither the error nor
// the log shows the password in it.
func TestPasswordIsNotLogged(t *testing.T) {
	const secret = "hunter2secret"
	for _, url := range []string{
		"postgres://bot:" + secret + "@127.0.0.1:1/bots?connect_timeout=1",
		"postgresql://bot:" + secret + "@127.0.0.1:1/bots?connect_timeout=1",
		"postgres://bot:" + secret + "@127.0.0.1:port/bots",
		"postgres://bot:" + secret + "%zz@127.0.0.1/bots",
		"postgres://bot:%zz" + secret + "@127.0.0.1/bots",
		"postgres://bot:a#" + secret + "@127.0.0.1/bots",
		"postgres://bot:a/" + secret + "@127.0.0.1/bots",
		"postgres://bot:a?" + secret + "@127.0.0.1/bots",
		"postgres://bot:a " + secret + "@127.0.0.1/bots",
		"postgres://bot:a@" + secret + "@127.0.0.1:1/bots?connect_timeout=1",
		"postgres://bot@127.0.0.1:1/bots?connect_timeout=1&password=" + secret,
		"postgres://bot@127.0.0.1:1/bots?sslmode=none&password=" + secret,
		"postgres://bot:" + secret + "@[::1/bots",
		"postgres://bot:" + secret + "@127.0.0.1/bots?sslmode=none",
	} {
		t.Run(strings.ReplaceAll(url, "/", "_"), func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			defer cancel()
			var log bytes.Buffer
			_, err := openStore(ctx, slog.New(slog.NewTextHandler(&log, nil)), url, "bot@example.net")
			if err == nil {
				t.Fatal("the store was opened")
			}
			if strings.Contains(err.Error(), secret) || strings.Contains(log.String(), secret) {
				t.Errorf("the password is shown: %v\n%s", err, log.String())
			}
		})
	}
}

// TestFile: what is no URL of a PostgreSQL server is a file.
func TestFile(t *testing.T) {
	t.Setenv("XDG_STATE_HOME", t.TempDir())
	for _, name := range []string{"bot.db", "postgres.db", "postgres:", "postgres"} {
		store, err := openStore(t.Context(), slog.New(slog.DiscardHandler), filepath.Join(t.TempDir(), name), "bot@example.net")
		if err != nil {
			t.Fatal(err)
		}
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestUntilLost(t *testing.T) {
	lost := make(chan struct{})
	ctx, forget := untilLost(t.Context(), lost)
	defer forget()
	if ctx.Err() != nil {
		t.Fatal("lost from the beginning")
	}
	close(lost)
	<-ctx.Done()
	if !errors.Is(context.Cause(ctx), errLost) {
		t.Errorf("got %v, want errLost", context.Cause(ctx))
	}
	ctx, forget = untilLost(t.Context(), make(chan struct{}))
	forget()
	<-ctx.Done()
	if errors.Is(context.Cause(ctx), errLost) {
		t.Error("an end in order is not a loss")
	}
}
