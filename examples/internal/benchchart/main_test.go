package main

import (
	"encoding/xml"
	"io"
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
	svg := r.chart()
	d := xml.NewDecoder(strings.NewReader(svg))
	dots := 0
	for {
		token, err := d.Token()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if start, ok := token.(xml.StartElement); ok && start.Name.Local == "circle" {
			dots++
		}
	}
	if dots != 2+2 {
		t.Errorf("%d dots", dots)
	}
}

func TestEmpty(t *testing.T) {
	if _, err := read(strings.NewReader("PASS\n")); err == nil {
		t.Error("an input without benchmarks is accepted")
	}
}
