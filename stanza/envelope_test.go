package stanza

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"
)

var stamp = time.Date(2026, 3, 1, 12, 30, 0, 0, time.UTC)

func TestEnvelopeMarshal(t *testing.T) {
	e := &Envelope{
		Content: []*Element{
			NewText("", "body", "hello & <goodbye>"), // as programs build it
			NewElement("", "thread", NewElement("", "inner"), NewElement("urn:x", "x", NewElement("", "y"))),
			NewElement("urn:xmpp:receipts", "request"),
		},
		From: "alice@example.org", To: "bob@example.net", Time: stamp.In(time.FixedZone("", 3600)),
	}
	b, err := e.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	before, rest, _ := strings.Cut(string(b), "<rpad>")
	padding, after, _ := strings.Cut(rest, "</rpad>")
	if want := `<envelope xmlns="urn:xmpp:sce:1"><content>` +
		`<body xmlns="jabber:client">hello &amp; &lt;goodbye&gt;</body>` +
		`<thread xmlns="jabber:client"><inner/><x xmlns="urn:x"><y xmlns=""/></x></thread>` +
		`<request xmlns="urn:xmpp:receipts"/></content>`; before != want {
		t.Errorf("content\n%s\nnot\n%s", before, want)
	}
	if want := `<from jid="alice@example.org"/><to jid="bob@example.net"/><time stamp="2026-03-01T12:30:00Z"/></envelope>`; after != want {
		t.Errorf("affixes\n%s\nnot\n%s", after, want)
	}
	if strings.ContainsFunc(padding, func(r rune) bool { return !strings.ContainsRune(alphabet, r) }) {
		t.Errorf("padding %q", padding)
	}
	if e.Content[0].Name.Space != "" {
		t.Error("the content was changed")
	}

	got, err := ParseEnvelope(b)
	if err != nil {
		t.Fatal(err)
	}
	if got.From != e.From || got.To != e.To || !got.Time.Equal(stamp) || !got.Padded || got.Dropped != 0 || len(got.Content) != 3 {
		t.Errorf("read again: %+v", got)
	}
	if body, ok := got.Body(); !ok || body != "hello & <goodbye>" {
		t.Errorf("body %q", body)
	}
}

const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"

// TestEnvelopePadding: short envelopes are filled up to the minimum, and then 0
// to 200 characters are added, with each length about as often.
func TestEnvelopePadding(t *testing.T) {
	const rounds = 4000
	for _, text := range []string{"", "hi", strings.Repeat("x", 150), strings.Repeat("x", 5000)} {
		bare := len(NewElement(NSSCE, "envelope", NewElement(NSSCE, "content", NewText(NSClient, "body", text)), NewText(NSSCE, "rpad", "-")).AppendXML(nil)) - 1
		lengths := make(map[int]int)
		for range rounds {
			b, err := (&Envelope{Content: []*Element{NewText("", "body", text)}}).Marshal()
			if err != nil {
				t.Fatal(err)
			}
			if strings.Contains(string(b), "<rpad/>") {
				b = append(b, make([]byte, len("</rpad>")-1)...) // as if written with two tags
			}
			lengths[len(b)]++
		}
		lowest, highest := 1<<30, 0
		for n := range lengths {
			lowest, highest = min(lowest, n), max(highest, n)
		}
		floor := max(bare, minEnvelope)
		if lowest < floor || highest > max(bare, minEnvelope+len("</rpad>")-1)+maxRandom {
			t.Errorf("%d characters: %d to %d bytes", len(text), lowest, highest)
		}
		// 4000 draws of 201 lengths: all but certain to see 180 of them.
		if len(lengths) < 180 {
			t.Errorf("%d characters: %d different lengths", len(text), len(lengths))
		}
		for n, times := range lengths {
			if times > rounds/20 {
				t.Errorf("%d characters: %d bytes %d times", len(text), n, times)
			}
		}
	}
}

func TestEnvelopeMarshalRefuses(t *testing.T) {
	for name, content := range map[string][]*Element{
		"two bodies":           {NewText("", "body", "1"), NewText(NSClient, "body", "2")},
		"hint":                 {Store()},
		"encrypted":            {NewElement(NSV2, "encrypted")},
		"message of no prefix": {NewElement("", "message")},
	} {
		if b, err := (&Envelope{Content: content}).Marshal(); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %s, %v", name, b, err)
		}
	}
}

// Attacks D6, D12 and D15.
func TestParseEnvelope(t *testing.T) {
	const body = `<content><body xmlns='jabber:client'>hi</body></content>`
	hi := []*Element{NewText(NSClient, "body", "hi")}
	for _, c := range []struct {
		name, in string // between the tags of the envelope
		want     *Envelope
		err      error
	}{
		{"content alone", body, &Envelope{Content: hi}, nil},
		{"empty content", `<content/>`, &Envelope{}, nil},
		{"all affixes", `<rpad>x</rpad><from jid='A@Example.org/x'/><time stamp='2026-03-01T13:30:00.000+01:00'/>` + body + `<to jid='b@example.net'/>`,
			&Envelope{Content: hi, From: "a@example.org", To: "b@example.net", Time: stamp, Padded: true}, nil},
		{"empty padding", body + `<rpad/>`, &Envelope{Content: hi, Padded: true}, nil},
		{"unknown affix", body + `<x/><from xmlns='urn:x'/><from xmlns='urn:x'/>`, &Envelope{Content: hi}, nil},
		{"white space", "\n" + body + "\n", &Envelope{Content: hi}, nil},
		{"dropped", `<content><store xmlns='urn:xmpp:hints'/><body xmlns='jabber:client'>hi</body><encrypted xmlns='urn:xmpp:omemo:2'/></content>`, &Envelope{Content: hi, Dropped: 2}, nil},
		{"body without namespace", `<content><body>hi</body></content>`, &Envelope{Dropped: 1}, nil},
		{"envelope in the content", `<content><envelope/></content>`, &Envelope{Dropped: 1}, nil},
		{"text in the envelope", body + "x", nil, ErrMalformed},
		{"text in the content", `<content>x</content>`, nil, ErrMalformed},
		{"no content", `<rpad/>`, nil, ErrMalformed},
		{"content of another namespace", `<content xmlns='urn:x'/>`, nil, ErrMalformed},
		{"two contents", body + body, nil, ErrMalformed},
		{"two paddings", body + `<rpad/><rpad/>`, nil, ErrMalformed},
		{"two senders", body + `<from jid='a@b.c'/><from jid='a@b.c'/>`, nil, ErrMalformed},
		{"two recipients", body + `<to jid='a@b.c'/><to jid='a@b.c'/>`, nil, ErrMalformed},
		{"two times", body + `<time stamp='2026-03-01T13:30:00Z'/><time stamp='2026-03-01T13:30:00Z'/>`, nil, ErrMalformed},
		{"two bodies", `<content><body xmlns='jabber:client'>1</body><body xmlns='jabber:client' xml:lang='de'>2</body></content>`, nil, ErrMalformed},
		{"sender without address", body + `<from/>`, nil, ErrMalformed},
		{"sender no address", body + `<from jid='@'/>`, nil, ErrMalformed},
		{"recipient no address", body + `<to jid='a@'/>`, nil, ErrMalformed},
		{"time without stamp", body + `<time/>`, nil, ErrMalformed},
		{"time no time", body + `<time stamp='yesterday'/>`, nil, ErrMalformed},
		{"time without zone", body + `<time stamp='2026-03-01T13:30:00'/>`, nil, ErrMalformed},
		{"time before times", body + `<time stamp='0001-01-01T00:00:00Z'/>`, nil, ErrMalformed},
		{"time after times", body + `<time stamp='9999-12-31T23:59:59-12:00'/>`, nil, ErrMalformed},
		{"comment", body + `<!-- -->`, nil, ErrMarkup},
		{"comment in the body", `<content><body xmlns='jabber:client'>a<!-- -->b</body></content>`, nil, ErrMarkup},
		{"processing instruction", `<?x?>` + body, nil, ErrMarkup},
		{"NUL", `<content><body xmlns='jabber:client'>&#0;</body></content>`, nil, ErrMarkup},
		{"not UTF-8", "<content><body xmlns='jabber:client'>\xc3\x28</body></content>", nil, ErrMarkup},
		{"depth", `<content>` + strings.Repeat(`<x xmlns='urn:x'>`, 40) + strings.Repeat(`</x>`, 40) + `</content>`, nil, ErrLimit},
		{"size", `<content><body xmlns='jabber:client'>` + strings.Repeat("x", 600<<10) + `</body></content>`, nil, ErrLimit},
		{"closed early", body + `</envelope><envelope xmlns='urn:xmpp:sce:1'>`, nil, ErrMarkup},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := ParseEnvelope([]byte(`<envelope xmlns='urn:xmpp:sce:1'>` + c.in + `</envelope>`))
			if !errors.Is(err, c.err) {
				t.Fatalf("error %v", err)
			}
			if !reflect.DeepEqual(got, c.want) {
				t.Errorf("read %+v", got)
			}
		})
	}
	for _, in := range []string{
		``, ` `, `hi`, `<envelope/>`, `<envelope xmlns='urn:xmpp:sce:0'><content/></envelope>`, `<content xmlns='urn:xmpp:sce:1'/>`,
		`<!DOCTYPE envelope><envelope xmlns='urn:xmpp:sce:1'><content/></envelope>`,
		`<?xml version='1.0'?><envelope xmlns='urn:xmpp:sce:1'><content/></envelope>`,
		`<envelope xmlns='urn:xmpp:sce:1'><content/></envelope>x`,
		"<envelope xmlns='urn:xmpp:sce:1'><content/></envelope>\x00",
	} {
		if e, err := ParseEnvelope([]byte(in)); !errors.Is(err, ErrMalformed) && !errors.Is(err, ErrMarkup) {
			t.Errorf("%q: %+v, %v", in, e, err)
		}
	}
}

// Attacks D4, D5 and D7.
func TestEnvelopeVerify(t *testing.T) {
	one := Expect{From: "a@x.org", To: "b@x.org"}
	room := Expect{From: "a@x.org", To: "room@muc.x.org", Group: true}
	timed := Expect{From: "a@x.org", To: "b@x.org", Time: stamp, Window: time.Hour}
	for _, c := range []struct {
		name string
		in   Envelope
		x    Expect
		want error
	}{
		{"nothing claimed", Envelope{}, one, nil},
		{"all right", Envelope{From: "a@x.org", To: "b@x.org"}, one, nil},
		{"prepared", Envelope{From: "A@X.org", To: "b@x.org"}, one, nil},
		{"expected with resource", Envelope{From: "a@x.org", To: "b@x.org"}, Expect{From: "a@x.org/1", To: "b@x.org/2"}, nil},
		{"another sender", Envelope{From: "c@x.org", To: "b@x.org"}, one, ErrFrom},
		{"our address as sender", Envelope{From: "b@x.org", To: "b@x.org"}, one, ErrFrom},
		{"domain as sender", Envelope{From: "x.org"}, one, ErrFrom},
		{"no address as sender", Envelope{From: "@"}, one, ErrFrom},
		{"sender unknown", Envelope{From: "a@x.org"}, Expect{To: "b@x.org"}, ErrFrom},
		{"another recipient", Envelope{From: "a@x.org", To: "c@x.org"}, one, ErrTo},
		{"room's message sent to us", Envelope{From: "a@x.org", To: "room@muc.x.org"}, one, ErrTo},
		{"our message sent to the room", Envelope{From: "a@x.org", To: "b@x.org"}, room, ErrTo},
		{"room", Envelope{From: "a@x.org", To: "room@muc.x.org"}, room, nil},
		{"room not named", Envelope{From: "a@x.org"}, room, ErrTo},
		{"another room", Envelope{From: "a@x.org", To: "other@muc.x.org"}, room, ErrTo},
		{"no time", Envelope{}, timed, nil},
		{"time not checked", Envelope{Time: stamp.AddDate(1, 0, 0)}, one, nil},
		{"window not set", Envelope{Time: stamp.AddDate(1, 0, 0)}, Expect{Time: stamp}, nil},
		{"in time", Envelope{Time: stamp.Add(time.Hour)}, timed, nil},
		{"late", Envelope{Time: stamp.Add(-time.Hour - 1)}, timed, ErrTime},
		{"early", Envelope{Time: stamp.Add(time.Hour + 1)}, timed, ErrTime},
		{"a year before", Envelope{Time: stamp.AddDate(-1, 0, 0)}, timed, ErrTime},
		{"a year after", Envelope{Time: stamp.AddDate(1, 0, 0)}, timed, ErrTime},
		{"beyond durations", Envelope{Time: stamp.AddDate(-2000, 0, 0)}, timed, ErrTime},
		{"sender before time", Envelope{From: "c@x.org", Time: stamp.AddDate(1, 0, 0)}, timed, ErrFrom},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := c.in.Verify(c.x)
			if !errors.Is(err, c.want) || (err == nil) != (c.want == nil) || err != nil && !errors.Is(err, ErrAffix) {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestOptOut(t *testing.T) {
	for reason, want := range map[string]string{
		"":          `<opt-out xmlns="urn:xmpp:omemo:2"/>`,
		"I'm <old>": `<opt-out xmlns="urn:xmpp:omemo:2"><reason>I'm &lt;old&gt;</reason></opt-out>`,
	} {
		e := OptOut(reason)
		if got := string(e.AppendXML(nil)); got != want {
			t.Errorf("wrote %s", got)
		}
		if got, ok := (&Envelope{Content: []*Element{e}}).OptOut(); got != reason || !ok {
			t.Errorf("read %q, %v", got, ok)
		}
	}
	if _, ok := (&Envelope{Content: []*Element{NewElement(NSLegacy, "opt-out"), NewText(NSClient, "body", "x")}}).OptOut(); ok {
		t.Error("opt-out where there is none")
	}
	if _, ok := (&Envelope{}).Body(); ok {
		t.Error("body where there is none")
	}
}

// TestRecordedEnvelopes reads envelopes that the recorded conversation carried.
func TestRecordedEnvelopes(t *testing.T) {
	b, err := os.ReadFile("testdata/twomemo_variants.json")
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Items []struct {
			Name  string `json:"name"`
			Plain string `json:"plaintext_hex"`
		} `json:"items"`
	}
	if err := json.Unmarshal(b, &file); err != nil {
		t.Fatal(err)
	}
	for _, item := range file.Items {
		if item.Plain == "" {
			continue
		}
		plain, err := hex.DecodeString(item.Plain)
		if err != nil {
			t.Fatal(err)
		}
		e, err := ParseEnvelope(plain)
		if err != nil {
			t.Fatalf("%s: %v", item.Name, err)
		}
		if body, ok := e.Body(); !ok || body == "" || !e.Padded {
			t.Errorf("%s: %+v", item.Name, e)
		}
		if err := e.Verify(Expect{From: "alice@example.org", To: "bob@example.net"}); err != nil {
			t.Errorf("%s: %v", item.Name, err)
		}
	}
}

func FuzzEnvelope(f *testing.F) {
	f.Add([]byte(`<envelope xmlns='urn:xmpp:sce:1'><content><body xmlns='jabber:client'>hi</body></content><rpad>x</rpad><from jid='a@b.c'/><to jid='a@b.c'/><time stamp='2026-03-01T13:30:00Z'/></envelope>`))
	f.Add([]byte(`<envelope xmlns='urn:xmpp:sce:1'><content><store xmlns='urn:xmpp:hints'/><x xmlns='urn:x'/></content></envelope>`))
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := ParseEnvelope(b)
		if err != nil {
			if !errors.Is(err, ErrMalformed) && !errors.Is(err, ErrMarkup) && !errors.Is(err, ErrLimit) {
				t.Fatalf("untyped error %v", err)
			}
			return
		}
		for _, c := range e.Content {
			if Forbidden(c) {
				t.Fatalf("<%s/> in the content", c.Name.Local)
			}
		}
		if len(b) > 1<<10 {
			return // near the limits, what is written may exceed them
		}
		out, err := e.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		again, err := ParseEnvelope(out)
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		if again.From != e.From || again.To != e.To || !again.Time.Equal(e.Time.Truncate(time.Second)) || again.Dropped != 0 {
			t.Fatalf("%+v became %+v", e, again)
		}
	})
}
