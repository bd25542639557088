package main

import (
	"encoding/json"
	"fmt"
	"strings"
	"text/tabwriter"
)

// show prints rows as a table, or as JSON.
func show[R any](c *control, rows []R, columns []string, cells func(R) []string) error {
	if c.json {
		e := json.NewEncoder(c.out)
		e.SetIndent("", "  ")
		if rows == nil {
			rows = []R{}
		}
		return e.Encode(rows)
	}
	w := tabwriter.NewWriter(c.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, strings.Join(columns, "\t"))
	for _, r := range rows {
		fmt.Fprintln(w, strings.Join(cells(r), "\t"))
	}
	return w.Flush()
}
