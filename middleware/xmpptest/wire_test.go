package xmpptest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"testing"

	"mellium.im/xmpp/jid"
)

func TestWire(t *testing.T) {
	srv := newServer(t)
	romeo, juliet := login(t, srv, "romeo@example.net/a"), login(t, srv, "juliet@example.net/a")
	const m = "<message to='juliet@example.net/a' id='1'><body>canary &#x3C;</body></message>"
	romeo.send("%s", m)
	got := juliet.recv()
	var crossed []Stanza
	for _, st := range srv.Wire() {
		if bytes.Contains(st.XML, []byte("canary")) {
			crossed = append(crossed, st)
		}
		if bytes.Contains(st.XML, []byte("pw-")) || bytes.Contains(st.XML, []byte(nsSASL)) {
			t.Errorf("recorded: %s", st.XML)
		}
	}
	if len(crossed) != 2 {
		t.Fatalf("%d records of the message", len(crossed))
	}
	in, out := crossed[0], crossed[1]
	if string(in.XML) != m || in.Session != romeo.full || in.Direction != FromClient {
		t.Errorf("in: %v %s %s", in.Direction, in.Session, in.XML)
	}
	if out.Session != juliet.full || out.Direction != ToClient || out.Time.Before(in.Time) {
		t.Errorf("out: %v %s %s", out.Direction, out.Session, out.XML)
	}
	if e, err := parseElement(out.XML); err != nil || !bytes.Equal(e.xml(), got.xml()) {
		t.Errorf("recorded %s, received %s", out.XML, got.xml())
	}
	for _, st := range crossed {
		start, err := st.Start()
		if err != nil || start.Name.Space != nsClient || start.Name.Local != "message" {
			t.Errorf("start of %s: %v, %v", st.XML, start, err)
		}
	}
	if _, err := (Stanza{}).Start(); err == nil {
		t.Error("start of nothing")
	}
	srv.ForgetWire()
	if left := srv.Wire(); len(left) != 0 {
		t.Errorf("%d records left", len(left))
	}
	if d := [...]string{FromClient.String(), ToClient.String(), Direction(9).String()}; d != [...]string{"from client", "to client", "Direction(9)"} {
		t.Errorf("directions %q", d)
	}
}

func TestAwait(t *testing.T) {
	srv := newServer(t)
	romeo := login(t, srv, "romeo@example.net/a")
	found := make(chan error, 1)
	go func() {
		st, err := srv.Await(waiting(t), func(st Stanza) bool { return bytes.Contains(st.XML, []byte("<body>99<")) })
		if err == nil && st.Session != romeo.full {
			err = errors.New(st.Session)
		}
		found <- err
	}()
	for i := range 100 {
		if i == 50 {
			srv.ForgetWire()
		}
		romeo.send("<message to='juliet@example.net' type='error'><body>%d</body></message>", i)
	}
	if err := <-found; err != nil {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := srv.Await(ctx, func(Stanza) bool { return false }); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestFilter(t *testing.T) {
	srv := newServer(t)
	romeo, juliet := login(t, srv, "romeo@example.net/a"), login(t, srv, "juliet@example.net/a")
	send := func(text string) {
		romeo.send("<message to='%s' type='chat'><body>%s</body></message>", juliet.full, text)
	}
	for _, direction := range []Direction{FromClient, ToClient} {
		t.Run(direction.String(), func(t *testing.T) {
			srv.SetFilter(func(_ context.Context, st Stanza) [][]byte {
				switch {
				case st.Direction != direction:
				case bytes.Contains(st.XML, []byte("drop")):
					return nil
				case bytes.Contains(st.XML, []byte("twice")):
					return [][]byte{st.XML, st.XML}
				case bytes.Contains(st.XML, []byte("rewrite")):
					return [][]byte{bytes.Replace(st.XML, []byte("rewrite"), []byte("rewritten"), 1)}
				}
				return [][]byte{st.XML}
			})
			for _, text := range []string{"drop", "twice", "rewrite", "pass"} {
				send(text)
			}
			romeo.sync()
			const from = "message chat romeo@example.net/a "
			expect(t, "recipient", juliet.sync(), from+"twice", from+"twice", from+"rewritten", from+"pass")
			srv.SetFilter(nil)
			send("drop")
			romeo.sync()
			expect(t, "without filter", juliet.sync(), from+"drop")
		})
	}
	t.Run("delay", func(t *testing.T) {
		release := make(chan struct{})
		srv.SetFilter(func(ctx context.Context, st Stanza) [][]byte {
			if st.Session == juliet.full && bytes.Contains(st.XML, []byte("slow")) {
				select {
				case <-release:
				case <-ctx.Done():
				}
			}
			return [][]byte{st.XML}
		})
		tybalt := login(t, srv, "tybalt@example.net/a")
		send("before")
		send("slow")
		send("after")
		romeo.sync()
		if e := juliet.recv(); allText(e) != "before" {
			t.Errorf("got %s", e.xml())
		}
		tybalt.sync() // is not held up
		close(release)
		expect(t, "in order", juliet.sync(), "message chat romeo@example.net/a slow", "message chat romeo@example.net/a after")
	})
	t.Run("not well-formed", func(t *testing.T) {
		srv.SetFilter(func(_ context.Context, st Stanza) [][]byte { return [][]byte{[]byte("<a></b>")} })
		romeo.send("<message/>")
		if got := romeo.ends(); got != "not-well-formed" {
			t.Errorf("stream error %s", got)
		}
	})
}

func TestInject(t *testing.T) {
	srv := newServer(t)
	one, two := login(t, srv, "romeo@example.net/1"), login(t, srv, "romeo@example.net/2")
	srv.SetFilter(func(_ context.Context, st Stanza) [][]byte {
		if bytes.Contains(st.XML, []byte("forged")) {
			return nil
		}
		return [][]byte{st.XML}
	})
	const forged = "<message from='bank@example.com/x' type='chat'><body>forged %d</body></message>"
	if err := srv.Inject(one.full, forged); err != nil {
		t.Fatal(err)
	}
	if err := srv.Inject("romeo@example.net", forged); err != nil {
		t.Fatal(err)
	}
	const want = "message chat bank@example.com/x forged %d"
	expect(t, "one", one.sync(), want, want)
	expect(t, "two", two.sync(), want)
	for address, want := range map[string]error{
		"romeo@example.net/3": ErrNoSession, "juliet@example.net": ErrNoSession, "nobody@example.net": ErrNoAccount} {
		if err := srv.Inject(address, forged); !errors.Is(err, want) {
			t.Errorf("%s: %v", address, err)
		}
		if err := srv.Disconnect(address); !errors.Is(err, want) {
			t.Errorf("%s: %v", address, err)
		}
	}
	if err := srv.Inject("@", forged); err == nil {
		t.Error("malformed address")
	}
}

func TestDisconnect(t *testing.T) {
	srv := newServer(t)
	p := login(t, srv, "romeo@example.net/1")
	two := available(t, srv, "romeo@example.net/2")
	p.send("<presence/>")
	p.sync()
	if err := srv.Disconnect(p.full); err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(p.conn)
	if err != nil || strings.Contains(string(b), streamEnd) {
		t.Errorf("read %q, %v", b, err)
	}
	if found, err := srv.Sessions("romeo@example.net"); err != nil || len(found) != 1 || found[0] != two.full {
		t.Errorf("sessions %v, %v", found, err)
	}
	expect(t, "other session", two.sync(), "presence romeo@example.net/1", "presence unavailable romeo@example.net/1")
	available(t, srv, "romeo@example.net/1")
}

func TestDisconnectMellium(t *testing.T) {
	srv := newServer(t)
	session, err := srv.Client(waiting(t), "romeo@example.net", "pw-romeo")
	if err != nil {
		t.Fatal(err)
	}
	if session.LocalAddr().Resourcepart() == "" {
		t.Error("no resource")
	}
	done := make(chan error, 1)
	go func() { done <- session.Serve(nil) }()
	if err := srv.Disconnect(jid.MustParse("romeo@example.net").String()); err != nil {
		t.Fatal(err)
	}
	<-done
	_ = session.Close()
}

func TestHangPEP(t *testing.T) {
	srv := newServer(t)
	p := login(t, srv, "romeo@example.net/a")
	if err := srv.HangPEP("juliet@example.net", true); err != nil {
		t.Fatal(err)
	}
	p.send("<iq type='get' id='h' to='juliet@example.net'>%s</iq>", fetch("n", "", ""))
	expect(t, "no answer", p.sync())
	if err := srv.HangPEP("juliet@example.net", false); err != nil {
		t.Fatal(err)
	}
	if got := condition(p.iq("get", "juliet@example.net", fetch("n", "", ""))); got != "cancel item-not-found" {
		t.Errorf("got %q", got)
	}
	if err := srv.HangPEP("nobody@example.net", true); !errors.Is(err, ErrNoAccount) {
		t.Errorf("got %v", err)
	}
}

func TestPublishErrors(t *testing.T) {
	srv := newServer(t)
	if err := srv.Publish("nobody@example.net", "n", "1", "<a/>"); !errors.Is(err, ErrNoAccount) {
		t.Errorf("got %v", err)
	}
	for _, payload := range []string{"", "text", "<a/><b/>", "<a>", "<a><!-- x --></a>"} {
		if err := srv.Publish("romeo@example.net", "n", "1", payload); err == nil {
			t.Errorf("published %q", payload)
		}
	}
	if _, err := srv.Items("nobody@example.net", "n"); !errors.Is(err, ErrNoAccount) {
		t.Errorf("got %v", err)
	}
}
