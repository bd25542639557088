package media_test

import (
	"context"
	"crypto/x509"
	"encoding/xml"
	"fmt"
	"log"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"example.org/omellium/middleware"
	"example.org/omellium/middleware/media"
	"example.org/omellium/middleware/xmpptest"
	"example.org/omellium/omemo"
	"example.org/omellium/omemo/memstore"
	"mellium.im/xmlstream"
	"mellium.im/xmpp"
	"mellium.im/xmpp/jid"
	"mellium.im/xmpp/ping"
	xmppstanza "mellium.im/xmpp/stanza"
)

// person logs in, with the middleware in front of the session.
func person(ctx context.Context, srv *xmpptest.Server, account string, h xmpp.Handler) (*xmpp.Session, error) {
	if err := srv.AddAccount(account, "secret"); err != nil {
		return nil, err
	}
	om, err := middleware.New(ctx, middleware.Config{
		Store: memstore.New(account), Prefer: func(jid.JID) omemo.Version { return omemo.V2 },
	})
	if err != nil {
		return nil, err
	}
	session, err := srv.Client(ctx, account, "secret")
	if err != nil {
		return nil, err
	}
	if session, err = om.Wrap(ctx, session); err != nil {
		return nil, err
	}
	go func() { _ = session.Serve(h) }()
	if err := session.Send(ctx, xmppstanza.Presence{}.Wrap(nil)); err != nil {
		return nil, err
	}
	return session, ping.Send(ctx, session, session.RemoteAddr())
}

// Romeo uploads a file and sends it; Juliet saves it.
func Example() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	depot := newDepotIn(dir) // an HTTPS server, on which the XMPP server below gives slots
	defer depot.Close()
	srv, err := xmpptest.NewServer()
	if err != nil {
		log.Fatal(err)
	}
	defer srv.Close()
	if err := srv.AddUploads("upload.example.net", depot.URL, 0); err != nil {
		log.Fatal(err)
	}

	type message struct {
		xmppstanza.Message
		Body    string         `xml:"body"`
		Sharing media.Received `xml:"urn:xmpp:sfs:0 file-sharing"`
	}
	received := make(chan *media.File, 1)
	_, err = person(ctx, srv, "juliet@example.net", xmpp.HandlerFunc(func(t xmlstream.TokenReadEncoder, start *xml.StartElement) error {
		if start.Name.Local != "message" {
			return nil
		}
		var m message
		if err := xml.NewTokenDecoder(xmlstream.MultiReader(xmlstream.Token(*start), t)).Decode(&m); err != nil {
			return err
		}
		file := m.Sharing.File
		if file == nil { // from a device of legacy, or one that knows no other form
			file, _ = media.ParseBody(m.Body)
		}
		if file != nil {
			received <- file
		}
		return nil
	}))
	if err != nil {
		log.Fatal(err)
	}
	romeo, err := person(ctx, srv, "romeo@example.net", nil)
	if err != nil {
		log.Fatal(err)
	}

	letter := filepath.Join(dir, "letter.txt")
	if err := os.WriteFile(letter, []byte("But soft"), 0o600); err != nil {
		log.Fatal(err)
	}

	// To send a file takes three statements.
	uploader := &media.Uploader{Session: romeo, Client: depot.Client()} // the client only because the depot's certificate is its own
	file, err := uploader.UploadFile(ctx, letter)
	if err != nil {
		log.Fatal(err)
	}
	to := xmppstanza.Message{To: jid.MustParse("juliet@example.net"), Type: xmppstanza.ChatMessage}
	if err := romeo.Send(ctx, to.Wrap(file.TokenReader())); err != nil {
		log.Fatal(err)
	}

	// To save one takes another. The depot's address is not public, and its certificate
	// its own: both have to be allowed.
	roots := x509.NewCertPool()
	roots.AddCert(depot.Certificate())
	fetcher := &media.Fetcher{
		MaxSize: 1 << 20,
		RootCAs: roots,
		Allow:   func(to netip.AddrPort) bool { return strings.HasSuffix(depot.URL, to.String()) },
	}
	path, err := fetcher.Save(ctx, <-received, dir)
	if err != nil {
		log.Fatal(err)
	}
	content, err := os.ReadFile(path)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s: %s\n", filepath.Base(path), content)
	// Output:
	// letter (1).txt: But soft
}

// A link is text until it is read as a file. Nothing is fetched by that.
func ExampleParseBody() {
	file, err := media.ParseBody("aesgcm://download.montague.tld/4a771ac1/cool.jpg#" +
		"8c3d050e9386ec173861778f68e9af38a97aaf82faa4063b4d0878a61261534410c8a84331eaac851759f587")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(file.URL)
	fmt.Println(file.Name, file.Key)
	_, err = media.ParseBody("https://download.montague.tld/cool.jpg")
	fmt.Println(err)
	// Output:
	// https://download.montague.tld/4a771ac1/cool.jpg
	// cool.jpg redacted
	// media: link refused: not aesgcm
}

// Whatever a sender calls a file, it stays in the directory.
func ExampleSafeName() {
	fmt.Println(media.SafeName("../../.ssh/authorized_keys"))
	fmt.Println(media.SafeName("photo\u202egpj.exe")) // is shown as photoexe.jpg
	// Output:
	// authorized_keys
	// photogpj.exe
}
