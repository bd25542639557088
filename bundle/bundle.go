package bundle

import (
	"fmt"
	"strconv"

	"example.org/omellium/omemo"
	"example.org/omellium/stanza"
)

// names are those of the elements and attributes of one version.
type names struct {
	signedPreKey, signedPreKeyID string
	signature                    string
	identity                     string
	preKey, preKeyID             string
}

var (
	legacyNames = names{
		signedPreKey: "signedPreKeyPublic", signedPreKeyID: "signedPreKeyId",
		signature: "signedPreKeySignature",
		identity:  "identityKey",
		preKey:    "preKeyPublic", preKeyID: "preKeyId",
	}
	v2Names = names{
		signedPreKey: "spk", signedPreKeyID: "id",
		signature: "spks",
		identity:  "ik",
		preKey:    "pk", preKeyID: "id",
	}
)

func namesOf(v omemo.Version) *names {
	if v == omemo.V2 {
		return &v2Names
	}
	return &legacyNames
}

// Parse reads <bundle/>; the namespace tells the version. The children may stand
// in any order, and what is unknown is ignored. Everything has to be there once:
// signed pre key, signature, identity key, and 1 to MaxPreKeys pre keys of which
// no two have the same id or are the same key. Ids are decimal, 32 bits; 0, which
// old clients use, is read. Errors are ErrMalformed.
func Parse(e *stanza.Element, owner omemo.Address) (omemo.Bundle, error) {
	b := omemo.Bundle{Version: omemo.V2, Owner: owner}
	switch {
	case e.Is(stanza.NSV2, "bundle"):
	case e.Is(stanza.NSLegacy, "bundle"):
		b.Version = omemo.Legacy
	default:
		return omemo.Bundle{}, fmt.Errorf("%w: <%s/>", ErrMalformed, e.Name.Local)
	}
	if err := parse(&b, e); err != nil {
		return omemo.Bundle{}, err
	}
	return b, nil
}

func parse(b *omemo.Bundle, e *stanza.Element) error {
	n := namesOf(b.Version)
	parts := make(map[string]*stanza.Element, 4)
	for _, name := range []string{n.signedPreKey, n.signature, n.identity, "prekeys"} {
		part, ok := e.Only(e.Name.Space, name)
		if !ok || part == nil {
			return fmt.Errorf("%w: a bundle needs one <%s/>", ErrMalformed, name)
		}
		parts[name] = part
	}

	var err error
	if b.SignedPreKeyID, err = parseID(parts[n.signedPreKey], n.signedPreKeyID); err != nil {
		return err
	}
	if b.SignedPreKey, err = parseKey(parts[n.signedPreKey], b.Version); err != nil {
		return err
	}
	if b.IdentityKey, err = parseKey(parts[n.identity], b.Version); err != nil {
		return err
	}
	signature, err := stanza.DecodeBase64(parts[n.signature].Text())
	if err != nil || len(signature) != len(b.Signature) {
		return fmt.Errorf("%w: signature", ErrMalformed)
	}
	copy(b.Signature[:], signature)
	b.PreKeys, err = parsePreKeys(parts["prekeys"], b.Version)
	return err
}

func parsePreKeys(e *stanza.Element, v omemo.Version) ([]omemo.PublicPreKey, error) {
	n := namesOf(v)
	var keys []omemo.PublicPreKey
	ids := make(map[uint32]bool)
	values := make(map[[32]byte]bool)
	for child := range e.Elements() {
		if !child.Is(e.Name.Space, n.preKey) {
			continue
		}
		if len(keys) == MaxPreKeys {
			return nil, fmt.Errorf("%w: more than %d pre keys", ErrMalformed, MaxPreKeys)
		}
		k := omemo.PublicPreKey{}
		var err error
		if k.ID, err = parseID(child, n.preKeyID); err != nil {
			return nil, err
		}
		if k.Key, err = parseKey(child, v); err != nil {
			return nil, err
		}
		if ids[k.ID] || values[k.Key] {
			return nil, fmt.Errorf("%w: pre key given twice", ErrMalformed)
		}
		ids[k.ID], values[k.Key] = true, true
		keys = append(keys, k)
	}
	if len(keys) == 0 {
		return nil, fmt.Errorf("%w: no pre key", ErrMalformed)
	}
	return keys, nil
}

func parseID(e *stanza.Element, attribute string) (uint32, error) {
	value, _ := e.Attribute(attribute)
	id, err := strconv.ParseUint(value, 10, 32)
	if err != nil || value != decimal(uint32(id)) {
		return 0, fmt.Errorf("%w: id of <%s/>", ErrMalformed, e.Name.Local)
	}
	return uint32(id), nil
}

// prefix stands before every public key in legacy: libsignal's mark for
// Curve25519.
const prefix = 0x05

// parseKey returns the 32 bytes of a public key.
// QUIRK: QXmpp has published omemo:2 keys with legacy's prefix.
func parseKey(e *stanza.Element, v omemo.Version) (key [32]byte, err error) {
	b, err := stanza.DecodeBase64(e.Text())
	switch {
	case err != nil:
	case len(b) == 33 && b[0] == prefix:
		copy(key[:], b[1:])
		return key, nil
	case len(b) == 32 && v == omemo.V2:
		copy(key[:], b)
		return key, nil
	}
	return key, fmt.Errorf("%w: key in <%s/>", ErrMalformed, e.Name.Local)
}

// Element returns the bundle as it is published. The children stand in the order
// that old versions of python-oldmemo insist on.
func Element(b *omemo.Bundle) *stanza.Element {
	n := namesOf(b.Version)
	space := b.Version.Namespace()
	preKeys := stanza.NewElement(space, "prekeys")
	for _, k := range b.PreKeys {
		preKeys.Append(keyElement(b.Version, n.preKey, k.Key).SetAttribute(n.preKeyID, decimal(k.ID)))
	}
	return stanza.NewElement(space, "bundle",
		keyElement(b.Version, n.signedPreKey, b.SignedPreKey).SetAttribute(n.signedPreKeyID, decimal(b.SignedPreKeyID)),
		stanza.NewText(space, n.signature, stanza.EncodeBase64(b.Signature[:])),
		keyElement(b.Version, n.identity, b.IdentityKey),
		preKeys,
	)
}

func keyElement(v omemo.Version, name string, key [32]byte) *stanza.Element {
	b := key[:]
	if v == omemo.Legacy {
		b = append([]byte{prefix}, b...)
	}
	return stanza.NewText(v.Namespace(), name, stanza.EncodeBase64(b))
}
