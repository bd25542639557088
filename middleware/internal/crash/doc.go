// Package crash holds no code, only proof: its tests let programs with the
// middleware die at every point and in every way there is, start them again, and
// look at the wire and at what the handlers were given.
//
//   - machine_test.go is a computer that can be made to die at any call of the
//     store and at any write to the network; scenario_test.go and failpoint_test.go
//     let it die at each of them.
//   - kill_test.go and exclusion_test.go work with real processes and real kills.
//   - powerfailure_test.go has the power fail: drive_test.go is a drive that keeps
//     no more than what was synced, drivevfs_test.go puts it below SQLite.
//   - receive_test.go does the same to Config.Receive, which reads exactly once.
//   - simulation_test.go is the life of ten programs with Config.Receive, in seeded
//     virtual time: simulation_net_test.go loses, repeats and delays what is on its
//     way to them, simulation_device_test.go has them die and come back.
//   - rollback_test.go, trouble_test.go and scan_test.go look at restored copies,
//     at disks that fail, and at what is left on them.
//
// All of them ask the same witness: wiretap_test.go reads every stanza that a
// client writes, and knows nothing of the code under test.
//
// How much is done is set by environment variables, so that a plain "go test"
// stays short: see knobs_test.go.
package crash
