package middleware_test

import (
	"context"
	"encoding/xml"
	"errors"
	"strings"
	"testing"
	"time"

	"example.org/omellium/middleware"
	"example.org/omellium/omemo"
	"mellium.im/xmlstream"
	"mellium.im/xmpp"
	"mellium.im/xmpp/jid"
	"mellium.im/xmpp/mux"
	"mellium.im/xmpp/receipts"
	"mellium.im/xmpp/stanza"
)

type bodyOnly struct {
	XMLName xml.Name `xml:"body"`
	Body    string   `xml:",chardata"`
}

// writerTo is a value that mellium's Encode does not flush.
type writerTo struct{ xml.TokenReader }

func (w writerTo) WriteXML(to xmlstream.TokenWriter) (int, error) {
	return xmlstream.Copy(to, w.TokenReader)
}

// ways are all the ways out of a session. Those that wait for a reply are given
// a context that ends at once when the message is there.
var ways = []struct {
	name  string
	waits bool
	send  func(ctx context.Context, p *program, s string) error
}{
	{"Send", false, func(ctx context.Context, p *program, s string) error {
		return p.session.Send(ctx, to(juliet).Wrap(text(s)))
	}},
	{"Send with namespaces", false, func(ctx context.Context, p *program, s string) error {
		return p.session.Send(ctx, raw(`<message xmlns="jabber:client" type="chat" to="`+juliet+`"><body xmlns="jabber:client">`+s+`</body></message>`))
	}},
	{"Send without type", false, func(ctx context.Context, p *program, s string) error {
		return p.session.Send(ctx, stanza.Message{To: jid.MustParse(juliet)}.Wrap(text(s)))
	}},
	{"SendElement", false, func(ctx context.Context, p *program, s string) error {
		return p.session.SendElement(ctx, text(s), to(juliet).StartElement())
	}},
	{"SendMessage", true, func(ctx context.Context, p *program, s string) error {
		return closed(p.session.SendMessage(ctx, to(juliet).Wrap(text(s))))
	}},
	{"SendMessageElement", true, func(ctx context.Context, p *program, s string) error {
		return closed(p.session.SendMessageElement(ctx, text(s), to(juliet)))
	}},
	{"Encode", false, func(ctx context.Context, p *program, s string) error {
		return p.session.Encode(ctx, message{Message: to(juliet), Body: s})
	}},
	// mellium takes no notice of the start element.
	{"EncodeElement", false, func(ctx context.Context, p *program, s string) error {
		return p.session.EncodeElement(ctx, message{Message: to(juliet), Body: s}, to(juliet).StartElement())
	}},
	{"EncodeMessage", true, func(ctx context.Context, p *program, s string) error {
		return closed(p.session.EncodeMessage(ctx, message{Message: to(juliet), Body: s}))
	}},
	{"EncodeMessageElement", true, func(ctx context.Context, p *program, s string) error {
		return closed(p.session.EncodeMessageElement(ctx, bodyOnly{Body: s}, to(juliet)))
	}},
	{"TokenWriter", false, func(ctx context.Context, p *program, s string) error {
		w := p.session.TokenWriter()
		_, err := xmlstream.Copy(w, to(juliet).Wrap(text(s)))
		return errors.Join(err, w.Flush(), w.Close())
	}},
	{"Encode of a WriterTo", false, func(ctx context.Context, p *program, s string) error {
		// Not flushed before the next write (MELLIUM: Token traps).
		err := p.session.Encode(ctx, writerTo{to(juliet).Wrap(text(s))})
		return errors.Join(err, p.session.Send(ctx, stanza.Presence{}.Wrap(nil)))
	}},
	{"receipts.SendMessage", true, func(ctx context.Context, p *program, s string) error {
		m := to(juliet)
		m.XMLName.Space = stanza.NSClient // it refuses others
		return (&receipts.Handler{}).SendMessage(ctx, p.session, m.Wrap(text(s)))
	}},
	{"Middleware.Send", false, func(ctx context.Context, p *program, s string) error {
		result, err := p.om.Send(ctx, to(juliet), text(s))
		if err == nil && (len(result.Devices) != 1 || result.Devices[0].Err != nil || result.Plain || result.ID == "") {
			return errors.New("result: " + result.ID)
		}
		return err
	}},
}

func closed(r xmlstream.TokenReadCloser, err error) error {
	if r != nil {
		err = errors.Join(err, r.Close())
	}
	return err
}

func TestWaysOut(t *testing.T) {
	for _, v := range omemo.Versions() {
		t.Run(v.String(), func(t *testing.T) {
			srv := network(t, romeo, juliet)
			a, b := connected(t, srv, romeo, chat(v)), connected(t, srv, juliet, chat(v))
			for _, way := range ways {
				t.Run(way.name, func(t *testing.T) {
					ctx, cancel := context.WithTimeout(t.Context(), patience)
					defer cancel()
					s := "canary " + way.name
					sent := make(chan error, 1)
					go func() { sent <- way.send(ctx, a, s) }()
					if !way.waits {
						if err := <-sent; err != nil {
							t.Fatal(err)
						}
						sent <- nil
					}
					got := b.awaitText(s)
					if got.Info == nil || got.Info.Account != romeo {
						t.Errorf("info: %+v", got.Info)
					}
					if way.waits {
						cancel() // mellium waits for a reply or an error
					}
					if err := <-sent; err != nil && !(way.waits && errors.Is(err, context.Canceled)) {
						t.Error(err)
					}
				})
			}
			noLeak(t, srv, "canary")
		})
	}
}

// Ways out that exist only while a handler runs.
func TestWaysOutOfHandlers(t *testing.T) {
	type encoder = xmlstream.TokenReadEncoder
	handlers := map[string]func(p *program) func(t encoder, from jid.JID, s string) error{
		"Encode": func(*program) func(encoder, jid.JID, string) error {
			return func(t encoder, from jid.JID, s string) error {
				return t.Encode(message{Message: to(from.Bare().String()), Body: s})
			}
		},
		"EncodeElement": func(*program) func(encoder, jid.JID, string) error {
			return func(t encoder, from jid.JID, s string) error {
				m := message{Message: to(from.Bare().String()), Body: s}
				return t.EncodeElement(m, m.StartElement())
			}
		},
		"EncodeToken": func(*program) func(encoder, jid.JID, string) error {
			return func(t encoder, from jid.JID, s string) error {
				_, err := xmlstream.Copy(t, to(from.Bare().String()).Wrap(text(s)))
				return err
			}
		},
		"Session.Send": func(p *program) func(encoder, jid.JID, string) error {
			return func(_ encoder, from jid.JID, s string) error {
				return p.session.Send(p.t.Context(), to(from.Bare().String()).Wrap(text(s)))
			}
		},
		"Middleware.Send": func(p *program) func(encoder, jid.JID, string) error {
			return func(_ encoder, from jid.JID, s string) error {
				_, err := p.om.Send(p.t.Context(), to(from.Bare().String()), text(s))
				return err
			}
		},
		"SendMessage in a goroutine": func(p *program) func(encoder, jid.JID, string) error {
			return func(_ encoder, from jid.JID, s string) error {
				go func() {
					ctx, cancel := context.WithCancel(p.t.Context())
					defer cancel()
					_ = closed(p.session.SendMessageElement(ctx, text(s), to(from.Bare().String())))
				}()
				return nil
			}
		},
	}
	for name, handler := range handlers {
		t.Run(name, func(t *testing.T) {
			srv := network(t, romeo, juliet)
			a := load(t, romeo, chat(omemo.V2))
			session := login(t, srv, romeo)
			reply := handler(a)
			a.attach(session, mux.New(stanza.NSClient, mux.MessageFunc(stanza.ChatMessage, xml.Name{Local: "body"},
				func(_ stanza.Message, e xmlstream.TokenReadEncoder) error {
					var m message
					if err := xml.NewTokenDecoder(e).Decode(&m); err != nil {
						return err
					}
					return reply(e, m.From, m.Body)
				})))
			b := connected(t, srv, juliet, chat(omemo.V2))
			for _, s := range []string{"canary one", "canary two", "canary three"} {
				b.say(romeo, s)
				b.awaitText(s)
			}
			noLeak(t, srv, "canary")
		})
	}
}

// A message that cannot be sent comes back as an error stanza, which SendMessage
// takes for what it is, and as an event.
func TestFailedSend(t *testing.T) {
	srv := network(t, romeo, juliet)
	rec := newRecorder()
	a := load(t, romeo, middleware.Config{})
	a.attach(login(t, srv, romeo), rec)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()

	m := to(juliet) // has no device
	m.ID = "sent"
	if err := a.session.Send(ctx, m.Wrap(text("canary"))); err != nil {
		t.Fatal(err)
	}
	got := rec.await(t, `id="sent"`)
	for _, part := range []string{`type="error"`, `from="` + juliet + `"`, "not-acceptable", "urn:ietf:params:xml:ns:xmpp-stanzas"} {
		if !strings.Contains(got, part) {
			t.Errorf("error stanza lacks %q: %s", part, got)
		}
	}
	if e := a.awaitFailure("sent"); !errors.Is(e.Err, omemo.ErrNoDevices) || e.Account != juliet {
		t.Errorf("event: %+v", e)
	}

	response, err := a.session.SendMessageElement(ctx, text("canary"), to(juliet))
	if err != nil {
		t.Fatal(err)
	}
	var reply struct {
		stanza.Message
		Error stanza.Error `xml:"error"`
	}
	err = xml.NewTokenDecoder(response).Decode(&reply)
	if err := errors.Join(err, response.Close()); err != nil {
		t.Fatal(err)
	}
	if reply.Type != stanza.ErrorMessage || reply.Error.Condition != stanza.NotAcceptable {
		t.Errorf("reply: %+v", reply)
	}

	result, err := a.om.Send(ctx, to(juliet), text("canary"))
	var refused *omemo.RecipientError
	if !errors.As(err, &refused) || refused.JID != juliet || result == nil || len(result.Devices) != 0 {
		t.Errorf("result %+v, error %v", result, err)
	}
	noLeak(t, srv, "canary")
}

// om.Send tells what became of each device.
func TestSendResult(t *testing.T) {
	srv := network(t, romeo, juliet)
	a := connected(t, srv, romeo, chat(omemo.V2))
	b := connected(t, srv, juliet, chat(omemo.V2))
	connected(t, srv, romeo, chat(omemo.Legacy))
	// A device on the list that has no bundle.
	const broken = `<devices xmlns="urn:xmpp:omemo:2"><device id="`
	device, err := b.om.Manager().Device(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := srv.Publish(juliet, "urn:xmpp:omemo:2:devices", "current", broken+decimal(device.Device)+`"/><device id="77"/></devices>`); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	result, err := a.om.Send(ctx, to(juliet), text("canary"))
	if err != nil {
		t.Fatal(err)
	}
	served, failed, own := 0, 0, 0
	for _, d := range result.Devices {
		switch {
		case d.Peer.JID == romeo:
			own++
		case d.Err == nil && d.Exchange && d.Trust == omemo.TrustedBlindly && d.Peer.Address == device:
			served++
		case errors.Is(d.Err, omemo.ErrNoBundle) && d.Peer.Address.Device == 77:
			failed++
		}
	}
	if served != 1 || failed != 1 || own != 1 || len(result.Devices) != 3 {
		t.Errorf("devices: %+v", result.Devices)
	}
	if e := a.awaitEvent(middleware.Accepted); e.ID != result.ID || e.Result == nil {
		t.Errorf("accepted: %+v", e)
	}
	b.awaitText("canary")
}

// A message whose sender does not wait any more is not sent.
func TestSendCancelled(t *testing.T) {
	srv := network(t, romeo, juliet)
	a, b := connected(t, srv, romeo, chat(omemo.V2)), connected(t, srv, juliet, chat(omemo.V2))
	if err := srv.HangPEP(juliet, true); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	errs := make(chan error, 2)
	for _, s := range []string{"canary first", "canary second"} { // one is begun, the other waits
		go func() {
			_, err := a.om.Send(ctx, to(juliet), text(s))
			errs <- err
		}()
	}
	wait, stop := context.WithTimeout(t.Context(), patience)
	defer stop()
	if _, err := srv.Await(wait, fromTo(romeo, `to="`+juliet+`"`)); err != nil {
		t.Fatal(err)
	}
	cancel()
	for range 2 {
		if err := <-errs; !errors.Is(err, context.Canceled) {
			t.Errorf("error: %v", err)
		}
	}
	if err := srv.HangPEP(juliet, false); err != nil {
		t.Fatal(err)
	}
	if _, err := a.om.Send(t.Context(), to(juliet), text("third")); err != nil {
		t.Fatal(err)
	}
	b.awaitText("third")
	if got := b.bodies(); len(got) != 1 {
		t.Errorf("received: %q", got)
	}
	if n := a.count(middleware.Accepted); n != 1 {
		t.Errorf("%d messages were accepted", n)
	}
}

// A handler may wait for a message to be sent, and for an IQ in a goroutine.
func TestHandlerThatWaits(t *testing.T) {
	srv := network(t, romeo, juliet)
	a := load(t, romeo, chat(omemo.V2))
	session := login(t, srv, romeo)
	a.attach(session, xmpp.HandlerFunc(func(e xmlstream.TokenReadEncoder, start *xml.StartElement) error {
		if start.Name.Local != "message" {
			return nil
		}
		var m message
		if err := xml.NewTokenDecoder(xmlstream.MultiReader(xmlstream.Token(*start), e)).Decode(&m); err != nil {
			return err
		}
		if m.Body == "" {
			return nil
		}
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		_, err := a.om.Send(ctx, to(juliet), text("sent "+m.Body))
		go func() {
			defer cancel()
			v := struct {
				XMLName xml.Name `xml:"urn:xmpp:ping ping"`
			}{}
			r, err := a.session.EncodeIQElement(ctx, v, stanza.IQ{Type: stanza.GetIQ, To: jid.MustParse("example.net")})
			if err == nil {
				err = r.Close()
			}
			if err == nil {
				_, err = a.om.Send(ctx, to(juliet), text("asked "+m.Body))
			}
			if err != nil {
				t.Errorf("in a goroutine: %v", err)
			}
		}()
		return err
	}))
	b := connected(t, srv, juliet, chat(omemo.V2))
	begin := time.Now()
	for _, s := range []string{"one", "two", "three", "four", "five"} {
		b.say(romeo, s)
	}
	for _, s := range []string{"one", "two", "three", "four", "five"} {
		b.awaitText("sent " + s)
		b.awaitText("asked " + s)
	}
	t.Logf("took %v", time.Since(begin))
}
