package verify

import (
	"encoding/hex"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"example.org/omellium/omemo"
	"mellium.im/xmpp/jid"
)

// Limits of a URI that is read.
const (
	maxURI  = 32 << 10 // bytes
	maxKeys = 256
)

// ErrURI: not a URI that names keys of an account.
var ErrURI = errors.New("verify: not a URI of an account's keys")

// URI names keys of an account, as clients show it:
//
//	xmpp:romeo@example.net?omemo-sid-123=…64 hexadecimal digits…;omemo-sid-456=…
//
// The keys are those of devices in the form of fingerprints, which both versions
// share.
type URI struct {
	Account jid.JID // bare
	Devices []Device
}

// Device is a device that a URI names. A trust message URI (XEP-0434, section 8.1)
// names keys without their devices: ID is 0.
type Device struct {
	ID          omemo.DeviceID
	Fingerprint omemo.Fingerprint
}

// pathEscapes are characters that RFC 5122 has escaped in an address beyond those
// that net/url escapes in a path.
var pathEscapes = strings.NewReplacer(";", "%3B", ":", "%3A", "&", "%26", "=", "%3D", "$", "%24", "+", "%2B", ",", "%2C", "@", "%40")

// String returns the URI.
func (u URI) String() string {
	var b strings.Builder
	b.WriteString("xmpp:")
	b.WriteString(pathEscapes.Replace(url.PathEscape(u.Account.Localpart())))
	b.WriteString("@")
	b.WriteString(url.PathEscape(u.Account.Domainpart()))
	for i, d := range u.Devices {
		b.WriteString(map[bool]string{true: "?", false: ";"}[i == 0])
		fmt.Fprintf(&b, "omemo-sid-%d=%x", d.ID, d.Fingerprint[:])
	}
	return b.String()
}

// ParseURI reads a URI, strictly: one account and at least one key; no device
// twice. It reads trust message URIs of omemo:2 as well, as long as they distrust
// nothing. Parameters of other purposes are ignored. The error is ErrURI.
func ParseURI(s string) (URI, error) {
	var u URI
	scheme, rest, ok := strings.Cut(s, ":")
	if !ok || !strings.EqualFold(scheme, "xmpp") || len(s) > maxURI || strings.Contains(rest, "#") || strings.HasPrefix(rest, "/") {
		return u, ErrURI
	}
	path, query, _ := strings.Cut(rest, "?")
	address, err := url.PathUnescape(path)
	if err != nil {
		return u, ErrURI
	}
	u.Account, err = jid.Parse(address)
	if err != nil || u.Account.Localpart() == "" || u.Account.Resourcepart() != "" {
		return URI{}, fmt.Errorf("%w: address", ErrURI)
	}
	// A domain such as "example.net.." is not read again as what it is read as: it
	// loses one dot each time. Nothing has such an address.
	if again, err := jid.Parse(u.Account.String()); err != nil || !again.Equal(u.Account) {
		return URI{}, fmt.Errorf("%w: address", ErrURI)
	}
	pairs := strings.Split(query, ";")
	if pairs[0] == "trust-message" {
		err = u.trustMessage(pairs[1:])
	} else {
		err = u.devices(pairs)
	}
	if err == nil && (len(u.Devices) == 0 || len(u.Devices) > maxKeys) {
		err = fmt.Errorf("%w: it names %d keys", ErrURI, len(u.Devices))
	}
	if err != nil {
		return URI{}, err
	}
	return u, nil
}

func (u *URI) devices(pairs []string) error {
	for _, pair := range pairs {
		name, value, _ := strings.Cut(pair, "=")
		id, ours := strings.CutPrefix(name, "omemo-sid-")
		if !ours {
			continue
		}
		n, err := strconv.ParseUint(id, 10, 32)
		if err != nil || n == 0 || id[0] == '0' {
			return fmt.Errorf("%w: device", ErrURI)
		}
		d := Device{ID: omemo.DeviceID(n)}
		if d.Fingerprint, err = key(value); err != nil {
			return err
		}
		if slices.ContainsFunc(u.Devices, func(other Device) bool { return other.ID == d.ID }) {
			return fmt.Errorf("%w: device %d twice", ErrURI, n)
		}
		u.Devices = append(u.Devices, d)
	}
	return nil
}

// trustMessage reads the keys of a trust message URI: they are in the form of
// Ed25519, as omemo:2 publishes them.
func (u *URI) trustMessage(pairs []string) error {
	if len(pairs) == 0 || pairs[0] != "encryption="+omemo.V2.Namespace() {
		return fmt.Errorf("%w: trust message of another encryption", ErrURI)
	}
	for _, pair := range pairs[1:] {
		name, value, _ := strings.Cut(pair, "=")
		if name != "trust" {
			return fmt.Errorf("%w: trust message with %q", ErrURI, name)
		}
		id, err := key(value)
		if err != nil {
			return err
		}
		b := omemo.Bundle{Version: omemo.V2, IdentityKey: id}
		f, err := b.Fingerprint()
		if err != nil {
			return fmt.Errorf("%w: key", ErrURI)
		}
		if !slices.Contains(u.Devices, Device{Fingerprint: f}) {
			u.Devices = append(u.Devices, Device{Fingerprint: f})
		}
	}
	return nil
}

// key reads 64 hexadecimal digits, and nothing else.
func key(s string) (f omemo.Fingerprint, err error) {
	if len(s) != 2*len(f) {
		return f, fmt.Errorf("%w: a key has 64 hexadecimal digits", ErrURI)
	}
	if _, err := hex.Decode(f[:], []byte(s)); err != nil || f.IsZero() {
		return f, fmt.Errorf("%w: a key has 64 hexadecimal digits", ErrURI)
	}
	return f, nil
}
