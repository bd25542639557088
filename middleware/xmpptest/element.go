package xmpptest

import (
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// maxDepth bounds the nesting of one stanza.
const maxDepth = 256

const nsXML = "http://www.w3.org/XML/1998/namespace"

var errRestrictedXML = errors.New("xmpptest: comment, processing instruction or directive in a stream")

// element is an XML element, a run of text, or XML that was serialized before. Namespaces are
// resolved when it is read and declared anew when it is written, so that an element means the same
// wherever it is put. This is separate from the tree in package stanza on purpose: a server that
// shared its mistakes could not show them.
type element struct {
	name     xml.Name // empty: text or raw
	attr     []xml.Attr
	children []*element
	text     string
	raw      []byte
}

// el makes an element; attrs are pairs of a name and a value, of which those with empty values are
// left out.
func el(space, local string, attrs ...string) *element {
	e := &element{name: xml.Name{Space: space, Local: local}}
	for i := 0; i+1 < len(attrs); i += 2 {
		if attrs[i+1] != "" {
			e.set(attrs[i], attrs[i+1])
		}
	}
	return e
}

func (e *element) add(children ...*element) *element {
	for _, c := range children {
		if c != nil {
			e.children = append(e.children, c)
		}
	}
	return e
}

func (e *element) addText(text string) *element { return e.add(&element{text: text}) }
func (e *element) addRaw(raw []byte) *element   { return e.add(&element{raw: raw}) }

func (e *element) is(space, local string) bool {
	return e.name.Local == local && e.name.Space == space
}

// get returns the value of an attribute without a namespace.
func (e *element) get(local string) string {
	for _, a := range e.attr {
		if a.Name.Space == "" && a.Name.Local == local {
			return a.Value
		}
	}
	return ""
}

// set replaces an attribute without a namespace; an empty value removes it.
func (e *element) set(local, value string) {
	for i, a := range e.attr {
		if a.Name.Space == "" && a.Name.Local == local {
			e.attr = append(e.attr[:i:i], e.attr[i+1:]...)
			break
		}
	}
	if value != "" {
		e.attr = append(e.attr, xml.Attr{Name: xml.Name{Local: local}, Value: value})
	}
}

func (e *element) child(space, local string) *element {
	for _, c := range e.children {
		if c.is(space, local) {
			return c
		}
	}
	return nil
}

// elements returns the child elements, without text.
func (e *element) elements() []*element {
	var found []*element
	for _, c := range e.children {
		if c.name.Local != "" {
			found = append(found, c)
		}
	}
	return found
}

// content returns the text directly inside the element.
func (e *element) content() string {
	var b strings.Builder
	for _, c := range e.children {
		if c.name.Local == "" {
			b.WriteString(c.text)
		}
	}
	return b.String()
}

// remove drops the child elements of that name.
func (e *element) remove(space, local string) {
	var kept []*element
	for _, c := range e.children {
		if !c.is(space, local) {
			kept = append(kept, c)
		}
	}
	e.children = kept
}

// readElement reads the rest of the element that start began.
func readElement(d *xml.Decoder, start xml.StartElement, depth int) (*element, error) {
	if depth > maxDepth {
		return nil, errTooLarge
	}
	e := &element{name: start.Name}
	for _, a := range start.Attr {
		if a.Name.Space != "xmlns" && a.Name != (xml.Name{Local: "xmlns"}) {
			e.attr = append(e.attr, a)
		}
	}
	for {
		token, err := d.Token()
		if err != nil {
			return nil, err
		}
		switch t := token.(type) {
		case xml.StartElement:
			c, err := readElement(d, t, depth+1)
			if err != nil {
				return nil, err
			}
			e.children = append(e.children, c)
		case xml.CharData:
			e.addText(string(t))
		case xml.EndElement:
			return e, nil
		default:
			return nil, errRestrictedXML
		}
	}
}

// parseElement reads exactly one element; names without a namespace are in jabber:client, as they
// would be in a stream.
func parseElement(b []byte) (*element, error) {
	d := xml.NewDecoder(strings.NewReader(string(b)))
	d.DefaultSpace = nsClient
	token, err := nextToken(d)
	if err != nil {
		return nil, err
	}
	start, ok := token.(xml.StartElement)
	if !ok {
		return nil, fmt.Errorf("xmpptest: %T where an element should start", token)
	}
	e, err := readElement(d, start, 1)
	if err != nil {
		return nil, err
	}
	if _, err := nextToken(d); err != io.EOF {
		return nil, errors.New("xmpptest: more than one element")
	}
	return e, nil
}

// nextToken returns the next token that is not white space.
func nextToken(d *xml.Decoder) (xml.Token, error) {
	for {
		token, err := d.Token()
		if err != nil {
			return nil, err
		}
		if text, ok := token.(xml.CharData); !ok || strings.TrimSpace(string(text)) != "" {
			return token, nil
		}
	}
}

// undeclared is no namespace at all, not even the empty one.
const undeclared = "\x00"

// xml returns the element with its namespace declared, so that it can stand anywhere.
func (e *element) xml() []byte { return e.appendXML(nil, undeclared) }

func (e *element) appendXML(b []byte, parent string) []byte {
	switch {
	case e.raw != nil:
		return append(b, e.raw...)
	case e.name.Local == "":
		return appendEscaped(b, e.text, false)
	}
	b = append(b, '<')
	b = append(b, e.name.Local...)
	if e.name.Space != parent {
		b = appendAttr(b, "xmlns", e.name.Space)
	}
	for i, a := range e.attr {
		switch a.Name.Space {
		case "":
			b = appendAttr(b, a.Name.Local, a.Value)
		case nsXML:
			b = appendAttr(b, "xml:"+a.Name.Local, a.Value)
		default:
			prefix := "ns" + strconv.Itoa(i)
			b = appendAttr(b, "xmlns:"+prefix, a.Name.Space)
			b = appendAttr(b, prefix+":"+a.Name.Local, a.Value)
		}
	}
	if len(e.children) == 0 {
		return append(b, '/', '>')
	}
	b = append(b, '>')
	for _, c := range e.children {
		b = c.appendXML(b, e.name.Space)
	}
	b = append(b, '<', '/')
	b = append(b, e.name.Local...)
	return append(b, '>')
}

func appendAttr(b []byte, name, value string) []byte {
	b = append(b, ' ')
	b = append(b, name...)
	b = append(b, '=', '\'')
	b = appendEscaped(b, value, true)
	return append(b, '\'')
}

// appendEscaped writes characters that a parser would normalize (XML 1.0 §2.11, §3.3.3) as
// references.
func appendEscaped(b []byte, s string, attr bool) []byte {
	from := 0
	for i := range len(s) {
		var r string
		switch s[i] {
		case '&':
			r = "&amp;"
		case '<':
			r = "&lt;"
		case '>':
			r = "&gt;"
		case '\r':
			r = "&#xD;"
		case '\'':
			r = "&apos;"
		case '\t', '\n':
			r = "&#x9;"
			if s[i] == '\n' {
				r = "&#xA;"
			}
		}
		if r == "" || !attr && (s[i] == '\'' || s[i] == '\t' || s[i] == '\n') {
			continue
		}
		b = append(b, s[from:i]...)
		b = append(b, r...)
		from = i + 1
	}
	return append(b, s[from:]...)
}
