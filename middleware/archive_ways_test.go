package middleware_test

import (
	"context"
	"database/sql"
	"encoding/xml"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"example.org/omellium/middleware"
	"example.org/omellium/middleware/xmpptest"
	"example.org/omellium/omemo"
	"example.org/omellium/omemo/sqlstore/sqlite"
	"example.org/omellium/stanza"
	"mellium.im/xmpp"
	xmppstanza "mellium.im/xmpp/stanza"
)

// missed has a program of juliet's, with what c says, miss some texts of
// romeo's, and returns it.
func missed(t *testing.T, srv *xmpptest.Server, c middleware.Config, texts []string) *program {
	t.Helper()
	b := load(t, juliet, c)
	b.back(srv, juliet+"/x")
	v := c.Prefer(b.session.LocalAddr())
	a := connected(t, srv, romeo, chat(v))
	a.tell(juliet, "before")
	b.awaitText("before")
	b.flush()
	b.leave(srv)
	for _, text := range texts {
		a.tell(juliet, text)
	}
	a.flush() // the server has them
	return b
}

// A program that was not there for 500 messages, and is killed twice while it
// catches up, gets each of them once, in order.
func TestCatchUpKilledTwice(t *testing.T) {
	for _, v := range omemo.Versions() {
		t.Run(v.String(), func(t *testing.T) {
			srv := archiving(t)
			path := filepath.Join(t.TempDir(), "store.db")
			open := func() omemo.Store {
				store, err := sqlite.Open(t.Context(), path, juliet)
				if err != nil {
					t.Fatal(err)
				}
				return store
			}
			c := catching(v)
			c.Store = open()
			texts := numbered(500)
			first := missed(t, srv, c, texts)
			got := first.bodies()
			first.om.Close()
			life := func(stop int) {
				c.Store.Close()
				c.Store = open()
				p := load(t, juliet, c)
				// The connection breaks after so many messages of the archive.
				var mu sync.Mutex
				results := 0
				srv.SetFilter(func(ctx context.Context, s xmpptest.Stanza) [][]byte {
					if s.Direction == xmpptest.ToClient && strings.HasPrefix(s.Session, juliet) && strings.Contains(string(s.XML), "urn:xmpp:mam:2") {
						mu.Lock()
						defer mu.Unlock()
						if results++; stop > 0 && results > stop {
							go srv.Disconnect(s.Session)
							return nil
						}
					}
					return [][]byte{s.XML}
				})
				session := login(t, srv, juliet+"/x")
				if stop == 0 {
					p.attach(session, nil)
					p.awaitText(texts[len(texts)-1])
				} else {
					front, err := p.om.Wrap(t.Context(), session)
					if err != nil {
						t.Fatal(err)
					}
					p.session = front
					served := make(chan struct{})
					go func() {
						defer close(served)
						_ = front.Serve(xmpp.HandlerFunc(p.handle))
					}()
					_ = front.Send(t.Context(), xmppstanza.Presence{}.Wrap(nil)) // the connection may break before it returns
					<-served
				}
				p.await("progress", func() bool {
					return slices.ContainsFunc(p.events, func(e middleware.Event) bool { return e.Kind == middleware.CatchingUp && e.Account == juliet })
				})
				if err := p.om.Close(); err != nil && !errors.Is(err, middleware.ErrClosed) {
					t.Log(err)
				}
				got = append(got, p.bodies()...)
			}
			life(120)
			life(230)
			life(0)
			if want := append([]string{"before"}, texts...); !slices.Equal(got, want) {
				t.Errorf("%d messages: %q", len(got), got)
			}
			c.Store.Close()
		})
	}
}

// Config.Receive gets each message of an archive once, in order; one that it
// refuses holds up nobody.
func TestCatchUpReceive(t *testing.T) {
	for _, v := range omemo.Versions() {
		t.Run(v.String(), func(t *testing.T) {
			srv := archiving(t)
			store, err := sqlite.Open(t.Context(), filepath.Join(t.TempDir(), "store.db"), juliet)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { store.Close() })
			c := catching(v)
			c.Store = store
			var mu sync.Mutex
			var got []string
			var well atomic.Bool
			changed := make(chan struct{}, 1000)
			c.Receive = func(ctx context.Context, tx *sql.Tx, d middleware.Delivery) error {
				mu.Lock()
				defer mu.Unlock()
				var m struct {
					Body string `xml:"body"`
				}
				if err := xml.Unmarshal(d.Stanza, &m); err != nil {
					return err
				}
				if m.Body == "text 30" && !well.Load() {
					return errors.New("not now")
				}
				got = append(got, m.Body)
				changed <- struct{}{}
				return nil
			}
			b := load(t, juliet, c)
			b.back(srv, juliet+"/x")
			a := connected(t, srv, romeo, chat(v))
			a.tell(juliet, "before")
			<-changed
			b.flush()
			b.leave(srv)
			texts := numbered(70)
			for _, text := range texts {
				a.tell(juliet, text)
			}
			b.back(srv, juliet+"/x")
			for range 69 {
				<-changed
			}
			well.Store(true)
			<-changed // what was refused is tried again, by itself
			want := append([]string{"before"}, slices.Delete(slices.Clone(texts), 30, 31)...)
			mu.Lock()
			defer mu.Unlock()
			if !slices.Equal(got, append(want, "text 30")) {
				t.Errorf("received %q", got)
			}
		})
	}
}

// An archive that has lost the position is read by time, with an event; what was
// read before is recognised.
func TestCatchUpGap(t *testing.T) {
	srv := archiving(t)
	b := missed(t, srv, catching(omemo.V2), numbered(60))
	if err := srv.TrimArchive(juliet, 40); err != nil {
		t.Fatal(err)
	}
	b.back(srv, juliet+"/x")
	b.awaitText("text 59")
	if got, want := b.bodies(), append([]string{"before"}, numbered(60)[20:]...); !slices.Equal(got, want) {
		t.Errorf("received %q", got)
	}
	if e := b.awaitEvent(middleware.ArchiveGap); !errors.Is(e.Err, middleware.ErrArchiveGap) || e.Account != juliet {
		t.Errorf("%+v", e)
	}
}

// More than the limit is left to the next connection.
func TestCatchUpTruncated(t *testing.T) {
	srv := archiving(t)
	c := catching(omemo.Legacy)
	c.CatchUpLimit = 50
	b := missed(t, srv, c, numbered(120))
	for life := 1; life <= 3; life++ {
		b.back(srv, juliet+"/x")
		if life == 3 {
			b.awaitText("text 119")
		}
		// What completes the session may be among the messages, too.
		if n, read := b.count(middleware.ArchiveTruncated), len(b.bodies()); n != min(life, 2) || read > 1+50*life {
			t.Errorf("life %d: truncated %d times, %d messages", life, n, read)
		}
		b.flush()
		b.leave(srv)
	}
	if got, want := b.bodies(), append([]string{"before"}, numbered(120)...); !slices.Equal(got, want) {
		t.Errorf("received %q", got)
	}
}

// Servers without an archive, and archives that fail, keep nothing from working.
func TestCatchUpWithoutArchive(t *testing.T) {
	for name, answer := range map[string]string{
		"no archive": "service-unavailable", "forbidden": "forbidden", "strange": "bad-request",
	} {
		t.Run(name, func(t *testing.T) {
			srv := network(t, romeo, juliet)
			srv.SetFilter(func(_ context.Context, s xmpptest.Stanza) [][]byte {
				return [][]byte{[]byte(strings.ReplaceAll(string(s.XML), "<service-unavailable", "<"+answer))}
			})
			b := load(t, juliet, catching(omemo.V2))
			b.back(srv, juliet+"/x")
			a := connected(t, srv, romeo, chat(omemo.V2))
			a.tell(juliet, "live")
			b.awaitText("live")
		})
	}
}

// An archive that does not answer at first holds up nobody either, and is asked
// again.
func TestCatchUpFailsAndGoesOn(t *testing.T) {
	srv := archiving(t)
	c := catching(omemo.V2)
	b := missed(t, srv, c, numbered(80))
	refusals := 0
	srv.SetFilter(func(_ context.Context, s xmpptest.Stanza) [][]byte {
		x := string(s.XML)
		if s.Direction == xmpptest.ToClient && strings.HasPrefix(s.Session, juliet) && strings.Contains(x, "<fin") {
			if refusals++; refusals <= 2 {
				id := x[strings.Index(x, " id='")+5:]
				id = id[:strings.Index(id, "'")]
				return [][]byte{[]byte("<iq xmlns='jabber:client' type='error' id='" + id + "'><error type='wait'><internal-server-error xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></iq>")}
			}
		}
		return [][]byte{s.XML}
	})
	b.back(srv, juliet+"/x")
	b.awaitText("text 79")
	if got, want := b.bodies(), append([]string{"before"}, numbered(80)...); !slices.Equal(got, want) {
		t.Errorf("received %q", got)
	}
	troubles := 0
	for _, e := range b.all() {
		if e.Kind == middleware.Trouble && strings.HasPrefix(e.Err.Error(), "archive: ") { // not of the connection that was cut
			troubles++
		}
	}
	if troubles != 2 {
		t.Errorf("%d troubles", troubles)
	}
}

// What another device of the account has sent comes as a carbon, with the time.
func TestCatchUpOwnDevices(t *testing.T) {
	for _, v := range omemo.Versions() {
		t.Run(v.String(), func(t *testing.T) {
			srv := archiving(t)
			b := load(t, juliet, catching(v))
			b.back(srv, juliet+"/x")
			other := connected(t, srv, juliet+"/y", chat(v))
			a := connected(t, srv, romeo, chat(v))
			// Of two that choose the same pre key, it reads the first alone: the other device
			// chooses when the one that was used is replaced.
			published := b.count(middleware.Published)
			a.tell(juliet, "before")
			b.awaitText("before")
			b.await("its pre keys", func() bool { return countOf(b.events, middleware.Published) > published })
			other.tell(romeo, "from the other device, first")
			b.flush()
			b.leave(srv)
			other.tell(romeo, "from the other device")
			a.awaitText("from the other device")
			r := newReader()
			b.attach(login(t, srv, juliet+"/x"), r)
			got := r.await(t, "the carbon", func(e *stanza.Element) bool {
				m := inCarbon(e, "sent")
				return m != nil && shown(m) == "from the other device"
			})
			f := got.Child(nsCarbons, "sent").Child(nsForward, "forwarded")
			stamp, _ := f.Child(stanza.NSDelay, "delay").Attribute("stamp")
			if at, err := time.Parse(time.RFC3339, stamp); err != nil || time.Since(at) > time.Hour {
				t.Errorf("stamp %q", stamp)
			}
			if from, _ := got.Attribute("from"); from != "" && from != juliet {
				t.Errorf("from %q", from)
			}
			if i := infoOf(t, inCarbon(got, "sent")); i.Account != juliet || i.Own {
				t.Errorf("%+v", i)
			}
		})
	}
}

// More than can wait comes from the archive.
func TestCatchUpOverflow(t *testing.T) {
	srv := archiving(t)
	b := missed(t, srv, catching(omemo.V2), numbered(3))
	a := connected(t, srv, romeo+"/more", chat(omemo.V2))
	asked, goOn := make(chan struct{}), make(chan struct{})
	var once sync.Once
	srv.SetFilter(func(ctx context.Context, s xmpptest.Stanza) [][]byte {
		if s.Direction == xmpptest.FromClient && strings.HasPrefix(s.Session, juliet) && strings.Contains(string(s.XML), "urn:xmpp:mam:2") {
			once.Do(func() {
				close(asked)
				select {
				case <-goOn:
				case <-ctx.Done():
				}
			})
		}
		return [][]byte{s.XML}
	})
	done := make(chan struct{})
	go func() {
		defer close(done)
		b.attach(login(t, srv, juliet+"/x"), nil)
	}()
	<-asked
	more := make([]string, 1100)
	for i := range more {
		more[i] = fmt.Sprintf("more %d", i)
		a.tell(juliet+"/x", more[i])
	}
	close(goOn)
	<-done
	b.awaitText("more 1099")
	if got, want := b.bodies(), append(append([]string{"before"}, numbered(3)...), more...); !slices.Equal(got, want) {
		t.Errorf("%d: %q", len(got), got)
	}
}
