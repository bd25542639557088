// The demo command lets two programs talk to each other through a server inside
// the process, encrypted with OMEMO in both versions, and prints what each of
// them typed and read, and what the server saw in between.
//
//	go run ./examples/demo
//
// It needs no account, no server and no file, and ends by itself. Every line that
// it prints is checked: if anything is not as claimed, the exit status is 1.
//
// program.go is one of the two programs; it reads like any program on mellium.
// scene.go is what they say, stage.go and check.go what has to be true about it,
// transcript.go how it is printed.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"time"
)

// timeLimit bounds the whole demo, which takes a fraction of it.
const timeLimit = 10 * time.Second

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	ctx, cancel := context.WithTimeout(ctx, timeLimit)
	err := run(ctx, os.Stdout)
	cancel()
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "demo: not as claimed:", err)
		os.Exit(1)
	}
}

// run plays all scenes.
func run(ctx context.Context, w io.Writer) error {
	t := &transcript{w: w}
	t.text("Two programs and a server, all in this process.")
	for i, s := range scenes {
		t.title(i+1, s.title)
		if err := s.play(ctx, t); err != nil {
			return fmt.Errorf("scene %d: %w", i+1, err)
		}
	}
	t.text("\nAll of this was checked, and is as it is printed.")
	return t.err
}
