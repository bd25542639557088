package bundle

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"example.org/omellium/omemo"
	"example.org/omellium/stanza"
)

var owner = omemo.Address{JID: "a@x.org", Device: 5}

func element(t testing.TB, s string) *stanza.Element {
	t.Helper()
	e, err := stanza.ParseElement([]byte(s), stanza.DefaultLimits)
	if err != nil {
		t.Fatalf("%v\n%s", err, s)
	}
	return e
}

// encoded returns n equal bytes in base64, after a prefix.
func encoded(b byte, n int, prefix ...byte) string {
	return base64.StdEncoding.EncodeToString(append(prefix, bytes.Repeat([]byte{b}, n)...))
}

// part is a child of a bundle.
func part(name, attributes, content string) string {
	if attributes != "" {
		attributes = " " + attributes
	}
	return "<" + name + attributes + ">" + content + "</" + name + ">"
}

// sample is a bundle with the parts that a case replaces; nil stands for the
// good one, an empty string leaves it out.
type sample struct{ signedPreKey, signature, identity, preKeys *string }

func (s sample) xml(v omemo.Version) string {
	n := namesOf(v)
	p := prefixOf(v)
	or := func(replaced *string, good string) string {
		if replaced == nil {
			return good
		}
		return strings.NewReplacer(
			"{SPK}", n.signedPreKey, "{SPID}", n.signedPreKeyID, "{SIG}", n.signature, "{IK}", n.identity, "{PKID}", n.preKeyID, "{PK}", n.preKey,
			"{KEY1}", encoded(1, 32, p...), "{KEY2}", encoded(2, 32, p...), "{KEY3}", encoded(3, 32, p...),
			"{SPACED}", " \n"+strings.Join(strings.SplitAfter(encoded(1, 32, p...), "A"), "\t ")+"\r\n",
		).Replace(*replaced)
	}
	return part("bundle", "xmlns='"+v.Namespace()+"'",
		or(s.signedPreKey, part(n.signedPreKey, n.signedPreKeyID+"='9'", encoded(1, 32, p...)))+
			or(s.signature, part(n.signature, "", encoded(4, 64)))+
			or(s.identity, part(n.identity, "", encoded(2, 32, p...)))+
			or(s.preKeys, part("prekeys", "", part(n.preKey, n.preKeyID+"='7'", encoded(3, 32, p...)))))
}

func prefixOf(v omemo.Version) []byte {
	if v == omemo.Legacy {
		return []byte{5}
	}
	return nil
}

// good is what a sample is read as.
func good(v omemo.Version) omemo.Bundle {
	fill := func(b byte) (key [32]byte) {
		copy(key[:], bytes.Repeat([]byte{b}, 32))
		return key
	}
	b := omemo.Bundle{
		Version: v, Owner: owner,
		IdentityKey: fill(2), SignedPreKeyID: 9, SignedPreKey: fill(1),
		PreKeys: []omemo.PublicPreKey{{ID: 7, Key: fill(3)}},
	}
	copy(b.Signature[:], bytes.Repeat([]byte{4}, 64))
	return b
}

func manyKeys(v omemo.Version, n int) string {
	names := namesOf(v)
	var b strings.Builder
	for i := range n {
		key := append(prefixOf(v), bytes.Repeat([]byte{byte(i), byte(i >> 8)}, 16)...)
		b.WriteString(part(names.preKey, fmt.Sprintf("%s='%d'", names.preKeyID, i), base64.StdEncoding.EncodeToString(key)))
	}
	return part("prekeys", "", b.String())
}

// Attacks B8 and B9, as far as they show in the form.
func TestParse(t *testing.T) {
	s := func(text string) *string { return &text }
	for _, c := range []struct {
		name   string
		in     sample
		refuse bool
	}{
		{"good", sample{}, false},
		{"white space", sample{signedPreKey: s("<{SPK} {SPID}='9'>{SPACED}</{SPK}>\n")}, false},
		{"unknown things", sample{signature: s("<x/><{SIG} y='z'>" + encoded(4, 64) + "</{SIG}><x/><{IK} xmlns='urn:x'/>")}, false},
		{"unknown things among the pre keys", sample{preKeys: s("<prekeys><x/><{PK} {PKID}='7' x='y'>{KEY3}</{PK}></prekeys>")}, false},
		{"no signed pre key", sample{signedPreKey: s("")}, true},
		{"no signature", sample{signature: s("")}, true},
		{"no identity key", sample{identity: s("")}, true},
		{"no pre keys", sample{preKeys: s("")}, true},
		{"0 pre keys", sample{preKeys: s("<prekeys/>")}, true},
		{"two signed pre keys", sample{signedPreKey: s("<{SPK} {SPID}='9'>{KEY1}</{SPK}><{SPK} {SPID}='9'>{KEY1}</{SPK}>")}, true},
		{"two signatures", sample{signature: s("<{SIG}>" + encoded(4, 64) + "</{SIG}><{SIG}/>")}, true},
		{"two identity keys", sample{identity: s("<{IK}>{KEY2}</{IK}><{IK}>{KEY2}</{IK}>")}, true},
		{"two sets of pre keys", sample{preKeys: s("<prekeys><{PK} {PKID}='7'>{KEY3}</{PK}></prekeys><prekeys/>")}, true},
		{"signed pre key without id", sample{signedPreKey: s("<{SPK}>{KEY1}</{SPK}>")}, true},
		{"signed pre key with sign", sample{signedPreKey: s("<{SPK} {SPID}='+9'>{KEY1}</{SPK}>")}, true},
		{"signed pre key with zeros", sample{signedPreKey: s("<{SPK} {SPID}='09'>{KEY1}</{SPK}>")}, true},
		{"signed pre key of 33 bits", sample{signedPreKey: s("<{SPK} {SPID}='4294967305'>{KEY1}</{SPK}>")}, true},
		{"signed pre key empty", sample{signedPreKey: s("<{SPK} {SPID}='9'/>")}, true},
		{"signed pre key of 31 bytes", sample{signedPreKey: s("<{SPK} {SPID}='9'>" + encoded(1, 31) + "</{SPK}>")}, true},
		{"signed pre key of 34 bytes", sample{signedPreKey: s("<{SPK} {SPID}='9'>" + encoded(1, 33, 5) + "</{SPK}>")}, true},
		{"signed pre key with prefix 4", sample{signedPreKey: s("<{SPK} {SPID}='9'>" + encoded(1, 32, 4) + "</{SPK}>")}, true},
		{"signed pre key no base64", sample{signedPreKey: s("<{SPK} {SPID}='9'>***</{SPK}>")}, true},
		{"signature of 63 bytes", sample{signature: s("<{SIG}>" + encoded(4, 63) + "</{SIG}>")}, true},
		{"signature of 65 bytes", sample{signature: s("<{SIG}>" + encoded(4, 65) + "</{SIG}>")}, true},
		{"signature no base64", sample{signature: s("<{SIG}>***</{SIG}>")}, true},
		{"identity key of 0 bytes", sample{identity: s("<{IK}/>")}, true},
		{"identity key with prefix 6", sample{identity: s("<{IK}>" + encoded(2, 32, 6) + "</{IK}>")}, true},
		{"pre key without id", sample{preKeys: s("<prekeys><{PK}>{KEY3}</{PK}></prekeys>")}, true},
		{"pre key broken", sample{preKeys: s("<prekeys><{PK} {PKID}='7'>{KEY3}</{PK}><{PK} {PKID}='8'>x</{PK}></prekeys>")}, true},
		{"pre key id twice", sample{preKeys: s("<prekeys><{PK} {PKID}='7'>{KEY3}</{PK}><{PK} {PKID}='7'>{KEY2}</{PK}></prekeys>")}, true},
		{"pre key twice", sample{preKeys: s("<prekeys><{PK} {PKID}='7'>{KEY3}</{PK}><{PK} {PKID}='8'>{KEY3}</{PK}></prekeys>")}, true},
	} {
		for _, v := range omemo.Versions() {
			t.Run(v.String()+"/"+c.name, func(t *testing.T) {
				b, err := Parse(element(t, c.in.xml(v)), owner)
				if c.refuse {
					if !errors.Is(err, ErrMalformed) || !reflect.DeepEqual(b, omemo.Bundle{}) {
						t.Errorf("got %+v, %v", b, err)
					}
					return
				}
				if err != nil || !reflect.DeepEqual(b, good(v)) {
					t.Errorf("got %+v, %v", b, err)
				}
			})
		}
	}
	for _, v := range omemo.Versions() {
		for n, accepted := range map[int]bool{1: true, 24: true, 1000: true, 1001: false} {
			b, err := Parse(element(t, sample{preKeys: s(manyKeys(v, n))}.xml(v)), owner)
			if accepted != (err == nil) || accepted && len(b.PreKeys) != n {
				t.Errorf("%s, %d pre keys: %d, %v", v, n, len(b.PreKeys), err)
			}
		}
		for _, id := range []string{"0", "4294967295"} {
			in := sample{preKeys: s("<prekeys><{PK} {PKID}='" + id + "'>{KEY3}</{PK}></prekeys>")}
			if b, err := Parse(element(t, in.xml(v)), owner); err != nil || decimal(b.PreKeys[0].ID) != id {
				t.Errorf("%s, pre key %s: %v", v, id, err)
			}
		}
	}
	for _, in := range []string{`<bundle/>`, `<bundle xmlns='urn:xmpp:omemo:1'/>`, `<devices xmlns='urn:xmpp:omemo:2'/>`} {
		if b, err := Parse(element(t, in), owner); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %+v, %v", in, b, err)
		}
	}
}

func TestKeyLengths(t *testing.T) {
	for _, c := range []struct {
		version omemo.Version
		key     string
		want    bool
	}{
		{omemo.Legacy, encoded(1, 32, 5), true},
		{omemo.Legacy, encoded(1, 32), false},
		{omemo.V2, encoded(1, 32), true},
		{omemo.V2, encoded(1, 32, 5), true}, // QXmpp
		{omemo.V2, encoded(1, 32, 4), false},
		{omemo.V2, encoded(1, 31, 5), true}, // 32 bytes that happen to begin so
	} {
		key, err := parseKey(stanza.NewText("", "key", c.key), c.version)
		if (err == nil) != c.want || c.want && key[31] != 1 {
			t.Errorf("%s %s: %x, %v", c.version, c.key, key, err)
		}
	}
}

func TestElement(t *testing.T) {
	for v, want := range map[omemo.Version]string{
		omemo.Legacy: `<bundle xmlns="eu.siacs.conversations.axolotl"><signedPreKeyPublic signedPreKeyId="9">` + encoded(1, 32, 5) + `</signedPreKeyPublic>` +
			`<signedPreKeySignature>` + encoded(4, 64) + `</signedPreKeySignature><identityKey>` + encoded(2, 32, 5) + `</identityKey>` +
			`<prekeys><preKeyPublic preKeyId="7">` + encoded(3, 32, 5) + `</preKeyPublic></prekeys></bundle>`,
		omemo.V2: `<bundle xmlns="urn:xmpp:omemo:2"><spk id="9">` + encoded(1, 32) + `</spk><spks>` + encoded(4, 64) + `</spks><ik>` + encoded(2, 32) + `</ik>` +
			`<prekeys><pk id="7">` + encoded(3, 32) + `</pk></prekeys></bundle>`,
	} {
		b := good(v)
		if got := string(Element(&b).AppendXML(nil)); got != want {
			t.Errorf("wrote\n%s\nnot\n%s", got, want)
		}
	}
}

// TestRecordedBundles: bundles that python wrote, and altered ones with its
// verdict. Our verdict is that of reading and verifying together.
func TestRecordedBundles(t *testing.T) {
	for _, file := range []string{"oldmemo_bundle.json", "twomemo_bundle.json"} {
		raw, err := os.ReadFile(filepath.Join("testdata", file))
		if err != nil {
			t.Fatal(err)
		}
		var recorded struct {
			Bundles []struct {
				Device struct {
					Identity struct {
						Curve string `json:"curve25519_pub"`
					} `json:"identity"`
					XML string `json:"bundle_xml"`
				} `json:"device"`
				Checks []struct {
					Name   string `json:"name"`
					XML    string `json:"xml"`
					Python any    `json:"python"`
				} `json:"checks"`
			} `json:"bundles"`
		}
		if err := json.Unmarshal(raw, &recorded); err != nil {
			t.Fatal(err)
		}
		for i, r := range recorded.Bundles {
			b, err := Parse(element(t, r.Device.XML), owner)
			if err != nil {
				t.Fatal(err)
			}
			if f, err := b.Fingerprint(); err != nil || hex.EncodeToString(f[:]) != r.Device.Identity.Curve {
				t.Errorf("%s %d: fingerprint %x, %v", file, i, f, err)
			}
			// Byte for byte as python wrote it, but for the order of the children,
			// which it does not fix in omemo:2.
			if got := string(Element(&b).AppendXML(nil)); got != r.Device.XML {
				t.Errorf("%s %d: wrote\n%s\nnot\n%s", file, i, got, r.Device.XML)
			}
			for _, check := range r.Checks {
				b, err := Parse(element(t, check.XML), owner)
				if err == nil {
					err = b.Verify()
				}
				if accepted := check.Python == true; accepted != (err == nil) {
					t.Errorf("%s %d, %s: %v, python: %v", file, i, check.Name, err, check.Python)
				}
			}
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, v := range omemo.Versions() {
		f.Add([]byte(sample{}.xml(v)))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := stanza.ParseElement(b, stanza.DefaultLimits)
		if err != nil {
			return
		}
		got, err := Parse(e, owner)
		if err != nil {
			if !errors.Is(err, ErrMalformed) {
				t.Fatalf("untyped error %v", err)
			}
			return
		}
		again, err := Parse(element(t, string(Element(&got).AppendXML(nil))), owner)
		if err != nil || !reflect.DeepEqual(got, again) {
			t.Fatalf("%+v became %+v, %v", got, again, err)
		}
	})
}
