package stanza

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"
)

// Limits bound an element while it is read. All must be positive.
type Limits struct {
	Depth  int // elements within each other; the outermost alone is 1
	Tokens int // start tags, end tags, attributes and runs of character data
	Bytes  int // length as AppendXML writes it, empty elements with two tags
}

// DefaultLimits are the limits of one stanza.
var DefaultLimits = Limits{Depth: 32, Tokens: 40_000, Bytes: 512 << 10}

// attributeLimit bounds the attributes of one element, so that looking for
// duplicates stays cheap. XMPP elements have less than ten.
const attributeLimit = 64

// Errors of reading a tree.
var (
	// ErrLimit is what every LimitError unwraps to.
	ErrLimit = errors.New("stanza: limit exceeded")
	// ErrMarkup: the element holds a comment, a processing instruction, a
	// directive, or something else that XMPP does not allow (RFC 6120, section
	// 11.1), or is not well-formed.
	ErrMarkup = errors.New("stanza: markup refused")
)

// LimitError says which limit was exceeded.
type LimitError struct {
	Limit string // "depth", "tokens", "bytes", "attributes" or "keys"
	Max   int
}

func (e *LimitError) Error() string {
	return fmt.Sprintf("stanza: more than %d %s", e.Max, e.Limit)
}

// Unwrap returns ErrLimit.
func (e *LimitError) Unwrap() error { return ErrLimit }

// ReadElement reads the element whose start tag has been taken from r already,
// up to and including its end tag. Namespace declarations are dropped: the names
// of r's tokens are resolved.
//
// If the element is refused (ErrLimit, ErrMarkup), the rest of it has been read
// and dropped and r stands behind its end tag. After any other error r cannot be
// used any more.
func ReadElement(r xml.TokenReader, start xml.StartElement, l Limits) (*Element, error) {
	return (&builder{limits: l}).read(r, start)
}

// ParseElement reads b, which holds exactly one element and beside it nothing
// but white space. Unlike ReadElement, which cannot see the declarations of the
// stream around it, it refuses prefixes that are not declared.
func ParseElement(b []byte, l Limits) (*Element, error) {
	if len(b) > l.Bytes {
		return nil, &LimitError{"bytes", l.Bytes}
	}
	if !utf8.Valid(b) {
		return nil, fmt.Errorf("%w: not UTF-8", ErrMarkup)
	}
	d := xml.NewDecoder(bytes.NewReader(b))
	var root *Element
	for {
		tok, err := d.Token()
		switch {
		case err == io.EOF && root != nil:
			return root, nil
		case err != nil:
			return nil, fmt.Errorf("%w: %w", ErrMarkup, err)
		}
		switch tok := tok.(type) {
		case xml.CharData:
			if !isSpace(string(tok)) {
				return nil, fmt.Errorf("%w: text beside the element", ErrMarkup)
			}
		case xml.StartElement:
			if root != nil {
				return nil, fmt.Errorf("%w: more than one element", ErrMarkup)
			}
			root, err = (&builder{limits: l, scoped: true}).read(d, tok)
			if errors.Is(err, ErrLimit) || errors.Is(err, ErrMarkup) {
				return nil, err
			}
			if err != nil {
				return nil, fmt.Errorf("%w: %w", ErrMarkup, err)
			}
		default:
			return nil, fmt.Errorf("%w: %T beside the element", ErrMarkup, tok)
		}
	}
}

// builder builds one tree. After the first refusal it only counts the depth.
type builder struct {
	limits  Limits
	scoped  bool       // check that namespaces were declared
	scope   [][]string // namespaces declared by each open element
	depth   int
	tokens  int
	bytes   int
	scratch []byte
	root    *Element
	open    []*Element
	text    strings.Builder // character data may come in pieces
	err     error
}

func (b *builder) read(r xml.TokenReader, start xml.StartElement) (*Element, error) {
	b.start(start)
	for idle := 0; b.depth > 0; {
		tok, err := r.Token()
		switch tok := tok.(type) {
		case xml.StartElement:
			b.start(tok)
		case xml.EndElement:
			b.end()
		case xml.CharData:
			b.chars(string(tok))
		case nil:
			// A reader may return neither token nor error, but not for ever.
			if idle++; idle == 100 && err == nil {
				err = io.ErrNoProgress
			}
		default:
			b.refuse(fmt.Errorf("%w: %T", ErrMarkup, tok))
		}
		if err != nil && b.depth > 0 {
			if err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return nil, fmt.Errorf("stanza: reading an element: %w", err)
		}
	}
	if b.err != nil {
		return nil, b.err
	}
	return b.root, nil
}

func (b *builder) start(t xml.StartElement) {
	b.depth++
	if b.err != nil {
		return
	}
	b.flush()
	if b.depth > b.limits.Depth {
		b.refuse(&LimitError{"depth", b.limits.Depth})
		return
	}
	if len(t.Attr) > attributeLimit {
		b.refuse(&LimitError{"attributes", attributeLimit})
		return
	}
	e := &Element{Name: t.Name}
	var declared []string
	for _, a := range t.Attr {
		if isDeclaration(a.Name) {
			declared = append(declared, a.Value)
			if a.Name.Space != "" && a.Value == "" {
				b.refuse(fmt.Errorf("%w: prefix bound to no namespace", ErrMarkup))
				return
			}
			continue
		}
		if slices.ContainsFunc(e.Attr, func(other xml.Attr) bool { return other.Name == a.Name }) {
			b.refuse(fmt.Errorf("%w: attribute given twice", ErrMarkup))
			return
		}
		e.Attr = append(e.Attr, a)
	}
	if b.scoped {
		b.scope = append(b.scope, declared)
	}
	if err := b.check(e); err != nil {
		b.refuse(err)
		return
	}

	parent := ""
	if len(b.open) == 0 {
		b.root = e
	} else {
		last := b.open[len(b.open)-1]
		last.Append(e)
		parent = last.Name.Space
	}
	b.open = append(b.open, e)
	b.scratch = appendStart(b.scratch[:0], e, parent)
	b.count(2+len(t.Attr), len(b.scratch)+len(">")+len("</>")+len(e.Name.Local))
}

// check refuses names and values that cannot be written, or that a conforming
// parser would not have let through.
func (b *builder) check(e *Element) error {
	if !isName(e.Name.Local) || !isText(e.Name.Space) || !b.bound(e.Name.Space) {
		return fmt.Errorf("%w: name of an element", ErrMarkup)
	}
	for _, a := range e.Attr {
		if !isName(a.Name.Local) || !isText(a.Name.Space) || !b.bound(a.Name.Space) {
			return fmt.Errorf("%w: name of an attribute", ErrMarkup)
		}
		if !isText(a.Value) {
			return fmt.Errorf("%w: value of an attribute", ErrMarkup)
		}
	}
	return nil
}

// bound reports whether a namespace was declared. encoding/xml takes a prefix
// that was not for a namespace.
func (b *builder) bound(space string) bool {
	if !b.scoped || space == "" || space == nsXML {
		return true
	}
	return slices.ContainsFunc(b.scope, func(declared []string) bool {
		return slices.Contains(declared, space)
	})
}

func (b *builder) chars(s string) {
	if b.err != nil {
		return
	}
	if !isText(s) {
		b.refuse(fmt.Errorf("%w: character data", ErrMarkup))
		return
	}
	if len(s) > b.limits.Bytes-b.bytes {
		b.refuse(&LimitError{"bytes", b.limits.Bytes})
		return
	}
	b.scratch = appendText(b.scratch[:0], s)
	b.text.WriteString(s)
	b.count(1, len(b.scratch))
}

func (b *builder) end() {
	b.depth--
	if b.err != nil {
		return
	}
	b.flush()
	b.open = b.open[:len(b.open)-1]
	if b.scoped {
		b.scope = b.scope[:len(b.scope)-1]
	}
}

// flush adds the character data collected so far as one node.
func (b *builder) flush() {
	if b.text.Len() == 0 {
		return
	}
	e := b.open[len(b.open)-1]
	e.Children = append(e.Children, Node{Text: b.text.String()})
	b.text.Reset()
}

func (b *builder) count(tokens, bytes int) {
	b.tokens += tokens
	b.bytes += bytes
	if b.tokens > b.limits.Tokens {
		b.refuse(&LimitError{"tokens", b.limits.Tokens})
	} else if b.bytes > b.limits.Bytes {
		b.refuse(&LimitError{"bytes", b.limits.Bytes})
	}
}

// refuse keeps the first reason and lets go of what was built.
func (b *builder) refuse(err error) {
	if b.err == nil {
		*b = builder{limits: b.limits, depth: b.depth, err: err}
	}
}

func isDeclaration(n xml.Name) bool {
	return n.Space == "xmlns" || n.Space == "" && n.Local == "xmlns"
}

// isName reports whether s can stand as a name without prefix. Names that were
// read by encoding/xml need only the check for colons, others need them all.
func isName(s string) bool {
	return s != "" && isText(s) && !strings.ContainsAny(s, " \t\r\n<>&\"'=/:") && !strings.ContainsAny(s[:1], "-.0123456789")
}

// isText reports whether s is UTF-8 and consists of characters of XML 1.0.
func isText(s string) bool {
	for i, r := range s {
		if r == utf8.RuneError {
			if _, size := utf8.DecodeRuneInString(s[i:]); size == 1 {
				return false
			}
		}
		if !isCharacter(r) {
			return false
		}
	}
	return true
}

// isCharacter is the production Char of XML 1.0.
func isCharacter(r rune) bool {
	return r == '\t' || r == '\n' || r == '\r' ||
		r >= 0x20 && r <= 0xD7FF || r >= 0xE000 && r <= 0xFFFD || r >= 0x10000 && r <= 0x10FFFF
}
