package omemo_test

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"example.org/omellium/omemo"
	"example.org/omellium/omemo/internal/wire"
	"example.org/omellium/stanza"
)

// kitCases makes the cases of one version.
func kitCases(t *testing.T, v omemo.Version) []kitCase {
	var cases []kitCase
	// accepts adds a case of stanzas that are read; what write returns, with the
	// texts that the pen was given.
	accepts := func(name, reason string, write func(p *kitPen) (xml, text string)) {
		p := newPen(t, v, name)
		xml, text := write(p)
		cases = append(cases, kitCase{name, reason, []kitStanza{{xml, kitRead, text}, {xml, kitDuplicate, ""}, p.honest()}})
	}
	// refuses adds a case of a stanza with another verdict, after which an honest
	// message is read.
	judged := func(name, reason, verdict string, write func(p *kitPen) string) {
		p := newPen(t, v, name)
		cases = append(cases, kitCase{name, reason, []kitStanza{{write(p), verdict, ""}, p.honest()}})
	}
	refuses := func(name, reason string, write func(p *kitPen) string) { judged(name, reason, kitRefused, write) }
	exchange := func(name, reason string, change func(x *wire.Exchange)) {
		refuses(name, reason, func(p *kitPen) string {
			m := p.say("forged")
			f := formatOf(v)
			x, err := f.ParseExchange(m.Keys[0].Data)
			if err != nil {
				t.Fatal(err)
			}
			change(&x)
			m.Keys[0].Data = f.AppendExchange(nil, x)
			return written(m)
		})
	}
	header := func(name, reason string, change func(in *wire.Message)) {
		refuses(name, reason, func(p *kitPen) string {
			m := p.say("forged")
			f := formatOf(v)
			x, err := f.ParseExchange(m.Keys[0].Data)
			if err != nil {
				t.Fatal(err)
			}
			in, err := f.ParseMessage(x.Message)
			if err != nil {
				t.Fatal(err)
			}
			change(&in)
			x.Message = f.AppendMessage(nil, f.AppendSigned(nil, in.Header, in.Ciphertext), in.MAC)
			m.Keys[0].Data = f.AppendExchange(nil, x)
			return written(m)
		})
	}
	xml := func(name, reason, old, new string) {
		refuses(name, reason, func(p *kitPen) string { return replaceIn(t, written(p.say("forged")), old, new) })
	}

	accepts("key exchange", "the first message of a session", func(p *kitPen) (string, string) { return written(p.say("first")), "first" })
	accepts("key exchange repeated", "an unconfirmed session repeats its key exchange", func(p *kitPen) (string, string) {
		p.say("lost")
		return written(p.say("second")), "second"
	})
	accepts("white space in base64", "XML white space is no part of base64", func(p *kitPen) (string, string) {
		s := written(p.say("spaced"))
		return replaceIn(t, replaceIn(t, s, "</key>", "\n\t </key>"), "<payload>", "<payload>\n "), "spaced"
	})
	attribute := map[omemo.Version]string{omemo.Legacy: "prekey", omemo.V2: "kex"}[v]
	accepts("boolean 1", "the attribute is an xs:boolean", func(p *kitPen) (string, string) {
		return replaceIn(t, written(p.say("one")), attribute+`="true"`, attribute+`="1"`), "one"
	})
	accepts("unknown element", "what is unknown is ignored", func(p *kitPen) (string, string) {
		return replaceIn(t, written(p.say("unknown")), "</header>", "<x xmlns='urn:example'/></header><y xmlns='urn:example'/>"), "unknown"
	})
	accepts("body beside", "what stands beside the element was not sent by its sender", func(p *kitPen) (string, string) {
		return replaceIn(t, written(p.say("inside")), "</message>", "<body>outside</body></message>"), "inside"
	})
	accepts("children in another order", "the order of children means nothing", func(p *kitPen) (string, string) {
		e := kitElement(p.say("order"))
		e.Children[0], e.Children[1] = e.Children[1], e.Children[0]
		return kitXML(e), "order"
	})
	otherKey := "<key rid='1'>!!!</key>"
	if v == omemo.V2 {
		otherKey = "<keys jid='somebody@example.org'><key rid='1'>!!!</key></keys>"
	}
	accepts("malformed key of another device", "it is none of our business", func(p *kitPen) (string, string) {
		return replaceIn(t, written(p.say("ours")), "</header>", otherKey+"</header>"), "ours"
	})

	judged("not for us", "no key has our id", kitNotForUs, func(p *kitPen) string {
		return replaceIn(t, written(p.say("forged")), `rid="2002"`, `rid="2003"`)
	})
	judged("empty", "a message without payload only moves the ratchet", kitEmpty, func(p *kitPen) string {
		sealed, err := p.m.Replace(t.Context(), p.b, stanzas("kit", kitReceiver))
		if err != nil {
			t.Fatal(err)
		}
		return written(sealed.Messages[0])
	})

	header("first byte of the MAC", "the MAC does not hold", func(in *wire.Message) {
		in.MAC = bytes.Clone(in.MAC)
		in.MAC[0] ^= 1
	})
	header("last byte of the MAC", "the MAC does not hold", func(in *wire.Message) {
		in.MAC = bytes.Clone(in.MAC)
		in.MAC[len(in.MAC)-1] ^= 1
	})
	header("ciphertext", "the MAC does not hold", func(in *wire.Message) { in.Ciphertext = append(bytes.Clone(in.Ciphertext[:15]), in.Ciphertext[15]^1) })
	header("number", "the MAC covers the header", func(in *wire.Message) { in.Header.N++ })
	header("number of the previous chain", "the MAC covers the header", func(in *wire.Message) { in.Header.PN++ })
	header("number 1001", "more than 1000 messages cannot be missing", func(in *wire.Message) { in.Header.N = 1001 })
	header("number 2^32-1", "work is bounded before it is done", func(in *wire.Message) { in.Header.N = 1<<32 - 1 })
	header("ratchet key of small order", "the agreement is all zero", func(in *wire.Message) { in.Header.Key = [32]byte{1} })
	exchange("unknown signed pre key", "we do not have it", func(x *wire.Exchange) { x.SignedPreKeyID = 99 })
	exchange("unknown pre key", "we do not have it", func(x *wire.Exchange) { x.PreKeyID = 99 })
	exchange("another pre key", "the secrets differ", func(x *wire.Exchange) { x.PreKeyID = 2 })
	exchange("ephemeral key of small order", "the agreement is all zero", func(x *wire.Exchange) { x.Ephemeral = [32]byte{} })
	exchange("identity key of small order", "no identity key has small order", func(x *wire.Exchange) { x.Identity = [32]byte{1} })
	exchange("identity key that is not canonical", "every key has one encoding", func(x *wire.Exchange) {
		x.Identity = [32]byte(append([]byte{0xf0}, bytes.Repeat([]byte{0xff}, 31)...))
		x.Identity[31] = 0x7f
	})
	exchange("another identity key", "the secrets differ", func(x *wire.Exchange) {
		other, _ := kitAccount(t, v, "other@example.net", 3003)
		b, err := other.Bundle(t.Context(), v)
		if err != nil {
			t.Fatal(err)
		}
		x.Identity = b.IdentityKey
	})
	data := func(name, reason string, change func(b []byte) []byte) {
		refuses(name, reason, func(p *kitPen) string {
			m := p.say("forged")
			m.Keys[0].Data = change(bytes.Clone(m.Keys[0].Data))
			return written(m)
		})
	}
	data("truncated key", "not a whole message", func(b []byte) []byte { return b[:len(b)-1] })
	data("trailing byte", "nothing may follow", func(b []byte) []byte { return append(b, 0) })
	data("field twice", "a known field stands once", func(b []byte) []byte { return append(b, 0x08, 0x01) })
	data("group", "groups are not used", func(b []byte) []byte { return append(b, 0x7b, 0x7c) })
	data("oversized key", "4 KiB at most", func(b []byte) []byte { return append(b, append([]byte{0x7a, 0x80, 0x20}, make([]byte, 4096)...)...) })
	refuses("payload", "the body is authenticated", func(p *kitPen) string {
		m := p.say("forged")
		m.Payload[0] ^= 1
		return written(m)
	})
	refuses("payload cut off", "the body is authenticated", func(p *kitPen) string {
		m := p.say("a text of more than sixteen bytes, so that blocks are left")
		m.Payload = m.Payload[:16]
		return written(m)
	})
	xml("sender 0", "ids are 1 to 2^31-1", `sid="1001"`, `sid="0"`)
	xml("sender with a sign", "ids are canonical", `sid="1001"`, `sid="+1001"`)
	xml("sender with zeros", "ids are canonical", `sid="1001"`, `sid="01001"`)
	xml("no sender", "somebody has sent it", ` sid="1001"`, ``)
	xml("two headers", "ambiguous", "</header>", "</header><header sid='1001'/>")
	xml("two payloads", "ambiguous", "</payload>", "</payload><payload>AAAA</payload>")
	xml("two elements", "one of each version at most", "</encrypted>", "</encrypted><encrypted xmlns='"+v.Namespace()+"'/>")
	xml("a boolean that is none", "neither true nor false", attribute+`="true"`, attribute+`="maybe"`)
	xml("base64 without padding", "strict base64", "</payload>", "A</payload>")
	if v == omemo.V2 {
		kitV2(t, refuses, accepts)
	} else {
		kitLegacy(refuses, accepts, data)
	}
	return cases
}

// honest returns a message that is read after whatever was tried.
func (p *kitPen) honest() kitStanza { return kitStanza{written(p.say("honest")), kitRead, "honest"} }

func replaceIn(t *testing.T, s, old, new string) string {
	t.Helper()
	if !strings.Contains(s, old) {
		t.Fatalf("no %q in %s", old, s)
	}
	return strings.Replace(s, old, new, 1)
}

// kitLegacy adds what legacy alone has.
func kitLegacy(
	refuses func(string, string, func(*kitPen) string), accepts func(string, string, func(*kitPen) (string, string)),
	data func(string, string, func([]byte) []byte),
) {
	for _, version := range []byte{0x00, 0x23, 0x43, 0xf3} {
		data("version byte "+string("0123456789abcdef"[version>>4]), "exactly version 3", func(b []byte) []byte { b[0] = version; return b })
	}
	accepts("markup is text", "a legacy body is no XML", func(p *kitPen) (string, string) {
		return written(p.say("<body>&amp;</body>")), "<body>&amp;</body>"
	})
	refuses("NUL", "no character of XML", func(p *kitPen) string { return written(p.say("a\x00b")) })
	refuses("not UTF-8", "text is UTF-8", func(p *kitPen) string { return written(p.say("a\xffb")) })
	for _, iv := range []int{0, 11, 13, 15, 17} {
		refuses(fmt.Sprintf("IV of %d bytes", iv), "12 or 16 bytes", func(p *kitPen) string {
			m := p.say("forged")
			m.IV = make([]byte, iv)
			return written(m)
		})
	}
	refuses("without IV", "the payload cannot be read", func(p *kitPen) string {
		e := kitElement(p.say("forged"))
		e.Remove(func(c *stanza.Element) bool { return c.Name.Local == "iv" })
		return kitXML(e)
	})
}

// kitV2 adds what omemo:2 alone has.
func kitV2(
	t *testing.T, refuses func(string, string, func(*kitPen) string), accepts func(string, string, func(*kitPen) (string, string)),
) {
	const body = "<body xmlns='jabber:client'>text</body>"
	sealed := func(plaintext string) func(*kitPen) string {
		return func(p *kitPen) string { return written(p.seal(plaintext)) }
	}
	reads := func(plaintext string) func(*kitPen) (string, string) {
		return func(p *kitPen) (string, string) { return written(p.seal(plaintext)), "text" }
	}
	refuses("two keys for us", "ambiguous", func(p *kitPen) string {
		return replaceIn(t, written(p.say("forged")), "</keys>", "<key rid='2002'>AAAA</key></keys>")
	})
	accepts("without affixes", "they prove nothing when they are absent", reads(kitEnvelope(body, "")))
	accepts("without padding", "accepted, and marked", reads("<envelope xmlns='urn:xmpp:sce:1'><content>"+body+"</content></envelope>"))
	accepts("resource in the sender", "accounts are compared", reads(kitEnvelope(body, "<from jid='Romeo@example.net/phone'/>")))
	accepts("unknown affix", "what is unknown is ignored", reads(kitEnvelope(body, "<x xmlns='urn:xmpp:sce:1'/>")))
	accepts("forbidden content", "left out, the rest is read", reads(kitEnvelope("<store xmlns='urn:xmpp:hints'/>"+body+"<encrypted xmlns='urn:xmpp:omemo:2'/>", "")))
	refuses("another sender", "the envelope says who sent it", sealed(kitEnvelope(body, "<from jid='mallory@evil.example'/>")))
	refuses("another recipient", "the envelope says to whom", sealed(kitEnvelope(body, "<to jid='mallory@evil.example'/>")))
	refuses("sender twice", "ambiguous", sealed(kitEnvelope(body, "<from jid='romeo@example.net'/><from jid='romeo@example.net'/>")))
	refuses("sender that is no address", "malformed", sealed(kitEnvelope(body, "<from jid='@'/>")))
	refuses("two bodies", "ambiguous", sealed(kitEnvelope(body+body, "")))
	refuses("two contents", "ambiguous", sealed("<envelope xmlns='urn:xmpp:sce:1'><content>"+body+"</content><content/></envelope>"))
	refuses("no content", "an envelope has one", sealed("<envelope xmlns='urn:xmpp:sce:1'><rpad/></envelope>"))
	refuses("no envelope", "the plain text is an envelope", sealed(body))
	refuses("document type", "not in XMPP", sealed("<!DOCTYPE x>"+kitEnvelope(body, "")))
	refuses("comment", "not in XMPP", sealed(kitEnvelope("<!-- -->"+body, "")))
	refuses("processing instruction", "not in XMPP", sealed("<?x?>"+kitEnvelope(body, "")))
	refuses("trailing text", "one element", sealed(kitEnvelope(body, "")+"x"))
	refuses("NUL", "no character of XML", sealed(kitEnvelope("<body xmlns='jabber:client'>a\x00b</body>", "")))
	refuses("not UTF-8", "text is UTF-8", sealed(kitEnvelope("<body xmlns='jabber:client'>a\xffb</body>", "")))
	refuses("undeclared prefix", "not well-formed", sealed(kitEnvelope("<a:b/>", "")))
	refuses("too deep", "32 elements within each other", sealed(kitEnvelope(strings.Repeat("<x xmlns='y'>", 40)+strings.Repeat("</x>", 40), "")))
	refuses("malformed time", "XEP-0082", sealed(kitEnvelope(body, "<time stamp='yesterday'/>")))
}
