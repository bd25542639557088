package middleware

import (
	"strings"
	"testing"
	"time"

	"example.org/omellium/stanza"
)

// The classes of DESIGN: the first rule that fits decides.
func TestClassify(t *testing.T) {
	const (
		body   = `<body>x</body>`
		chat   = `<composing xmlns="http://jabber.org/protocol/chatstates"/>`
		given  = `<received xmlns="urn:xmpp:receipts" id="1"/>`
		marker = `<displayed xmlns="urn:xmpp:chat-markers:0" id="1"/>`
		pubsub = `<event xmlns="http://jabber.org/protocol/pubsub#event"><items node="n"/></event>`
		crypt  = `<encrypted xmlns="urn:xmpp:omemo:2"/>`
		old    = `<encrypted xmlns="eu.siacs.conversations.axolotl"/>`
		hint   = `<store xmlns="urn:xmpp:hints"/>`
		origin = `<origin-id xmlns="urn:xmpp:sid:0" id="1"/>`
		user   = `<x xmlns="http://jabber.org/protocol/muc#user"><status code="100"/></x>`
		invite = `<x xmlns="jabber:x:conference" jid="a@b"/>`
		voice  = `<x xmlns="jabber:x:data" type="submit"><field var="FORM_TYPE"><value>http://jabber.org/protocol/muc#request</value></field></x>`
		form   = `<x xmlns="jabber:x:data" type="submit"><field var="FORM_TYPE"><value>urn:other</value></field></x>`
	)
	for _, tc := range []struct {
		name   string
		typ    string
		inner  string
		server bool
		want   class
	}{
		{"body", "chat", body, false, content},
		{"body without namespace", "chat", `<body xmlns="">x</body>`, false, content},
		{"body in the server namespace", "chat", `<body xmlns="jabber:server">x</body>`, false, content},
		{"empty body", "chat", `<body/>`, false, content},
		{"body, no type", "", body, false, content},
		{"body, normal", "normal", body, false, content},
		{"body, headline", "headline", body, false, content},
		{"body, unknown type", "whisper", body, false, content},
		{"text without element", "chat", `canary`, false, content},
		{"text beside a chat state", "chat", chat + `canary`, false, content},
		{"white space", "chat", "\n\t ", false, empty},
		{"unknown element", "chat", `<reaction xmlns="urn:xmpp:reactions:0"/>`, false, content},
		{"correction", "chat", body + `<replace xmlns="urn:xmpp:message-correct:0" id="1"/>`, false, content},
		{"jingle", "chat", `<propose xmlns="urn:xmpp:jingle-message:0" id="1"/>`, false, content},
		{"subject in a chat", "chat", `<subject>x</subject>`, false, content},
		{"thread alone", "chat", `<thread>x</thread>`, false, content},
		{"file", "chat", `<x xmlns="jabber:x:oob"><url>x</url></x>`, false, content},
		{"form", "normal", form, false, content},
		{"encrypted", "chat", crypt, false, content},
		{"encrypted, legacy", "chat", old + body + hint, false, content},
		{"forwarded", "chat", `<forwarded xmlns="urn:xmpp:forward:0"/>`, false, content},

		{"error", "error", body, false, failure},
		{"error from the server", "error", body, true, failure},
		{"error in a room", "error", user + body, false, failure},

		{"event", "headline", pubsub, false, event},
		{"event of any type", "", pubsub, false, event},
		{"event with addresses", "headline", pubsub + `<addresses xmlns="http://jabber.org/protocol/address"/>`, false, event},
		{"event with headers", "headline", pubsub + `<headers xmlns="http://jabber.org/protocol/shim"/>`, false, event},
		{"event with delay", "headline", pubsub + `<delay xmlns="urn:xmpp:delay" stamp="2020-01-01T00:00:00Z"/>`, false, event},
		{"event with body", "headline", pubsub + body, false, content},
		{"event with text", "headline", pubsub + `canary`, false, content},
		{"event with encrypted", "headline", pubsub + crypt, false, content},
		{"event with something else", "headline", pubsub + `<a xmlns="b"/>`, false, content},
		{"event in a room", "groupchat", pubsub + body, false, roomContent},

		{"from our server", "chat", body, true, event},
		{"from our server, headline", "headline", body, true, event},

		{"subject of a room", "groupchat", `<subject>x</subject>`, false, roomSignal},
		{"no subject of a room", "groupchat", `<subject/>`, false, roomSignal},
		{"subject with body", "groupchat", `<subject>x</subject>` + body, false, roomContent},
		{"subject with thread", "groupchat", `<subject>x</subject><thread>y</thread>`, false, roomContent},
		{"subject with another child", "groupchat", `<subject>x</subject><secret>y</secret>`, false, roomContent},
		{"subject with text", "groupchat", `<subject>x</subject>canary`, false, roomContent},
		{"news of a room", "groupchat", user, false, roomSignal},
		{"mediated invitation", "", user, false, roomSignal},
		{"direct invitation", "", invite, false, roomSignal},
		{"both invitations", "", user + invite, false, roomSignal},
		{"invitation with body", "", invite + body, false, content},
		{"private message in a room", "chat", user + body, false, content},
		{"request for voice", "", voice, false, roomSignal},
		{"request for voice with body", "", voice + body, false, content},

		{"body in a room", "groupchat", body, false, roomContent},
		{"encrypted in a room", "groupchat", crypt, false, roomContent},
		{"reaction in a room", "groupchat", `<a xmlns="b"/>`, false, roomContent},
		{"thread in a room", "groupchat", `<thread>x</thread>`, false, roomContent},

		{"chat state", "chat", chat, false, signalling},
		{"chat state with thread", "chat", chat + `<thread>x</thread>`, false, signalling},
		{"chat state with hints", "chat", chat + hint + origin, false, signalling},
		{"receipt", "", given, false, signalling},
		{"marker", "chat", marker + hint, false, signalling},
		{"all three", "chat", chat + given + marker, false, signalling},
		{"receipt asked for with a body", "chat", body + `<request xmlns="urn:xmpp:receipts"/>`, false, content},
		{"chat state with body", "chat", chat + body, false, content},
		{"chat state with something else", "chat", chat + `<a xmlns="b"/>`, false, content},
		{"chat state beside encrypted", "chat", chat + crypt, false, content},
		{"chat state in a room", "groupchat", chat, false, signalling},

		{"nothing", "chat", "", false, empty},
		{"hints", "chat", hint + origin + `<encryption xmlns="urn:xmpp:eme:0" namespace="urn:xmpp:omemo:2"/>`, false, empty},
	} {
		t.Run(tc.name, func(t *testing.T) {
			for _, space := range []string{stanza.NSClient, "jabber:server", ""} {
				xml := `<message xmlns="` + stanza.NSClient + `" type="` + tc.typ + `">` + tc.inner + `</message>`
				e, err := stanza.ParseElement([]byte(xml), stanza.DefaultLimits)
				if err != nil {
					t.Fatal(err)
				}
				e.Name.Space = space
				if got := classify(e, tc.server); got != tc.want {
					t.Errorf("in %q: class %d, want %d", space, got, tc.want)
				}
			}
		})
	}
	for _, xml := range []string{`<iq xmlns="jabber:client"/>`, `<presence xmlns="jabber:client"/>`, `<message xmlns="urn:other"/>`} {
		e, err := stanza.ParseElement([]byte(xml), stanza.DefaultLimits)
		if err != nil {
			t.Fatal(err)
		}
		if got := classify(e, false); got != other {
			t.Errorf("%s: class %d", xml, got)
		}
	}
}

// What an application writes at the top of the stream either exists or stays
// here.
func TestOther(t *testing.T) {
	for xml, want := range map[string]bool{
		`<iq xmlns="jabber:client"/>`:       true,
		`<iq xmlns=""/>`:                    true,
		`<presence xmlns="jabber:client"/>`: true,
		`<r xmlns="urn:xmpp:sm:3"/>`:        true,
		`<active xmlns="urn:xmpp:csi:0"/>`:  true,
		`<body xmlns="jabber:client"/>`:     false,
		`<body xmlns=""/>`:                  false,
		`<Message xmlns=""/>`:               false,

		`<message xmlns="jabber:component:accept"/>`: false,
		`<message xmlns="urn:example"/>`:             false,
	} {
		e, err := stanza.ParseElement([]byte(xml), stanza.DefaultLimits)
		if err != nil {
			t.Fatal(err)
		}
		if got := isOther(e); got != want {
			t.Errorf("%s: %v", xml, got)
		}
	}
}

func TestTransient(t *testing.T) {
	const chat = `<composing xmlns="http://jabber.org/protocol/chatstates"/>`
	for inner, want := range map[string]bool{
		chat:                        true,
		chat + `<thread>x</thread>`: true,
		chat + `<body>x</body>`:     false,
		`<body>x</body>`:            false,
		``:                          false,
		`<no-store xmlns="urn:xmpp:hints"/>` + chat:           true,
		`<received xmlns="urn:xmpp:receipts" id="1"/>` + chat: false,
	} {
		e, err := stanza.ParseElement([]byte(`<message xmlns="jabber:client">`+inner+`</message>`), stanza.DefaultLimits)
		if err != nil {
			t.Fatal(err)
		}
		if got := isTransient(e); got != want {
			t.Errorf("%s: %v", inner, got)
		}
	}
}

// Nothing of an outgoing message that could hold content stands outside.
func TestTakeApart(t *testing.T) {
	const in = `<message xmlns="jabber:client" to="a@b" from="c@d" id="1" type="chat" xml:lang="de" canary="canary" xmlns:q="urn:q" q:canary="canary">` +
		`<body>canary</body><thread>canary</thread><canary xmlns="urn:q">canary</canary>` +
		`<encryption xmlns="urn:xmpp:eme:0" namespace="canary"/><store xmlns="urn:xmpp:hints" canary="canary"> </store>` +
		`<delay xmlns="urn:xmpp:delay" stamp="2020-01-01T00:00:00Z">canary</delay></message>`
	e, err := stanza.ParseElement([]byte(in), stanza.DefaultLimits)
	if err != nil {
		t.Fatal(err)
	}
	d, err := takeApart(e, "c@d", "a@b", time.Unix(1e9, 0))
	if err != nil {
		t.Fatal(err)
	}
	shell := string(d.shell.AppendXML(nil))
	if strings.Contains(shell, "canary") {
		t.Errorf("shell: %s", shell)
	}
	for _, kept := range []string{`to="a@b"`, `from="c@d"`, `id="1"`, `type="chat"`, `xml:lang="de"`, "urn:xmpp:hints", `stamp="2020-01-01T00:00:00Z"`} {
		if !strings.Contains(shell, kept) {
			t.Errorf("shell lacks %s: %s", kept, shell)
		}
	}
	if string(d.plaintext.Legacy) != "canary" || strings.Count(string(d.plaintext.V2), ">canary<") != 3 {
		t.Errorf("content: %s", d.plaintext.V2)
	}
	for name, inner := range map[string]string{
		"text without element": `<body>x</body>canary`,
		"two bodies":           `<body>x</body><body xml:lang="en">y</body>`,
		"carbon":               `<body>x</body><sent xmlns="urn:xmpp:carbons:2"/>`,
	} {
		e, err := stanza.ParseElement([]byte(`<message xmlns="jabber:client">`+inner+`</message>`), stanza.DefaultLimits)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := takeApart(e, "c@d", "a@b", time.Unix(1e9, 0)); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// The examples of XEP-0115, sections 5.2 and 5.3.
func TestCapsHash(t *testing.T) {
	const features = `<feature var="http://jabber.org/protocol/disco#items"/><feature var="http://jabber.org/protocol/muc"/>` +
		`<feature var="http://jabber.org/protocol/caps"/><feature var="http://jabber.org/protocol/disco#info"/>`
	for inner, want := range map[string]string{
		`<identity category="client" name="Exodus 0.9.1" type="pc"/>` + features: "QgayPKawpkPSDYmwT/WM94uAlu0=",
		`<identity xml:lang="en" category="client" name="Psi 0.11" type="pc"/>` +
			`<identity xml:lang="el" category="client" name="Ψ 0.11" type="pc"/>` + features +
			`<x xmlns="jabber:x:data" type="result"><field var="FORM_TYPE" type="hidden"><value>urn:xmpp:dataforms:softwareinfo</value></field>` +
			`<field var="ip_version"><value>ipv4</value><value>ipv6</value></field><field var="os"><value>Mac</value></field>` +
			`<field var="os_version"><value>10.5.1</value></field><field var="software"><value>Psi</value></field>` +
			`<field var="software_version"><value>0.11</value></field></x>`: "q07IKJEyjvHSyhy//CH0CxmKi8w=",
	} {
		query, err := stanza.ParseElement([]byte(`<query xmlns="http://jabber.org/protocol/disco#info">`+inner+`</query>`), stanza.DefaultLimits)
		if err != nil {
			t.Fatal(err)
		}
		if got := hash(query); got != want {
			t.Errorf("hash %s, want %s", got, want)
		}
	}
}
