//go:build catalogue

package attack

import (
	"sync/atomic"
	"testing"

	"example.org/omellium/omemo"
)

// cases counts what was tried.
var cases atomic.Int64

// A row of the catalogue.
type row struct {
	id, name string
	run      func(t *testing.T, v omemo.Version)
}

var rows = []row{
	{"A1", "forged_carbon", a1},
	{"A2", "forged_archive_result", a2},
	{"A3", "spoofed_reply", a3},
	{"A4", "whose_list", a4},
	{"A5", "roster_push", a5},
	{"A8", "bounce", a8},
	{"A9", "nested_forwarding", a9},
	{"A10", "odd_token_order", a10},
	{"A13", "address_forms", a13},
	{"B1", "added_device", b1},
	{"B2", "huge_list", b2},
	{"B3", "device_ids", b3},
	{"B4", "hidden_list", b4},
	{"B5", "own_id_removed", b5},
	{"B6", "own_id_taken", b6},
	{"B7", "identity_changed", b7},
	{"B8", "signature", b8},
	{"B9", "pre_keys", b9},
	{"B10", "labels", b10},
	{"B11", "foreign_item", b11},
	{"B12", "shared_identity", b12},
	{"B13", "two_keys_one_id", b13},
	{"B14", "event_corpus", b14},
}

func TestAttack(t *testing.T) {
	for _, r := range rows {
		t.Run(r.id+"_"+r.name, func(t *testing.T) {
			for _, v := range omemo.Versions() {
				t.Run(v.String(), func(t *testing.T) { r.run(t, v) })
			}
		})
	}
	t.Logf("%d cases", cases.Load())
}
