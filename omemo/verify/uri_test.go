package verify_test

import (
	"errors"
	"strings"
	"testing"

	"example.org/omellium/omemo"
	"example.org/omellium/omemo/memstore"
	"example.org/omellium/omemo/verify"
	"mellium.im/xmpp/jid"
)

var (
	first  = strings.Repeat("ab", 32)
	second = strings.Repeat("0c", 32)
)

func fingerprint(t *testing.T, s string) omemo.Fingerprint {
	t.Helper()
	f, err := omemo.ParseFingerprint(s)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func TestURIsBothWays(t *testing.T) {
	for _, row := range []struct {
		account string
		devices []verify.Device
		uri     string
	}{
		{"romeo@example.net", []verify.Device{{123, fingerprint(t, first)}}, "xmpp:romeo@example.net?omemo-sid-123=" + first},
		{
			"romeo@example.net", []verify.Device{{1<<32 - 1, fingerprint(t, first)}, {1, fingerprint(t, second)}},
			"xmpp:romeo@example.net?omemo-sid-4294967295=" + first + ";omemo-sid-1=" + second,
		},
		{"a;b?c#d%e=f@example.net", []verify.Device{{1, fingerprint(t, first)}}, "xmpp:a%3Bb%3Fc%23d%25e%3Df@example.net?omemo-sid-1=" + first},
		{"jürgen@müller.example", []verify.Device{{1, fingerprint(t, first)}}, "xmpp:j%C3%BCrgen@m%C3%BCller.example?omemo-sid-1=" + first},
		{"romeo@[2001:db8::1]", []verify.Device{{1, fingerprint(t, first)}}, "xmpp:romeo@%5B2001:db8::1%5D?omemo-sid-1=" + first},
	} {
		u := verify.URI{Account: jid.MustParse(row.account), Devices: row.devices}
		if got := u.String(); got != row.uri {
			t.Errorf("%s: %s, want %s", row.account, got, row.uri)
		}
		back, err := verify.ParseURI(row.uri)
		if err != nil || !back.Account.Equal(u.Account) || len(back.Devices) != len(u.Devices) {
			t.Errorf("%s: %+v, %v", row.uri, back, err)
			continue
		}
		for i, d := range back.Devices {
			if d != row.devices[i] {
				t.Errorf("%s: device %+v, want %+v", row.uri, d, row.devices[i])
			}
		}
	}
}

func TestURIsOfOtherClients(t *testing.T) {
	m, err := omemo.NewManager(t.Context(), memstore.New("romeo@example.net"), omemo.Options{})
	if err != nil {
		t.Fatal(err)
	}
	b, err := m.Bundle(t.Context(), omemo.V2)
	if err != nil {
		t.Fatal(err)
	}
	own, err := m.Fingerprint(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	edwards := omemo.Fingerprint(b.IdentityKey)
	hex := strings.ReplaceAll(edwards.String(), " ", "")
	for uri, want := range map[string]verify.Device{
		"XMPP:Romeo@Example.net?OMEMO=1;omemo-sid-7=" + strings.ToUpper(first):                            {7, fingerprint(t, first)},
		"xmpp:romeo@example.net?message;body=hi;omemo-sid-7=" + first:                                     {7, fingerprint(t, first)},
		"xmpp:romeo@example.net?trust-message;encryption=urn:xmpp:omemo:2;trust=" + hex:                   {0, own},
		"xmpp:romeo@example.net?trust-message;encryption=urn:xmpp:omemo:2;trust=" + hex + ";trust=" + hex: {0, own},
	} {
		u, err := verify.ParseURI(uri)
		if err != nil || u.Account.String() != "romeo@example.net" || len(u.Devices) != 1 || u.Devices[0] != want {
			t.Errorf("%s: %+v, %v", uri, u, err)
		}
	}
}

func TestURIsThatAreRefused(t *testing.T) {
	pair := "omemo-sid-1=" + first
	for _, uri := range []string{
		"", "xmpp:", "xmpp", "romeo@example.net?" + pair, "https://example.net/?" + pair, "xmpp://romeo@example.net?" + pair,
		"xmpp:romeo@example.net", "xmpp:romeo@example.net?", "xmpp:romeo@example.net?message", "xmpp:example.net?" + pair,
		"xmpp:romeo@example.net/desk?" + pair, "xmpp:@example.net?" + pair, "xmpp:romeo%zz@example.net?" + pair,
		"xmpp:romeo@example.net..?" + pair,
		"xmpp:romeo@example.net?" + pair + "#x", "xmpp:romeo@example.net?" + pair + ";" + pair,
		"xmpp:romeo@example.net?" + pair + ";omemo-sid-1=" + second, "xmpp:romeo@example.net?omemo-sid-0=" + first,
		"xmpp:romeo@example.net?omemo-sid-01=" + first, "xmpp:romeo@example.net?omemo-sid-+1=" + first, "xmpp:romeo@example.net?omemo-sid-=" + first,
		"xmpp:romeo@example.net?omemo-sid-4294967296=" + first, "xmpp:romeo@example.net?omemo-sid-1=" + first[2:], "xmpp:romeo@example.net?omemo-sid-1=05" + first,
		"xmpp:romeo@example.net?omemo-sid-1=" + strings.Repeat("g", 64), "xmpp:romeo@example.net?omemo-sid-1=" + strings.Repeat("0", 64),
		"xmpp:romeo@example.net?omemo-sid-1", "xmpp:romeo@example.net?" + pair + "&omemo-sid-2=" + second,
		"xmpp:romeo@example.net?trust-message;trust=" + first, "xmpp:romeo@example.net?trust-message;encryption=urn:xmpp:omemo:2",
		"xmpp:romeo@example.net?trust-message;encryption=urn:xmpp:omemo:1;trust=" + first,
		"xmpp:romeo@example.net?trust-message;encryption=urn:xmpp:omemo:2;trust=" + strings.Repeat("ff", 32),
		"xmpp:romeo@example.net?trust-message;encryption=urn:xmpp:omemo:2;distrust=" + first,
		"xmpp:romeo@example.net?" + strings.Repeat("x=y;", 20000) + pair,
	} {
		if u, err := verify.ParseURI(uri); !errors.Is(err, verify.ErrURI) || len(u.Devices) != 0 {
			t.Errorf("%.100s: %+v, %v", uri, u, err)
		}
	}
}

// FuzzURI: what is read is written and read again as the same.
func FuzzURI(f *testing.F) {
	f.Add("xmpp:romeo@example.net?omemo-sid-1=" + first + ";omemo-sid-2=" + second)
	f.Add("xmpp:a%3Bb@example.net?message;omemo-sid-1=" + first)
	f.Add("xmpp:romeo@example.net?trust-message;encryption=urn:xmpp:omemo:2;trust=" + first)
	f.Add("xmpp:romeo@example.net..?omemo-sid-1=" + first)
	f.Fuzz(func(t *testing.T, s string) {
		u, err := verify.ParseURI(s)
		if err != nil || u.Devices[0].ID == 0 {
			return
		}
		back, err := verify.ParseURI(u.String())
		if err != nil || back.String() != u.String() || !back.Account.Equal(u.Account) {
			t.Errorf("%q: %v, %v", s, u, err)
		}
	})
}
