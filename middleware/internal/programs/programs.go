// Package programs holds programs on mellium as people write them. They know
// nothing of OMEMO and import nothing of this module: tests run each of them on
// a plain session and on a wrapped one, and expect the same.
//
// A program runs until its session ends. All of them answer each chat message
// with its text; what they do besides stands at each.
package programs

import (
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io"

	"mellium.im/xmlstream"
	"mellium.im/xmpp"
	"mellium.im/xmpp/bookmarks"
	"mellium.im/xmpp/carbons"
	"mellium.im/xmpp/disco"
	"mellium.im/xmpp/disco/info"
	"mellium.im/xmpp/jid"
	"mellium.im/xmpp/mux"
	"mellium.im/xmpp/receipts"
	"mellium.im/xmpp/roster"
	"mellium.im/xmpp/stanza"
)

// body is a chat message, as in mellium's own examples.
type body struct {
	stanza.Message
	Body string `xml:"body"`
}

// answer returns the echo of a message.
func (b body) answer() body {
	return body{Message: stanza.Message{To: b.From.Bare(), Type: stanza.ChatMessage}, Body: b.Body}
}

// online announces the program.
func online(ctx context.Context, s *xmpp.Session) error {
	return s.Send(ctx, stanza.Presence{Type: stanza.AvailablePresence}.Wrap(nil))
}

// Echo is mellium's echo bot: a plain handler that answers through the encoder
// it is given.
func Echo(ctx context.Context, s *xmpp.Session) error {
	if err := online(ctx, s); err != nil {
		return err
	}
	return s.Serve(xmpp.HandlerFunc(func(t xmlstream.TokenReadEncoder, start *xml.StartElement) error {
		if start.Name.Local != "message" {
			return nil
		}
		d := xml.NewTokenDecoder(xmlstream.MultiReader(xmlstream.Token(*start), t))
		if _, err := d.Token(); err != nil {
			return err
		}
		var msg body
		if err := d.DecodeElement(&msg, start); err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		if msg.Body == "" || msg.Type != stanza.ChatMessage {
			return nil
		}
		return t.Encode(msg.answer())
	}))
}

// Mux has a multiplexer with a handler for bodies. It answers by the session, from
// inside the handler.
func Mux(ctx context.Context, s *xmpp.Session) error {
	if err := online(ctx, s); err != nil {
		return err
	}
	return s.Serve(mux.New(stanza.NSClient, echo(func(b body) error {
		return s.Encode(ctx, b)
	})))
}

// echo registers a handler for bodies that sends answers.
func echo(send func(body) error) mux.Option {
	return mux.MessageFunc(stanza.ChatMessage, xml.Name{Local: "body"}, func(_ stanza.Message, t xmlstream.TokenReadEncoder) error {
		var msg body
		if err := xml.NewTokenDecoder(t).Decode(&msg); err != nil {
			return err
		}
		return send(msg.answer())
	})
}

// Receipts asks for a receipt for each of its answers, gives those that it is
// asked for, and says "received: " and the text again when it has got one.
func Receipts(ctx context.Context, s *xmpp.Session) error {
	if err := online(ctx, s); err != nil {
		return err
	}
	handler := &receipts.Handler{}
	return s.Serve(mux.New(stanza.NSClient, receipts.Handle(handler), echo(func(b body) error {
		payload := xmlstream.Wrap(xmlstream.Token(xml.CharData(b.Body)), xml.StartElement{Name: xml.Name{Local: "body"}})
		go func() {
			if handler.SendMessageElement(ctx, s, payload, b.Message) != nil {
				return // it may be that nobody gives receipts
			}
			b.Body = "received: " + b.Body
			_ = s.Encode(ctx, b)
		}()
		return nil
	})))
}

// Carbons has copies of what the account's other clients send and receive, and
// reports their texts.
func Carbons(ctx context.Context, s *xmpp.Session, report func(sent bool, text string)) error {
	if err := online(ctx, s); err != nil {
		return err
	}
	enabled := make(chan error, 1)
	go func() {
		err := carbons.Enable(ctx, s)
		if err != nil {
			err = errors.Join(fmt.Errorf("carbons: %w", err), s.Close())
		}
		enabled <- err
	}()
	err := s.Serve(mux.New(stanza.NSClient,
		carbons.Handle(carbons.Handler{F: func(_ stanza.Message, sent bool, inner xml.TokenReader) error {
			var msg body
			if err := xml.NewTokenDecoder(inner).Decode(&msg); err != nil {
				return err
			}
			if msg.Body != "" {
				report(sent, msg.Body)
			}
			return nil
		}}),
		echo(func(b body) error { return s.Encode(ctx, b) }),
	))
	return errors.Join(err, <-enabled)
}

// Client is a session with methods of its own, as larger programs have it.
type Client struct {
	*xmpp.Session
}

// Facts is what a Client has found out about its surroundings.
type Facts struct {
	Roster    []string
	Bookmarks []string
	Server    []string // its features
	Caps      disco.Caps
	HasCaps   bool
}

// Run serves the session, answers questions about features with its own, and
// reports what it has found out.
func (c Client) Run(ctx context.Context, room jid.JID, report func(Facts, error)) error {
	if err := online(ctx, c.Session); err != nil {
		return err
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		report(c.facts(ctx, room))
	}()
	err := c.Serve(mux.New(stanza.NSClient, disco.Handle(), clientFeature{}.handle(), echo(func(b body) error {
		return c.Encode(ctx, b)
	})))
	<-done
	return err
}

func (c Client) facts(ctx context.Context, room jid.JID) (f Facts, err error) {
	items := roster.Fetch(ctx, c.Session)
	for items.Next() {
		f.Roster = append(f.Roster, items.Item().JID.String())
	}
	if err := errors.Join(items.Err(), items.Close()); err != nil {
		return f, fmt.Errorf("roster: %w", err)
	}
	if err := bookmarks.Publish(ctx, c.Session, bookmarks.Channel{JID: room, Name: "balcony"}); err != nil {
		return f, fmt.Errorf("bookmarks: %w", err)
	}
	channels := bookmarks.Fetch(ctx, c.Session)
	for channels.Next() {
		f.Bookmarks = append(f.Bookmarks, channels.Bookmark().JID.String())
	}
	if err := errors.Join(channels.Err(), channels.Close()); err != nil {
		return f, fmt.Errorf("bookmarks: %w", err)
	}
	server, err := disco.GetInfo(ctx, "", c.LocalAddr().Domain(), c.Session)
	if err != nil {
		return f, fmt.Errorf("disco: %w", err)
	}
	for _, feature := range server.Features {
		f.Server = append(f.Server, feature.Var)
	}
	f.Caps, f.HasCaps = disco.ServerCaps(c.Session)
	return f, nil
}

// FeatureOfClient is what a Client says that it can do.
const FeatureOfClient = "urn:example:balcony"

type clientFeature struct{}

// handle makes disco.Handle find the feature: it asks the registered handlers.
func (f clientFeature) handle() mux.Option {
	return mux.IQ(stanza.GetIQ, xml.Name{Space: FeatureOfClient, Local: "query"}, f)
}

// HandleIQ leaves the question to the multiplexer's own answer.
func (clientFeature) HandleIQ(stanza.IQ, xmlstream.TokenReadEncoder, *xml.StartElement) error {
	return nil
}

// ForFeatures implements info.FeatureIter.
func (clientFeature) ForFeatures(node string, f func(info.Feature) error) error {
	if node != "" {
		return nil
	}
	return f(info.Feature{Var: FeatureOfClient})
}
