package devicelist

import (
	"crypto/ed25519"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"reflect"
	"strings"
	"testing"

	"example.org/omellium/omemo"
	"example.org/omellium/stanza"
)

func element(t testing.TB, s string) *stanza.Element {
	t.Helper()
	e, err := stanza.ParseElement([]byte(s), stanza.DefaultLimits)
	if err != nil {
		t.Fatalf("%v\n%s", err, s)
	}
	return e
}

// signature is one of the right length; nothing here verifies it.
var signature = make([]byte, 64)

var signature64 = stanza.EncodeBase64(signature)

func ids(n ...omemo.DeviceID) []Device {
	var devices []Device
	for _, id := range n {
		devices = append(devices, Device{ID: id})
	}
	return devices
}

func many(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "<device id='%d'/>", i+1)
	}
	return b.String()
}

// Attacks B2, B3 and B10.
func TestParse(t *testing.T) {
	for _, c := range []struct {
		name, in   string // between the tags
		legacy, v2 []Device
		err        error
	}{
		{"empty", ``, nil, nil, nil},
		{"one", `<device id='1'/>`, ids(1), ids(1), nil},
		{"order kept", `<device id='3'/><device id='1'/><device id='2'/>`, ids(3, 1, 2), ids(3, 1, 2), nil},
		{"duplicates", `<device id='3'/><device id='1'/><device id='3'/>`, ids(3, 1), ids(3, 1), nil},
		{"largest", `<device id='2147483647'/>`, ids(1<<31 - 1), ids(1<<31 - 1), nil},
		{"32 bits", `<device id='2147483648'/><device id='4294967295'/><device id='1'/>`, ids(1<<31, 1<<32-1, 1), ids(1), nil},
		{"no id at all", `<device/><device id=''/><device ID='5'/><device id='1'/>`, ids(1), ids(1), nil},
		{"0", `<device id='0'/><device id='1'/>`, ids(1), ids(1), nil},
		{"signs", `<device id='+1'/><device id='-1'/>`, nil, nil, nil},
		{"spaces", `<device id=' 1'/><device id='1 '/>`, nil, nil, nil},
		{"leading zero", `<device id='01'/>`, nil, nil, nil},
		{"33 bits", `<device id='4294967297'/>`, nil, nil, nil},
		{"not decimal", `<device id='0x1'/><device id='1e1'/><device id='x'/>`, nil, nil, nil},
		{"unknown things", "\n<x id='1'/><device xmlns='urn:x' id='2'/><device id='3' y='z'><device id='4'/></device>\n", ids(3), ids(3), nil},
		{"label", `<device id='1' label='é' labelsig='` + signature64 + `'/>`, ids(1), []Device{{1, "é", signature}}, nil},
		{"label without signature", `<device id='1' label='é'/>`, ids(1), ids(1), nil},
		{"label with a short signature", `<device id='1' label='é' labelsig='AAAA'/>`, ids(1), ids(1), nil},
		{"label with a broken signature", `<device id='1' label='é' labelsig='*'/>`, ids(1), ids(1), nil},
		{"signature without label", `<device id='1' labelsig='` + signature64 + `'/>`, ids(1), ids(1), nil},
		{"label of 53", `<device id='1' label='` + strings.Repeat("é", 53) + `' labelsig='` + signature64 + `'/>`, ids(1), []Device{{1, strings.Repeat("é", 53), signature}}, nil},
		{"label of 54", `<device id='1' label='` + strings.Repeat("é", 54) + `' labelsig='` + signature64 + `'/>`, ids(1), ids(1), nil},
		{"label of 10 kB", `<device id='1' label='` + strings.Repeat("x", 10<<10) + `' labelsig='` + signature64 + `'/>`, ids(1), ids(1), nil},
		{"257 devices", many(257), nil, nil, ErrTooLarge},
		{"3,000 devices", many(3_000), nil, nil, ErrTooLarge},
		{"257 times one device", strings.Repeat(`<device id='1'/>`, 257), ids(1), ids(1), nil},
		{"257 bad entries", strings.Repeat(`<device id='0'/>`, 257), nil, nil, nil},
		{"300 KiB", `<device id='1' x='` + strings.Repeat("x", 300<<10) + `'/>`, nil, nil, ErrTooLarge},
	} {
		for _, v := range []struct {
			version omemo.Version
			xml     string
			want    []Device
		}{
			{omemo.Legacy, `<list xmlns='eu.siacs.conversations.axolotl'>` + c.in + `</list>`, c.legacy},
			{omemo.V2, `<devices xmlns='urn:xmpp:omemo:2'>` + c.in + `</devices>`, c.v2},
		} {
			t.Run(v.version.String()+"/"+c.name, func(t *testing.T) {
				l, err := Parse(element(t, v.xml))
				if !errors.Is(err, c.err) {
					t.Fatalf("error %v", err)
				}
				if c.err != nil {
					if l.Devices != nil {
						t.Error("devices beside an error")
					}
					return
				}
				if l.Version != v.version || !reflect.DeepEqual(l.Devices, v.want) {
					t.Errorf("read %+v", l)
				}
			})
		}
	}
	t.Run("256 devices", func(t *testing.T) {
		l, err := Parse(element(t, `<devices xmlns='urn:xmpp:omemo:2'>`+many(256)+`</devices>`))
		if err != nil || len(l.Devices) != 256 || !l.Contains(256) || l.Contains(257) {
			t.Errorf("%d devices, %v", len(l.Devices), err)
		}
	})
	for _, in := range []string{
		`<devices xmlns='eu.siacs.conversations.axolotl'/>`, `<list xmlns='urn:xmpp:omemo:2'/>`, `<devices xmlns='urn:xmpp:omemo:1'/>`, `<list/>`,
		`<bundle xmlns='urn:xmpp:omemo:2'/>`,
	} {
		if l, err := Parse(element(t, in)); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %+v, %v", in, l, err)
		}
	}
}

func TestElement(t *testing.T) {
	labelled := []Device{{1, "a<b", signature}, {2, "unsigned", nil}, {3, "", signature}}
	for _, c := range []struct {
		in   List
		want string
	}{
		{List{omemo.Legacy, labelled}, `<list xmlns="eu.siacs.conversations.axolotl"><device id="1"/><device id="2"/><device id="3"/></list>`},
		{List{omemo.V2, labelled}, `<devices xmlns="urn:xmpp:omemo:2"><device id="1" label="a&lt;b" labelsig="` + signature64 + `"/><device id="2"/><device id="3"/></devices>`},
		{List{omemo.V2, ids(4294967295)}, `<devices xmlns="urn:xmpp:omemo:2"><device id="4294967295"/></devices>`},
		{List{omemo.V2, nil}, `<devices xmlns="urn:xmpp:omemo:2"/>`},
	} {
		if got := string(c.in.Element().AppendXML(nil)); got != c.want {
			t.Errorf("wrote %s, not %s", got, c.want)
		}
	}
}

// TestRecordedLabels: labels that python signed are read so that the signature
// holds over them, and only the ones recorded as valid.
func TestRecordedLabels(t *testing.T) {
	b, err := os.ReadFile("testdata/twomemo_labels.json")
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Cases []struct {
			Label     string `json:"label"`
			Identity  string `json:"identity_ed25519"`
			Signature string `json:"labelsig_b64"`
			Valid     bool   `json:"valid"`
		} `json:"cases"`
		XML string `json:"device_list_xml"`
	}
	if err := json.Unmarshal(b, &file); err != nil {
		t.Fatal(err)
	}
	for _, c := range file.Cases {
		device := stanza.NewElement(stanza.NSV2, "device").SetAttribute("id", "1").SetAttribute("label", c.Label).SetAttribute("labelsig", c.Signature)
		l, err := Parse(element(t, string(stanza.NewElement(stanza.NSV2, "devices", device).AppendXML(nil))))
		if err != nil {
			t.Fatal(err)
		}
		identity, err := hex.DecodeString(c.Identity)
		if err != nil {
			t.Fatal(err)
		}
		got := l.Devices[0]
		if got.Label == "" {
			if c.Valid && c.Label != "" && len([]rune(c.Label)) <= MaxLabel {
				t.Errorf("label %q left out", c.Label)
			}
			continue
		}
		if got.Label != c.Label || ed25519.Verify(identity, []byte(got.Label), got.LabelSig) != c.Valid {
			t.Errorf("label %q, recorded as valid: %v", got.Label, c.Valid)
		}
	}
	l, err := Parse(element(t, file.XML))
	if err != nil || len(l.Devices) != 2 || l.Devices[0].Label == "" {
		t.Fatalf("%+v, %v", l, err)
	}
	if again, err := Parse(l.Element()); err != nil || !reflect.DeepEqual(l, again) {
		t.Errorf("became %+v, %v", again, err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(`<list xmlns='eu.siacs.conversations.axolotl'><device id='1'/><device id='x'/></list>`))
	f.Add([]byte(`<devices xmlns='urn:xmpp:omemo:2'><device id='1' label='x' labelsig='` + signature64 + `'/></devices>`))
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := stanza.ParseElement(b, stanza.DefaultLimits)
		if err != nil {
			return
		}
		l, err := Parse(e)
		if err != nil {
			if !errors.Is(err, ErrMalformed) && !errors.Is(err, ErrTooLarge) {
				t.Fatalf("untyped error %v", err)
			}
			return
		}
		again, err := Parse(element(t, string(l.Element().AppendXML(nil))))
		if err != nil || !reflect.DeepEqual(l, again) {
			t.Fatalf("%+v became %+v, %v", l, again, err)
		}
	})
}
