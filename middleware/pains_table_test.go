package middleware_test

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// pains are what users of other clients suffer from around the life of a device,
// with the tests that bring the cause about and show what happens here.
var pains = []struct {
	number  int
	symptom string
	tests   []string // directory and name
}{
	{1, "not encrypted for this device", []string{"middleware TestPain01NotEncryptedForThisDevice"}},
	{2, "failed decryptions are invisible", []string{"middleware TestPain02FailedDecryptionIsVisible"}},
	{3, "sessions are dead after a restore", []string{
		"middleware/internal/crash TestRestoredBackup", "omemo TestARollbackIsSeenInOurOwnBundle", "omemo TestQuarantineNeverSendsInAnOldSession",
	}},
	{4, "storms of repair from the archive", []string{"middleware TestPain04NoRepairFromTheArchive"}},
	{5, "the own device vanishes from the list", []string{
		"middleware TestOwnDeviceRemovedFromTheList", "middleware TestOwnDeviceRemovedAgainAndAgain", "middleware TestListOfAnotherIsNotOverwritten",
	}},
	{6, "the access model is not open", []string{"middleware TestNodesOfOthersAreRepaired", "middleware TestHonestAdvertising"}},
	{7, "bundles cannot be published with max_items", []string{"middleware TestServerRefusesMaxItems", "middleware TestHonestAdvertising"}},
	{8, "a device without bundle blocks sending", []string{"middleware TestPain08DeviceWithoutBundle"}},
	{15, "messages while offline are lost", []string{"middleware TestPain15MessagesWhileOffline"}},
	{16, "pre keys collide or run out", []string{
		"middleware TestPain16PreKeysNeverRepeat", "omemo TestCatchingUpKeepsUsedPreKeys", "omemo TestAYear",
	}},
	{17, "a new device with each run", []string{"middleware TestPain17SameDeviceAfterARestart"}},
	{18, "pruning that nobody asked for", []string{"middleware TestPrune", "middleware TestPruneStaleDevices"}},
	{19, "own devices get no copies", []string{"middleware TestPain19OwnDevicesAreReported"}},
	{20, "a program waits for a decision about a key", []string{"middleware TestPain20NobodyIsAsked"}},
	{25, "a store that is somebody else's", []string{"middleware TestPain25StoreOfSomebodyElse", "omemo TestAManagerWhoseStoreWasTakenOverStops"}},
}

// Every pain has its tests.
func TestPains(t *testing.T) {
	for _, p := range pains {
		t.Run(fmt.Sprintf("%d_%s", p.number, p.symptom), func(t *testing.T) {
			for _, name := range p.tests {
				dir, test, _ := strings.Cut(name, " ")
				files, err := filepath.Glob(filepath.Join("..", filepath.FromSlash(dir), "*_test.go"))
				ok(t, err)
				function := regexp.MustCompile(`(?m)^func ` + test + `\(t \*testing\.T\)`)
				found := false
				for _, file := range files {
					source, err := os.ReadFile(file)
					ok(t, err)
					found = found || function.Match(source)
				}
				if !found {
					t.Errorf("there is no %s", name)
				}
			}
		})
	}
}
