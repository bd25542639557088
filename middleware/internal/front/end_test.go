package front

import (
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"mellium.im/xmlstream"
	"mellium.im/xmpp"
	"mellium.im/xmpp/jid"
	"mellium.im/xmpp/stream"

	"example.org/omellium/stanza"
)

// answerClose lets the server close its stream when the client has.
func (x *fixture) answerClose() {
	go func() {
		<-x.server.gone
		io.WriteString(x.server.conn, closing)
	}()
}

func TestEndOfTheWire(t *testing.T) {
	tests := map[string]struct {
		end   func(s *server)
		serve func(err error) bool // what Serve returns
		ended func(err error) bool // what the Handler is told
	}{
		"in order": {
			func(s *server) { io.WriteString(s.conn, closing) },
			func(err error) bool { return err == nil },
			func(err error) bool { return err == nil },
		},
		"stream error": {
			func(s *server) {
				io.WriteString(s.conn, `<stream:error><conflict xmlns="urn:ietf:params:xml:ns:xmpp-streams"/>`+
					`<text xmlns="urn:ietf:params:xml:ns:xmpp-streams" xml:lang="en">replaced</text></stream:error>`+closing)
			},
			func(err error) bool {
				var se stream.Error
				return errors.As(err, &se) && se.Err == "conflict" && len(se.Text) == 1 && se.Text[0].Value == "replaced"
			},
			func(err error) bool { return errors.Is(err, stream.Conflict) },
		},
		"connection lost": {
			func(s *server) { s.conn.Close() },
			func(err error) bool { return err != nil },
			func(err error) bool { return err != nil },
		},
		"malformed": {
			func(s *server) { io.WriteString(s.conn, "</presence>") },
			func(err error) bool { var se *xml.SyntaxError; return errors.As(err, &se) },
			func(err error) bool { var se *xml.SyntaxError; return errors.As(err, &se) },
		},
		"comment": {
			func(s *server) { io.WriteString(s.conn, "<!-- -->") },
			func(err error) bool { return err != nil },
			func(err error) bool { return err != nil },
		},
		"text": {
			func(s *server) { io.WriteString(s.conn, "text<presence/>") },
			func(err error) bool { return err != nil },
			func(err error) bool { return err != nil },
		},
		"within a stanza": {
			func(s *server) { io.WriteString(s.conn, "<presence><status>"); s.conn.Close() },
			func(err error) bool { return err != nil },
			func(err error) bool { return err != nil },
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			run(t, Config{}, func(t *testing.T, x *fixture) {
				var handled []string
				release := make(chan struct{})
				x.serve(func(_ xmlstream.TokenReadEncoder, start *xml.StartElement) error {
					<-release
					handled = append(handled, id(start))
					return nil
				})
				// What arrived before the end comes before the end.
				for i := range 3 {
					x.server.write(t, string(presence(fmt.Sprint(i))))
				}
				go test.end(x.server)
				synctest.Wait()
				if ended := x.end(); len(ended) != 1 || !test.ended(ended[0]) {
					t.Errorf("Ended: %v", ended)
				}
				close(release)
				if err := <-x.served; !test.serve(err) {
					t.Errorf("Serve: %v", err)
				}
				if want := []string{"0", "1", "2"}; !slices.Equal(handled, want) {
					t.Errorf("handled %q", handled)
				}
				<-x.f.Done()
				if err := x.session.Send(t.Context(), message("1", "x")); err == nil {
					t.Error("Send after the end: no error")
				}
				if err := x.f.Send(t.Context(), presence("1")); err == nil {
					t.Error("Front.Send after the end: no error")
				}
			})
		})
	}
}

// What the application has written leaves before its end tag does, whichever way
// it ends.
func TestApplicationEnds(t *testing.T) {
	tests := map[string]struct {
		end   func(x *fixture) error
		serve func(err error) bool
	}{
		"Session.Close": {
			func(x *fixture) error { return x.session.Close() },
			func(err error) bool { return err == nil },
		},
		"Conn.Close": {
			func(x *fixture) error { return x.session.Conn().Close() },
			func(err error) bool { return errors.Is(err, net.ErrClosed) },
		},
		"Front.Close": {
			func(x *fixture) error { return x.f.Close() },
			func(err error) bool { return errors.Is(err, net.ErrClosed) },
		},
		"both": {
			func(x *fixture) error { return errors.Join(x.session.Close(), x.session.Conn().Close()) },
			func(err error) bool { return err == nil || errors.Is(err, net.ErrClosed) },
		},
		"Fail": {
			func(x *fixture) error { x.f.Fail(os.ErrProcessDone); <-x.f.Done(); return nil },
			func(err error) bool { return errors.Is(err, os.ErrProcessDone) },
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			drained := false
			var x *fixture
			config := Config{Drain: func(ctx context.Context) {
				drained = true
				if err := x.f.Send(ctx, presence("drain")); err != nil {
					t.Error(err)
				}
			}}
			run(t, config, func(t *testing.T, fixture *fixture) {
				x = fixture
				x.answerClose()
				x.serve(func(xmlstream.TokenReadEncoder, *xml.StartElement) error { return nil })
				x.outgoing = func(ctx context.Context, e *stanza.Element) {
					time.Sleep(10 * time.Millisecond) // in the bubble's time
					if err := x.f.SendElement(ctx, e); err != nil {
						t.Error(err)
					}
				}
				for i := range 50 {
					if err := x.session.Send(t.Context(), message(fmt.Sprint(i), "x")); err != nil {
						t.Fatal(err)
					}
				}
				// Serve must be past the lock that Close holds: waiting for a mutex keeps
				// the bubble's time from going on.
				synctest.Wait()
				if err := test.end(x); err != nil {
					t.Error(err)
				}
				// Here the program may exit.
				synctest.Wait()
				if got := x.server.got(); len(got) != 51 || !strings.Contains(got[50], `"drain"`) || x.server.end() != io.EOF || !drained {
					t.Errorf("server got %d stanzas, then %v; drained: %v", len(got), x.server.end(), drained)
				}
				if err := <-x.served; !test.serve(err) {
					t.Errorf("Serve: %v", err)
				}
				<-x.f.Done()
				if err := x.session.Conn().Close(); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// A handler that fails closes the stream, as it does without a front.
func TestHandlerFails(t *testing.T) {
	run(t, Config{}, func(t *testing.T, x *fixture) {
		x.answerClose()
		failed := errors.New("failed")
		x.serve(func(w xmlstream.TokenReadEncoder, start *xml.StartElement) error { return failed })
		x.server.write(t, string(presence("1")))
		if err := <-x.served; err != failed {
			t.Errorf("Serve: %v", err)
		}
		<-x.f.Done()
		if x.server.end() != io.EOF {
			t.Errorf("server: %v", x.server.end())
		}
	})
}

func TestMalformedFromTheApplication(t *testing.T) {
	for _, raw := range []string{"</message>", "text<message/>", "<!-- x -->", "<?x y?>", "<message></iq>", "<message><body>" + closing, "<message a='1' a>"} {
		t.Run(raw, func(t *testing.T) {
			run(t, Config{}, func(t *testing.T, x *fixture) {
				x.answerClose()
				x.serve(func(xmlstream.TokenReadEncoder, *xml.StartElement) error { return nil })
				io.WriteString(x.session.Conn(), `<presence id="1"/>`+raw)
				if err := <-x.served; !errors.Is(err, errMalformed) {
					t.Errorf("Serve: %v", err)
				}
				<-x.f.Done()
				if got := x.server.got(); len(got) != 1 || x.server.end() != io.EOF {
					t.Errorf("server got %q, %v", got, x.server.end())
				}
			})
		})
	}
}

// Nobody is waited for longer than CloseTimeout, once for what is queued and once
// for the peer.
func TestCloseTimeout(t *testing.T) {
	stuck := func(ctx context.Context, _ *stanza.Element) { <-ctx.Done() }
	tests := map[string]struct {
		outgoing func(ctx context.Context, e *stanza.Element)
		answer   bool
		want     time.Duration
		refused  int
	}{
		"nothing is stuck": {nil, true, 0, 0},
		"queue":            {stuck, true, time.Second, 2},
		"peer":             {nil, false, time.Second, 0},
		"both":             {stuck, false, 2 * time.Second, 2},
	}
	for name, test := range tests {
		for _, ending := range []string{"Session.Close", "Conn.Close"} {
			t.Run(name+"/"+ending, func(t *testing.T) {
				run(t, Config{CloseTimeout: time.Second}, func(t *testing.T, x *fixture) {
					x.outgoing = test.outgoing
					x.serve(func(xmlstream.TokenReadEncoder, *xml.StartElement) error { return nil })
					if test.answer {
						x.answerClose()
					}
					for range 3 {
						if err := x.session.Send(t.Context(), message("", "x")); err != nil {
							t.Fatal(err)
						}
					}
					synctest.Wait()
					began := time.Now()
					var err error
					if ending == "Session.Close" {
						err = x.session.Close()
					} else {
						err = x.session.Conn().Close()
					}
					if err != nil {
						t.Error(err)
					}
					err = <-x.served
					if ending == "Session.Close" && !test.answer && !errors.Is(err, os.ErrDeadlineExceeded) {
						t.Errorf("Serve: %v", err)
					}
					<-x.f.Done()
					if d := time.Since(began); d != test.want {
						t.Errorf("took %v, want %v", d, test.want)
					}
					if got := x.refusals(); len(got) != test.refused {
						t.Errorf("refused: %q", got)
					}
				})
			})
		}
	}
}

// A peer that does not read holds up neither the end nor the reader.
func TestPeerDoesNotRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, conn := net.Pipe()
		defer conn.Close()
		real := negotiated(t, client)
		r := &relay{}
		f, err := New(t.Context(), Config{Real: real, Handler: r, Limits: stanza.DefaultLimits, CloseTimeout: time.Second})
		if err != nil {
			t.Fatal(err)
		}
		r.f = f
		f.Start()
		if err := f.Session().Send(t.Context(), message("1", "x")); err != nil {
			t.Fatal(err)
		}
		read := false
		f.DeliverLazily(func() ([]byte, func(), bool) { return presence("1"), func() { read = true }, true })
		served := make(chan error)
		go func() { served <- f.Session().Serve(nil) }()
		synctest.Wait()
		if !read {
			t.Error("nothing delivered")
		}
		began := time.Now()
		f.Close()
		if d := time.Since(began); d != 2*time.Second {
			t.Errorf("took %v", d)
		}
		<-served
		if got := r.end(); len(got) != 1 || !errors.Is(got[0], net.ErrClosed) {
			t.Errorf("Ended: %v", got)
		}
	})
}

// An application that does not close its stream after the peer did is cut off.
func TestApplicationDoesNotClose(t *testing.T) {
	run(t, Config{CloseTimeout: time.Second}, func(t *testing.T, x *fixture) {
		began := time.Now()
		x.server.write(t, closing)
		synctest.Wait()
		// Its direction is still open.
		if err := x.session.Send(t.Context(), message("1", "x")); err != nil {
			t.Error(err)
		}
		<-x.f.Done()
		if d := time.Since(began); d != time.Second {
			t.Errorf("took %v", d)
		}
		if got := x.server.got(); len(got) != 1 || x.server.end() != io.EOF {
			t.Errorf("server got %q, %v", got, x.server.end())
		}
		if err := x.session.Serve(nil); err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
}

// What arrives between the two end tags is handled as ever.
func TestArrivesWhileClosing(t *testing.T) {
	run(t, Config{}, func(t *testing.T, x *fixture) {
		arrived := false
		x.incoming = func(ctx context.Context, _ *stanza.Element) {
			arrived = true
			if err := ctx.Err(); err != nil {
				t.Error(err)
			}
		}
		if err := x.session.Close(); err != nil {
			t.Fatal(err)
		}
		<-x.server.gone
		x.server.write(t, string(presence("1"))+closing)
		<-x.f.Done()
		if !arrived {
			t.Error("did not arrive")
		}
	})
}

// A write that fails is the end of the wire.
func TestWriteFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, conn := net.Pipe()
		defer conn.Close()
		broken := errors.New("broken")
		r := &relay{}
		f, err := New(t.Context(), Config{Real: negotiated(t, failing{client, broken}), Handler: r, Limits: stanza.DefaultLimits})
		if err != nil {
			t.Fatal(err)
		}
		f.Start()
		if err := f.Send(t.Context(), presence("1")); !errors.Is(err, broken) {
			t.Errorf("Send: %v", err)
		}
		if err := f.Session().Serve(nil); !errors.Is(err, broken) {
			t.Errorf("Serve: %v", err)
		}
		<-f.Done()
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		for name, ctx := range map[string]context.Context{"open": t.Context(), "ended": ended} {
			if err := f.Send(ctx, presence("1")); err == nil {
				t.Errorf("Send after the end, context %s: no error", name)
			}
		}
		if got := r.end(); len(got) != 1 || !errors.Is(got[0], broken) {
			t.Errorf("Ended: %v", got)
		}
	})
}

// failing is a connection that cannot be written to.
type failing struct {
	net.Conn
	err error
}

func (f failing) Write([]byte) (int, error) { return 0, f.err }

// Close without Start leaves nothing behind either.
func TestCloseWithoutStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, conn := net.Pipe()
		conn.Close()
		r := &relay{}
		f, err := New(t.Context(), Config{Real: negotiated(t, client), Handler: r, Limits: stanza.DefaultLimits})
		if err != nil {
			t.Fatal(err)
		}
		f.Close()
		f.Close()
		if got := r.end(); len(got) != 1 {
			t.Errorf("Ended: %v", got)
		}
	})
}

// negotiated makes a real session without a server.
func negotiated(t *testing.T, c net.Conn) *xmpp.Session {
	t.Helper()
	s, err := xmpp.NewSession(context.Background(), jid.MustParse(remote), jid.MustParse(local), c, xmpp.Secure|xmpp.Authn, plain("jabber:client"))
	if err != nil {
		t.Fatal(err)
	}
	return s
}
