package main

import (
	"fmt"
	"strings"
)

// table returns a Markdown table: a row for each operation, a column for each peer.
func (r *results) table() string {
	var b strings.Builder
	b.WriteString("| operation |")
	for _, p := range r.peers {
		fmt.Fprintf(&b, " %s |", p)
	}
	b.WriteString("\n|---|" + strings.Repeat("---|", len(r.peers)) + "\n")
	for _, op := range r.ops {
		fmt.Fprintf(&b, "| %s |", op)
		for _, p := range r.peers {
			if ns, ok := r.median[[2]string{op, p}]; ok {
				fmt.Fprintf(&b, " %s |", duration(ns))
			} else {
				b.WriteString(" |")
			}
		}
		b.WriteString("\n")
	}
	return b.String()
}
