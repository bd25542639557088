package middleware_test

import (
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"log"
	"time"

	"mellium.im/xmlstream"
	"mellium.im/xmpp"
	"mellium.im/xmpp/jid"
	"mellium.im/xmpp/ping"
	xmppstanza "mellium.im/xmpp/stanza"

	"example.org/omellium/middleware"
	"example.org/omellium/middleware/xmpptest"
	"example.org/omellium/omemo"
	"example.org/omellium/omemo/memstore"
)

// bodyOf returns the body of a message as the payload that mellium sends.
func bodyOf(text string) xml.TokenReader {
	return xmlstream.Wrap(xmlstream.Token(xml.CharData(text)), xml.StartElement{Name: xml.Name{Local: "body"}})
}

// available announces a session, and waits until the server knows.
func available(ctx context.Context, session *xmpp.Session) error {
	if err := session.Send(ctx, xmppstanza.Presence{}.Wrap(nil)); err != nil {
		return err
	}
	return ping.Send(ctx, session, session.RemoteAddr())
}

// An echo bot, and somebody who writes to it. The bot is any program on mellium:
// the three statements are all that it has to do with encryption.
func ExampleMiddleware_Wrap() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	srv, err := xmpptest.NewServer()
	if err != nil {
		log.Fatal(err)
	}
	defer srv.Close()
	for _, account := range []string{"bot@example.net", "romeo@example.net"} {
		if err := srv.AddAccount(account, "secret"); err != nil {
			log.Fatal(err)
		}
	}

	type message struct {
		xmppstanza.Message
		Body string           `xml:"body"`
		Info *middleware.Info `xml:"urn:xmpp:omellium:info:0 info"`
	}
	read := func(t xml.TokenReader, start *xml.StartElement) (m message, err error) {
		err = xml.NewTokenDecoder(xmlstream.MultiReader(xmlstream.Token(*start), t)).Decode(&m)
		return m, err
	}

	// The bot. It opens sqlite in the place of memstore if it may not forget its keys.
	store := memstore.New("bot@example.net")
	om, err := middleware.New(ctx, middleware.Config{Store: store, AnswerStrangers: true})
	if err != nil {
		log.Fatal(err)
	}
	defer om.Close()
	bot, err := srv.Client(ctx, "bot@example.net", "secret")
	if err != nil {
		log.Fatal(err)
	}
	bot, err = om.Wrap(ctx, bot)
	if err != nil {
		log.Fatal(err)
	}
	go func() {
		_ = bot.Serve(xmpp.HandlerFunc(func(t xmlstream.TokenReadEncoder, start *xml.StartElement) error {
			if start.Name.Local != "message" {
				return nil
			}
			m, err := read(t, start)
			if err != nil || m.Body == "" {
				return err
			}
			return t.Encode(message{
				Message: xmppstanza.Message{To: m.From, Type: m.Type},
				Body:    m.Body,
			})
		}))
	}()
	if err := available(ctx, bot); err != nil {
		log.Fatal(err)
	}

	// Somebody who writes to it.
	romeoStore := memstore.New("romeo@example.net")
	romeoOM, err := middleware.New(ctx, middleware.Config{Store: romeoStore})
	if err != nil {
		log.Fatal(err)
	}
	defer romeoOM.Close()
	romeo, err := srv.Client(ctx, "romeo@example.net", "secret")
	if err != nil {
		log.Fatal(err)
	}
	romeo, err = romeoOM.Wrap(ctx, romeo)
	if err != nil {
		log.Fatal(err)
	}
	echoes := make(chan message, 1)
	go func() {
		_ = romeo.Serve(xmpp.HandlerFunc(func(t xmlstream.TokenReadEncoder, start *xml.StartElement) error {
			if start.Name.Local != "message" {
				return nil
			}
			m, err := read(t, start)
			if err != nil || m.Body == "" {
				return err
			}
			echoes <- m
			return nil
		}))
	}()
	if err := available(ctx, romeo); err != nil {
		log.Fatal(err)
	}
	to := xmppstanza.Message{To: jid.MustParse("bot@example.net"), Type: xmppstanza.ChatMessage}
	if err := romeo.Send(ctx, to.Wrap(bodyOf("But soft"))); err != nil {
		log.Fatal(err)
	}
	select {
	case m := <-echoes:
		fmt.Printf("%s, from %s, %s\n", m.Body, m.Info.Account, m.Info.Trust)
	case <-ctx.Done():
		log.Fatal(ctx.Err())
	}
	// Output:
	// But soft, from bot@example.net, trusted blindly
}

// What goes wrong with encryption is told as an event, never passed over: here a
// message that came in clear, and one to an account without any device.
func ExampleConfig_onEvent() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	srv, err := xmpptest.NewServer()
	if err != nil {
		log.Fatal(err)
	}
	defer srv.Close()
	for _, account := range []string{"juliet@example.net", "romeo@example.net"} {
		if err := srv.AddAccount(account, "secret"); err != nil {
			log.Fatal(err)
		}
	}
	told := make(chan string, 1)
	om, err := middleware.New(ctx, middleware.Config{
		Store: memstore.New("juliet@example.net"),
		OnEvent: func(e middleware.Event) {
			switch {
			case e.Kind == middleware.PlaintextReceived:
				told <- fmt.Sprintf("%s wrote in clear", e.Account)
			case e.Kind == middleware.SendFailed && errors.Is(e.Err, omemo.ErrNoDevices):
				told <- fmt.Sprintf("%s cannot read encrypted messages", e.Account)
			}
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	defer om.Close()
	juliet, err := srv.Client(ctx, "juliet@example.net", "secret")
	if err != nil {
		log.Fatal(err)
	}
	if juliet, err = om.Wrap(ctx, juliet); err != nil {
		log.Fatal(err)
	}
	go func() { _ = juliet.Serve(nil) }()
	if err := available(ctx, juliet); err != nil {
		log.Fatal(err)
	}

	romeo, err := srv.Client(ctx, "romeo@example.net", "secret") // without OMEMO
	if err != nil {
		log.Fatal(err)
	}
	go func() { _ = romeo.Serve(nil) }()
	to := xmppstanza.Message{To: jid.MustParse("juliet@example.net"), Type: xmppstanza.ChatMessage}
	if err := romeo.Send(ctx, to.Wrap(bodyOf("But soft"))); err != nil {
		log.Fatal(err)
	}
	fmt.Println(<-told)

	to.To = jid.MustParse("romeo@example.net")
	if err := juliet.Send(ctx, to.Wrap(bodyOf("Wherefore"))); err != nil {
		log.Fatal(err)
	}
	fmt.Println(<-told)
	// Output:
	// romeo@example.net wrote in clear
	// romeo@example.net cannot read encrypted messages
}

// Send waits until a message is committed, and says what became of each device.
func ExampleMiddleware_Send() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	srv, err := xmpptest.NewServer()
	if err != nil {
		log.Fatal(err)
	}
	defer srv.Close()
	var middlewares []*middleware.Middleware
	for _, account := range []string{"juliet@example.net", "romeo@example.net"} {
		if err := srv.AddAccount(account, "secret"); err != nil {
			log.Fatal(err)
		}
		om, err := middleware.New(ctx, middleware.Config{Store: memstore.New(account)})
		if err != nil {
			log.Fatal(err)
		}
		defer om.Close()
		session, err := srv.Client(ctx, account, "secret")
		if err != nil {
			log.Fatal(err)
		}
		if session, err = om.Wrap(ctx, session); err != nil {
			log.Fatal(err)
		}
		go func() { _ = session.Serve(nil) }()
		if err := available(ctx, session); err != nil {
			log.Fatal(err)
		}
		middlewares = append(middlewares, om)
	}

	to := xmppstanza.Message{To: jid.MustParse("romeo@example.net"), Type: xmppstanza.ChatMessage}
	result, err := middlewares[0].Send(ctx, to, bodyOf("Wherefore"))
	if err != nil {
		log.Fatal(err)
	}
	for _, d := range result.Devices {
		fmt.Printf("%s in %s: %s, key exchange: %t, error: %v\n", d.Peer.JID, d.Peer.Version, d.Trust, d.Exchange, d.Err)
	}
	// Output:
	// romeo@example.net in legacy: trusted blindly, key exchange: true, error: <nil>
}
