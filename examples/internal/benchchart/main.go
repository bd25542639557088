// Command benchchart makes the table and the chart of the README's benchmarks. It reads Go benchmark
// lines of the form
//
//	BenchmarkOp/op=d_enc/peer=omellium-v2 1000 2100.5 ns/op
//
// from its standard input, takes the median where there are several of an operation and a peer, and
// writes a Markdown table to its standard output and, with -svg, a chart to a file.
package main

import (
	"flag"
	"fmt"
	"os"
)

func main() {
	svg := flag.String("svg", "", "write the chart to `file`")
	flag.Parse()
	if err := run(*svg); err != nil {
		fmt.Fprintln(os.Stderr, "benchchart:", err)
		os.Exit(1)
	}
}

func run(svg string) error {
	r, err := read(os.Stdin)
	if err != nil {
		return err
	}
	if svg != "" {
		if err := os.WriteFile(svg, []byte(r.chart()), 0o644); err != nil {
			return err
		}
	}
	_, err = os.Stdout.WriteString(r.table())
	return err
}
