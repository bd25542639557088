package stanza

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strings"
	"testing"
)

func parse(t testing.TB, s string) *Element {
	t.Helper()
	e, err := ParseElement([]byte(s), DefaultLimits)
	if err != nil {
		t.Fatalf("%v\n%s", err, s)
	}
	return e
}

// written holds elements and the one form in which they are written.
var written = []struct{ name, in, out string }{
	{"empty", `<a></a>`, `<a/>`},
	{"text", `<a>x</a>`, `<a>x</a>`},
	{"namespace once", `<a xmlns='urn:a'><b xmlns='urn:a'/></a>`, `<a xmlns="urn:a"><b/></a>`},
	{"namespace changes", `<a xmlns='urn:a'><b xmlns='urn:b'><a xmlns='urn:a'/></b><c/></a>`,
		`<a xmlns="urn:a"><b xmlns="urn:b"><a xmlns="urn:a"/></b><c/></a>`},
	{"namespace ends", `<a xmlns='urn:a'><b xmlns=''><c/></b></a>`, `<a xmlns="urn:a"><b xmlns=""><c/></b></a>`},
	{"prefixes", `<p:a xmlns:p='urn:a' xmlns='urn:b'><p:b/><c/></p:a>`, `<a xmlns="urn:a"><b/><c xmlns="urn:b"/></a>`},
	{"unused declarations", `<a xmlns:p='urn:p'/>`, `<a/>`},
	{"xml:lang", `<a xml:lang='de' id="1"/>`, `<a xml:lang="de" id="1"/>`},
	{"foreign attribute", `<a xmlns:p='urn:p' x='1' p:x='2'/>`, `<a x="1" xmlns:ns1="urn:p" ns1:x="2"/>`},
	{"escapes in text", "<a>&lt;&amp;&gt;'\"&#13;\t\n]]&gt;</a>", "<a>&lt;&amp;&gt;'\"&#13;\t\n]]&gt;</a>"},
	{"escapes in attributes", `<a b='&lt;&amp;&gt;"&apos;&#9;&#10;&#13;'/>`, `<a b="&lt;&amp;&gt;&#34;'&#9;&#10;&#13;"/>`},
	{"sections are text", `<a>x<![CDATA[<y>]]>z</a>`, `<a>x&lt;y&gt;z</a>`},
	{"white space kept", "<a> <b/>\n</a>", "<a> <b/>\n</a>"},
	{"white space beside", "\n<a/> \n", `<a/>`},
	{"beyond the first plane", `<a b='&#x1F512;'>🔒&#x10FFFF;</a>`, "<a b=\"🔒\">🔒\U0010FFFF</a>"},
	{"replacement character", "<a>\uFFFD</a>", "<a>\uFFFD</a>"},
	{"surrogate, which encoding/xml replaces", "<a>&#xD800;</a>", "<a>\uFFFD</a>"},
}

func TestAppendXML(t *testing.T) {
	for _, c := range written {
		t.Run(c.name, func(t *testing.T) {
			e := parse(t, c.in)
			if got := string(e.AppendXML([]byte("before"))); got != "before"+c.out {
				t.Errorf("wrote\n%s\nnot\n%s", got, c.out)
			}
			checkRoundTrips(t, e)
		})
	}
}

// checkRoundTrips writes the tree in every way and reads it again.
func checkRoundTrips(t *testing.T, e *Element) {
	t.Helper()
	if again := parse(t, string(e.AppendXML(nil))); !reflect.DeepEqual(e, again) {
		t.Errorf("AppendXML changed the tree:\n%s\n%s", e.AppendXML(nil), again.AppendXML(nil))
	}
	var b bytes.Buffer
	enc := xml.NewEncoder(&b)
	if _, err := e.WriteXML(enc); err != nil {
		t.Fatal(err)
	}
	if err := enc.Flush(); err != nil {
		t.Fatal(err)
	}
	r := e.TokenReader()
	tok, err := r.Token()
	if err != nil {
		t.Fatal(err)
	}
	again, err := ReadElement(r, tok.(xml.StartElement), Limits{1000, 1e6, 1e7})
	if err != nil || !reflect.DeepEqual(e, again) {
		t.Errorf("TokenReader changed the tree: %v", err)
	}
	if tok, err := r.Token(); err != io.EOF {
		t.Errorf("after the end: %v, %v", tok, err)
	}
}

func TestWriteXML(t *testing.T) {
	// encoding/xml declares namespaces over and over, but means the same.
	e := parse(t, `<a xmlns='urn:a' xml:lang='de'><b c='&quot;'>x&amp;y</b><c xmlns='urn:c'/></a>`)
	var b bytes.Buffer
	enc := xml.NewEncoder(&b)
	if _, err := e.WriteXML(enc); err != nil {
		t.Fatal(err)
	}
	if err := enc.Flush(); err != nil {
		t.Fatal(err)
	}
	if again := parse(t, b.String()); !reflect.DeepEqual(e, again) {
		t.Errorf("read again:\n%s", again.AppendXML(nil))
	}
}

func TestAppendXMLOfHandmadeTrees(t *testing.T) {
	e := NewElement("", "message", NewText(NSClient, "body", "a\x00b\xffc"))
	want := "<message><body xmlns=\"jabber:client\">a\uFFFDb\uFFFDc</body></message>"
	if got := string(e.AppendXML(nil)); got != want {
		t.Errorf("wrote %s", got)
	}
	inner := NewElement("urn:a", "a", NewElement("", "b"))
	if got := string(inner.AppendXML(nil)); got != `<a xmlns="urn:a"><b xmlns=""/></a>` {
		t.Errorf("wrote %s", got)
	}
}

// Attack E1, and those that hide in markup.
func TestParseElementRefuses(t *testing.T) {
	for name, in := range map[string]string{
		"nothing":                    ``,
		"white space":                ` `,
		"text":                       `x`,
		"not closed":                 `<a>`,
		"closed wrongly":             `<a></b>`,
		"two elements":               `<a/><a/>`,
		"text before":                `x<a/>`,
		"text after":                 `<a/>x`,
		"byte order mark":            "\uFEFF<a/>",
		"declaration":                `<?xml version='1.0'?><a/>`,
		"document type":              `<!DOCTYPE a><a/>`,
		"document type after":        `<a/><!DOCTYPE a>`,
		"entities":                   `<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>`,
		"unknown entity":             `<a>&b;</a>`,
		"comment":                    `<a><!-- --></a>`,
		"comment before":             `<!-- --><a/>`,
		"comment after":              `<a/><!-- -->`,
		"processing instruction":     `<a><?b?></a>`,
		"directive":                  `<a><!ELEMENT b></a>`,
		"not UTF-8":                  "<a>\xff</a>",
		"NUL":                        "<a>\x00</a>",
		"NUL by reference":           "<a>&#0;</a>",
		"control by reference":       "<a>&#1;</a>",
		"control in an attribute":    "<a b='&#x1F;'/>",
		"attribute twice":            `<a b='' b=''/>`,
		"attribute twice, by prefix": `<a xmlns:p='urn:a' xmlns:q='urn:a' p:b='' q:b=''/>`,
		"prefix not declared":        `<p:a/>`,
		"attribute prefix":           `<a p:b=''/>`,
		"prefix out of scope":        `<a><b xmlns:p='urn:p'/><p:c/></a>`,
		"prefix of no namespace":     `<a xmlns:p=''/>`,
		"two colons":                 `<a xmlns:b='urn:b'><b:c:d/></a>`,
		"colon first":                `<:a/>`,
		"colon last":                 `<a:/>`,
		"colon in an attribute":      `<a :b=''/>`,
		"attribute without quotes":   `<a b=c/>`,
		"attribute without value":    `<a b/>`,
	} {
		t.Run(name, func(t *testing.T) {
			e, err := ParseElement([]byte(in), DefaultLimits)
			if !errors.Is(err, ErrMarkup) || e != nil {
				t.Errorf("got %v, %v", e, err)
			}
		})
	}
}

func TestLimits(t *testing.T) {
	nested := func(n int) string { return strings.Repeat("<a>", n) + strings.Repeat("</a>", n) }
	attributes := func(n int) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, " a%d=''", i)
		}
		return "<a" + b.String() + "/>"
	}
	for _, c := range []struct {
		name, in, limit string
		limits          Limits
	}{
		{"depth held", nested(3), "", Limits{3, 100, 1000}},
		{"depth", nested(4), "depth", Limits{3, 100, 1000}},
		{"tokens held", `<a b=''>x<c/></a>`, "", Limits{3, 6, 1000}},
		{"tokens", `<a b=''>x<c/></a>`, "tokens", Limits{3, 5, 1000}},
		{"bytes held", `<a>&lt;</a>`, "", Limits{3, 100, 11}},
		{"bytes", `<a>&lt;&lt;</a>`, "bytes", Limits{3, 100, 14}},
		{"bytes of escapes", `<a>>>>>>>>></a>`, "bytes", Limits{3, 100, 20}},
		{"bytes of namespaces", `<p:a xmlns:p='urn:1234567890'><b/><p:b/><b/><p:b/></p:a>`, "bytes", Limits{3, 100, 60}},
		{"attributes held", attributes(64), "", DefaultLimits},
		{"attributes", attributes(65), "attributes", DefaultLimits},
		{"a text above all", "<a>" + strings.Repeat("x", 600<<10) + "</a>", "bytes", DefaultLimits},
		{"depth bomb", nested(100_000), "depth", Limits{32, 1e9, 1e9}},
		{"many elements", "<a>" + strings.Repeat("<b/>", 20_000) + "</a>", "tokens", DefaultLimits},
		{"many pieces of text", "<a>" + strings.Repeat("x<![CDATA[y]]>", 20_000) + "</a>", "tokens", Limits{32, 39_000, 1e9}},
	} {
		t.Run(c.name, func(t *testing.T) {
			e, err := ParseElement([]byte(c.in), c.limits)
			if c.limit == "" {
				if err != nil {
					t.Fatal(err)
				}
				if n := len(e.AppendXML(nil)); n > c.limits.Bytes {
					t.Errorf("%d bytes written, %d allowed", n, c.limits.Bytes)
				}
				return
			}
			le, ok := errors.AsType[*LimitError](err)
			if !ok || le.Limit != c.limit || !errors.Is(err, ErrLimit) || e != nil {
				t.Fatalf("got %v", err)
			}
			if !strings.Contains(le.Error(), c.limit) {
				t.Errorf("message %q", le)
			}
		})
	}
}

// A refused element is read to its end, so that a stream can go on.
func TestReadElementSkips(t *testing.T) {
	for name, first := range map[string]string{
		"depth":           `<a><b><c><d/></c>x</b>y</a>`,
		"comment":         `<a><b/><!-- --><c>x</c></a>`,
		"attribute twice": `<a><b x='' x=''><c/></b></a>`,
		"at once":         `<a x='' x=''><c/></a>`,
	} {
		t.Run(name, func(t *testing.T) {
			d := xml.NewDecoder(strings.NewReader("<stream>" + first + "<next/></stream>"))
			token := func() xml.StartElement {
				t.Helper()
				tok, err := d.Token()
				if err != nil {
					t.Fatal(err)
				}
				return tok.(xml.StartElement)
			}
			token()
			_, err := ReadElement(d, token(), Limits{3, 100, 1000})
			if !errors.Is(err, ErrLimit) && !errors.Is(err, ErrMarkup) {
				t.Fatalf("got %v", err)
			}
			e, err := ReadElement(d, token(), DefaultLimits)
			if err != nil || !e.Is("", "next") {
				t.Fatalf("then %v, %v", e, err)
			}
		})
	}
}

// tokens is a reader of given tokens; the last comes together with io.EOF, as
// xmlstream allows.
type tokens []xml.Token

func (r *tokens) Token() (xml.Token, error) {
	if len(*r) == 0 {
		return nil, io.EOF
	}
	tok := (*r)[0]
	*r = (*r)[1:]
	if len(*r) == 0 {
		return tok, io.EOF
	}
	return tok, nil
}

func TestReadElementOfTokens(t *testing.T) {
	start := func(local string, attr ...xml.Attr) xml.StartElement {
		return xml.StartElement{Name: xml.Name{Local: local}, Attr: attr}
	}
	end := xml.EndElement{}
	attr := func(local, value string) xml.Attr { return xml.Attr{Name: xml.Name{Local: local}, Value: value} }
	nothing := make(tokens, 99)
	for _, c := range []struct {
		name  string
		start xml.StartElement
		rest  tokens
		want  string
		err   error
	}{
		{"end together with EOF", start("a"), tokens{end}, `<a/>`, nil},
		{"idle reader", start("a"), append(nothing, end), `<a/>`, nil},
		{"dead reader", start("a"), append(append(nothing, nil), end), "", io.ErrNoProgress},
		{"cut off", start("a"), tokens{start("b"), end}, "", io.ErrUnexpectedEOF},
		{"empty name", start(""), tokens{end}, "", ErrMarkup},
		{"name as a way out", start("a><b"), tokens{end}, "", ErrMarkup},
		{"name with a prefix", start("a:b"), tokens{end}, "", ErrMarkup},
		{"name of a number", start("1"), tokens{end}, "", ErrMarkup},
		{"attribute name", start("a", attr("b='' c", "")), tokens{end}, "", ErrMarkup},
		{"attribute value", start("a", attr("b", "\x00")), tokens{end}, "", ErrMarkup},
		{"text", start("a"), tokens{xml.CharData("\xff"), end}, "", ErrMarkup},
		{"declarations", start("a", attr("xmlns", "urn:x"), xml.Attr{Name: xml.Name{Space: "xmlns", Local: "p"}, Value: "urn:p"}), tokens{end}, `<a/>`, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			e, err := ReadElement(&c.rest, c.start, DefaultLimits)
			if !errors.Is(err, c.err) {
				t.Fatalf("got %v", err)
			}
			if err == nil && string(e.AppendXML(nil)) != c.want {
				t.Errorf("read %s", e.AppendXML(nil))
			}
		})
	}
}

func TestValidText(t *testing.T) {
	for s, want := range map[string]bool{
		"": true, "a\tb\r\n": true, "é🔒\uFFFD": true,
		"\x00": false, "\x1b": false, "\xff": false, "a\xc3": false, "\uFFFE": false, "\xed\xa0\x80": false,
	} {
		if ValidText(s) != want {
			t.Errorf("%q: %v", s, !want)
		}
	}
}

func TestElementAccess(t *testing.T) {
	e := parse(t, `<a xmlns='urn:a' id='1' xml:id='2'>x<b n='1'/>y<b n='2'/><b xmlns='urn:b' n='3'/><c/></a>`)
	if got := e.Text(); got != "xy" {
		t.Errorf("Text %q", got)
	}
	if v, ok := e.Attribute("id"); v != "1" || !ok {
		t.Errorf("Attribute %q %v", v, ok)
	}
	if _, ok := e.Attribute("none"); ok {
		t.Error("Attribute finds what is not there")
	}
	if v, _ := e.Child("urn:a", "b").Attribute("n"); v != "1" {
		t.Errorf("Child %q", v)
	}
	if e.Child("urn:c", "b") != nil {
		t.Error("Child finds what is not there")
	}
	if c, ok := e.Only("urn:b", "b"); !ok || c == nil {
		t.Error("Only does not find one")
	}
	if c, ok := e.Only("urn:a", "b"); ok || c != nil {
		t.Error("Only finds two")
	}
	if c, ok := e.Only("urn:c", "b"); !ok || c != nil {
		t.Error("Only finds what is not there")
	}
	e.SetAttribute("id", "9").SetAttribute("new", "8")
	e.Append(NewText("urn:a", "d", ""))
	want := `<a xmlns="urn:a" id="9" xml:id="2" new="8">x<b n="1"/>y<b n="2"/><b xmlns="urn:b" n="3"/><c/><d/></a>`
	if got := string(e.AppendXML(nil)); got != want {
		t.Errorf("got %s", got)
	}
}

func TestCloneIsDeep(t *testing.T) {
	e := parse(t, `<a b='1'>x<c d='1'><e/></c></a>`)
	before := string(e.AppendXML(nil))
	c := e.Clone()
	if !reflect.DeepEqual(e, c) {
		t.Error("clone differs")
	}
	c.SetAttribute("b", "2")
	c.Children[0].Text = "y"
	c.Child("", "c").SetAttribute("d", "2").Append(NewElement("", "f"))
	c.Remove(func(e *Element) bool { return e.Is("", "e") })
	if got := string(e.AppendXML(nil)); got != before {
		t.Errorf("original became %s", got)
	}
}

func TestRemoveAtEveryDepth(t *testing.T) {
	e := parse(t, `<a><x><x/></x>1<b><x/>2<c><x>3</x></c></b><d/></a>`)
	if n := e.Remove(func(e *Element) bool { return e.Is("", "x") }); n != 3 {
		t.Errorf("%d removed", n)
	}
	if got := string(e.AppendXML(nil)); got != `<a>1<b>2<c/></b><d/></a>` {
		t.Errorf("left %s", got)
	}
}

func FuzzElement(f *testing.F) {
	for _, c := range written {
		f.Add([]byte(c.in))
	}
	f.Add([]byte(`<p:a xmlns:p="urn:a" p:b="&#x9;"><![CDATA[]]]]><![CDATA[>]]></p:a>`))
	f.Fuzz(func(t *testing.T, b []byte) {
		l := Limits{Depth: 16, Tokens: 2000, Bytes: 64 << 10}
		e, err := ParseElement(b, l)
		if err != nil {
			if !errors.Is(err, ErrMarkup) && !errors.Is(err, ErrLimit) {
				t.Fatalf("untyped error %v", err)
			}
			return
		}
		out := e.AppendXML(nil)
		if len(out) > l.Bytes {
			t.Fatalf("%d bytes written", len(out))
		}
		again, err := ParseElement(out, Limits{16, 4000, 128 << 10})
		if err != nil {
			t.Fatalf("does not read again: %v\n%s", err, out)
		}
		if !reflect.DeepEqual(e, again) {
			t.Fatalf("reads differently:\n%s\n%s", out, again.AppendXML(nil))
		}
		checkRoundTrips(t, e)
	})
}
