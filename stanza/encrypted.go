package stanza

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"mellium.im/xmpp/jid"
)

// Limits of an <encrypted/> element beyond those of its stanza.
const (
	// MaxKeys bounds the keys of one message, for whichever device.
	MaxKeys = 10_000
	// MaxOwnKeys bounds the keys that carry our device id in a legacy message.
	// Ids are unique within an account only and legacy does not name the
	// account, so that there may be several.
	MaxOwnKeys = 8
	// maxKeyData bounds the decoded bytes of one key. Real ones have 60 to 300.
	maxKeyData = 4 << 10
)

// Errors of reading <encrypted/>.
var (
	// ErrMalformed: a part that is needed is missing, doubled or unreadable.
	ErrMalformed = errors.New("stanza: malformed")
	// ErrTwice: two <encrypted/> elements of one version in a message, or two
	// keys for this device in an omemo:2 element.
	ErrTwice = errors.New("stanza: ambiguous")
)

// Encrypted is an <encrypted/> element of either version.
type Encrypted struct {
	Namespace string // NSLegacy or NSV2
	Sender    uint32 // id of the sending device
	Keys      []Key
	// IV is legacy's initialization vector: 12 bytes, or 16 from old clients. It
	// is nil in omemo:2.
	IV []byte
	// Payload is the encrypted body or envelope. It is nil if there is none.
	Payload []byte
}

// Key is the key material of a message, encrypted to one device.
type Key struct {
	JID      string // canonical bare JID of the device's account; omemo:2 only
	Device   uint32
	Exchange bool // Data holds a key exchange
	Data     []byte
}

// OwnKey says which keys are for us.
type OwnKey struct {
	JID    string // bare JID
	Device uint32
}

// Find returns the <encrypted/> elements of a message, omemo:2 before legacy:
// none, one, or one of each version. Two of one version are ErrTwice.
func Find(message *Element) ([]*Element, error) {
	var found []*Element
	for _, space := range []string{NSV2, NSLegacy} {
		e, ok := message.Only(space, "encrypted")
		if !ok {
			return nil, fmt.Errorf("%w: two <encrypted/> of one version", ErrTwice)
		}
		if e != nil {
			found = append(found, e)
		}
	}
	return found, nil
}

// ParseEncrypted reads an <encrypted/> element of either version. Only the keys
// for own are decoded and returned: more than one is possible in legacy, where
// each has to be tried. If there are none, Keys is empty, IV and Payload are not
// decoded either, and the message is not for us.
//
// The order of children does not matter, unknown elements and attributes are
// ignored, and so is white space in base64. Errors are ErrMalformed, ErrTwice or
// ErrLimit.
func ParseEncrypted(e *Element, own OwnKey) (*Encrypted, error) {
	space := e.Name.Space
	if e.Name.Local != "encrypted" || space != NSLegacy && space != NSV2 {
		return nil, fmt.Errorf("%w: not an <encrypted/>", ErrMalformed)
	}
	header, ok := e.Only(space, "header")
	if !ok || header == nil {
		return nil, fmt.Errorf("%w: <encrypted/> needs one <header/>", ErrMalformed)
	}
	payload, ok := e.Only(space, "payload")
	if !ok {
		return nil, fmt.Errorf("%w: two <payload/>", ErrMalformed)
	}
	sid, _ := header.Attribute("sid")
	sender, err := ParseDevice(space, sid)
	if err != nil {
		return nil, err
	}

	m := &Encrypted{Namespace: space, Sender: sender}
	if space == NSV2 {
		err = m.parseV2Keys(header, own)
	} else {
		err = m.parseLegacyKeys(header, own)
	}
	if err != nil {
		return nil, err
	}
	if len(m.Keys) > 0 && payload != nil && !isSpace(payload.Text()) {
		if m.Payload, err = DecodeBase64(payload.Text()); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// Ciphertext returns the initialization vector, nil in omemo:2, and the encrypted
// body of an <encrypted/> element, whether it holds a key for us or not: so that
// a message of our own is recognised. What is missing is nil.
func Ciphertext(e *Element) (iv, payload []byte, err error) {
	decode := func(parent *Element, local string) ([]byte, error) {
		if parent == nil {
			return nil, nil
		}
		c, ok := parent.Only(e.Name.Space, local)
		switch {
		case !ok:
			return nil, fmt.Errorf("%w: two <%s/>", ErrMalformed, local)
		case c == nil:
			return nil, nil
		}
		return DecodeBase64(c.Text())
	}
	if e.Name.Space == NSLegacy {
		if iv, err = decode(e.Child(NSLegacy, "header"), "iv"); err != nil {
			return nil, nil, err
		}
	}
	payload, err = decode(e, "payload")
	return iv, payload, err
}

func (m *Encrypted) parseLegacyKeys(header *Element, own OwnKey) error {
	rid := strconv.FormatUint(uint64(own.Device), 10)
	var ours []*Element
	keys := 0
	for key := range header.Elements() {
		if !key.Is(NSLegacy, "key") {
			continue
		}
		if keys++; keys > MaxKeys {
			return &LimitError{"keys", MaxKeys}
		}
		if value, _ := key.Attribute("rid"); value != rid {
			continue
		}
		if ours = append(ours, key); len(ours) > MaxOwnKeys {
			return &LimitError{"keys", MaxOwnKeys}
		}
	}
	for _, key := range ours {
		k, err := parseKey(key, "prekey")
		if err != nil {
			return err
		}
		k.Device = own.Device
		m.Keys = append(m.Keys, k)
	}
	if len(ours) == 0 {
		return nil
	}
	iv, ok := header.Only(NSLegacy, "iv")
	if !ok {
		return fmt.Errorf("%w: two <iv/>", ErrMalformed)
	}
	if iv == nil {
		return nil // the payload, if there is one, cannot be opened
	}
	var err error
	m.IV, err = DecodeBase64(iv.Text())
	return err
}

func (m *Encrypted) parseV2Keys(header *Element, own OwnKey) error {
	account, err := jid.Parse(own.JID)
	if err != nil {
		return fmt.Errorf("stanza: own address: %w", err)
	}
	account = account.Bare()
	rid := strconv.FormatUint(uint64(own.Device), 10)
	var ours *Element
	keys := 0
	for group := range header.Elements() {
		if !group.Is(NSV2, "keys") {
			continue
		}
		mine := isAccount(group, account)
		for key := range group.Elements() {
			if !key.Is(NSV2, "key") {
				continue
			}
			if keys++; keys > MaxKeys {
				return &LimitError{"keys", MaxKeys}
			}
			if value, _ := key.Attribute("rid"); !mine || value != rid {
				continue
			}
			if ours != nil {
				return fmt.Errorf("%w: two keys for this device", ErrTwice)
			}
			ours = key
		}
	}
	if ours == nil {
		return nil
	}
	k, err := parseKey(ours, "kex")
	if err != nil {
		return err
	}
	k.JID, k.Device = account.String(), own.Device
	m.Keys = []Key{k}
	return nil
}

// isAccount reports whether <keys/> belongs to the account. Addresses are
// compared in their canonical form.
func isAccount(group *Element, account jid.JID) bool {
	value, _ := group.Attribute("jid")
	if value == account.String() {
		return true
	}
	j, err := jid.Parse(value)
	return err == nil && j.Equal(account)
}

func parseKey(key *Element, exchange string) (Key, error) {
	k := Key{}
	switch value, _ := key.Attribute(exchange); strings.Trim(value, " \t\r\n") { // xs:boolean
	case "true", "1":
		k.Exchange = true
	case "false", "0", "":
	default:
		return k, fmt.Errorf("%w: attribute %s", ErrMalformed, exchange)
	}
	text := key.Text()
	if len(text) > 2*maxKeyData { // with room for white space
		return k, fmt.Errorf("%w: key of %d characters", ErrMalformed, len(text))
	}
	var err error
	k.Data, err = DecodeBase64(text)
	if err == nil && len(k.Data) == 0 {
		err = fmt.Errorf("%w: empty key", ErrMalformed)
	}
	return k, err
}

// Element returns the element as strict peers read it: children in the order of
// the specification, nothing but them, and no attribute that is false. Legacy
// always has an <iv/>: clients discard elements without. In omemo:2, the keys of
// one account stand together.
func (m *Encrypted) Element() *Element {
	header := NewElement(m.Namespace, "header").SetAttribute("sid", strconv.FormatUint(uint64(m.Sender), 10))
	if m.Namespace == NSV2 {
		m.appendV2Keys(header)
	} else {
		for _, k := range m.Keys {
			header.Append(keyElement(NSLegacy, "prekey", k))
		}
		header.Append(NewText(NSLegacy, "iv", EncodeBase64(m.IV)))
	}
	e := NewElement(m.Namespace, "encrypted", header)
	if m.Payload != nil {
		e.Append(NewText(m.Namespace, "payload", EncodeBase64(m.Payload)))
	}
	return e
}

func (m *Encrypted) appendV2Keys(header *Element) {
	groups := make(map[string]*Element)
	for _, k := range m.Keys {
		group := groups[k.JID]
		if group == nil {
			group = NewElement(NSV2, "keys").SetAttribute("jid", k.JID)
			groups[k.JID] = group
			header.Append(group)
		}
		group.Append(keyElement(NSV2, "kex", k))
	}
}

func keyElement(space, exchange string, k Key) *Element {
	e := NewText(space, "key", EncodeBase64(k.Data)).SetAttribute("rid", strconv.FormatUint(uint64(k.Device), 10))
	if k.Exchange {
		e.SetAttribute(exchange, "true")
	}
	return e
}

// ParseDevice reads a device id: canonical decimal, without sign, leading zeros
// or space. It is 1 to 2^31-1 in omemo:2; in legacy, where ids of 32 bits exist,
// 1 to 2^32-1.
func ParseDevice(namespace, s string) (uint32, error) {
	bits := 32
	if namespace == NSV2 {
		bits = 31
	}
	n, err := strconv.ParseUint(s, 10, bits)
	if err != nil || n == 0 || s[0] == '0' {
		return 0, fmt.Errorf("%w: device id", ErrMalformed)
	}
	return uint32(n), nil
}

// EncodeBase64 returns base64 as it stands in OMEMO's elements: the standard
// alphabet, padded.
func EncodeBase64(b []byte) string { return base64.StdEncoding.EncodeToString(b) }

// DecodeBase64 reads base64 with the standard alphabet and padding. XML white
// space is skipped. The error is ErrMalformed.
func DecodeBase64(s string) ([]byte, error) {
	b, err := base64.StdEncoding.Strict().DecodeString(withoutSpace.Replace(s))
	if err != nil {
		return nil, fmt.Errorf("%w: base64", ErrMalformed)
	}
	return b, nil
}

var withoutSpace = strings.NewReplacer(" ", "", "\t", "", "\r", "", "\n", "")
