package middleware_test

import (
	"context"
	"encoding/xml"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"example.org/omellium/middleware"
	"example.org/omellium/middleware/xmpptest"
	"example.org/omellium/omemo"
	"example.org/omellium/omemo/sqlstore/sqlite"
	"mellium.im/xmlstream"
	"mellium.im/xmpp"
	"mellium.im/xmpp/jid"
	"mellium.im/xmpp/stanza"
)

// backlog returns how many messages BenchmarkCatchUp catches up with.
func backlog(b *testing.B) int {
	b.Helper()
	text := os.Getenv("OMELLIUM_BACKLOG")
	if text == "" {
		return 10_000
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		b.Fatalf("OMELLIUM_BACKLOG=%q is not a number from 1", text)
	}
	return n
}

// BenchmarkCatchUp is a program on SQLite that was not there for 10,000 messages:
// from login to the last of them in its handler. That they come once and in order
// is checked.
func BenchmarkCatchUp(b *testing.B) {
	n := backlog(b)
	for _, v := range omemo.Versions() {
		b.Run(v.String(), func(b *testing.B) {
			for range b.N {
				b.StopTimer()
				catchUpOnce(b, v, n)
			}
			b.ReportMetric(float64(n)*float64(b.N)/b.Elapsed().Seconds(), "messages/s")
		})
	}
}

func catchUpOnce(b *testing.B, v omemo.Version, n int) {
	ctx, cancel := context.WithTimeout(b.Context(), 10*time.Minute)
	defer cancel()
	ok := func(err error) {
		b.Helper()
		if err != nil {
			b.Fatal(err)
		}
	}
	srv, err := xmpptest.NewServer(xmpptest.Archives())
	ok(err)
	defer srv.Close()
	dir := b.TempDir()
	program := func(account, file string, handler xmpp.Handler) (om *middleware.Middleware, session *xmpp.Session, end func()) {
		store, err := sqlite.Open(ctx, filepath.Join(dir, file), account)
		ok(err)
		caughtUp := make(chan struct{}, 10)
		om, err = middleware.New(ctx, middleware.Config{
			Store: store, CatchUp: true, AnswerStrangers: true,
			Prefer: func(jid.JID) omemo.Version { return v },
			OnEvent: func(e middleware.Event) {
				if e.Kind == middleware.CaughtUp && handler == nil {
					caughtUp <- struct{}{}
				}
			},
		})
		ok(err)
		b.StartTimer()
		raw, err := srv.Client(ctx, account+"/bench", "secret")
		ok(err)
		session, err = om.Wrap(ctx, raw)
		ok(err)
		served := make(chan struct{})
		go func() {
			defer close(served)
			_ = session.Serve(handler)
		}()
		ok(session.Send(ctx, stanza.Presence{}.Wrap(nil)))
		if handler == nil {
			b.StopTimer()
			<-caughtUp
		}
		return om, session, func() {
			ok(om.Close())
			<-served
			ok(store.Close())
		}
	}
	ok(srv.AddAccount(romeo, "secret"))
	ok(srv.AddAccount(juliet, "secret"))
	_, _, end := program(juliet, "juliet.db", nil)
	end()
	sender, _, endSender := program(romeo, "romeo.db", nil)
	defer endSender()
	for i := range n {
		_, err := sender.Send(ctx, to(juliet), text(strconv.Itoa(i)))
		ok(err)
	}
	until := func() bool { ids, _ := srv.Archived(juliet); return len(ids) >= n }
	for !until() {
		time.Sleep(time.Millisecond) // between two looks
	}
	srv.ForgetWire()

	next, done := 0, make(chan error, 1)
	_, _, end = program(juliet, "juliet.db", xmpp.HandlerFunc(func(t xmlstream.TokenReadEncoder, start *xml.StartElement) error {
		var m struct {
			Body string `xml:"body"`
		}
		if err := xml.NewTokenDecoder(xmlstream.MultiReader(xmlstream.Token(*start), t)).Decode(&m); err != nil || m.Body == "" {
			return err
		}
		if m.Body != strconv.Itoa(next) {
			done <- fmt.Errorf("%q came in the place of %d", m.Body, next)
		}
		if next++; next == n {
			done <- nil
		}
		return nil
	}))
	select {
	case err := <-done:
		b.StopTimer()
		ok(err)
	case <-ctx.Done():
		b.Fatalf("%d messages came", next)
	}
	end()
}
