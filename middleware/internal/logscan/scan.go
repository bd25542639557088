package logscan

import (
	"context"
	"fmt"
	"html"
	"log/slog"
	"os"
	"regexp"
	"slices"
	"sync"
	"testing"

	"example.org/omellium/middleware"
	"example.org/omellium/omemo"
)

// Scan is a log, and what must not stand in it.
type Scan struct {
	mu      sync.Mutex
	lines   map[string]bool // that were logged, each once
	logged  int             // lines in all
	secrets []byte          // one after the other, padded to multiples of stride
	texts   map[string]bool
}

// suite is that of the tests of one package.
var suite Scan

// Watch adds a program to those of the suite: its log, its events and its store.
func Watch(c *middleware.Config) { suite.Watch(c) }

// Text adds a text that must not be logged. Those that are delivered are known
// already.
func Text(text string) { suite.Text(text) }

// Main runs the tests of a package, and then searches. It returns the exit code.
func Main(m *testing.M) int { return Check(m.Run()) }

// Check searches after the tests of a package have run with an exit code, and
// returns the exit code to end with.
func Check(code int) int { return max(code, suite.report()) }

func (s *Scan) report() int {
	found := s.Leaks()
	s.mu.Lock()
	defer s.mu.Unlock()
	fmt.Printf("log scan: %d lines, %d of them different; %d KiB of secrets, %d texts; %d found\n",
		s.logged, len(s.lines), len(s.secrets)>>10, len(s.texts), len(found))
	for _, f := range found {
		fmt.Fprintln(os.Stderr, "log scan: "+f)
	}
	return min(1, len(found))
}

// Watch adds a program to those of the scan. A logger that it has goes on
// being used.
func (s *Scan) Watch(c *middleware.Config) {
	h := slog.Handler(&handler{scan: s})
	if c.Logger != nil {
		h = slog.NewMultiHandler(c.Logger.Handler(), h)
	}
	c.Logger = slog.New(h)
	next := c.OnEvent
	c.OnEvent = func(e middleware.Event) {
		s.event(e)
		if next != nil {
			next(e)
		}
	}
	if c.Store != nil {
		c.Store = &store{Store: c.Store, scan: s}
	}
}

// event takes note of what a program may log of an event. Fingerprints are shown
// on purpose.
func (s *Scan) event(e middleware.Event) {
	s.line(fmt.Sprint(e.Kind, " ", e.Account, " ", e.Room, " ", e.Version, " ", e.Err))
	s.line(fmt.Sprintf("%+v %#v", e.Err, e.Err))
	if e.Result != nil {
		for _, d := range e.Result.Devices {
			s.line(fmt.Sprint(d.Peer, " ", d.Err))
		}
	}
}

func (s *Scan) line(text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lines == nil {
		s.lines = make(map[string]bool)
	}
	s.lines[text] = true
	s.logged++
}

// Secret adds bytes of which no part may be logged.
func (s *Scan) Secret(b []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.secrets = append(s.secrets, b...)
	for len(s.secrets)%stride != 0 {
		s.secrets = append(s.secrets, 0)
	}
}

// Text adds a text that must not be logged.
func (s *Scan) Text(text string) {
	if len(text) < window {
		return // any text may hold it
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.texts == nil {
		s.texts = make(map[string]bool)
	}
	s.texts[text] = true
}

// store takes note of what is committed.
type store struct {
	omemo.Store
	scan *Scan
}

var content = regexp.MustCompile(`>([^<>]+)</`)

func (s *store) Commit(ctx context.Context, c *omemo.Changes) error {
	s.scan.Secret(c.Account)
	for _, r := range c.PreKeys {
		s.scan.Secret(r.Private[:])
	}
	for _, r := range c.Sessions {
		s.scan.Secret(r.Record)
	}
	for _, r := range c.Skipped {
		s.scan.Secret(r.Key[:])
	}
	for _, r := range c.Inbox {
		for _, m := range content.FindAllSubmatch(r.Stanza, -1) {
			s.scan.Text(html.UnescapeString(string(m[1])))
		}
	}
	return s.Store.Commit(ctx, c)
}

// handler writes the values of a record in all forms that handlers have.
type handler struct {
	scan *Scan
	with []slog.Attr
}

func (h *handler) Enabled(context.Context, slog.Level) bool { return true }

func (h *handler) Handle(_ context.Context, r slog.Record) error {
	text := r.Message
	write := func(a slog.Attr) bool {
		v := a.Value.Resolve()
		text += fmt.Sprintf(" %s=%v", a.Key, v)
		if v.Kind() == slog.KindAny {
			text += fmt.Sprintf(" %+v %#v %s %x", v.Any(), v.Any(), v.Any(), v.Any())
		}
		return true
	}
	for _, a := range h.with {
		write(a)
	}
	r.Attrs(write)
	h.scan.line(text)
	return nil
}

func (h *handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &handler{h.scan, slices.Concat(h.with, attrs)}
}

func (h *handler) WithGroup(string) slog.Handler { return h }
