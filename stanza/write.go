package stanza

import (
	"encoding/xml"
	"io"
	"slices"
	"strconv"
	"unicode/utf8"

	"mellium.im/xmlstream"
)

// nsXML is what the prefix xml is bound to, always.
const nsXML = "http://www.w3.org/XML/1998/namespace"

// AppendXML appends the element to dst. The form is always the same for the
// same tree: namespaces are declared as default namespaces, where they change;
// attributes stand in their order; elements without children have one tag. The
// only prefixes are xml, and those of attributes in other namespaces, which
// cannot do without. Characters that XML does not allow become U+FFFD.
//
// An outermost element without namespace gets no declaration, so that it takes
// that of the stream it is written to.
func (e *Element) AppendXML(dst []byte) []byte { return appendElement(dst, e, "") }

func appendElement(dst []byte, e *Element, parent string) []byte {
	dst = appendStart(dst, e, parent)
	if len(e.Children) == 0 {
		return append(dst, "/>"...)
	}
	dst = append(dst, '>')
	for _, n := range e.Children {
		if n.Element != nil {
			dst = appendElement(dst, n.Element, e.Name.Space)
		} else {
			dst = appendText(dst, n.Text)
		}
	}
	dst = append(dst, "</"...)
	dst = append(dst, e.Name.Local...)
	return append(dst, '>')
}

// appendStart appends a start tag without its closing bracket.
func appendStart(dst []byte, e *Element, parent string) []byte {
	dst = append(dst, '<')
	dst = append(dst, e.Name.Local...)
	if e.Name.Space != parent {
		dst = appendAttribute(dst, "xmlns", e.Name.Space)
	}
	for i, a := range e.Attr {
		switch a.Name.Space {
		case "":
			dst = appendAttribute(dst, a.Name.Local, a.Value)
		case nsXML:
			dst = appendAttribute(dst, "xml:"+a.Name.Local, a.Value)
		default:
			prefix := "ns" + strconv.Itoa(i)
			dst = appendAttribute(dst, "xmlns:"+prefix, a.Name.Space)
			dst = appendAttribute(dst, prefix+":"+a.Name.Local, a.Value)
		}
	}
	return dst
}

func appendAttribute(dst []byte, name, value string) []byte {
	dst = append(dst, ' ')
	dst = append(dst, name...)
	dst = append(dst, `="`...)
	for i := 0; i < len(value); i++ {
		// Parsers turn white space in attributes into spaces, unless escaped.
		if c := value[i]; c == '"' || c == '\t' || c == '\n' {
			dst = appendText(dst, value[:i])
			dst = append(dst, "&#"...)
			dst = strconv.AppendInt(dst, int64(c), 10)
			dst = append(dst, ';')
			value, i = value[i+1:], -1
		}
	}
	dst = appendText(dst, value)
	return append(dst, '"')
}

func appendText(dst []byte, s string) []byte {
	from := 0 // what stands before is written
	for i, r := range s {
		escaped := ""
		switch {
		case r == '&':
			escaped = "&amp;"
		case r == '<':
			escaped = "&lt;"
		case r == '>':
			escaped = "&gt;"
		case r == '\r': // parsers turn a bare one into a line feed
			escaped = "&#13;"
		case r == utf8.RuneError || !isCharacter(r):
			escaped = "\uFFFD"
		default:
			continue
		}
		dst = append(dst, s[from:i]...)
		dst = append(dst, escaped...)
		_, size := utf8.DecodeRuneInString(s[i:])
		from = i + size
	}
	return append(dst, s[from:]...)
}

// WriteXML writes the element to w. It returns the number of tokens written.
func (e *Element) WriteXML(w xmlstream.TokenWriter) (int, error) {
	return xmlstream.Copy(w, e.TokenReader())
}

// TokenReader returns the tokens of the element, start and end tag included. The
// element must not be changed until they have been read.
func (e *Element) TokenReader() xml.TokenReader {
	return &reader{path: []position{{element: e, next: -1}}}
}

// reader walks a tree.
type reader struct{ path []position }

type position struct {
	element *Element
	next    int // index of the next child; -1 before the start tag
}

func (r *reader) Token() (xml.Token, error) {
	if len(r.path) == 0 {
		return nil, io.EOF
	}
	at := &r.path[len(r.path)-1]
	if at.next < 0 {
		at.next = 0
		// Encoders add attributes to a start tag that they are given.
		return xml.StartElement{Name: at.element.Name, Attr: slices.Clone(at.element.Attr)}, nil
	}
	if at.next == len(at.element.Children) {
		r.path = r.path[:len(r.path)-1]
		return xml.EndElement{Name: at.element.Name}, nil
	}
	n := at.element.Children[at.next]
	at.next++
	if n.Element == nil {
		return xml.CharData(n.Text), nil
	}
	r.path = append(r.path, position{element: n.Element, next: -1})
	return r.Token()
}
