//go:build !race

package middleware_test

import (
	"context"
	"encoding/xml"
	"errors"
	"testing"

	"example.org/omellium/middleware"
	"example.org/omellium/omemo"
	"mellium.im/xmlstream"
	"mellium.im/xmpp"
	"mellium.im/xmpp/jid"
	"mellium.im/xmpp/muc"
	"mellium.im/xmpp/mux"
	"mellium.im/xmpp/stanza"
)

// A program that joins and leaves with mellium's own package needs nothing else.
// That package has a data race of its own (Client.HandlePresence and
// Channel.JoinPresence), hence no race detector here.
func TestRoomOfMellium(t *testing.T) {
	srv := building(t, fit)
	a := connected(t, srv, romeo, chat(omemo.V2)).join(hall, "Romeo")
	b := load(t, juliet, chat(omemo.V2))
	client := &muc.Client{}
	m := mux.New(stanza.NSClient, muc.HandleClient(client))
	b.attach(login(t, srv, juliet), xmpp.HandlerFunc(func(r xmlstream.TokenReadEncoder, start *xml.StartElement) error {
		if start.Name.Local == "presence" {
			return m.HandleXMPP(r, start)
		}
		return b.handle(r, start)
	}))
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	channel, err := client.Join(ctx, jid.MustParse(hall+"/Juliet"), b.session)
	ok(t, err)
	b.speak(hall, "canary one")
	a.hears("canary one", hall+"/Juliet", juliet, false)
	a.speak(hall, "canary two")
	b.hears("canary two", hall+"/Romeo", romeo, false)
	ok(t, channel.Leave(ctx, ""))
	b.flush()
	if _, err := b.try(hall, "canary three"); !errors.Is(err, middleware.ErrNotJoined) {
		t.Errorf("after it was left: %v", err)
	}
	noLeak(t, srv, "canary")
}
