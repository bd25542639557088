package main

import (
	"fmt"
	"html"
	"math"
	"strings"
)

// The measures of the chart in pixels.
const (
	left, right = 150, 20
	width       = 760
	rowHeight   = 30
	legendRow   = 20
	radius      = 5
)

// colours are those of the peers, in their order; they differ in lightness too.
var colours = []string{"#1b1b1b", "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#999999", "#7b3294", "#a6761d", "#666600", "#b2182b"}

// chart returns an SVG: a row for each operation, a dot for each peer, on a logarithmic scale.
func (r *results) chart() string {
	low, high := math.Inf(1), math.Inf(-1)
	for _, ns := range r.median {
		low, high = min(low, math.Log10(ns)), max(high, math.Log10(ns))
	}
	low, high = math.Floor(low), math.Ceil(high)
	if low == high {
		high++
	}
	x := func(ns float64) float64 {
		return left + (math.Log10(ns)-low)/(high-low)*(width-left-right)
	}
	top := legendRow*((len(r.peers)+1)/2) + 30
	height := top + rowHeight*len(r.ops) + 10

	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="sans-serif" font-size="12">`+"\n", width, height)
	fmt.Fprintf(&b, `<rect width="%d" height="%d" fill="#ffffff"/>`+"\n", width, height)
	for i, p := range r.peers {
		cx, cy := 20+i%2*width/2, 16+i/2*legendRow
		fmt.Fprintf(&b, `<circle cx="%d" cy="%d" r="%d" fill="%s"/><text x="%d" y="%d">%s</text>`+"\n",
			cx, cy, radius, colours[i%len(colours)], cx+10, cy+4, html.EscapeString(p))
	}
	for power := low; power <= high; power++ {
		ns := math.Pow(10, power)
		fmt.Fprintf(&b, `<line x1="%.1f" y1="%d" x2="%.1f" y2="%d" stroke="#dddddd"/><text x="%.1f" y="%d" text-anchor="middle" fill="#555555">%s</text>`+"\n",
			x(ns), top, x(ns), height-10, x(ns), top-6, duration(ns))
	}
	for i, op := range r.ops {
		y := top + i*rowHeight + rowHeight/2
		fmt.Fprintf(&b, `<line x1="%d" y1="%d" x2="%d" y2="%d" stroke="#eeeeee"/><text x="%d" y="%d" text-anchor="end">%s</text>`+"\n",
			left, y, width-right, y, left-10, y+4, html.EscapeString(op))
		for k, p := range r.peers {
			if ns, ok := r.median[[2]string{op, p}]; ok {
				fmt.Fprintf(&b, `<circle cx="%.1f" cy="%d" r="%d" fill="%s"><title>%s, %s: %s</title></circle>`+"\n",
					x(ns), y, radius, colours[k%len(colours)], html.EscapeString(op), html.EscapeString(p), duration(ns))
			}
		}
	}
	b.WriteString("</svg>\n")
	return b.String()
}
