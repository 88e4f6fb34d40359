//go:build race

package ldapbridge

const raceEnabled = true
