package sqlstore

import (
	"fmt"
	"strings"
)

// asArrays, as the number of rows of a statement, says that there are as many as
// its arguments have elements: after the account, each is a column.
const asArrays = 0

// unnest returns a query for the rows that stand in arrays.
func (t *table) unnest() string {
	var all []string
	for _, c := range t.columns() {
		all = append(all, "CAST(? AS "+c.kind.String()+"[])")
	}
	return fmt.Sprintf("SELECT CAST(? AS BIGINT) AS account, v.* FROM unnest(%s) AS v (%s)",
		strings.Join(all, ", "), names("", t.columns()))
}

// arrays makes of the arguments of rows those of a statement that takes arrays:
// the account, then each column. All rows are of one account.
func (t *table) arrays(args []any) []any {
	columns := t.columns()
	width := 1 + len(columns)
	all := make([]any, 1, width)
	all[0] = args[0]
	for i, c := range columns {
		switch of := args[1+i:]; c.kind {
		case integer:
			all = append(all, numbers(of, width))
		case text:
			all = append(all, array[string](of, width))
		case octets:
			all = append(all, array[[]byte](of, width))
		}
	}
	return all
}

// array returns every stride-th of some values. What is missing is the zero
// value: a byte string that is nil is NULL.
func array[T any](values []any, stride int) []T {
	all := make([]T, 0, (len(values)+stride-1)/stride)
	for i := 0; i < len(values); i += stride {
		v, _ := values[i].(T)
		all = append(all, v)
	}
	return all
}

// numbers is array for numbers, which need pointers where one is missing.
func numbers(values []any, stride int) any {
	all := array[int64](values, stride)
	for i := range all {
		if values[i*stride] == nil {
			return pointers(all, values, stride)
		}
	}
	return all
}

// pointers returns the addresses of numbers, and nil where values have none.
func pointers(all []int64, values []any, stride int) []*int64 {
	list := make([]*int64, len(all))
	for i := range all {
		if values[i*stride] != nil {
			list[i] = &all[i]
		}
	}
	return list
}
