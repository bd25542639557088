// Command benchchart makes the table and the charts of the README's benchmarks. It reads Go benchmark
// lines from its standard input and takes the median where there are several of a kind. Of lines of
// the form
//
//	BenchmarkOp/op=d_enc/peer=omellium-v2 1000 2100.5 ns/op
//
// it writes a Markdown table to its standard output and, with -svg, a chart to a file. With -growth it
// writes a chart of BenchmarkDevices and BenchmarkStart to a file and nothing else.
package main

import (
	"flag"
	"fmt"
	"os"
)

func main() {
	svg := flag.String("svg", "", "write the chart to `file`")
	growth := flag.String("growth", "", "write the chart of how cost grows to `file`")
	flag.Parse()
	work := func() error { return run(*svg) }
	if *growth != "" {
		work = func() error { return runGrowth(*growth) }
	}
	if err := work(); err != nil {
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

func runGrowth(svg string) error {
	g, err := readGrowth(os.Stdin)
	if err != nil {
		return err
	}
	return os.WriteFile(svg, []byte(g.chart()), 0o644)
}
