//go:build race

package crash

// raceEnabled: the detector makes everything many times slower.
const raceEnabled = true
