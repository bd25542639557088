package front

import (
	"context"
	"encoding/xml"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"mellium.im/xmlstream"
	"mellium.im/xmpp"
	xmppstanza "mellium.im/xmpp/stanza"

	"example.org/omellium/stanza"
)

// A struct that encoding/xml marshals.
type marshalled struct {
	XMLName xml.Name `xml:"jabber:client message"`
	ID      string   `xml:"id,attr"`
	Body    string   `xml:"body"`
}

func TestEveryWayOut(t *testing.T) {
	body := func() xml.TokenReader {
		return xmlstream.Wrap(xmlstream.Token(xml.CharData("x")), xml.StartElement{Name: xml.Name{Local: "body"}})
	}
	start := xml.StartElement{Name: xml.Name{Local: "message"}, Attr: []xml.Attr{{Name: xml.Name{Local: "id"}, Value: "1"}}}
	waits := func(r xmlstream.TokenReadCloser, err error) error {
		if err == nil {
			return r.Close()
		}
		if err == context.DeadlineExceeded { // nobody answers
			return nil
		}
		return err
	}
	const want = `<message xmlns="jabber:client" id="1"><body>x</body></message>`
	const ping = `<iq xmlns="jabber:client" type="get" id="1"><ping xmlns="urn:xmpp:ping"/></iq>`
	tests := map[string]struct {
		send func(ctx context.Context, s *xmpp.Session) error
		want string
	}{
		"Send": {func(ctx context.Context, s *xmpp.Session) error {
			return s.Send(ctx, xmlstream.Wrap(body(), start))
		}, want},
		"SendElement": {func(ctx context.Context, s *xmpp.Session) error {
			return s.SendElement(ctx, body(), start)
		}, want},
		"SendMessage": {func(ctx context.Context, s *xmpp.Session) error {
			return waits(s.SendMessage(ctx, xmlstream.Wrap(body(), start)))
		}, want},
		"SendMessageElement": {func(ctx context.Context, s *xmpp.Session) error {
			return waits(s.SendMessageElement(ctx, body(), xmppstanza.Message{ID: "1", Type: "chat"}))
		}, `<message xmlns="jabber:client" type="chat" id="1"><body>x</body></message>`},
		"Encode": {func(ctx context.Context, s *xmpp.Session) error {
			return s.Encode(ctx, marshalled{ID: "1", Body: "x"})
		}, want},
		"EncodeElement": {func(ctx context.Context, s *xmpp.Session) error {
			return s.EncodeElement(ctx, marshalled{ID: "1", Body: "x"}, start)
		}, want},
		"EncodeMessage": {func(ctx context.Context, s *xmpp.Session) error {
			return waits(s.EncodeMessage(ctx, marshalled{ID: "1", Body: "x"}))
		}, want},
		"SendIQ": {func(ctx context.Context, s *xmpp.Session) error {
			return waits(s.SendIQ(ctx, tokens(ping)))
		}, ping},
		"SendPresence": {func(ctx context.Context, s *xmpp.Session) error {
			return waits(s.SendPresence(ctx, tokens(`<presence xmlns="jabber:client" id="1"/>`)))
		}, `<presence xmlns="jabber:client" id="1"/>`},
		"TokenWriter": {func(ctx context.Context, s *xmpp.Session) error {
			w := s.TokenWriter()
			if _, err := xmlstream.Copy(w, xmlstream.Wrap(body(), start)); err != nil {
				return err
			}
			return w.Close()
		}, want},
		"server namespace": {func(ctx context.Context, s *xmpp.Session) error {
			return s.Send(ctx, tokens(`<message xmlns="jabber:server" id="1"/>`))
		}, `<message xmlns="jabber:server" id="1"/>`},
		"Conn": {func(ctx context.Context, s *xmpp.Session) error {
			_, err := io.WriteString(s.Conn(), `<message id="1"><body>x</body></message>`)
			return err
		}, want},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			run(t, Config{}, func(t *testing.T, x *fixture) {
				var seen []string
				x.outgoing = func(ctx context.Context, e *stanza.Element) {
					seen = append(seen, string(e.AppendXML(nil)))
					if err := x.f.SendElement(ctx, e); err != nil {
						t.Error(err)
					}
				}
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				if err := test.send(ctx, x.session); err != nil {
					t.Fatal(err)
				}
				synctest.Wait()
				if got := x.server.got(); !slices.Equal(got, []string{test.want}) || !slices.Equal(seen, got) {
					t.Errorf("server got %q, handler %q, want %q", got, seen, test.want)
				}
			})
		})
	}
}

func TestAnswersOfServe(t *testing.T) {
	run(t, Config{}, func(t *testing.T, x *fixture) {
		x.serve(func(t xmlstream.TokenReadEncoder, start *xml.StartElement) error {
			if start.Name.Local != "message" {
				return nil // and mellium answers
			}
			_, err := xmlstream.Copy(t, message("reply", "x"))
			return err
		})
		x.server.write(t, `<iq type="get" id="q" from="romeo@example.org/orchard"><query xmlns="jabber:iq:version"/></iq>`)
		x.server.write(t, `<message from="romeo@example.org/orchard"><body>x</body></message>`)
		synctest.Wait()
		got := x.server.got()
		if len(got) != 2 || !strings.Contains(got[0], "service-unavailable") || !strings.Contains(got[0], `id="q"`) ||
			!strings.Contains(got[1], `id="reply"`) {
			t.Errorf("server got %q", got)
		}
	})
}

// What is no message arrives as it was sent, on both sides.
func TestContentUnchanged(t *testing.T) {
	const ns = ` xmlns="jabber:client"`
	tests := map[string]string{
		"presence":   `<presence` + ns + ` id="1" xml:lang="de"><status xml:lang="en">a &lt; b &amp; c</status><c xmlns="http://jabber.org/protocol/caps" hash="sha-1" node="n" ver="v"/></presence>`,
		"iq":         `<iq` + ns + ` id="1" type="result"><query xmlns="jabber:iq:roster"><item jid="a@b" subscription="both"><group>x &quot;y&quot;</group></item></query></iq>`,
		"prefixes":   `<iq` + ns + ` xmlns:x="urn:x" id="1" type="result"><x:q x:a="1" a="2"><y/></x:q></iq>`,
		"white":      "<iq" + ns + " id=\"1\" type=\"result\"><q xmlns='urn:x' a='1&#10;2'>\n\t<r> </r>\r\n</q></iq>",
		"nonza":      `<r xmlns="urn:xmpp:sm:3"/>`,
		"no default": `<iq` + ns + ` id="1" type="result"><q xmlns=""><r xmlns="jabber:client"/></q></iq>`,
		"message":    `<message` + ns + ` id="1" xml:lang="fr"><body>é 🎭</body><x xmlns="urn:x"/></message>`,
	}
	for name, raw := range tests {
		t.Run(name, func(t *testing.T) {
			run(t, Config{}, func(t *testing.T, x *fixture) {
				e, err := stanza.ParseElement([]byte(raw), stanza.DefaultLimits)
				if err != nil {
					t.Fatal(err)
				}
				want := string(e.AppendXML(nil))

				x.server.write(t, raw)
				r := x.session.TokenReader()
				tok, err := r.Token()
				if err != nil {
					t.Fatal(err)
				}
				e, err = stanza.ReadElement(r, tok.(xml.StartElement), stanza.DefaultLimits)
				if err != nil {
					t.Fatal(err)
				}
				if got := string(e.AppendXML(nil)); got != want {
					t.Errorf("application got %s, want %s", got, want)
				}
				r.Close()

				// Not by Send: the encoder of a session cannot write xmlns="".
				if _, err := io.WriteString(x.session.Conn(), raw); err != nil {
					t.Fatal(err)
				}
				synctest.Wait()
				if got := x.server.got(); len(got) != 1 || got[0] != want {
					t.Errorf("server got %s, want %s", got, want)
				}
			})
		})
	}
}

func TestKeepAlive(t *testing.T) {
	run(t, Config{}, func(t *testing.T, x *fixture) {
		if err := x.session.Send(t.Context(), message("1", "x")); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		// Nobody reads the server's side of this pipe but the decoder, which
		// takes white space silently: count at the connection.
		counted := 0
		x.f.out.keepalive = func(space []byte) {
			counted += len(space)
			if err := x.f.Send(t.Context(), space); err != nil {
				t.Error(err)
			}
		}
		w := x.session.TokenWriter()
		if err := w.EncodeToken(xml.CharData(" ")); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		if counted != 1 {
			t.Errorf("%d bytes of white space left", counted)
		}
		// White space within an element is part of it.
		for _, part := range []string{`<message id="2"`, " ", `><body>`, "\n", `</body></message>`} {
			if _, err := io.WriteString(x.session.Conn(), part); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		if got := x.server.got(); len(got) != 2 || !strings.Contains(got[1], "<body>\n</body>") || counted != 1 {
			t.Errorf("server got %q", got)
		}
	})
}

func TestLimits(t *testing.T) {
	limits := stanza.Limits{Depth: 4, Tokens: 100, Bytes: 2000}
	long := strings.Repeat("x", 3000)
	config := Config{Limits: limits, Limited: func(start xml.StartElement) bool {
		return start.Name.Local == "iq" && slices.Contains(start.Attr, xml.Attr{Name: xml.Name{Local: "id"}, Value: "ours"})
	}}
	tests := map[string]struct {
		raw     string
		refused [2]bool // outgoing, incoming
	}{
		"message":            {`<message id="m"><body>x</body></message>`, [2]bool{false, false}},
		"long message":       {`<message id="m"><body>` + long + `</body></message>`, [2]bool{true, true}},
		"server namespace":   {`<message xmlns="jabber:server" id="m"><body>` + long + `</body></message>`, [2]bool{true, true}},
		"deep message":       {`<message id="m"><a><a><a><a/></a></a></a></message>`, [2]bool{true, true}},
		"many tokens":        {`<message id="m">` + strings.Repeat("<a/>", 100) + `</message>`, [2]bool{true, true}},
		"comment":            {`<message id="m"><a><!-- x --></a></message>`, [2]bool{true, true}},
		"long iq":            {`<iq id="i" type="result"><q xmlns="urn:x">` + long + `</q></iq>`, [2]bool{false, false}},
		"deep presence":      {`<presence>` + strings.Repeat("<a>", 100) + strings.Repeat("</a>", 100) + `</presence>`, [2]bool{false, false}},
		"bottomless":         {`<presence>` + strings.Repeat("<a>", 1000) + strings.Repeat("</a>", 1000) + `</presence>`, [2]bool{true, true}},
		"long answer":        {`<iq id="ours" type="result"><q xmlns="urn:x">` + long + `</q></iq>`, [2]bool{false, true}},
		"message of another": {`<message xmlns="urn:x"><body>` + long + `</body></message>`, [2]bool{false, false}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			run(t, config, func(t *testing.T, x *fixture) {
				if _, err := io.WriteString(x.session.Conn(), test.raw+`<presence id="next"/>`); err != nil {
					t.Fatal(err)
				}
				synctest.Wait()
				got := x.server.got()
				if want := 2 - count(test.refused[Outgoing]); len(got) != want || !strings.Contains(got[want-1], `id="next"`) {
					t.Errorf("server got %d elements, want %d", len(got), want)
				}

				// A comment on the wire is the end: mellium does not go on.
				if name == "comment" {
					return
				}
				handled := 0
				x.serve(func(_ xmlstream.TokenReadEncoder, start *xml.StartElement) error { handled++; return nil })
				x.server.write(t, test.raw+`<presence id="next"/>`)
				synctest.Wait()
				if want := 2 - count(test.refused[Incoming]); handled != want {
					t.Errorf("application got %d elements, want %d", handled, want)
				}
				if got, want := len(x.refusals()), count(test.refused[Outgoing])+count(test.refused[Incoming]); got != want {
					t.Errorf("%d refused, want %d: %q", got, want, x.refusals())
				}
			})
		})
	}
}

func count(b bool) int {
	if b {
		return 1
	}
	return 0
}

func TestLargeRosterPasses(t *testing.T) {
	run(t, Config{}, func(t *testing.T, x *fixture) {
		items := 0
		x.serve(func(t xmlstream.TokenReadEncoder, start *xml.StartElement) error {
			for {
				tok, err := t.Token()
				if s, ok := tok.(xml.StartElement); ok && s.Name.Local == "item" {
					items++
				}
				if err != nil {
					return nil
				}
			}
		})
		const n = 20_000
		x.server.write(t, `<iq type="result" id="r"><query xmlns="jabber:iq:roster">`+
			strings.Repeat(`<item jid="somebody.with.a.long.name@example.org" subscription="both"><group>Friends</group></item>`, n)+`</query></iq>`)
		synctest.Wait()
		if items != n {
			t.Errorf("%d items, want %d", items, n)
		}
	})
}
