package main

import (
	"fmt"
	"io"
	"strings"

	"example.org/omellium/stanza"
)

const (
	// margin is the width of the column that says who does something.
	margin = 16
	// lineWidth bounds a line of XML where it can be broken.
	lineWidth = 84
	// longText is the length from which character data are shortened.
	longText = 32
)

// transcript prints what happens. The first error of the writer is kept.
type transcript struct {
	w   io.Writer
	err error
}

func (t *transcript) text(s string) {
	if t.err == nil {
		_, t.err = fmt.Fprintln(t.w, s)
	}
}

func (t *transcript) title(n int, s string) {
	t.text(fmt.Sprintf("\n%d. %s\n", n, s))
}

// line prints who does what. Further lines stand below the first.
func (t *transcript) line(who, what string) {
	for l := range strings.SplitSeq(what, "\n") {
		t.text(fmt.Sprintf("   %-*s%s", margin, who, l))
		who = ""
	}
}

// pretty returns an element as it is shown: long texts shortened, and broken into
// lines where it is too wide for one.
func pretty(e *stanza.Element) string {
	e = e.Clone()
	shorten(e)
	indent(e, 0)
	return string(e.AppendXML(nil))
}

func shorten(e *stanza.Element) {
	for i, n := range e.Children {
		if n.Element != nil {
			shorten(n.Element)
		} else if runes := []rune(n.Text); len(runes) > longText {
			e.Children[i].Text = string(runes[:longText-1]) + "…"
		}
	}
}

func indent(e *stanza.Element, depth int) {
	if len(e.AppendXML(nil))+2*depth <= lineWidth {
		return
	}
	newline := "\n" + strings.Repeat("  ", depth)
	var broken []stanza.Node
	for c := range e.Elements() {
		indent(c, depth+1)
		broken = append(broken, stanza.Node{Text: newline + "  "}, stanza.Node{Element: c})
	}
	if broken != nil {
		e.Children = append(broken, stanza.Node{Text: newline})
	}
}
