package xmpptest_test

import (
	"context"
	"encoding/xml"
	"fmt"
	"log"

	"mellium.im/xmlstream"
	"mellium.im/xmpp/jid"
	xmppstanza "mellium.im/xmpp/stanza"

	"example.org/omellium/middleware/xmpptest"
)

type message struct {
	xmppstanza.Message
	Body string `xml:"body"`
}

// Two clients of a server inside the process; one sends the other a message.
func Example() {
	ctx := context.Background()
	srv, err := xmpptest.NewServer()
	if err != nil {
		log.Fatal(err)
	}
	defer srv.Close()
	for _, account := range []string{"romeo@example.net", "juliet@example.net"} {
		if err := srv.AddAccount(account, "secret"); err != nil {
			log.Fatal(err)
		}
	}
	romeo, err := srv.Client(ctx, "romeo@example.net/orchard", "secret")
	if err != nil {
		log.Fatal(err)
	}
	juliet, err := srv.Client(ctx, "juliet@example.net/balcony", "secret")
	if err != nil {
		log.Fatal(err)
	}
	received := make(chan message)
	go func() {
		_ = juliet.Serve(handler(func(t xmlstream.TokenReadEncoder, start *xml.StartElement) error {
			var m message
			d := xml.NewTokenDecoder(xmlstream.MultiReader(xmlstream.Token(*start), t))
			if err := d.Decode(&m); err != nil {
				return err
			}
			received <- m
			return nil
		}))
	}()
	body := xmlstream.Wrap(xmlstream.Token(xml.CharData("But soft")), xml.StartElement{Name: xml.Name{Local: "body"}})
	to := xmppstanza.Message{To: jid.MustParse("juliet@example.net/balcony"), Type: xmppstanza.ChatMessage}
	if err := romeo.Send(ctx, to.Wrap(body)); err != nil {
		log.Fatal(err)
	}
	m := <-received
	fmt.Printf("%s: %s\n", m.From, m.Body)
	for _, st := range srv.Wire() {
		if start, err := st.Start(); err == nil && start.Name.Local == "message" {
			fmt.Println("the server saw it", st.Direction, st.Session)
		}
	}
	// Output:
	// romeo@example.net/orchard: But soft
	// the server saw it from client romeo@example.net/orchard
	// the server saw it to client juliet@example.net/balcony
}

type handler func(xmlstream.TokenReadEncoder, *xml.StartElement) error

func (h handler) HandleXMPP(t xmlstream.TokenReadEncoder, start *xml.StartElement) error {
	return h(t, start)
}
