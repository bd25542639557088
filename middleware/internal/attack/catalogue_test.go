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
	{"C1", "zero_agreement", c1},
	{"C2", "not_canonical", c2},
	{"C5", "other_identity", c5},
	{"C6", "forged_messages", c6},
	{"C7", "pre_key_drain", c7},
	{"C8", "replayed_key_exchange", c8},
	{"C9", "jumps", c9},
	{"C14", "duplicates", c14},
	{"C15", "protobuf", c15},
	{"C16", "version_nibble", c16},
	{"D1", "downgrade", d1},
	{"D2", "clear_text", d2},
	{"D3", "body_beside", d3},
	{"D4", "wrong_sender", d4},
	{"D6", "no_padding", d6},
	{"D7", "time", d7},
	{"D8", "injected_elements", d8},
	{"D9", "corrections", d9},
	{"D12", "forbidden_content", d12},
	{"D13", "two_elements", d13},
	{"D14", "trust_shown", d14},
	{"D15", "text", d15},
	{"D16", "hint_is_no_evidence", d16},
	{"D17", "legacy_is_not_bound", d17},
	{"D18", "clear_command", d18},
	{"D19", "forged_info", d19},
	{"D20", "error_with_content", d20},
	{"D21", "no_oracle", d21},
	{"D22", "presence", d22},
	{"D23", "only_ourselves", d23},
	{"E1", "bombs", e1},
	{"E2", "base64", e2},
	{"E3", "many_keys", e3},
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
