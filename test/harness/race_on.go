//go:build race

package harness

// raceEnabled makes the harness build the programs with the race detector when the tests have it.
const raceEnabled = true
