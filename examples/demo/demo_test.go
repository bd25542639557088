package main

import (
	"bytes"
	"context"
	"errors"
	"runtime"
	"strings"
	"testing"
	"time"

	"example.org/omellium/middleware/xmpptest"
	"example.org/omellium/omemo"
	"example.org/omellium/stanza"
)

// settled waits until no more goroutines run than before.
func settled(t *testing.T, before int) {
	t.Helper()
	poll := time.NewTicker(time.Millisecond)
	defer poll.Stop()
	deadline := time.After(time.Minute)
	for runtime.NumGoroutine() > before {
		select {
		case <-poll.C:
		case <-deadline:
			stacks := make([]byte, 1<<20)
			t.Fatalf("%d goroutines, %d before:\n%s", runtime.NumGoroutine(), before, stacks[:runtime.Stack(stacks, true)])
		}
	}
}

func TestDemo(t *testing.T) {
	before := runtime.NumGoroutine()
	var out bytes.Buffer
	if err := run(t.Context(), &out); err != nil {
		t.Fatalf("%v; printed until then:\n%s", err, &out)
	}
	settled(t, before)
	for _, want := range []string{
		"romeo   active   not confirmed",
		"juliet  active   not confirmed",
		"passive  confirmed by nature",
		"active   confirmed, by the answer",
		`<encrypted xmlns="eu.siacs.conversations.axolotl">`,
		`<encrypted xmlns="urn:xmpp:omemo:2">`,
		"types nothing",
		"trusted blindly",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("not printed: %q", want)
		}
	}
	for _, s := range scenes {
		for _, text := range append(append([]string{s.answer}, s.opening...), s.closing...) {
			if n := strings.Count(out.String(), text); n != 2 {
				t.Errorf("%q was printed %d times, not as typed and as read", text, n)
			}
		}
	}
	for l := range strings.Lines(out.String()) {
		if n := len([]rune(l)); n > 130 {
			t.Errorf("%d characters in a line: %s", n, l)
		}
	}
}

// writer fails after some bytes.
type writer int

var errFull = errors.New("full")

func (w *writer) Write(b []byte) (int, error) {
	if *w -= writer(len(b)); *w < 0 {
		return 0, errFull
	}
	return len(b), nil
}

func TestDemoFails(t *testing.T) {
	before := runtime.NumGoroutine()
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	if err := run(canceled, &bytes.Buffer{}); !errors.Is(err, context.Canceled) {
		t.Errorf("run with an ended context: %v", err)
	}
	w := writer(1000)
	if err := run(t.Context(), &w); !errors.Is(err, errFull) {
		t.Errorf("run without room to print: %v", err)
	}
	settled(t, before)
}

// A message that a server could read is found out, whatever the programs say.
func TestSearch(t *testing.T) {
	wire := []xmpptest.Stanza{
		{Direction: xmpptest.FromClient, XML: []byte("<message><body>good night</body></message>")},
		{Direction: xmpptest.ToClient, XML: []byte("<message><body>good morning</body></message>")},
	}
	if size, err := search(wire, []string{"good day"}); err != nil || size != 86 {
		t.Errorf("%d bytes, %v", size, err)
	}
	for _, text := range []string{"good night", "good morning"} {
		if _, err := search(wire, []string{"good day", text}); err == nil {
			t.Errorf("%q was not found", text)
		}
	}
}

func TestCheckSeen(t *testing.T) {
	const legacy = `<encrypted xmlns="eu.siacs.conversations.axolotl"><header sid="1"><key rid="2" prekey="true">QUFB</key>` +
		`<iv>AAAAAAAAAAAAAAAA</iv></header><payload>QUFB</payload></encrypted>`
	const v2 = `<encrypted xmlns="urn:xmpp:omemo:2"><header sid="1"><keys jid="romeo@example.net"><key rid="2">QUFB</key>` +
		`</keys></header><payload>QUFB</payload></encrypted>`
	romeo := omemo.Address{JID: "romeo@example.net", Device: 2}
	for _, test := range []struct {
		name     string
		content  string
		to       omemo.Address
		version  omemo.Version
		exchange bool
		ok       bool
	}{
		{"legacy", legacy, romeo, omemo.Legacy, true, true},
		{"omemo:2", v2, romeo, omemo.V2, false, true},
		{"clear", "<body>good night</body>", romeo, omemo.V2, false, false},
		{"wrong version", legacy, romeo, omemo.V2, true, false},
		{"both versions", legacy + v2, romeo, omemo.V2, false, false},
		{"key exchange missing", v2, romeo, omemo.V2, true, false},
		{"key exchange not expected", legacy, romeo, omemo.Legacy, false, false},
		{"other device", v2, omemo.Address{JID: romeo.JID, Device: 3}, omemo.V2, false, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			e, err := parse(xmpptest.Stanza{XML: []byte("<message>" + test.content + "</message>")})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := checkSeen(e, test.to, test.version, test.exchange); (err == nil) != test.ok {
				t.Error(err)
			}
		})
	}
}

func TestPretty(t *testing.T) {
	long := strings.Repeat("1234567890", 4)
	e := stanza.NewElement(stanza.NSClient, "message",
		stanza.NewText(stanza.NSClient, "body", "short"),
		stanza.NewElement("urn:example:a", "a", stanza.NewText("urn:example:a", "b", long), stanza.NewText("urn:example:a", "c", long)))
	const want = `<message xmlns="jabber:client">
  <body>short</body>
  <a xmlns="urn:example:a">
    <b>1234567890123456789012345678901…</b>
    <c>1234567890123456789012345678901…</c>
  </a>
</message>`
	if got := pretty(e); got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
	if e.Child("urn:example:a", "a").Child("urn:example:a", "b").Text() != long {
		t.Error("the element itself was shortened")
	}
}
