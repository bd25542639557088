package main

import (
	"bytes"
	"encoding/xml"
	"fmt"

	"example.org/omellium/middleware/xmpptest"
	"example.org/omellium/omemo"
	"example.org/omellium/stanza"
)

// checkRead checks what the program was told beside the text.
func checkRead(m message, text string, from *program, v omemo.Version) error {
	switch i := m.Info; {
	case m.Body != text:
		return fmt.Errorf("read %q, not %q", m.Body, text)
	case i == nil:
		return fmt.Errorf("%q was not encrypted", text)
	case i.Account != from.device.JID || i.Device != from.device.Device || i.Fingerprint != from.fingerprint:
		return fmt.Errorf("%q came from %s, device %d, %s", text, i.Account, i.Device, i.Fingerprint)
	case i.Version != v || !i.Authenticated || i.Trust != omemo.TrustedBlindly:
		return fmt.Errorf("%q came in %s, %s, authenticated: %t", text, i.Version, i.Trust, i.Authenticated)
	}
	return nil
}

// checkSeen checks a stanza on the wire: exactly one encrypted element, of the
// expected version, whose key is in a key exchange or not. It returns the element.
func checkSeen(e *stanza.Element, to omemo.Address, v omemo.Version, exchange bool) (*stanza.Element, error) {
	found, err := stanza.Find(e)
	if err != nil {
		return nil, err
	}
	if len(found) != 1 || found[0].Name.Space != v.Namespace() {
		return nil, fmt.Errorf("%d encrypted elements where one of %s was expected", len(found), v)
	}
	parsed, err := stanza.ParseEncrypted(found[0], stanza.OwnKey{JID: to.JID, Device: uint32(to.Device)})
	if err != nil {
		return nil, err
	}
	if len(parsed.Keys) != 1 || parsed.Keys[0].Exchange != exchange {
		return nil, fmt.Errorf("keys for %v: %d; key exchange expected: %t", to, len(parsed.Keys), exchange)
	}
	return found[0], nil
}

// parse reads a stanza of the record.
func parse(s xmpptest.Stanza) (*stanza.Element, error) {
	start, err := s.Start()
	if err != nil {
		return nil, err
	}
	d := xml.NewDecoder(bytes.NewReader(s.XML))
	d.DefaultSpace = stanza.NSClient
	if _, err := d.Token(); err != nil {
		return nil, err
	}
	return stanza.ReadElement(d, start, stanza.DefaultLimits)
}

// search looks for texts in all that was on the wire, and returns its length.
func search(wire []xmpptest.Stanza, texts []string) (size int, err error) {
	for _, s := range wire {
		size += len(s.XML)
		for _, text := range texts {
			if bytes.Contains(s.XML, []byte(text)) {
				return 0, fmt.Errorf("%q was in clear %s: %s", text, s.Direction, s.XML)
			}
		}
	}
	return size, nil
}
