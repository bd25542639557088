package middleware

import (
	"encoding/xml"
	"fmt"
	"slices"

	"example.org/omellium/stanza"
)

// besideAttributes are what may stand outside an encrypted message on the way
// out, each with the attributes that its specification knows. What is in them is
// for servers; none has children, and only a delay may have text.
var besideAttributes = map[xml.Name][]string{
	{Space: stanza.NSHints, Local: "store"}:              nil,
	{Space: stanza.NSHints, Local: "no-store"}:           nil,
	{Space: stanza.NSHints, Local: "no-copy"}:            nil,
	{Space: stanza.NSHints, Local: "no-permanent-store"}: nil,
	{Space: stanza.NSSID, Local: "origin-id"}:            {"id"},
	{Space: stanza.NSSID, Local: "stanza-id"}:            {"id", "by"},
	{Space: stanza.NSDelay, Local: "delay"}:              {"from", "stamp"},
	{Space: stanza.NSEME, Local: "encryption"}:           {"namespace", "name"},
	{Space: nsCarbons, Local: "private"}:                 nil,
}

// beside returns an element that stands outside as it leaves. The reason in a
// delay (XEP-0203, section 4) is for people, who can do without it: it stays here.
// Whatever else is in such an element makes the message one that cannot be sent.
func beside(e *stanza.Element) (*stanza.Element, error) {
	known, ok := besideAttributes[e.Name]
	for range e.Elements() {
		ok = false
	}
	if !ok || hasText(e) && e.Name.Space != stanza.NSDelay {
		return nil, fmt.Errorf("%w: <%s/> must be empty", ErrMessage, e.Name.Local)
	}
	out := &stanza.Element{Name: e.Name}
	for _, a := range e.Attr {
		if a.Name.Space == "" && slices.Contains(known, a.Name.Local) {
			out.Attr = append(out.Attr, a)
		}
	}
	return out, nil
}

// unencrypted returns a message as it leaves that needs no encryption, because
// of its class.
func unencrypted(e *stanza.Element) (*stanza.Element, error) {
	out := &stanza.Element{Name: e.Name, Attr: attributes(e)}
	for c := range e.Elements() {
		if outside(c) {
			var err error
			if c, err = beside(c); err != nil {
				return nil, err
			}
		}
		out.Append(c)
	}
	return out, nil
}
