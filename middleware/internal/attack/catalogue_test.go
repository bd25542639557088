package attack

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"

	"example.org/omellium/omemo"
)

// cases counts the subtests that try something; one that tries many variants of a
// message counts once.
var cases atomic.Int64

// A row of the catalogue. Exactly one of run, once, tests, missing and manual is
// set, except that a row that is tested here may have more of it elsewhere.
type row struct {
	id, name string
	run      func(t *testing.T, v omemo.Version) // for each version
	once     func(t *testing.T)                  // where the version makes no difference
	tests    []string                            // elsewhere: "directory Test", from the root of the module
	missing  int                                 // number of the issue that the feature belongs to
	manual   string                              // why no test can tell
}

// rows is the whole catalogue: every row once, in its order.
var rows = []row{
	// A: origin and routing.
	{id: "A1", name: "forged_carbon", run: a1},
	{id: "A2", name: "forged_archive_result", run: a2},
	{id: "A3", name: "spoofed_reply", run: a3},
	{id: "A4", name: "whose_list", run: a4},
	{id: "A5", name: "roster_push", run: a5},
	{id: "A6", name: "real_address_in_a_room", run: a6, tests: []string{
		"middleware TestRoomSpoofedSender", "middleware TestRoomNicks", "middleware TestRoomHistory", "middleware TestRoomHistoryNewDevice",
	}},
	{id: "A7", name: "private_message_through_a_room", run: a7, tests: []string{"middleware TestRoomPrivate"}},
	{id: "A8", name: "bounce", run: a8},
	{id: "A9", name: "nested_forwarding", run: a9},
	{id: "A10", name: "odd_token_order", run: a10},
	{id: "A11", name: "ghost_member", tests: []string{"middleware TestRoomGhost", "middleware TestRoomMembers", "middleware TestRoomBanWhilePreparing"}},
	{id: "A12", name: "spoofed_reflection", tests: []string{"middleware TestRoomReflection", "middleware TestRoomReflectionAfterRestart"}},
	{id: "A13", name: "address_forms", run: a13},
	// B: device lists and bundles.
	{id: "B1", name: "added_device", run: b1},
	{id: "B2", name: "huge_list", run: b2, tests: []string{"omemo TestAttack/B2"}},
	{id: "B3", name: "device_ids", run: b3},
	{id: "B4", name: "hidden_list", run: b4},
	{id: "B5", name: "own_id_removed", run: b5},
	{id: "B6", name: "own_id_taken", run: b6},
	{id: "B7", name: "identity_changed", run: b7},
	{id: "B8", name: "signature", run: b8},
	{id: "B9", name: "pre_keys", run: b9, tests: []string{"omemo TestAnExchangeWithoutAPreKey"}},
	{id: "B10", name: "labels", run: b10},
	{id: "B11", name: "foreign_item", run: b11, tests: []string{"middleware TestReadBackDiffers", "middleware TestNodesOfOthersAreRepaired"}},
	{id: "B12", name: "shared_identity", run: b12, tests: []string{"omemo TestAttack/B12"}},
	{id: "B13", name: "two_keys_one_id", run: b13},
	{id: "B14", name: "event_corpus", run: b14},
	// C: cryptography.
	{id: "C1", name: "zero_agreement", run: c1, tests: []string{"omemo/internal/curve TestSmallOrder", "omemo/internal/x3dh TestZero", "omemo/internal/ratchet TestZero"}},
	{id: "C2", name: "not_canonical", run: c2, tests: []string{"omemo/internal/curve TestEncodings", "omemo/internal/curve TestTorsion"}},
	{id: "C3", name: "malleable_signatures", tests: []string{
		"omemo/internal/curve TestVerifyStrict", "omemo/internal/curve TestVerifyMalleable", "omemo/internal/curve TestVerifyEveryBit",
		"omemo/internal/wycheproof TestEd25519",
	}},
	{id: "C4", name: "sign_bit", tests: []string{
		"omemo/internal/curve TestConversionRoundTrips", "omemo/internal/curve TestSign", "omemo/internal/curve TestVectorsSignatures",
	}},
	{id: "C5", name: "other_identity", run: c5},
	{id: "C6", name: "forged_messages", run: c6, tests: []string{"omemo TestForgedVariantsChangeNothing"}},
	{id: "C7", name: "pre_key_drain", run: c7, tests: []string{"omemo TestForgedExchangesBurnNoPreKeys"}},
	{id: "C8", name: "replayed_key_exchange", run: c8},
	{id: "C9", name: "jumps", run: c9, tests: []string{"omemo TestAttack/C9", "omemo TestJumps", "omemo TestSkippedKeysAreKeptOldestOutFirst"}},
	{id: "C10", name: "constant_time", tests: []string{"omemo TestAttack/C10"}},
	{id: "C11", name: "key_material", tests: []string{"omemo TestAttack/C11"}},
	{id: "C12", name: "lengths", tests: []string{"omemo TestAttack/C12"}},
	{id: "C13", name: "padding", tests: []string{"omemo TestAttack/C13", "omemo/internal/payload TestV2Padding"}},
	{id: "C14", name: "duplicates", run: c14},
	{id: "C15", name: "protobuf", run: c15, tests: []string{"omemo/internal/wire TestParseFrames", "omemo/internal/wire TestParseExchange"}},
	{id: "C16", name: "version_nibble", run: c16, tests: []string{"omemo/internal/wire TestVersionByte"}},
	{id: "C17", name: "equivocation", tests: []string{"omemo TestAttack/C17"}},
	{id: "C18", name: "randomness", tests: []string{"omemo TestAttack/C18"}},
	{id: "C19", name: "fresh_keys", tests: []string{"omemo TestAttack/C19"}},
	// D: meaning and policy.
	{id: "D1", name: "downgrade", run: d1},
	{id: "D2", name: "clear_text", run: d2, tests: []string{"middleware TestFailClosed", "middleware TestOpportunisticUncertain"}},
	{id: "D3", name: "body_beside", run: d3},
	{id: "D4", name: "wrong_sender", run: d4},
	{id: "D5", name: "wrong_recipient", run: d5, tests: []string{"middleware TestRoomBinding"}},
	{id: "D6", name: "no_padding", run: d6},
	{id: "D7", name: "time", run: d7},
	{id: "D8", name: "injected_elements", run: d8},
	{id: "D9", name: "corrections", run: d9},
	{id: "D10", name: "opt_out", run: d10, tests: []string{"middleware TestOptOutIsRefusedByDefault", "middleware TestOptOutIsPutToTheApplication"}},
	{id: "D11", name: "media_links", run: d11, tests: []string{
		"middleware/media TestPublic", "middleware/media TestFetchRedirects", "middleware/media TestFetchNames", "middleware/media TestFetchForged",
	}},
	{id: "D12", name: "forbidden_content", run: d12},
	{id: "D13", name: "two_elements", run: d13},
	{id: "D14", name: "trust_shown", run: d14},
	{id: "D15", name: "text", run: d15},
	{id: "D16", name: "hint_is_no_evidence", run: d16},
	{id: "D17", name: "legacy_is_not_bound", run: d17},
	{id: "D18", name: "clear_command", run: d18},
	{id: "D19", name: "forged_info", run: d19},
	{id: "D20", name: "error_with_content", run: d20},
	{id: "D21", name: "no_oracle", run: d21},
	{id: "D22", name: "presence", run: d22},
	{id: "D23", name: "only_ourselves", run: d23},
	// E: exhaustion.
	{id: "E1", name: "bombs", run: e1},
	{id: "E2", name: "base64", run: e2},
	{id: "E3", name: "many_keys", run: e3, tests: []string{"omemo TestAttack/E3"}},
	{id: "E4", name: "answers", tests: []string{"omemo TestAttack/E4"}},
	{id: "E5", name: "endless_archive", run: e5},
	{id: "E6", name: "slow_handler", tests: []string{
		"middleware/internal/front TestSlowConsumer", "middleware/internal/front TestHandlerThatSends", "middleware TestHandlerThatWaits",
	}},
	{id: "E7", name: "strangers", tests: []string{"omemo TestAttack/E7", "omemo TestAttack/B2"}},
	// F: host and state.
	{id: "F1", name: "restored_backup", tests: []string{"omemo/sqlstore/sqlite TestRolledBack"}},
	{id: "F2", name: "two_processes", tests: []string{"omemo/sqlstore/sqlite TestOneProcess", "omemo/sqlstore/postgres TestExclusive", "middleware/internal/crash TestExclusion"}},
	{id: "F3", name: "crash_while_sending", tests: []string{"middleware/internal/crash TestFailpoints", "middleware/internal/crash TestSIGKILL"}},
	{id: "F4", name: "crash_while_receiving", tests: []string{"middleware/internal/crash TestFailpoints", "middleware/internal/crash TestReceiveExactlyOnce"}},
	{id: "F5", name: "concurrent_use", tests: []string{"omemo TestConcurrentUse"}},
	{id: "F6", name: "file_mode", tests: []string{"omemo/sqlstore/sqlite TestModes", "omemo/sqlstore/sqlite TestRefusedFiles"}},
	{id: "F7", name: "erased_keys", tests: []string{"omemo/sqlstore/sqlite TestErased"}},
	{id: "F8", name: "injection", once: f8},
	{id: "F9", name: "logs", once: f9, tests: []string{"omemo TestNoSecretIsPrinted", "omemo/sqlstore/sqlite TestRedacted"}},
	{id: "F10", name: "memory", manual: "the garbage collector copies: that memory was cleared cannot be seen from within the process; SECURITY.md says what is not promised"},
	{id: "F11", name: "failing_disk", tests: []string{"omemo TestAStoreThatFailsAtAnyCall", "middleware TestFailClosedStore", "omemo/sqlstore/sqlite TestFaultStore"}},
	{id: "F12", name: "clock", tests: []string{"omemo TestAClockThatWasSetBackRotatesOnce"}},
	{id: "F13", name: "migration", tests: []string{"omemo/sqlstore/sqlite TestHalfDone", "omemo/sqlstore/sqlite TestSchema"}},
	{id: "F14", name: "replica", tests: []string{"omemo/sqlstore/postgres TestDurable"}},
	{id: "F15", name: "stolen_device", tests: []string{"middleware TestRevoke", "middleware TestRevokeADeviceWhoseKeyWasNeverSeen", "omemo/sqlstore/sqlite TestErased"}},
	{id: "F16", name: "failing_handler", tests: []string{"middleware/internal/front TestHandlerFails", "middleware/internal/front TestNotAcknowledged"}},
	{id: "F17", name: "cancelled_commit", tests: []string{"omemo/sqlstore/sqlite TestCancelledAnywhere", "omemo/sqlstore/postgres TestUnknownOutcome"}},
	{id: "F18", name: "dependencies", once: f18},
}

// leastCases is how many cases the rows that are carried out here have at least:
// almost as many as there are, so that none goes missing unnoticed.
const leastCases = 3400

func TestAttack(t *testing.T) {
	chosen := 0
	for _, r := range rows {
		switch {
		case r.run != nil:
			t.Run(r.id+"_"+r.name, func(t *testing.T) {
				chosen++
				for _, v := range omemo.Versions() {
					t.Run(v.String(), func(t *testing.T) { r.run(t, v) })
				}
			})
		case r.once != nil:
			t.Run(r.id+"_"+r.name, func(t *testing.T) {
				chosen++
				r.once(t)
			})
		}
	}
	t.Logf("%d rows, %d cases", chosen, cases.Load())
	all := 0
	for _, r := range rows {
		if r.run != nil || r.once != nil {
			all++
		}
	}
	if n := cases.Load(); chosen == all && n < leastCases {
		t.Errorf("%d cases, at least %d are wanted", n, leastCases)
	}
}

// TestAttackElsewhere checks that the tests exist that the catalogue says carry
// out its other rows.
func TestAttackElsewhere(t *testing.T) {
	for _, r := range rows {
		if r.run == nil && r.once == nil && r.tests != nil {
			t.Run(r.id+"_"+r.name, func(t *testing.T) {
				for _, name := range r.tests {
					exists(t, name)
					t.Log("tested by", name)
				}
			})
		}
	}
	for _, r := range rows {
		if r.run != nil || r.once != nil {
			for _, name := range r.tests {
				exists(t, name)
			}
		}
	}
}

// exists checks that a test is there: "directory Test" or "directory Test/Row".
func exists(t *testing.T, name string) {
	t.Helper()
	dir, test, _ := strings.Cut(name, " ")
	test, id, part := strings.Cut(test, "/")
	files, err := filepath.Glob(filepath.Join("..", "..", "..", filepath.FromSlash(dir), "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	function := regexp.MustCompile(`(?m)^func ` + test + `\(t \*testing\.T\)`)
	subtest := regexp.MustCompile(`"` + id + `_[A-Za-z0-9_]+"`)
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if function.Match(b) && (!part || subtest.Match(b)) {
			return
		}
	}
	t.Errorf("there is no %s", name)
}

// TestAttackMissing lists the rows whose feature is not there yet. That they are
// listed does not mean that they are withstood.
func TestAttackMissing(t *testing.T) {
	for _, r := range rows {
		if r.missing != 0 {
			t.Run(r.id+"_"+r.name, func(t *testing.T) { t.Logf("missing: issue %d", r.missing) })
		}
	}
}

// TestAttackManual lists the rows that no test can decide about.
func TestAttackManual(t *testing.T) {
	for _, r := range rows {
		if r.manual != "" {
			t.Run(r.id+"_"+r.name, func(t *testing.T) { t.Log(r.manual) })
		}
	}
}

// TestAttackCatalogue checks that the catalogue is whole.
func TestAttackCatalogue(t *testing.T) {
	var want []string
	for _, group := range []struct {
		name string
		rows int
	}{{"A", 13}, {"B", 14}, {"C", 19}, {"D", 23}, {"E", 7}, {"F", 18}} {
		for i := range group.rows {
			want = append(want, fmt.Sprint(group.name, i+1))
		}
	}
	if len(rows) != 94 || len(want) != 94 {
		t.Fatalf("%d rows, %d ids", len(rows), len(want))
	}
	here, elsewhere, missing, manual := 0, 0, 0, 0
	for i, r := range rows {
		if r.id != want[i] {
			t.Errorf("row %d is %s, want %s", i, r.id, want[i])
		}
		ways := 0
		for _, is := range []struct {
			set   bool
			count *int
		}{{r.run != nil || r.once != nil, &here}, {r.run == nil && r.once == nil && r.tests != nil, &elsewhere}, {r.missing != 0, &missing}, {r.manual != "", &manual}} {
			if is.set {
				ways++
				*is.count++
			}
		}
		if ways != 1 {
			t.Errorf("%s: %d states", r.id, ways)
		}
	}
	t.Logf("94 rows: %d here, %d elsewhere, %d missing, %d not for a test", here, elsewhere, missing, manual)
}
