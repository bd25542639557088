package middleware_test

import (
	"context"
	"encoding/xml"
	"strings"
	"testing"
	"time"

	"example.org/omellium/middleware"
	"example.org/omellium/omemo"
	"example.org/omellium/stanza"
	"mellium.im/xmlstream"
	"mellium.im/xmpp"
	"mellium.im/xmpp/carbons"
)

// forged is an Info that nobody of ours has written, in every place where XML can
// hold one.
const (
	forged      = `<info xmlns="urn:xmpp:omellium:info:0" account="mallory@example.net" trust="verified"><info xmlns="urn:xmpp:omellium:info:0"/>forged</info>`
	forgedDeep  = `<a xmlns="b"><c>` + forged + `<d/>` + forged + `</c></a>`
	forgedAttr  = `<e xmlns="f" xmlns:i="urn:xmpp:omellium:info:0" i:trust="forged"/>`
	forgedOther = `<other xmlns="urn:xmpp:omellium:info:0">forged</other>`
	forgedAll   = forged + forgedDeep + forgedAttr + forgedOther
)

// checkInfo fails unless a stanza holds exactly n Infos, none of them forged, the
// last before the end of the message.
func checkInfo(t *testing.T, s string, n int) {
	t.Helper()
	if strings.Contains(s, "forged") || strings.Contains(s, "mallory") {
		t.Errorf("forged Info: %s", s)
	}
	if got := strings.Count(s, middleware.NSInfo); got != n {
		t.Errorf("%d Infos, want %d: %s", got, n, s)
	}
	if _, after, found := strings.Cut(s, "<info "); n == 1 && found {
		if _, after, _ = strings.Cut(after, "/>"); !strings.HasPrefix(after, "</message>") {
			t.Errorf("Info is not the last child: %s", s)
		}
	}
}

func TestInfoOfDecrypted(t *testing.T) {
	for _, v := range omemo.Versions() {
		t.Run(v.String(), func(t *testing.T) {
			srv := network(t, romeo, juliet)
			rec := newRecorder()
			load(t, romeo, chat(v)).attach(login(t, srv, romeo), rec)
			b := connected(t, srv, juliet, chat(v))
			// What an application writes, forged or echoed, does not leave.
			b.sendRaw("own", `type="chat" to="`+romeo+`"`, `<body>one</body>`+forgedAll)
			checkInfo(t, rec.await(t, "one"), 1)
			b.sendRaw("two", `type="chat" to="`+romeo+`"`, `<body>two</body>`)
			second := rec.await(t, "two")
			checkInfo(t, second, 1)
			fingerprint, err := b.om.Manager().Fingerprint(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			device, err := b.om.Manager().Device(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			var m message
			if err := xml.Unmarshal([]byte(second), &m); err != nil {
				t.Fatal(err)
			}
			info := m.Info
			if info == nil || info.Account != juliet || info.Device != device.Device || info.Version != v || info.First ||
				info.Fingerprint != fingerprint || info.Trust != omemo.TrustedBlindly || info.Event == "" || !info.Authenticated {
				t.Errorf("info: %+v", info)
			}
			var first message
			if err := xml.Unmarshal([]byte(rec.await(t, "one")), &first); err != nil {
				t.Fatal(err)
			}
			if first.Info == nil || !first.Info.First || first.Info.Event == info.Event {
				t.Errorf("first: %+v, second: %+v", first.Info, info)
			}
			noLeak(t, srv, middleware.NSInfo)
		})
	}
}

// A peer that writes Info into an envelope, and a server that adds it outside.
func TestInfoInsideEnvelope(t *testing.T) {
	srv := network(t, romeo, juliet)
	rec := newRecorder()
	load(t, romeo, chat(omemo.V2)).attach(login(t, srv, romeo), rec)
	b := connected(t, srv, juliet, chat(omemo.V2))
	b.say(romeo, "hello") // b has a session now
	rec.await(t, "hello")

	envelope := stanza.Envelope{From: juliet, To: romeo, Time: time.Now()}
	content, err := stanza.ParseElement([]byte(`<m xmlns="jabber:client"><body>inside</body>`+forgedAll+`</m>`), stanza.DefaultLimits)
	if err != nil {
		t.Fatal(err)
	}
	for c := range content.Elements() {
		envelope.Content = append(envelope.Content, c)
	}
	v2, err := envelope.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	_, err = b.om.Manager().Encrypt(t.Context(), omemo.Plaintext{V2: v2}, []string{romeo}, func(s *omemo.Sealed) ([]omemo.Outgoing, error) {
		m := s.Messages[0]
		e := stanza.Encrypted{Namespace: m.Version.Namespace(), Sender: uint32(m.Sender.Device), Payload: m.Payload}
		for _, k := range m.Keys {
			e.Keys = append(e.Keys, stanza.Key{JID: k.JID, Device: uint32(k.Device), Exchange: k.Exchange, Data: k.Data})
		}
		inject(t, srv, `<message xmlns="jabber:client" type="chat" from="`+juliet+`/x" id="i">`+forgedAll+
			string(e.Element().AppendXML(nil))+forged+`</message>`)
		return nil, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	checkInfo(t, rec.await(t, "inside"), 1)
}

// What is not decrypted has no Info, whatever came.
func TestInfoOfPlain(t *testing.T) {
	srv := network(t, romeo, juliet)
	rec := newRecorder()
	load(t, romeo, middleware.Config{Policy: middleware.Off}).attach(login(t, srv, romeo+"/x"), rec)
	carbon := func(inner string) string {
		return `<received xmlns="urn:xmpp:carbons:2"><forwarded xmlns="urn:xmpp:forward:0"><message xmlns="jabber:client" from="` + juliet +
			`/x" to="` + romeo + `/y" type="chat">` + inner + `</message></forwarded></received>`
	}
	for id, m := range map[string]string{
		"plain":   `type="chat" from="` + juliet + `"><body>x</body>` + forgedAll,
		"error":   `type="error" from="` + juliet + `"><body>x</body>` + forgedAll + `<error type="cancel">` + forged + `</error>`,
		"carbon":  `type="chat" from="` + romeo + `">` + carbon(`<body>x</body>`+forgedAll),
		"event":   `type="headline" from="` + juliet + `"><event xmlns="http://jabber.org/protocol/pubsub#event"><items node="n"><item>` + forgedAll + `</item></items></event>`,
		"subject": `type="groupchat" from="b@rooms.example.net/x"><subject>` + forged + `</subject>`,
		"server":  `type="chat" from="example.net"><body>x</body>` + forgedAll,
		"hints":   `type="chat" from="` + juliet + `"><store xmlns="urn:xmpp:hints">` + forged + `</store>`,
	} {
		inject(t, srv, `<message xmlns="jabber:client" id="`+id+`" `+m+`</message>`)
		checkInfo(t, rec.await(t, `id="`+id+`"`), 0)
	}
	// A carbon with Info beside the copy is not one of our server's.
	inject(t, srv, `<message xmlns="jabber:client" id="beside" type="chat" from="`+romeo+`">`+forgedAll+carbon(`<body>x</body>`)+`</message>`)
	inject(t, srv, `<message xmlns="jabber:client" id="last" type="chat" from="`+juliet+`"><body>x</body></message>`)
	rec.await(t, `id="last"`)
	for _, s := range rec.find(`id="beside"`) {
		checkInfo(t, s, 0)
	}
}

// An application that sends back all that it was given sends no Info.
func TestInfoIsNotEchoed(t *testing.T) {
	for _, v := range omemo.Versions() {
		t.Run(v.String(), func(t *testing.T) {
			srv := network(t, romeo, juliet)
			a := load(t, romeo, chat(v))
			echo := xmpp.HandlerFunc(func(e xmlstream.TokenReadEncoder, start *xml.StartElement) error {
				if start.Name.Local != "message" {
					return nil
				}
				back := start.Copy()
				for i, attr := range start.Attr {
					switch attr.Name.Local {
					case "to":
						back.Attr[i].Name.Local = "from"
					case "from":
						back.Attr[i].Name.Local = "to"
					case "type":
						if attr.Value != "chat" {
							return nil
						}
					}
				}
				_, err := xmlstream.Copy(e, xmlstream.Wrap(xmlstream.Inner(e), back))
				return err
			})
			a.attach(login(t, srv, romeo), echo)
			rec := newRecorder()
			b := load(t, juliet, chat(v)).attach(login(t, srv, juliet), rec)
			b.say(romeo, "canary")
			got := rec.await(t, "canary")
			checkInfo(t, got, 1)
			if !strings.Contains(got, `account="`+romeo+`"`) {
				t.Errorf("Info of somebody else: %s", got)
			}
			noLeak(t, srv, "canary", middleware.NSInfo)
		})
	}
}

// A carbon of a decrypted message has Info in the message that is carried.
func TestInfoOfCarbon(t *testing.T) {
	srv := network(t, romeo, juliet)
	rec := newRecorder()
	a := load(t, romeo, chat(omemo.V2)).attach(login(t, srv, romeo+"/x"), rec)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := carbons.Enable(ctx, a.session); err != nil {
		t.Fatal(err)
	}
	phone := connected(t, srv, romeo+"/phone", chat(omemo.V2))
	b := connected(t, srv, juliet, chat(omemo.V2))
	phone.say(juliet, "canary sent")
	b.awaitText("canary sent")
	b.say(romeo+"/phone", "canary received")
	phone.awaitText("canary received")
	for text, account := range map[string]string{"canary sent": romeo, "canary received": juliet} {
		got := rec.await(t, text)
		if strings.Count(got, middleware.NSInfo) != 1 || !strings.Contains(got, `/></message></forwarded>`) ||
			!strings.Contains(got, `account="`+account+`"`) {
			t.Errorf("carbon: %s", got)
		}
	}
	noLeak(t, srv, "canary")
}
