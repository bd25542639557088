package media_test

import (
	"bytes"
	"context"
	"encoding/xml"
	"strings"
	"testing"

	"example.org/omellium/middleware"
	"example.org/omellium/middleware/internal/logscan"
	"example.org/omellium/middleware/media"
	"example.org/omellium/omemo"
	"example.org/omellium/omemo/memstore"
	"mellium.im/xmlstream"
	"mellium.im/xmpp"
	"mellium.im/xmpp/jid"
	"mellium.im/xmpp/ping"
	xmppstanza "mellium.im/xmpp/stanza"
)

// TestMessage: a file that is sent with the middleware arrives in the form that the
// version has: in omemo:2 both, in legacy the link. Its key and its address are seen
// by nobody else.
func TestMessage(t *testing.T) {
	for _, v := range omemo.Versions() {
		t.Run(v.String(), func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			d := newDepot(t)
			srv, _ := network(t, d, 0)
			type message struct {
				xmppstanza.Message
				Body    string         `xml:"body"`
				Sharing media.Received `xml:"urn:xmpp:sfs:0 file-sharing"`
			}
			received := make(chan message, 10)
			login := func(account string) *xmpp.Session {
				if account != "romeo@example.net" {
					if err := srv.AddAccount(account, "secret"); err != nil {
						t.Fatal(err)
					}
				}
				c := middleware.Config{Store: memstore.New(account), Prefer: func(jid.JID) omemo.Version { return v }}
				logscan.Watch(&c)
				om, err := middleware.New(ctx, c)
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { _ = om.Close() })
				session, err := srv.Client(ctx, account+"/x", "secret")
				if err != nil {
					t.Fatal(err)
				}
				if session, err = om.Wrap(ctx, session); err != nil {
					t.Fatal(err)
				}
				go func() {
					_ = session.Serve(xmpp.HandlerFunc(func(t xmlstream.TokenReadEncoder, start *xml.StartElement) error {
						if start.Name.Local != "message" {
							return nil
						}
						var m message
						if err := xml.NewTokenDecoder(xmlstream.MultiReader(xmlstream.Token(*start), t)).Decode(&m); err != nil {
							return err
						}
						if m.Body != "" {
							received <- m
						}
						return nil
					}))
				}()
				if err := session.Send(ctx, xmppstanza.Presence{}.Wrap(nil)); err != nil {
					t.Fatal(err)
				}
				if err := ping.Send(ctx, session, session.RemoteAddr()); err != nil {
					t.Fatal(err)
				}
				return session
			}
			login("juliet@example.net")
			romeo := login("romeo@example.net")

			plain := random(100_000)
			file, err := (&media.Uploader{Session: romeo, Client: d.Client()}).
				Upload(ctx, bytes.NewReader(plain), media.Metadata{Name: "canary.bin", Description: "canary", Size: 100_000})
			if err != nil {
				t.Fatal(err)
			}
			link, err := file.Link()
			if err != nil {
				t.Fatal(err)
			}
			_, secret, _ := strings.Cut(link, "#")
			logscan.Text(secret)
			to := xmppstanza.Message{To: jid.MustParse("juliet@example.net"), Type: xmppstanza.ChatMessage}
			if err := romeo.Send(ctx, to.Wrap(file.TokenReader())); err != nil {
				t.Fatal(err)
			}
			var m message
			select {
			case m = <-received:
			case <-ctx.Done():
				t.Fatal(ctx.Err())
			}
			if m.Body != link || m.Sharing.Err != nil || (m.Sharing.File != nil) != (v == omemo.V2) {
				t.Errorf("%+v", m)
			}
			got := m.Sharing.File
			if v == omemo.Legacy {
				if got, err = media.ParseBody(m.Body); err != nil {
					t.Fatal(err)
				}
			} else if got.Name != "canary.bin" || got.Description != "canary" || got.Size != 100_000 {
				t.Errorf("%+v", got)
			}
			if b, err := d.fetcher().Bytes(ctx, got); err != nil || !bytes.Equal(b, plain) {
				t.Error(err)
			}
			key := file.Element().Child(media.NSSharing, "sources").Child(media.NSEncrypted, "encrypted").Child(media.NSEncrypted, "key").Text()
			for _, st := range srv.Wire() {
				for _, canary := range []string{secret, key, "canary", "aesgcm", "file-sharing"} {
					if bytes.Contains(st.XML, []byte(canary)) {
						t.Errorf("%s on the wire: %s", canary, st.XML)
					}
				}
				if bytes.Contains(st.XML, []byte("<message")) && bytes.Contains(st.XML, []byte(d.URL)) {
					t.Errorf("the address on the wire: %s", st.XML)
				}
			}
		})
	}
}
