package xmpptest

import (
	"context"
	"encoding/base64"
	"errors"
	"io"
	"net"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"mellium.im/sasl"
	"mellium.im/xmpp"
	"mellium.im/xmpp/jid"
	"mellium.im/xmpp/ping"
)

func TestClientOverPipeAndTCP(t *testing.T) {
	srv := newServer(t)
	address, err := srv.Addr()
	if err != nil {
		t.Fatal(err)
	}
	j := jid.MustParse("romeo@example.net/orchard")
	login := map[string]func() (*xmpp.Session, error){
		"pipe": func() (*xmpp.Session, error) {
			return srv.Client(waiting(t), j.String(), "pw-romeo")
		},
		"tcp": func() (*xmpp.Session, error) {
			conn, err := net.Dial("tcp", address)
			if err != nil {
				return nil, err
			}
			return xmpp.NewSession(waiting(t), j.Domain(), j, conn, xmpp.Secure,
				xmpp.NewNegotiator(func(*xmpp.Session, *xmpp.StreamConfig) xmpp.StreamConfig {
					return xmpp.StreamConfig{Features: []xmpp.StreamFeature{
						xmpp.SASL("", "pw-romeo", sasl.Plain), xmpp.BindResource()}}
				}))
		},
	}
	for name, dial := range login {
		t.Run(name, func(t *testing.T) {
			session, err := dial()
			if err != nil {
				t.Fatal(err)
			}
			done := make(chan error, 1)
			go func() { done <- session.Serve(nil) }()
			if got := session.LocalAddr().String(); got != j.String() {
				t.Errorf("bound to %s", got)
			}
			if err := ping.Send(waiting(t), session, j.Domain()); err != nil {
				t.Errorf("ping: %v", err)
			}
			if err := session.Close(); err != nil {
				t.Error(err)
			}
			if err := <-done; err != nil {
				t.Errorf("Serve: %v", err)
			}
		})
	}
}

func TestClientRefused(t *testing.T) {
	srv := newServer(t)
	for _, test := range []struct{ address, password string }{
		{"romeo@example.net", "wrong"},
		{"nobody@example.net", "pw-romeo"},
		{"romeo@example.org", "pw-romeo"},
		{"@example.net", "pw-romeo"},
	} {
		if _, err := srv.Client(waiting(t), test.address, test.password); err == nil {
			t.Errorf("%s logged in with %q", test.address, test.password)
		}
	}
}

func TestAddAccount(t *testing.T) {
	srv := newServer(t)
	for _, address := range []string{"romeo@example.net", "example.net", "romeo@example.net/r", "@", ""} {
		if err := srv.AddAccount(address, "x"); err == nil {
			t.Errorf("account %q was added", address)
		}
	}
	if err := srv.AddAccount("Nurse@Example.NET", "x"); err != nil {
		t.Fatal(err)
	}
	if _, err := srv.Sessions("nurse@example.net"); err != nil {
		t.Errorf("prepared address: %v", err)
	}
	if _, err := NewServer(MaxStanza(0)); err == nil {
		t.Error("server with a stanza size of 0")
	}
}

func TestNewSessionReplacesOld(t *testing.T) {
	srv := newServer(t)
	old := available(t, srv, "romeo@example.net/a")
	login(t, srv, "romeo@example.net/a").send("<presence/>")
	if got := old.ends(); got != "conflict" {
		t.Errorf("stream error %s", got)
	}
	if found, err := srv.Sessions("romeo@example.net"); err != nil || len(found) != 1 {
		t.Errorf("sessions %v, %v", found, err)
	}
}

func TestStreamEndsInOrder(t *testing.T) {
	srv := newServer(t)
	p := login(t, srv, "romeo@example.net/a")
	p.send("<iq type='get' id='1'><ping xmlns='urn:xmpp:ping'/></iq></stream:stream>")
	if e := p.recv(); e.get("id") != "1" {
		t.Errorf("got %s", e.xml())
	}
	if e, err := p.read(); err != io.EOF {
		t.Errorf("after the end: %v, %v", e, err)
	}
	rest, err := io.ReadAll(p.conn)
	if err != nil || len(rest) > 0 {
		t.Errorf("after the end: %q, %v", rest, err)
	}
}

// TestStreamEndIsBounded ends a stream while a stanza for the client is held back.
func TestStreamEndIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv, err := NewServer()
		if err != nil {
			t.Fatal(err)
		}
		if err := srv.AddAccount("romeo@example.net", "pw-romeo"); err != nil {
			t.Fatal(err)
		}
		p := login(t, srv, "romeo@example.net/a")
		srv.SetFilter(func(ctx context.Context, st Stanza) [][]byte {
			if st.Direction == ToClient {
				<-ctx.Done()
			}
			return [][]byte{st.XML}
		})
		start := time.Now()
		p.send("<message to='romeo@example.net/a'/></stream:stream>")
		if b, err := io.ReadAll(p.conn); err != nil || len(b) > 0 {
			t.Errorf("read %q, %v", b, err)
		}
		if waited := time.Since(start); waited != closeTimeout {
			t.Errorf("waited %v", waited)
		}
		_ = p.conn.Close()
		if err := srv.Close(); err != nil {
			t.Error(err)
		}
	})
}

// TestClose leaves clients in every state behind and expects every goroutine to end.
func TestClose(t *testing.T) {
	before := runtime.NumGoroutine()
	srv, err := NewServer()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"romeo", "juliet", "tybalt"} {
		if err := srv.AddAccount(name+"@example.net", "pw-"+name); err != nil {
			t.Fatal(err)
		}
	}
	address, err := srv.Addr()
	if err != nil {
		t.Fatal(err)
	}
	tcp, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer tcp.Close()
	dial(t, srv)
	dial(t, srv).open("example.net")
	login(t, srv, "romeo@example.net/a")
	deaf := available(t, srv, "juliet@example.net/a") // never reads again
	if err := srv.Inject(deaf.full, "<message><body>"+strings.Repeat("x", 10*pipeBuffer)+"</body></message>"); err != nil {
		t.Fatal(err)
	}
	filtered := available(t, srv, "tybalt@example.net/a")
	entered := make(chan struct{})
	srv.SetFilter(func(ctx context.Context, st Stanza) [][]byte {
		if st.Session == filtered.full && st.Direction == FromClient {
			close(entered)
			<-ctx.Done()
		}
		return [][]byte{st.XML}
	})
	filtered.send("<message to='juliet@example.net'><body>x</body></message>")
	<-entered
	if err := srv.Close(); err != nil {
		t.Error(err)
	}
	if err := srv.Close(); err != nil {
		t.Error("second Close:", err)
	}
	if _, err := srv.Dial(t.Context()); !errors.Is(err, ErrClosed) {
		t.Errorf("Dial: %v", err)
	}
	if _, err := srv.Addr(); !errors.Is(err, ErrClosed) {
		t.Errorf("Addr: %v", err)
	}
	if _, err := srv.Await(t.Context(), func(Stanza) bool { return false }); !errors.Is(err, ErrClosed) {
		t.Errorf("Await: %v", err)
	}
	deadline := time.Now().Add(patience)
	for runtime.NumGoroutine() > before {
		if time.Now().After(deadline) {
			b := make([]byte, 1<<20)
			t.Fatalf("%d goroutines, %d before:\n%s", runtime.NumGoroutine(), before, b[:runtime.Stack(b, true)])
		}
		runtime.Gosched()
	}
}

// TestInBubble shows that the server works with the fake clock of testing/synctest, in which a
// deadlock or a goroutine left behind would fail the test.
func TestInBubble(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		srv, err := NewServer()
		if err != nil {
			t.Fatal(err)
		}
		if err := srv.AddAccount("romeo@example.net", "pw-romeo"); err != nil {
			t.Fatal(err)
		}
		p := available(t, srv, "romeo@example.net/a")
		p.send("<message to='romeo@example.net/a' type='chat'><body>later</body></message>")
		synctest.Wait()
		time.Sleep(time.Second) // of the bubble
		expect(t, "after a second", p.sync(), "message chat romeo@example.net/a later")
		_ = p.conn.Close()
		if err := srv.Close(); err != nil {
			t.Error(err)
		}
	})
}

func TestSlowClientDelaysNobody(t *testing.T) {
	srv := newServer(t)
	slow := available(t, srv, "romeo@example.net/slow")
	quick := available(t, srv, "romeo@example.net/quick")
	sender := login(t, srv, "juliet@example.net/a")
	body := strings.Repeat("x", 1000)
	quick.sync()
	for range 500 { // far above what the connection holds
		sender.send("<message to='romeo@example.net' type='chat'><body>%s</body></message>", body)
	}
	sender.sync()
	if got := len(quick.sync()); got != 500 {
		t.Errorf("the quick client got %d messages", got)
	}
	got := slow.sync()
	got = slices.DeleteFunc(got, func(e *element) bool { return !e.is(nsClient, "message") })
	if len(got) != 500 {
		t.Errorf("the slow client got %d messages", len(got))
	}
}

func TestQueueLimit(t *testing.T) {
	q := newQueue()
	if !q.push(outgoing{xml: make([]byte, maxQueued)}) || q.push(outgoing{xml: make([]byte, 1)}) {
		t.Error("limit not kept")
	}
	q.end("end")
	if batch, last, open := q.take(); len(batch) != 1 || last != "end" || open {
		t.Errorf("got %d, %q, %v", len(batch), last, open)
	}
	if !q.push(outgoing{xml: []byte("x")}) {
		t.Error("a push after the end is dropped without complaint")
	}
}

func BenchmarkMessages(b *testing.B) {
	srv := newServer(b)
	recipient := available(b, srv, "romeo@example.net/a")
	sender := login(b, srv, "juliet@example.net/a")
	payload := base64.StdEncoding.EncodeToString(make([]byte, 1500))
	b.ResetTimer()
	go func() {
		for range b.N {
			sender.send("<message to='romeo@example.net' type='chat' id='1'><encrypted xmlns='urn:xmpp:omemo:2'><payload>%s</payload></encrypted></message>", payload)
		}
	}()
	for range b.N {
		recipient.recv()
	}
}
