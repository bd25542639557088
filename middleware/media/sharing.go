package media

import (
	"encoding/base64"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"strings"

	"example.org/omellium/stanza"
	"mellium.im/xmlstream"
)

// Namespaces of <file-sharing/> and what is in it.
const (
	NSSharing   = "urn:xmpp:sfs:0"  // XEP-0447
	NSEncrypted = "urn:xmpp:esfs:0" // XEP-0448

	nsURLData  = "http://jabber.org/protocol/url-data" // XEP-0103
	nsFallback = "urn:xmpp:fallback:0"                 // XEP-0428
)

// maxSources bounds the sources of a file that are looked at.
const maxSources = 16

// Disposition says how a file is meant to be shown (XEP-0447, section 3.2).
type Disposition string

const (
	Inline     Disposition = "inline"     // within the chat
	Attachment Disposition = "attachment" // on demand
)

// File is a file that is shared: where its encrypted form is stored, what it was
// encrypted with, and what the sender says about it.
type File struct {
	Metadata
	URL         string // of the encrypted form, https
	Key         Key
	Hashes      []Hash // of the file itself; all are checked when it is fetched
	Disposition Disposition
	Thumbnail   []byte // a small JPEG, only from the body of a message
}

// Element returns the <file-sharing/> element. It holds the key, and so belongs
// within an encrypted message.
func (f *File) Element() *stanza.Element {
	e := stanza.NewElement(NSSharing, "file-sharing",
		f.Metadata.element(f.Hashes),
		stanza.NewElement(NSSharing, "sources",
			stanza.NewElement(NSEncrypted, "encrypted",
				stanza.NewText(NSEncrypted, "key", encode(f.Key.secret())),
				stanza.NewText(NSEncrypted, "iv", encode(f.Key.vector())),
				stanza.NewElement(NSSharing, "sources",
					stanza.NewElement(nsURLData, "url-data").SetAttribute("target", f.URL),
				),
			).SetAttribute("cipher", string(f.Key.cipher)),
		),
	)
	if f.Disposition != "" {
		e.SetAttribute("disposition", string(f.Disposition))
	}
	return e
}

// TokenReader returns the payload of a message that shares the file: the aesgcm://
// URL as its body, <file-sharing/>, and that the former stands for the latter
// (XEP-0428). A file with another cipher than AES-256-GCM has no such URL, and so no
// body: it can be shared with devices of omemo:2 alone.
func (f *File) TokenReader() xml.TokenReader {
	var parts []xml.TokenReader
	if body, err := f.body(); err == nil {
		parts = append(parts, body.TokenReader(),
			stanza.NewElement(nsFallback, "fallback", stanza.NewElement(nsFallback, "body")).
				SetAttribute("for", NSSharing).TokenReader())
	}
	return xmlstream.MultiReader(append(parts, f.Element().TokenReader())...)
}

// Parse reads a <file-sharing/> element. It returns ErrNotEncrypted if no source of
// the file is encrypted in a way that we know and can be fetched by HTTPS, and
// ErrSharing if the element is malformed.
func Parse(e *stanza.Element) (*File, error) {
	if !e.Is(NSSharing, "file-sharing") {
		return nil, fmt.Errorf("%w: another element", ErrSharing)
	}
	metadata, one := e.Only(NSMetadata, "file")
	if !one || metadata == nil {
		return nil, fmt.Errorf("%w: metadata", ErrSharing)
	}
	sources, one := e.Only(NSSharing, "sources")
	if !one {
		return nil, fmt.Errorf("%w: sources", ErrSharing)
	}
	f := new(File)
	var err error
	if f.Metadata, err = parseMetadata(metadata); err != nil {
		return nil, err
	}
	if f.Hashes, err = parseHashes(metadata); err != nil {
		return nil, err
	}
	switch d, _ := e.Attribute("disposition"); Disposition(d) {
	case Inline, Attachment:
		f.Disposition = Disposition(d)
	}
	if sources == nil {
		return nil, ErrNotEncrypted
	}
	looked := 0
	for c := range sources.Elements() {
		if !c.Is(NSEncrypted, "encrypted") {
			continue
		}
		if looked++; looked > maxSources {
			break
		}
		if err := f.source(c); errors.Is(err, ErrNotEncrypted) {
			continue
		} else if err != nil {
			return nil, err
		}
		return f, nil
	}
	return nil, ErrNotEncrypted
}

// source takes an encrypted source: with the key, IV and URL that are in it. For a
// source that we cannot read, though others may, it returns ErrNotEncrypted.
func (f *File) source(e *stanza.Element) error {
	name, _ := e.Attribute("cipher")
	if Cipher(name).keySize() == 0 || Cipher(name) == AES256CBC && len(f.Hashes) == 0 {
		return ErrNotEncrypted
	}
	key, oneKey := e.Only(NSEncrypted, "key")
	iv, oneIV := e.Only(NSEncrypted, "iv")
	if !oneKey || !oneIV || key == nil || iv == nil {
		return fmt.Errorf("%w: key or IV", ErrSharing)
	}
	rawKey, err := decode(key.Text(), 32)
	if err != nil {
		return fmt.Errorf("%w: key", ErrSharing)
	}
	rawIV, err := decode(iv.Text(), 16)
	if err != nil {
		return fmt.Errorf("%w: IV", ErrSharing)
	}
	if f.Key, err = keyOf(Cipher(name), rawKey, rawIV); err != nil {
		return fmt.Errorf("%w: %w", ErrSharing, err)
	}
	inner, one := e.Only(NSSharing, "sources")
	if !one || inner == nil {
		return fmt.Errorf("%w: sources", ErrSharing)
	}
	looked := 0
	for c := range inner.Elements() {
		if !c.Is(nsURLData, "url-data") {
			continue
		}
		if looked++; looked > maxSources {
			break
		}
		target, _ := c.Attribute("target")
		if _, err := address(target); err == nil {
			f.URL = target
			return nil
		}
	}
	return ErrNotEncrypted
}

// Received is a field of the struct that a message is decoded into:
//
//	type message struct {
//		xmppstanza.Message
//		Body    string         `xml:"body"`
//		Sharing media.Received `xml:"urn:xmpp:sfs:0 file-sharing"`
//	}
//
// What is wrong with the element of a stranger is kept in Err rather than returned:
// an error would keep the handler from seeing the message, and end its stream.
type Received struct {
	File *File // nil if there is none, or Err is set
	Err  error
}

// UnmarshalXML implements xml.Unmarshaler.
func (r *Received) UnmarshalXML(d *xml.Decoder, start xml.StartElement) error {
	*r = Received{}
	e, err := stanza.ReadElement(d, start, stanza.DefaultLimits)
	switch {
	case errors.Is(err, stanza.ErrLimit), errors.Is(err, stanza.ErrMarkup):
		r.Err = fmt.Errorf("%w: %w", ErrSharing, err)
	case err != nil:
		return err
	default:
		r.File, r.Err = Parse(e)
	}
	return nil
}

func encode(b []byte) string { return base64.StdEncoding.EncodeToString(b) }

// decode reads base64 of at most n bytes, with white space as XML allows it.
func decode(s string, n int) ([]byte, error) {
	s = strings.Map(func(r rune) rune {
		if strings.ContainsRune(" \t\r\n", r) {
			return -1
		}
		return r
	}, s)
	if len(s) > base64.StdEncoding.EncodedLen(n) {
		return nil, io.ErrShortBuffer
	}
	return base64.StdEncoding.Strict().DecodeString(s)
}
