package media

import (
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
)

const (
	ivHex    = "8c3d050e9386ec173861778f"
	oldIVHex = ivHex + "01020304"
	keyHex   = "68e9af38a97aaf82faa4063b4d0878a61261534410c8a84331eaac851759f587"
	// place and example are those of XEP-0454, section 3.
	place   = "download.montague.tld/4a771ac1-f0b2-4a4a-9700-f2a26fa2bb67/tr%C3%A8s%20cool.jpg"
	example = "aesgcm://" + place + "#" + ivHex + keyHex
)

func TestParseURL(t *testing.T) {
	f, err := ParseURL(example)
	if err != nil {
		t.Fatal(err)
	}
	if f.URL != "https://"+place || f.Name != "très cool.jpg" || f.Size != -1 || f.Key.Cipher() != AES256GCM {
		t.Errorf("%+v", f)
	}
	if fmt.Sprintf("%x", f.Key.vector()) != ivHex || fmt.Sprintf("%x", f.Key.secret()) != keyHex {
		t.Error("another key")
	}
	for link, want := range map[string]string{
		example: example,
		"aesgcm://" + place + "#" + oldIVHex + keyHex:                              "aesgcm://" + place + "#" + oldIVHex + keyHex,
		"AESGCM://" + place + "#" + strings.ToUpper(ivHex+keyHex):                  example,
		"aesgcm://example.net:5443/upload/x?v=1#" + ivHex + keyHex:                 "aesgcm://example.net:5443/upload/x?v=1#" + ivHex + keyHex,
		"aesgcm://[2001:db8::1]:443/x#" + ivHex + keyHex:                           "aesgcm://[2001:db8::1]:443/x#" + ivHex + keyHex,
		"aesgcm://192.0.2.1/x#" + ivHex + keyHex:                                   "aesgcm://192.0.2.1/x#" + ivHex + keyHex,
		"aesgcm://bücher.example/x#" + ivHex + keyHex:                              "aesgcm://bücher.example/x#" + ivHex + keyHex,
		"aesgcm://example.net#" + ivHex + keyHex:                                   "aesgcm://example.net#" + ivHex + keyHex,
		"aesgcm://example.net/" + strings.Repeat("x", 3900) + "#" + ivHex + keyHex: "aesgcm://example.net/" + strings.Repeat("x", 3900) + "#" + ivHex + keyHex,
	} {
		f, err := ParseURL(link)
		if err != nil {
			t.Errorf("%s: %v", link, err)
			continue
		}
		if got, err := f.Link(); got != want || err != nil {
			t.Errorf("%s became %s, %v", link, got, err)
		}
	}
}

// badLinks are what is no aesgcm:// URL.
var badLinks = []string{
	"", "aesgcm", "aesgcm://", "aesgcm:///x#" + ivHex + keyHex, "#" + ivHex + keyHex,
	"https://" + place + "#" + ivHex + keyHex,
	"http://" + place + "#" + ivHex + keyHex,
	"aesgcm:" + place + "#" + ivHex + keyHex,
	" " + example, example + " ", example + "\n", example + "\x00", example + "00", example[:len(example)-1], example[:len(example)-2],
	"see " + example,
	"aesgcm://" + place, "aesgcm://" + place + "#", "aesgcm://" + place + "#" + keyHex, "aesgcm://" + place + "#" + ivHex,
	"aesgcm://" + place + "#" + ivHex + keyHex[:63] + "g",
	"aesgcm://" + place + "#" + ivHex + "%36" + keyHex[3:],
	"aesgcm://" + place + "#x#" + ivHex + keyHex[2:],
	"aesgcm://" + place + "%23" + ivHex + keyHex,
	"aesgcm://user@example.net/x#" + ivHex + keyHex,
	"aesgcm://user:password@example.net/x#" + ivHex + keyHex,
	"aesgcm://@example.net/x#" + ivHex + keyHex,
	"aesgcm://example.net:0/x#" + ivHex + keyHex,
	"aesgcm://example.net:/x#" + ivHex + keyHex,
	"aesgcm://example.net:65536/x#" + ivHex + keyHex,
	"aesgcm://example.net:https/x#" + ivHex + keyHex,
	"aesgcm://example.net:443:443/x#" + ivHex + keyHex,
	"aesgcm://example..net/x#" + ivHex + keyHex,
	"aesgcm://-example.net/x#" + ivHex + keyHex,
	"aesgcm://exam ple.net/x#" + ivHex + keyHex,
	"aesgcm://exam%20ple.net/x#" + ivHex + keyHex,
	"aesgcm://exa\\mple.net/x#" + ivHex + keyHex,
	"aesgcm://example.net\\@evil.example/x#" + ivHex + keyHex,
	"aesgcm://[fe80::1%25eth0]/x#" + ivHex + keyHex,
	"aesgcm://[::1/x#" + ivHex + keyHex,
	"aesgcm://example.net/a b#" + ivHex + keyHex,
	"aesgcm://example.net/a\tb#" + ivHex + keyHex,
	"aesgcm://example.net/\xff#" + ivHex + keyHex,
	"aesgcm://example.net/%zz#" + ivHex + keyHex,
	"aesgcm://" + strings.Repeat("a", 64) + ".example/x#" + ivHex + keyHex,
	"aesgcm://" + strings.Repeat("a.", 130) + "example/x#" + ivHex + keyHex,
	"aesgcm://example.net/" + strings.Repeat("x", 4096) + "#" + ivHex + keyHex,
}

func TestParseURLRefuses(t *testing.T) {
	for _, link := range badLinks {
		f, err := ParseURL(link)
		if !errors.Is(err, ErrLink) || f != nil {
			t.Errorf("%q: %v", link, err)
		}
		if err != nil && (strings.Contains(err.Error(), keyHex[:10]) || strings.Contains(err.Error(), "example")) {
			t.Errorf("quoted: %v", err)
		}
	}
}

func TestLink(t *testing.T) {
	f := &File{URL: "https://example.net/x"}
	if _, err := f.Link(); !errors.Is(err, ErrLink) {
		t.Errorf("no key: %v", err)
	}
	f.Key = newKey()
	if link, err := f.Link(); err != nil || !strings.HasPrefix(link, "aesgcm://example.net/x#") {
		t.Error(err)
	}
	for _, bad := range []string{"http://example.net/x", "https://example.net/x#y", "https://", "", "file:///etc/passwd"} {
		f.URL = bad
		if link, err := f.Link(); !errors.Is(err, ErrLink) || link != "" {
			t.Errorf("%s: %v", bad, err)
		}
	}
	f.URL = "https://example.net/x"
	for _, c := range []struct {
		cipher  Cipher
		key, iv int
	}{{AES128GCM, 16, 12}, {AES256CBC, 32, 16}} {
		var err error
		if f.Key, err = keyOf(c.cipher, random(c.key), random(c.iv)); err != nil {
			t.Fatal(err)
		}
		if _, err := f.Link(); !errors.Is(err, ErrLink) {
			t.Errorf("%s: %v", c.cipher, err)
		}
	}
}

func TestParseBody(t *testing.T) {
	picture := base64.StdEncoding.EncodeToString([]byte("\xff\xd8\xff\xe0 picture"))
	for _, c := range []struct {
		name, body string
		ok         bool
		thumbnail  int
	}{
		{"link", example, true, 0},
		{"as in the example", example + "\ndata:image/jpeg," + picture, true, 12},
		{"base64", example + "\ndata:image/jpeg;base64," + picture, true, 12},
		{"text", "hello", false, 0},
		{"text behind", example + " hello", false, 0},
		{"text in a second line", example + "\nhello", false, 0},
		{"line behind", example + "\n", false, 0},
		{"two empty lines", example + "\n\ndata:image/jpeg," + picture, false, 0},
		{"two pictures", example + "\ndata:image/jpeg," + picture + "\ndata:image/jpeg," + picture, false, 0},
		{"another picture", example + "\ndata:image/png," + picture, false, 0},
		{"not base64", example + "\ndata:image/jpeg,!!!!", false, 0},
		{"large", example + "\ndata:image/jpeg," + base64.StdEncoding.EncodeToString(make([]byte, maxThumbnail+3)), false, 0},
		{"no link", "data:image/jpeg," + picture, false, 0},
		{"carriage return", example + "\r\ndata:image/jpeg," + picture, false, 0},
	} {
		f, err := ParseBody(c.body)
		switch {
		case !c.ok && (!errors.Is(err, ErrLink) || f != nil):
			t.Errorf("%s: %v", c.name, err)
		case c.ok && (err != nil || len(f.Thumbnail) != c.thumbnail):
			t.Errorf("%s: %+v, %v", c.name, f, err)
		}
	}
}

// TestKeysAreNotPrinted: however a file is printed, its key is not.
func TestKeysAreNotPrinted(t *testing.T) {
	f, err := ParseURL(example)
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%q", "%d"} {
		fmt.Fprintf(&out, verb, f.Key)
		fmt.Fprintf(&out, verb, &f.Key)
		fmt.Fprintf(&out, verb, *f)
		fmt.Fprintf(&out, verb, f)
	}
	slog.New(slog.NewTextHandler(&out, nil)).Info("x", "key", f.Key, "file", f)
	slog.New(slog.NewJSONHandler(&out, nil)).Info("x", "key", f.Key, "file", f)
	for _, secret := range []string{keyHex[:8], strings.ToUpper(keyHex[:8]), ivHex[:8], "104 233 175", "104,233,175", "0x68, 0xe9", "aOmv"} {
		if strings.Contains(out.String(), secret) {
			t.Errorf("%s is printed", secret)
		}
	}
}

// FuzzURL: what is read as an aesgcm:// URL is written as one that means the same,
// and is fetched by HTTPS from where it says.
func FuzzURL(f *testing.F) {
	f.Add(example)
	f.Add("AESGCM://Example.NET:443/?a=b#" + oldIVHex + strings.ToUpper(keyHex))
	f.Add("aesgcm://[2001:db8::1]:443/x#" + ivHex + keyHex)
	for _, link := range badLinks {
		f.Add(link)
	}
	f.Fuzz(func(t *testing.T, s string) {
		file, err := ParseURL(s)
		if err != nil {
			if !errors.Is(err, ErrLink) || file != nil {
				t.Fatal(err)
			}
			return
		}
		link, err := file.Link()
		if err != nil {
			t.Fatalf("%q cannot be written: %v", s, err)
		}
		if len(link) != len(s) || !strings.EqualFold(link[:9], s[:9]) || !strings.HasPrefix(link[9:], strings.TrimPrefix(file.URL, "https://")) {
			t.Fatalf("%q became %q", s, link)
		}
		again, err := ParseURL(link)
		if err != nil || again.Key != file.Key || again.URL != file.URL || again.Name != file.Name {
			t.Fatalf("%q is read differently: %v", link, err)
		}
		u, err := address(file.URL)
		if err != nil || u.Scheme != "https" || u.User != nil || u.Hostname() == "" || u.Fragment != "" {
			t.Fatalf("%q is fetched from %v, %v", s, u, err)
		}
		if name := SafeName(file.Name); name == "" || len(name) > maxSafeName+1 || strings.ContainsAny(name, "/\\\x00") || name[0] == '.' {
			t.Fatalf("%q is saved as %q", s, name)
		}
	})
}
