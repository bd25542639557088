package pep

import (
	"context"
	"encoding/xml"
	"errors"
	"io"
	"net"
	"strings"
	"testing"

	"example.org/omellium/stanza"
	"mellium.im/xmpp"
	"mellium.im/xmpp/jid"
	xmppstanza "mellium.im/xmpp/stanza"
	"mellium.im/xmpp/stream"
)

// Attack A3.
func TestAnswers(t *testing.T) {
	own := jid.MustParse("me@x.org/1")
	for _, c := range []struct {
		to, from string
		want     bool
	}{
		{"", "", true},
		{"", "me@x.org", true},
		{"", "ME@X.org", true},
		{"me@x.org", "", true},
		{"me@x.org", "me@x.org", true},
		{"", "me@x.org/1", false},
		{"", "x.org", false},
		{"", "evil@x.org", false},
		{"a@x.org", "a@x.org", true},
		{"a@x.org", "A@x.ORG", true},
		{"a@x.org", "", false},
		{"a@x.org", "me@x.org", false},
		{"a@x.org", "a@x.org/1", false},
		{"a@x.org", "x.org", false},
		{"a@x.org", "a@x.org.evil.org", false},
		{"a@x.org", "@", false},
		{"@", "@", false},
		{"a@x.org/1", "a@x.org/1", true},
		{"a@x.org/1", "a@x.org", false},
	} {
		if got := Answers(own, c.to, c.from); got != c.want {
			t.Errorf("asked %q, answered by %q: %v", c.to, c.from, got)
		}
	}
}

// serve gives a session whose server answers each IQ by what answer returns for
// its id.
func serve(t *testing.T, answer func(id string) string) *xmpp.Session {
	t.Helper()
	client, server := net.Pipe()
	own := jid.MustParse("me@x.org/1")
	ready := func(_ context.Context, in, out *stream.Info, _ *xmpp.Session, _ any) (xmpp.SessionState, io.ReadWriter, any, error) {
		in.XMLNS, out.XMLNS = xmppstanza.NSClient, xmppstanza.NSClient
		return xmpp.Ready, nil, nil, nil
	}
	s, err := xmpp.NewSession(t.Context(), own.Domain(), own, client, xmpp.Secure|xmpp.Authn, ready)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{}, 2)
	go func() {
		defer func() { done <- struct{}{} }()
		d := xml.NewDecoder(server)
		for {
			tok, err := d.Token()
			if err != nil {
				return
			}
			if start, ok := tok.(xml.StartElement); ok {
				iq, err := stanza.ReadElement(d, start, stanza.DefaultLimits)
				if err != nil {
					return
				}
				id, _ := iq.Attribute("id")
				if _, err := io.WriteString(server, answer(id)); err != nil {
					return
				}
			}
		}
	}()
	go func() {
		defer func() { done <- struct{}{} }()
		_ = s.Serve(nil) // ends with the connection
	}()
	t.Cleanup(func() {
		_ = client.Close()
		_ = server.Close()
		<-done
		<-done
	})
	return s
}

func TestSessionRequester(t *testing.T) {
	seen := make(map[string]bool)
	r := SessionRequester(serve(t, func(id string) string {
		if len(id) < 20 || seen[id] {
			t.Errorf("id %q can be guessed", id)
		}
		seen[id] = true
		return `<iq xmlns='jabber:client' type='result' from='a@x.org' id='` + id + `'>` +
			`<pubsub xmlns='http://jabber.org/protocol/pubsub'><items node='n'><item id='i'><p xmlns='urn:p'/></item></items></pubsub></iq>`
	}))
	for range 3 {
		item, err := Fetch(t.Context(), r, "a@x.org", "n", "i")
		if err != nil || !item.Payload.Is("urn:p", "p") {
			t.Fatalf("%+v, %v", item, err)
		}
	}
}

func TestSessionRequesterErrors(t *testing.T) {
	for _, c := range []struct {
		name, reply string // in the place of ID stands the id
		want        error
	}{
		{"spoofed", `<iq xmlns='jabber:client' type='result' from='evil@x.org' id='ID'/>`, ErrSpoofed},
		{"spoofed error", `<iq xmlns='jabber:client' type='error' from='evil@x.org' id='ID'/>`, ErrSpoofed},
		{"without address", `<iq xmlns='jabber:client' type='result' id='ID'/>`, ErrSpoofed},
		{"none", `<iq xmlns='jabber:client' type='error' from='a@x.org' id='ID'><error type='cancel'><item-not-found xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></iq>`, ErrNone},
		{"too deep", `<iq xmlns='jabber:client' type='result' from='a@x.org' id='ID'>` + strings.Repeat("<x>", 50) + strings.Repeat("</x>", 50) + `</iq>`, stanza.ErrLimit},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := SessionRequester(serve(t, func(id string) string { return strings.ReplaceAll(c.reply, "ID", id) }))
			if _, err := Fetch(t.Context(), r, "a@x.org", "n", "i"); !errors.Is(err, c.want) {
				t.Errorf("error %v", err)
			}
		})
	}
	t.Run("no answer", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		r := SessionRequester(serve(t, func(string) string { cancel(); return " " }))
		if _, err := Fetch(ctx, r, "a@x.org", "n", "i"); !errors.Is(err, context.Canceled) {
			t.Errorf("error %v", err)
		}
	})
}
