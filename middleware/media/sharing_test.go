package media

import (
	"encoding/xml"
	"errors"
	"strings"
	"testing"
	"time"

	"example.org/omellium/stanza"
	"mellium.im/xmlstream"
)

// sharing is the example of XEP-0448, section 3.1, with hashes of their kinds.
const sharing = `<file-sharing xmlns='urn:xmpp:sfs:0' disposition='inline'>
  <file xmlns='urn:xmpp:file:metadata:0'>
    <media-type>image/jpeg</media-type>
    <name>summit.jpg</name>
    <size>3032449</size>
    <dimension>4096x2160</dimension>
    <hash xmlns='urn:xmpp:hashes:2' algo='sha3-256'>2XarmwTlNxDAMkvymloX3S5+VbylNrJt/l5QyPa+YoU=</hash>
    <hash xmlns='urn:xmpp:hashes:2' algo='id-blake2b256'>2AfMGH8O7UNPTvUVAM9aK13mpCY=</hash>
    <desc>Photo from the summit.</desc>
    <thumbnail xmlns='urn:xmpp:thumbs:1' uri='cid:sha1+ffd7c8d28e9c5e82afea41f97108c6b4@bob.xmpp.org' media-type='image/png' width='128' height='96'/>
  </file>
  <sources>
    <encrypted xmlns='urn:xmpp:esfs:0' cipher='urn:xmpp:ciphers:aes-256-gcm-nopadding:0'>
      <key>SuRJ2agVm/pQbJQlPq/B23Xt1YOOJCcEGJA5HrcYOGQ=</key>
      <iv>T8RDMBaiqn6Ci4Nw</iv>
      <hash xmlns='urn:xmpp:hashes:2' algo='sha3-256'>BgKI2gp2kNCRsARNvhFmw5kFf9BBo2pTbV2D8XHTMWI=</hash>
      <sources xmlns='urn:xmpp:sfs:0'>
        <url-data xmlns='http://jabber.org/protocol/url-data' target='https://download.montague.lit/4a771ac1-f0b2-4a4a-9700-f2a26fa2bb67/encrypted.jpg' />
      </sources>
    </encrypted>
    <jinglepub xmlns='urn:xmpp:jinglepub:1' from='romeo@montague.lit/resource' id='9559976B-3FBF-4E7E-B457-2DAA225972BB'>
      <description xmlns='urn:xmpp:jingle:apps:file-transfer:5' />
    </jinglepub>
  </sources>
</file-sharing>`

func parse(t testing.TB, s string) (*File, error) {
	t.Helper()
	e, err := stanza.ParseElement([]byte(s), stanza.DefaultLimits)
	if err != nil {
		t.Fatalf("%s: %v", s, err)
	}
	return Parse(e)
}

func TestParse(t *testing.T) {
	f, err := parse(t, sharing)
	if err != nil {
		t.Fatal(err)
	}
	if f.Name != "summit.jpg" || f.MediaType != "image/jpeg" || f.Size != 3032449 || f.Description != "Photo from the summit." ||
		f.Disposition != Inline || f.Key.Cipher() != AES256GCM || len(f.Hashes) != 1 || f.Hashes[0].Algorithm != "sha3-256" ||
		f.URL != "https://download.montague.lit/4a771ac1-f0b2-4a4a-9700-f2a26fa2bb67/encrypted.jpg" {
		t.Errorf("%+v", f)
	}
	link, err := f.Link()
	const fragment = "#4fc4433016a2aa7e828b83704ae449d9a8159bfa506c94253eafc1db75edd5838e2427041890391eb7183864"
	if err != nil || !strings.HasSuffix(link, fragment) {
		t.Errorf("%s, %v", link, err)
	}
}

// TestSharingRoundTrip: what is written is read as the same.
func TestSharingRoundTrip(t *testing.T) {
	sum := random(32)
	for name, f := range map[string]*File{
		"all": {
			Metadata: Metadata{
				Name: "très <cool> & \"more\".jpg", MediaType: "image/jpeg", Description: "two\nlines", Size: 0,
				Date: time.Date(2026, 11, 23, 1, 2, 3, 0, time.UTC), Width: 4096, Height: 2160, Length: 63 * time.Second,
			},
			URL: "https://example.net:5443/x?a=b&c=d", Key: newKey(), Hashes: []Hash{{"sha-256", sum}, {"sha3-512", random(64)}}, Disposition: Attachment,
		},
		"least": {Metadata: Metadata{Size: -1}, URL: "https://example.net/x", Key: newKey()},
	} {
		got, err := parse(t, string(f.Element().AppendXML(nil)))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if got.Metadata != f.Metadata || got.URL != f.URL || got.Key != f.Key || got.Disposition != f.Disposition || len(got.Hashes) != len(f.Hashes) {
			t.Errorf("%s: %+v", name, got)
		}
	}
	for _, c := range []struct {
		cipher  Cipher
		key, iv int
	}{{AES128GCM, 16, 12}, {AES256CBC, 32, 16}, {AES256GCM, 32, 16}} {
		key, err := keyOf(c.cipher, random(c.key), random(c.iv))
		if err != nil {
			t.Fatal(err)
		}
		f := &File{URL: "https://example.net/x", Key: key, Hashes: []Hash{{"sha-256", sum}}}
		if got, err := parse(t, string(f.Element().AppendXML(nil))); err != nil || got.Key != key {
			t.Errorf("%s: %v", c.cipher, err)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	replace := func(old, with string) string {
		if !strings.Contains(sharing, old) {
			t.Fatalf("no %s", old)
		}
		return strings.ReplaceAll(sharing, old, with)
	}
	const key = "<key>SuRJ2agVm/pQbJQlPq/B23Xt1YOOJCcEGJA5HrcYOGQ=</key>"
	const file = "https://download.montague.lit/4a771ac1-f0b2-4a4a-9700-f2a26fa2bb67/encrypted.jpg"
	for name, c := range map[string]struct {
		xml  string
		want error
	}{
		"another element":     {"<file xmlns='urn:xmpp:sfs:0'/>", ErrSharing},
		"empty":               {"<file-sharing xmlns='urn:xmpp:sfs:0'/>", ErrSharing},
		"no sources":          {"<file-sharing xmlns='urn:xmpp:sfs:0'><file xmlns='urn:xmpp:file:metadata:0'/></file-sharing>", ErrNotEncrypted},
		"not encrypted":       {replace("urn:xmpp:esfs:0", "urn:xmpp:esfs:1"), ErrNotEncrypted},
		"unknown cipher":      {replace("aes-256-gcm", "aes-512-gcm"), ErrNotEncrypted},
		"CBC without hash":    {strings.ReplaceAll(replace("aes-256-gcm-nopadding", "aes-256-cbc-pkcs7"), "sha3-256", "sha-1"), ErrNotEncrypted},
		"CBC, IV of 12":       {replace("aes-256-gcm-nopadding", "aes-256-cbc-pkcs7"), ErrSharing},
		"AES-128, key of 32":  {replace("aes-256-gcm", "aes-128-gcm"), ErrSharing},
		"no key":              {replace(key, ""), ErrSharing},
		"two keys":            {replace(key, key+key), ErrSharing},
		"short key":           {replace("SuRJ2agV", ""), ErrSharing},
		"long key":            {replace("SuRJ2agV", "SuRJ2agVSuRJ2agV"), ErrSharing},
		"key not base64":      {replace("SuRJ", "Su*J"), ErrSharing},
		"no IV":               {replace("<iv>T8RDMBaiqn6Ci4Nw</iv>", ""), ErrSharing},
		"IV of 9":             {replace("T8RDMBaiqn6Ci4Nw", "T8RDMBaiqn6C"), ErrSharing},
		"IV not base64":       {replace("T8RD", "T8=D"), ErrSharing},
		"http":                {replace("https:", "http:"), ErrNotEncrypted},
		"with a password":     {replace("https://", "https://user:password@"), ErrNotEncrypted},
		"with a fragment":     {replace(file, file+"#x"), ErrNotEncrypted},
		"a file":              {replace(file, "file:///etc/passwd"), ErrNotEncrypted},
		"no target":           {replace("target", "tarket"), ErrNotEncrypted},
		"negative size":       {replace("3032449", "-1"), ErrSharing},
		"huge size":           {replace("3032449", "99999999999999"), ErrSharing},
		"size no number":      {replace("3032449", "1e6"), ErrSharing},
		"two sizes":           {replace("<size>3032449</size>", "<size>1</size><size>2</size>"), ErrSharing},
		"hash too short":      {replace("2XarmwTl", ""), ErrSharing},
		"two hashes":          {replace("id-blake2b256", "sha3-256"), ErrSharing},
		"long name":           {replace("summit.jpg", strings.Repeat("x", maxName+1)), ErrSharing},
		"long description":    {replace("Photo from the summit.", strings.Repeat("x", maxDescription+1)), ErrSharing},
		"two files":           {replace("<sources>", "<file xmlns='urn:xmpp:file:metadata:0'/><sources>"), ErrSharing},
		"two lists":           {replace("<sources>", "<sources/><sources>"), ErrSharing},
		"two inner lists":     {replace("<sources xmlns='urn:xmpp:sfs:0'>", "<sources xmlns='urn:xmpp:sfs:0'/><sources xmlns='urn:xmpp:sfs:0'>"), ErrSharing},
		"seventeenth source":  {replace("<sources>", "<sources>"+strings.Repeat("<encrypted xmlns='urn:xmpp:esfs:0' cipher='x'/>", 16)), ErrNotEncrypted},
		"seventeenth address": {replace("<url-data ", strings.Repeat("<url-data xmlns='http://jabber.org/protocol/url-data' target='http://x'/>", 16)+"<url-data "), ErrNotEncrypted},
		"date":                {replace("<size>", "<date>yesterday</date><size>"), ErrSharing},
	} {
		if f, err := parse(t, c.xml); !errors.Is(err, c.want) || f != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, xml := range map[string]string{
		"a source that we do not know": replace("<sources>", "<sources><encrypted xmlns='urn:xmpp:esfs:0' cipher='x'/>"),
		"no source of ours":            replace("<sources>", "<sources><url-data xmlns='http://jabber.org/protocol/url-data' target='https://x'/>"),
		"an address that is refused":   replace("<url-data ", "<url-data xmlns='http://jabber.org/protocol/url-data' target='http://x'/><url-data "),
		"white space in base64":        replace("SuRJ", " S\n\tu RJ"),
		"descriptions":                 replace("<desc>", "<desc xml:lang='de'>x</desc><desc>"),
		"media type that is none":      replace("image/jpeg", "image"),
		"another disposition":          replace("inline", "outline"),
		"fifteen others":               replace("<sources>", "<sources>"+strings.Repeat("<encrypted xmlns='urn:xmpp:esfs:0' cipher='x'/>", 15)),
	} {
		if _, err := parse(t, xml); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

type decoded struct {
	XMLName xml.Name
	Body    string   `xml:"body"`
	Sharing Received `xml:"urn:xmpp:sfs:0 file-sharing"`
	After   string   `xml:"after"`
}

// TestReceived: what a stranger sends does not keep a message from being decoded.
func TestReceived(t *testing.T) {
	for name, c := range map[string]struct {
		xml  string
		file bool
		err  error
	}{
		"none":      {"", false, nil},
		"a file":    {sharing, true, nil},
		"malformed": {strings.ReplaceAll(sharing, "<size>", "<size>x"), false, ErrSharing},
		"plain":     {strings.ReplaceAll(sharing, "urn:xmpp:esfs:0", "x:y"), false, ErrNotEncrypted},
		"deep":      {"<file-sharing xmlns='urn:xmpp:sfs:0'>" + strings.Repeat("<a>", 100) + strings.Repeat("</a>", 100) + "</file-sharing>", false, ErrSharing},
	} {
		var m decoded
		err := xml.Unmarshal([]byte("<message xmlns='jabber:client'><body>text</body>"+c.xml+"<after>x</after></message>"), &m)
		if err != nil || m.Body != "text" || m.After != "x" {
			t.Errorf("%s: %+v, %v", name, m, err)
		}
		if (m.Sharing.File != nil) != c.file || !errors.Is(m.Sharing.Err, c.err) {
			t.Errorf("%s: %+v", name, m.Sharing)
		}
	}
}

// message is a message with a file as its payload.
func message(t *testing.T, f *File) *stanza.Element {
	t.Helper()
	start := xml.StartElement{Name: xml.Name{Space: stanza.NSClient, Local: "message"}}
	e, err := stanza.ReadElement(xmlstream.MultiReader(f.TokenReader(), xmlstream.Token(start.End())), start, stanza.DefaultLimits)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// TestPayload: a message holds the file in both forms, the same key in each.
func TestPayload(t *testing.T) {
	f := &File{Metadata: Metadata{Name: "x", Size: 3}, URL: "https://example.net/x", Key: newKey(), Hashes: []Hash{{"sha-256", random(32)}}}
	e := message(t, f)
	byBody, err := ParseBody(e.Child(stanza.NSClient, "body").Text())
	if err != nil {
		t.Fatal(err)
	}
	byElement, err := Parse(e.Child(NSSharing, "file-sharing"))
	if err != nil {
		t.Fatal(err)
	}
	if byBody.Key != f.Key || byElement.Key != f.Key || byBody.URL != f.URL || byElement.URL != f.URL {
		t.Errorf("%s", e.AppendXML(nil))
	}
	if fallback := e.Child(nsFallback, "fallback"); fallback == nil || fallback.Child(nsFallback, "body") == nil {
		t.Error("no word of the fallback")
	}
	if f.Key, err = keyOf(AES128GCM, random(16), random(12)); err != nil {
		t.Fatal(err)
	}
	if e = message(t, f); len(e.Children) != 1 {
		t.Errorf("%s", e.AppendXML(nil))
	}
}

// FuzzSharing: what is read as a file is written as the same one, and is fetched by
// HTTPS with a key of its cipher.
func FuzzSharing(f *testing.F) {
	f.Add(sharing)
	for _, s := range []string{
		"aes-128-gcm-nopadding", "aes-256-cbc-pkcs7", "aes-512",
	} {
		f.Add(strings.ReplaceAll(sharing, "aes-256-gcm-nopadding", s))
	}
	f.Add(strings.ReplaceAll(sharing, "https:", "http:"))
	f.Add(strings.ReplaceAll(sharing, "<size>3032449</size>", "<date>2026-11-23T01:02:03.4+01:00</date><width>1</width><height>0</height><length>1</length>"))
	f.Fuzz(func(t *testing.T, s string) {
		e, err := stanza.ParseElement([]byte(s), stanza.DefaultLimits)
		if err != nil {
			return
		}
		file, err := Parse(e)
		if err != nil {
			if file != nil || !errors.Is(err, ErrSharing) && !errors.Is(err, ErrNotEncrypted) {
				t.Fatal(err)
			}
			return
		}
		if _, err := address(file.URL); err != nil {
			t.Fatalf("fetched from %q: %v", file.URL, err)
		}
		if file.Key.cipher.keySize() == 0 || !file.Key.cipher.ivFits(file.Key.ivSize) || file.Key.cipher == AES256CBC && len(file.Hashes) == 0 {
			t.Fatalf("key for %q", file.Key.cipher)
		}
		again, err := Parse(file.Element())
		if err != nil {
			t.Fatalf("not read again: %v", err)
		}
		again.Date, file.Date = again.Date.Truncate(time.Second), file.Date.Truncate(time.Second)
		if !again.Date.Equal(file.Date) {
			t.Fatalf("%v became %v", file.Date, again.Date)
		}
		again.Date = file.Date
		if again.Metadata != file.Metadata || again.URL != file.URL || again.Key != file.Key || len(again.Hashes) != len(file.Hashes) {
			t.Fatalf("%+v became %+v", file, again)
		}
	})
}
