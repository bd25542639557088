package media

import (
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"example.org/omellium/stanza"
)

// Limits of what is read of a link.
const (
	maxLink      = 4096     // bytes of a URL, fragment included
	maxThumbnail = 64 << 10 // bytes of a picture within a body
)

// address reads the https URL of a stored file. What could carry something else to
// the server than the name of the file is refused.
func address(s string) (*url.URL, error) {
	if len(s) > maxLink {
		return nil, fmt.Errorf("%w: longer than %d bytes", ErrLink, maxLink)
	}
	u, err := url.Parse(s)
	if err != nil || strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r == 0x7f || r == utf8.RuneError }) {
		return nil, fmt.Errorf("%w: malformed", ErrLink) // the error of url.Parse would quote it
	}
	switch {
	case u.Scheme != "https":
		return nil, fmt.Errorf("%w: not https", ErrLink)
	case u.User != nil:
		return nil, fmt.Errorf("%w: with user information", ErrLink)
	case u.Fragment != "" || strings.Contains(s, "#"):
		return nil, fmt.Errorf("%w: with a fragment", ErrLink)
	case !isHost(u.Hostname()) || !isPort(u.Host, u.Port()):
		return nil, fmt.Errorf("%w: host", ErrLink)
	}
	return u, nil
}

// isHost reports whether s is a host name, or an IP address without zone.
func isHost(s string) bool {
	if ip, err := netip.ParseAddr(s); err == nil {
		return ip.Zone() == ""
	}
	if s == "" || len(s) > 253 {
		return false
	}
	for _, label := range strings.Split(strings.TrimSuffix(s, "."), ".") {
		if label == "" || len(label) > 63 || strings.HasPrefix(label, "-") || strings.HasSuffix(label, "-") {
			return false
		}
		for _, c := range label {
			if c != '-' && c != '_' && !unicode.In(c, unicode.Letter, unicode.Mark, unicode.Digit) {
				return false
			}
		}
	}
	return true
}

// isPort reports whether the port of a host is a number that exists, or is not
// given. A colon alone is a port not given.
func isPort(host, port string) bool {
	if port == "" {
		return !strings.HasSuffix(host, ":")
	}
	n, err := strconv.ParseUint(port, 10, 16)
	return err == nil && n != 0
}

const (
	scheme      = "aesgcm://" // XEP-0454, section 3
	ivDigits    = 24
	oldIVDigits = 32 // clients wrote 16 bytes before 2019 or so
	keyDigits   = 64
)

// ParseURL reads an aesgcm:// URL (XEP-0454): the https URL of the encrypted file
// with another scheme, and a fragment of an IV of 12 bytes, or of 16 as clients once
// wrote, and a key of 32 bytes, in hexadecimal digits. It returns ErrLink for
// anything else; no error quotes it.
//
// Of the metadata, there is the name that the URL ends with, which mostly is none
// that a person gave.
func ParseURL(s string) (*File, error) {
	if len(s) > maxLink {
		return nil, fmt.Errorf("%w: longer than %d bytes", ErrLink, maxLink)
	}
	if len(s) < len(scheme) || !strings.EqualFold(s[:len(scheme)], scheme) {
		return nil, fmt.Errorf("%w: not aesgcm", ErrLink)
	}
	place, fragment, _ := strings.Cut(s[len(scheme):], "#")
	if len(fragment) != ivDigits+keyDigits && len(fragment) != oldIVDigits+keyDigits {
		return nil, fmt.Errorf("%w: a fragment of %d characters", ErrLink, len(fragment))
	}
	secret, err := hex.DecodeString(fragment)
	if err != nil {
		return nil, fmt.Errorf("%w: fragment not hexadecimal", ErrLink)
	}
	u, err := address("https://" + place)
	if err != nil {
		return nil, err
	}
	split := len(secret) - keyDigits/2
	key, err := keyOf(AES256GCM, secret[split:], secret[:split])
	if err != nil {
		return nil, err
	}
	name := u.Path[strings.LastIndexByte(u.Path, '/')+1:]
	return &File{Metadata: Metadata{Name: name, Size: -1}, URL: "https://" + place, Key: key}, nil
}

// Link returns the aesgcm:// URL of the file. It holds the key: who sees it can read
// the file. It returns ErrLink for a file that is not encrypted with AES-256-GCM, or
// whose URL is none of https.
func (f *File) Link() (string, error) {
	if f.Key.cipher != AES256GCM {
		return "", fmt.Errorf("%w: another cipher", ErrLink)
	}
	if _, err := address(f.URL); err != nil {
		return "", err
	}
	_, place, _ := strings.Cut(f.URL, "://")
	return scheme + place + "#" + hex.EncodeToString(f.Key.vector()) + hex.EncodeToString(f.Key.secret()), nil
}

// ParseBody reads the body of a message: an aesgcm:// URL and nothing else, or, in a
// second line, a small picture as a data: URI (XEP-0454, section 4), which becomes
// File.Thumbnail. It returns ErrLink for any other body: that is text to be shown.
func ParseBody(body string) (*File, error) {
	link, rest, more := strings.Cut(body, "\n")
	f, err := ParseURL(link)
	if err != nil || !more {
		return f, err
	}
	// QUIRK: the example in XEP-0454 lacks ";base64", though it is base64.
	data, ok := strings.CutPrefix(rest, "data:image/jpeg")
	data, _ = strings.CutPrefix(data, ";base64")
	data, comma := strings.CutPrefix(data, ",")
	if !ok || !comma || base64.StdEncoding.DecodedLen(len(data)) > maxThumbnail {
		return nil, fmt.Errorf("%w: more than a link", ErrLink)
	}
	if f.Thumbnail, err = base64.StdEncoding.Strict().DecodeString(data); err != nil || strings.ContainsAny(data, "\r\n") {
		return nil, fmt.Errorf("%w: more than a link", ErrLink)
	}
	return f, nil
}

// body is what stands in for the file in clients that know the link alone.
func (f *File) body() (*stanza.Element, error) {
	link, err := f.Link()
	if err != nil {
		return nil, err
	}
	return stanza.NewText(stanza.NSClient, "body", link), nil
}
