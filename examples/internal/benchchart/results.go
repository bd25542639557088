package main

import (
	"bufio"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
)

// results holds the median of each operation and peer, in nanoseconds.
type results struct {
	ops, peers []string // sorted
	median     map[[2]string]float64
}

var line = regexp.MustCompile(`^BenchmarkOp/op=([^/\s]+)/peer=(\S+?)(?:-\d+)?\s+\d+\s+([\d.]+) ns/op`)

// read reads benchmark lines and leaves all others out.
func read(r io.Reader) (*results, error) {
	times := make(map[[2]string][]float64)
	res := &results{median: make(map[[2]string]float64)}
	scanner := bufio.NewScanner(r)
	for scanner.Scan() {
		m := line.FindStringSubmatch(scanner.Text())
		if m == nil {
			continue
		}
		ns, err := strconv.ParseFloat(m[3], 64)
		if err != nil {
			return nil, err
		}
		key := [2]string{m[1], m[2]}
		times[key] = append(times[key], ns)
	}
	if err := scanner.Err(); err != nil {
		return nil, err
	}
	if len(times) == 0 {
		return nil, fmt.Errorf("no benchmark of an operation in the input")
	}
	for key, all := range times {
		slices.Sort(all)
		res.median[key] = all[len(all)/2]
		res.ops = append(res.ops, key[0])
		res.peers = append(res.peers, key[1])
	}
	slices.Sort(res.ops)
	slices.Sort(res.peers)
	res.ops, res.peers = slices.Compact(res.ops), slices.Compact(res.peers)
	return res, nil
}

// duration prints nanoseconds with three digits.
func duration(ns float64) string {
	for _, unit := range []struct {
		name string
		ns   float64
	}{{"s", 1e9}, {"ms", 1e6}, {"µs", 1e3}, {"ns", 1}} {
		if ns >= unit.ns {
			return strconv.FormatFloat(ns/unit.ns, 'g', 3, 64) + " " + unit.name
		}
	}
	return "0"
}
