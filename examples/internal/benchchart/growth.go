package main

import (
	"bufio"
	"cmp"
	"fmt"
	"io"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// curve is how a time grows with a number.
type curve struct {
	name   string
	line   *regexp.Regexp
	points []point // sorted by number
}

// point is the median of what was measured of a number.
type point struct{ number, ns float64 }

// growth holds the curves of the second chart.
type growth []curve

func newGrowth() growth {
	return growth{
		{name: "time for each device of a message, over the number of devices",
			line: regexp.MustCompile(`^BenchmarkDevices/devices=(\d+?)(?:-\d+)?\s.*\s([\d.]+) ns/device`)},
		{name: "opening an account and its first message, over the number of stored sessions",
			line: regexp.MustCompile(`^BenchmarkStart/sessions=(\d+?)(?:-\d+)?\s+\d+\s+([\d.]+) ns/op`)},
	}
}

// readGrowth reads benchmark lines and leaves all others out.
func readGrowth(r io.Reader) (growth, error) {
	g := newGrowth()
	times := make([]map[float64][]float64, len(g))
	scanner := bufio.NewScanner(r)
	for scanner.Scan() {
		for i, c := range g {
			m := c.line.FindStringSubmatch(scanner.Text())
			if m == nil {
				continue
			}
			number, err := strconv.ParseFloat(m[1], 64)
			if err != nil {
				return nil, err
			}
			ns, err := strconv.ParseFloat(m[2], 64)
			if err != nil {
				return nil, err
			}
			if times[i] == nil {
				times[i] = make(map[float64][]float64)
			}
			times[i][number] = append(times[i][number], ns)
		}
	}
	if err := scanner.Err(); err != nil {
		return nil, err
	}
	for i := range g {
		for number, all := range times[i] {
			slices.Sort(all)
			g[i].points = append(g[i].points, point{number, all[len(all)/2]})
		}
		if len(g[i].points) == 0 {
			return nil, fmt.Errorf("no benchmark of %s in the input", g[i].name)
		}
		slices.SortFunc(g[i].points, func(a, b point) int { return cmp.Compare(a.number, b.number) })
	}
	return g, nil
}

// growthHeight is the height of the second chart's field in pixels.
const growthHeight = 260

// chart returns an SVG: a line for each curve, both scales logarithmic.
func (g growth) chart() string {
	var x, y axis
	for _, c := range g {
		for _, p := range c.points {
			x.include(p.number)
			y.include(p.ns)
		}
	}
	top := legendRow*len(g) + 20
	bottom := top + growthHeight
	x.span(left, width-2*right) // the last number is wider than its dot
	y.span(float64(bottom), float64(top))

	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="sans-serif" font-size="12">`+"\n", width, bottom+30)
	fmt.Fprintf(&b, `<rect width="%d" height="%d" fill="#ffffff"/>`+"\n", width, bottom+30)
	for power := x.low; power <= x.high; power++ {
		at := x.at(math.Pow(10, power))
		fmt.Fprintf(&b, `<line x1="%.1f" y1="%d" x2="%.1f" y2="%d" stroke="#eeeeee"/><text x="%.1f" y="%d" text-anchor="middle" fill="#555555">%.0f</text>`+"\n",
			at, top, at, bottom, at, bottom+18, math.Pow(10, power))
	}
	for power := y.low; power <= y.high; power++ {
		at := y.at(math.Pow(10, power))
		fmt.Fprintf(&b, `<line x1="%d" y1="%.1f" x2="%d" y2="%.1f" stroke="#dddddd"/><text x="%d" y="%.1f" text-anchor="end" fill="#555555">%s</text>`+"\n",
			left, at, width-2*right, at, left-10, at+4, duration(math.Pow(10, power)))
	}
	for i, c := range g {
		fmt.Fprintf(&b, `<circle cx="20" cy="%d" r="%d" fill="%s"/><text x="30" y="%d">%s</text>`+"\n",
			16+i*legendRow, radius, colours[1+i], 20+i*legendRow, c.name)
		var line []string
		for _, p := range c.points {
			line = append(line, fmt.Sprintf("%.1f,%.1f", x.at(p.number), y.at(p.ns)))
		}
		fmt.Fprintf(&b, `<polyline points="%s" fill="none" stroke="%s"/>`+"\n", strings.Join(line, " "), colours[1+i])
		for _, p := range c.points {
			fmt.Fprintf(&b, `<circle cx="%.1f" cy="%.1f" r="%d" fill="%s"><title>%.0f: %s</title></circle>`+"\n",
				x.at(p.number), y.at(p.ns), radius, colours[1+i], p.number, duration(p.ns))
		}
	}
	b.WriteString("</svg>\n")
	return b.String()
}

// axis is a logarithmic scale over whole powers of ten.
type axis struct {
	low, high float64 // exponents
	used      bool
	from, to  float64 // pixels
}

// include widens the scale to a value.
func (a *axis) include(v float64) {
	low, high := math.Floor(math.Log10(v)), math.Ceil(math.Log10(v))
	if !a.used {
		a.low, a.high, a.used = low, high, true
	}
	a.low, a.high = min(a.low, low), max(a.high, high)
}

// span says which pixels the scale is between.
func (a *axis) span(from, to float64) {
	a.from, a.to = from, to
	if a.low == a.high {
		a.high++
	}
}

// at returns the pixel of a value.
func (a *axis) at(v float64) float64 {
	return a.from + (math.Log10(v)-a.low)/(a.high-a.low)*(a.to-a.from)
}
