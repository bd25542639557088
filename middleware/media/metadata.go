package media

import (
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"

	"example.org/omellium/stanza"
)

// NSMetadata is the namespace of <file/> (XEP-0446).
const NSMetadata = "urn:xmpp:file:metadata:0"

// Limits of metadata, in bytes.
const (
	maxName        = 1024
	maxMediaType   = 255
	maxDescription = 16 << 10
)

// Metadata describes a file (XEP-0446). All but the size may be zero: not given.
// When received, it is what the sender says: it was not compared with the content,
// and Name must not be used as the name of a file before [SafeName] has seen it.
type Metadata struct {
	Name        string
	MediaType   string // as in "image/jpeg"; none means application/octet-stream
	Description string
	Size        int64 // of the file itself, in bytes; -1 if it is not known
	Date        time.Time
	Width       int // pixels
	Height      int
	Length      time.Duration // of sound and video, in milliseconds
}

func (m *Metadata) element(hashes []Hash) *stanza.Element {
	e := stanza.NewElement(NSMetadata, "file")
	text := func(name, value string) {
		if value != "" {
			e.Append(stanza.NewText(NSMetadata, name, value))
		}
	}
	number := func(name string, n int64) {
		if n > 0 {
			text(name, strconv.FormatInt(n, 10))
		}
	}
	text("media-type", m.MediaType)
	text("name", m.Name)
	if !m.Date.IsZero() {
		text("date", m.Date.UTC().Format(time.RFC3339))
	}
	if m.Size >= 0 {
		text("size", strconv.FormatInt(m.Size, 10))
	}
	for _, h := range hashes {
		e.Append(h.element())
	}
	number("width", int64(m.Width))
	number("height", int64(m.Height))
	number("length", m.Length.Milliseconds())
	text("desc", m.Description)
	return e
}

// parseMetadata reads a <file/> element. What it does not know is passed over.
func parseMetadata(e *stanza.Element) (Metadata, error) {
	m := Metadata{Size: -1}
	read := make(map[string]bool)
	for c := range e.Elements() {
		if c.Name.Space != NSMetadata {
			continue
		}
		name, text := c.Name.Local, strings.TrimSpace(c.Text())
		if read[name] {
			if name == "desc" {
				continue // in another language
			}
			return Metadata{}, fmt.Errorf("%w: %s given twice", ErrSharing, name)
		}
		read[name] = true
		var err error
		switch name {
		case "name":
			m.Name, err = limited(text, maxName)
		case "media-type":
			m.MediaType, err = limited(text, maxMediaType)
			if !isMediaType(m.MediaType) {
				m.MediaType = ""
			}
		case "desc":
			m.Description, err = limited(text, maxDescription)
		case "size":
			m.Size, err = number(text, maxGCM)
		case "width", "height":
			var n int64
			if n, err = number(text, 1<<30); name == "width" {
				m.Width = int(n)
			} else {
				m.Height = int(n)
			}
		case "length":
			var n int64
			n, err = number(text, 1<<40)
			m.Length = time.Duration(n) * time.Millisecond
		case "date":
			m.Date, err = time.Parse(time.RFC3339, text)
		}
		if err != nil {
			return Metadata{}, fmt.Errorf("%w: %s", ErrSharing, name)
		}
	}
	return m, nil
}

func limited(s string, n int) (string, error) {
	if len(s) > n {
		return "", fmt.Errorf("%w: longer than %d bytes", ErrSharing, n)
	}
	return s, nil
}

func number(s string, most int64) (int64, error) {
	n, err := strconv.ParseUint(s, 10, 63)
	if err != nil || int64(n) > most {
		return 0, fmt.Errorf("%w: number", ErrSharing)
	}
	return int64(n), nil
}

// isMediaType reports whether s is a type and a subtype, perhaps with parameters,
// that can stand in a header.
func isMediaType(s string) bool {
	kind, sub, ok := strings.Cut(s, "/")
	return ok && kind != "" && sub != "" && !strings.ContainsFunc(s, func(r rune) bool {
		return r > unicode.MaxASCII || !unicode.IsPrint(r)
	})
}
