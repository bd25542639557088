package main

import (
	"encoding/xml"
	"io"
	"slices"
	"strings"
	"testing"
)

const sample = `goos: linux
BenchmarkOp/op=d_enc/peer=omellium-v2 1000 2000.0 ns/op 64 B/op 1 allocs/op
BenchmarkOp/op=d_enc/peer=omellium-v2-2 1000 9000.0 ns/op
BenchmarkOp/op=d_enc/peer=omellium-v2 1000 2500.0 ns/op
BenchmarkOp/op=a_bundle/peer=some<peer> 10 1234567.8 ns/op
BenchmarkOther/op=a_bundle/peer=x 10 1 ns/op
`

func TestTable(t *testing.T) {
	r, err := read(strings.NewReader(sample))
	if err != nil {
		t.Fatal(err)
	}
	const want = `| operation | omellium-v2 | some<peer> |
|---|---|---|
| a_bundle | | 1.23 ms |
| d_enc | 2.5 µs | |
`
	if got := r.table(); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}

func TestChart(t *testing.T) {
	r, err := read(strings.NewReader(sample))
	if err != nil {
		t.Fatal(err)
	}
	if n := dots(t, r.chart()); n != 2+2 {
		t.Errorf("%d dots", n)
	}
}

// dots counts the circles of an SVG.
func dots(t *testing.T, svg string) (n int) {
	t.Helper()
	d := xml.NewDecoder(strings.NewReader(svg))
	for {
		token, err := d.Token()
		if err == io.EOF {
			return n
		}
		if err != nil {
			t.Fatal(err)
		}
		if start, ok := token.(xml.StartElement); ok && start.Name.Local == "circle" {
			n++
		}
	}
}

const growing = `BenchmarkDevices/devices=1-2 1000 12000 ns/op 12000 ns/device
BenchmarkDevices/devices=10-2 100 50000 ns/op 5000 ns/device
BenchmarkDevices/devices=10-2 100 70000 ns/op 7000 ns/device
BenchmarkDevices/devices=10-2 100 60000 ns/op 6000 ns/device
BenchmarkStart/sessions=1 20 7000000 ns/op 22000 B/account
BenchmarkStart/sessions=100000-8 20 8000000 ns/op 22000 B/account
`

func TestGrowth(t *testing.T) {
	g, err := readGrowth(strings.NewReader(growing))
	if err != nil {
		t.Fatal(err)
	}
	want := [][]point{{{1, 12000}, {10, 6000}}, {{1, 7e6}, {100000, 8e6}}}
	for i, c := range g {
		if !slices.Equal(c.points, want[i]) {
			t.Errorf("%s: %v", c.name, c.points)
		}
	}
	if n := dots(t, g.chart()); n != 2+4 {
		t.Errorf("%d dots", n)
	}
	if _, err := readGrowth(strings.NewReader(sample)); err == nil {
		t.Error("an input without these benchmarks is accepted")
	}
}

func TestEmpty(t *testing.T) {
	if _, err := read(strings.NewReader("PASS\n")); err == nil {
		t.Error("an input without benchmarks is accepted")
	}
}
