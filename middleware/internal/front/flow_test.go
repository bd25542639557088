package front

import (
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"mellium.im/xmlstream"

	"example.org/omellium/stanza"
)

// presence returns one stanza as XML.
func presence(id string) []byte { return []byte(`<presence id="` + id + `"/>`) }

func id(start *xml.StartElement) string {
	for _, a := range start.Attr {
		if a.Name.Local == "id" {
			return a.Value
		}
	}
	return ""
}

// One stanza per Read: Serve reads on when the handler has returned.
func TestAcknowledgement(t *testing.T) {
	long := `<message id="%s"><body>` + strings.Repeat("long ", 10_000) + `</body></message>`
	tests := map[string]struct {
		format string
		reads  bool // the handler reads the stanza
		lazy   bool
	}{
		"short":                {`<message id="%s"/>`, true, false},
		"short, not read":      {`<message id="%s"/>`, false, false},
		"two tags":             {`<message id="%s"><body>x</body></message>`, true, false},
		"two tags, not read":   {`<message id="%s"><body>x</body></message>`, false, false},
		"long":                 {long, true, false},
		"long, not read":       {long, false, false},
		"lazy":                 {`<message id="%s"/>`, true, true},
		"lazy, long, not read": {long, false, true},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			run(t, Config{}, func(t *testing.T, x *fixture) {
				var log []string // of the goroutine that serves
				deliver := func(id string) {
					b, read := fmt.Appendf(nil, test.format, id), func() { log = append(log, "read "+id) }
					if test.lazy {
						x.f.DeliverLazily(func() ([]byte, func(), bool) {
							log = append(log, "next "+id)
							return b, read, true
						})
						return
					}
					x.f.Deliver(b, read)
				}
				for i := range 3 {
					deliver(fmt.Sprint(i))
				}
				release := make(chan struct{})
				x.serve(func(t xmlstream.TokenReadEncoder, start *xml.StartElement) error {
					log = append(log, "begin "+id(start))
					if test.reads {
						if _, err := xmlstream.ReadAll(t); err != nil {
							return err
						}
					}
					<-release
					log = append(log, "end "+id(start))
					return nil
				})
				var want []string
				for i := range 3 {
					n := fmt.Sprint(i)
					if test.lazy {
						want = append(want, "next "+n)
					}
					want = append(want, "begin "+n)
					synctest.Wait()
					if !slices.Equal(log, want) {
						t.Fatalf("while handling %d: %q, want %q", i, log, want)
					}
					want = append(want, "end "+n, "read "+n)
					release <- struct{}{}
				}
				synctest.Wait()
				if !slices.Equal(log, want) {
					t.Fatalf("at last: %q, want %q", log, want)
				}
			})
		})
	}
}

func TestNotAcknowledged(t *testing.T) {
	tests := map[string]func(){
		"failed":   func() {},
		"panicked": func() { panic("of the application") },
	}
	for name, fail := range tests {
		t.Run(name, func(t *testing.T) {
			run(t, Config{}, func(t *testing.T, x *fixture) {
				var read []int
				for i := range 3 {
					x.f.Deliver(presence(fmt.Sprint(i)), func() { read = append(read, i) })
				}
				go func() {
					defer close(x.served)
					defer func() { recover() }()
					x.session.Serve(handlerFunc(func(_ xmlstream.TokenReadEncoder, start *xml.StartElement) error {
						if id(start) == "1" {
							fail()
							return errors.New("failed")
						}
						return nil
					}))
				}()
				<-x.served
				if !slices.Equal(read, []int{0}) {
					t.Errorf("acknowledged %v, want [0]", read)
				}
			})
		})
	}
}

type handlerFunc func(t xmlstream.TokenReadEncoder, start *xml.StartElement) error

func (h handlerFunc) HandleXMPP(t xmlstream.TokenReadEncoder, start *xml.StartElement) error {
	return h(t, start)
}

// The last stanza before the end is acknowledged, too.
func TestAcknowledgedAtTheEnd(t *testing.T) {
	run(t, Config{}, func(t *testing.T, x *fixture) {
		read := false
		x.f.Deliver(presence("1"), func() { read = true })
		x.serve(func(xmlstream.TokenReadEncoder, *xml.StartElement) error {
			x.f.Fail(errors.New("ended"))
			return nil
		})
		if err := <-x.served; err == nil || err.Error() != "ended" {
			t.Errorf("Serve: %v", err)
		}
		if !read {
			t.Error("not acknowledged")
		}
	})
}

func TestOrderOfDelivery(t *testing.T) {
	run(t, Config{}, func(t *testing.T, x *fixture) {
		var want []string
		for i := range 30 {
			n := fmt.Sprint(i)
			switch i % 3 {
			case 0:
				x.f.Deliver(presence(n), nil)
			case 1:
				x.f.DeliverLazily(func() ([]byte, func(), bool) { return presence(n), nil, true })
			case 2:
				x.f.DeliverLazily(func() ([]byte, func(), bool) { return nil, nil, false })
				continue
			}
			want = append(want, n)
		}
		var got []string
		x.serve(func(_ xmlstream.TokenReadEncoder, start *xml.StartElement) error {
			got = append(got, id(start))
			return nil
		})
		synctest.Wait()
		if !slices.Equal(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
	})
}

// A Write waits for room and never fails; all of it arrives in order.
func TestBackPressure(t *testing.T) {
	tests := map[string]struct {
		config Config
		body   int
		most   int // sent while nothing is handled
	}{
		"stanzas": {Config{QueueStanzas: 16}, 10, 16 + 3},
		"bytes":   {Config{QueueBytes: 100_000}, 10_000, 10 + 3},
		"default": {Config{}, 10, DefaultQueueStanzas + 3},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			run(t, test.config, func(t *testing.T, x *fixture) {
				release := make(chan struct{})
				var handled []string
				x.outgoing = func(_ context.Context, e *stanza.Element) {
					<-release
					n, _ := e.Attribute("id")
					handled = append(handled, n)
				}
				const n = 1000
				var sent atomic.Int32
				done := make(chan error, 1)
				body := strings.Repeat("x", test.body)
				go func() {
					for i := range n {
						if err := x.session.Send(context.Background(), message(fmt.Sprint(i), body)); err != nil {
							done <- err
							return
						}
						sent.Add(1)
					}
					done <- nil
				}()
				synctest.Wait()
				if got := int(sent.Load()); got > test.most || got < test.most-4 {
					t.Errorf("%d sent before anything was handled, want about %d", got, test.most)
				}
				close(release)
				if err := <-done; err != nil {
					t.Fatal(err)
				}
				synctest.Wait()
				if len(handled) != n || !slices.IsSortedFunc(handled, func(a, b string) int {
					return len(a)*10_000 + atoi(a) - len(b)*10_000 - atoi(b)
				}) {
					t.Errorf("%d handled, or not in order", len(handled))
				}
			})
		})
	}
}

func atoi(s string) (n int) {
	fmt.Sscan(s, &n)
	return n
}

func TestSlowConsumer(t *testing.T) {
	run(t, Config{PassBytes: 10_000}, func(t *testing.T, x *fixture) {
		release := make(chan struct{})
		x.serve(func(xmlstream.TokenReadEncoder, *xml.StartElement) error { <-release; return nil })
		one := `<presence id="1"><status>` + strings.Repeat("x", 900) + `</status></presence>`
		for range 10 {
			x.server.write(t, one)
		}
		synctest.Wait()
		if ended := x.end(); len(ended) != 0 {
			t.Fatalf("ended too early: %v", ended)
		}
		for range 5 {
			x.server.write(t, one)
		}
		close(release)
		if err := <-x.served; !errors.Is(err, ErrSlowConsumer) {
			t.Errorf("Serve: %v", err)
		}
		if err := x.session.Send(t.Context(), message("1", "x")); err == nil {
			t.Error("Send: no error")
		}
	})
}

// Messages that are kept elsewhere may wait in any number, and the wire is read
// all the same.
func TestManyLazyMessages(t *testing.T) {
	run(t, Config{PassBytes: 100_000}, func(t *testing.T, x *fixture) {
		const n = 10_000
		arrived, read := 0, 0
		body := strings.Repeat("x", 1000)
		x.incoming = func(context.Context, *stanza.Element) {
			i := arrived
			arrived++
			x.f.DeliverLazily(func() ([]byte, func(), bool) {
				return fmt.Appendf(nil, `<message id="%d"><body>%s</body></message>`, i, body), func() { read++ }, true
			})
		}
		handled := 0
		release := make(chan struct{})
		x.serve(func(_ xmlstream.TokenReadEncoder, start *xml.StartElement) error {
			if handled == 0 {
				<-release
			}
			if id(start) != fmt.Sprint(handled) {
				t.Errorf("got %s, want %d", id(start), handled)
			}
			handled++
			return nil
		})
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		for range n {
			x.server.write(t, `<message><body>`+body+`</body></message>`)
		}
		synctest.Wait()
		runtime.GC()
		runtime.ReadMemStats(&after)
		if arrived != n || handled != 0 {
			t.Errorf("%d arrived, %d handled", arrived, handled)
		}
		if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > n*200 {
			t.Errorf("%d bytes of memory for %d messages", grown, n)
		}
		close(release)
		synctest.Wait()
		if handled != n || read != n {
			t.Errorf("%d handled, %d read", handled, read)
		}
	})
}

// A handler may send, may start a request and wait for its answer elsewhere, and
// may even wait for an answer itself, which mellium lets fail when its context
// ends.
func TestHandlerThatSends(t *testing.T) {
	run(t, Config{QueueStanzas: 2}, func(t *testing.T, x *fixture) {
		const ping = `<iq xmlns="jabber:client" type="get" id="ping"><ping xmlns="urn:xmpp:ping"/></iq>`
		answers := make(chan error, 1)
		x.outgoing = func(ctx context.Context, e *stanza.Element) {
			if err := x.f.SendElement(ctx, e); err != nil {
				t.Error(err)
			}
			if n, _ := e.Attribute("id"); n == "ping" {
				go x.server.write(t, `<iq type="result" id="ping"/>`)
			}
		}
		x.serve(func(_ xmlstream.TokenReadEncoder, start *xml.StartElement) error {
			switch id(start) {
			case "send":
				for i := range 20 {
					if err := x.session.Send(context.Background(), message(fmt.Sprint(i), "x")); err != nil {
						return err
					}
				}
			case "ask":
				go func() {
					r, err := x.session.SendIQ(context.Background(), tokens(ping))
					if err == nil {
						err = r.Close()
					}
					answers <- err
				}()
			case "wait":
				ctx, cancel := context.WithTimeout(context.Background(), time.Second)
				defer cancel()
				if _, err := x.session.SendIQ(ctx, tokens(ping)); !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("the answer to a handler: %v", err)
				}
			}
			return nil
		})
		for _, id := range []string{"send", "ask", "wait", "send", "ask"} {
			x.server.write(t, string(presence(id)))
			if id == "ask" {
				if err := <-answers; err != nil {
					t.Error(err)
				}
			}
		}
		time.Sleep(2 * time.Second) // in the bubble's time
		synctest.Wait()
		if got := len(x.server.got()); got != 20+1+1+20+1 {
			t.Errorf("server got %d stanzas", got)
		}
	})
}
