package stanza

import (
	"encoding/xml"
	"iter"
	"slices"
	"strings"
)

// Element is an XML element as a tree. Names are resolved: Name.Space is a
// namespace, never a prefix, and Attr holds no xmlns declarations. Attributes
// such as xml:lang carry their namespace in Name.Space.
type Element struct {
	Name     xml.Name
	Attr     []xml.Attr
	Children []Node
}

// Node is a child of an element: another element or, if Element is nil,
// character data.
type Node struct {
	Element *Element
	Text    string
}

// NewElement returns an element with the given children.
func NewElement(space, local string, children ...*Element) *Element {
	e := &Element{Name: xml.Name{Space: space, Local: local}}
	e.Append(children...)
	return e
}

// NewText returns an element that holds character data. An empty text gives an
// empty element.
func NewText(space, local, text string) *Element {
	e := NewElement(space, local)
	if text != "" {
		e.Children = []Node{{Text: text}}
	}
	return e
}

// Append adds children at the end.
func (e *Element) Append(children ...*Element) {
	for _, c := range children {
		e.Children = append(e.Children, Node{Element: c})
	}
}

// Is reports whether the element has the given name.
func (e *Element) Is(space, local string) bool {
	return e.Name.Local == local && e.Name.Space == space
}

// Attribute returns the value of an attribute without namespace.
func (e *Element) Attribute(local string) (value string, ok bool) {
	for _, a := range e.Attr {
		if a.Name.Local == local && a.Name.Space == "" {
			return a.Value, true
		}
	}
	return "", false
}

// SetAttribute sets an attribute without namespace. It returns the element.
func (e *Element) SetAttribute(local, value string) *Element {
	for i, a := range e.Attr {
		if a.Name.Local == local && a.Name.Space == "" {
			e.Attr[i].Value = value
			return e
		}
	}
	e.Attr = append(e.Attr, xml.Attr{Name: xml.Name{Local: local}, Value: value})
	return e
}

// Elements iterates over the child elements, leaving out character data.
func (e *Element) Elements() iter.Seq[*Element] {
	return func(yield func(*Element) bool) {
		for _, n := range e.Children {
			if n.Element != nil && !yield(n.Element) {
				return
			}
		}
	}
}

// Child returns the first child element of that name, or nil.
func (e *Element) Child(space, local string) *Element {
	for c := range e.Elements() {
		if c.Is(space, local) {
			return c
		}
	}
	return nil
}

// Only returns the one child element of that name, nil if there is none, and ok
// false if there are several.
func (e *Element) Only(space, local string) (child *Element, ok bool) {
	for c := range e.Elements() {
		if !c.Is(space, local) {
			continue
		}
		if child != nil {
			return nil, false
		}
		child = c
	}
	return child, true
}

// Text returns the character data that stands directly in the element.
func (e *Element) Text() string {
	if len(e.Children) == 1 {
		return e.Children[0].Text
	}
	var b strings.Builder
	for _, n := range e.Children {
		b.WriteString(n.Text)
	}
	return b.String()
}

// hasText reports whether anything but white space stands directly in the
// element.
func (e *Element) hasText() bool {
	return slices.ContainsFunc(e.Children, func(n Node) bool { return !isSpace(n.Text) })
}

// Clone returns a deep copy.
func (e *Element) Clone() *Element {
	c := &Element{Name: e.Name, Attr: slices.Clone(e.Attr)}
	if e.Children != nil {
		c.Children = make([]Node, len(e.Children))
	}
	for i, n := range e.Children {
		if n.Element != nil {
			n.Element = n.Element.Clone()
		}
		c.Children[i] = n
	}
	return c
}

// Remove removes every element below e, at any depth, for which drop returns
// true, with all that it holds. It returns how many were removed; what they
// held is not counted.
func (e *Element) Remove(drop func(*Element) bool) int {
	removed := 0
	e.Children = slices.DeleteFunc(e.Children, func(n Node) bool {
		if n.Element == nil {
			return false
		}
		if drop(n.Element) {
			removed++
			return true
		}
		removed += n.Element.Remove(drop)
		return false
	})
	return removed
}

// isSpace reports whether s holds nothing but XML white space.
func isSpace(s string) bool { return strings.Trim(s, " \t\r\n") == "" }
