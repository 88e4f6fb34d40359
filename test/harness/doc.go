// Package harness starts what the tests under test/ run against: the built programs, a Postgres cluster and a
// Postfix of their own, and clients that speak to them. All of it lives in temporary directories on loopback and
// Unix sockets, so that several test runs may go on at once.
//
// It refuses to know our packages, but for the pages in docs: it sees valetkeyd and valetkey only as a user does, through
// files, sockets, signals and exit codes. A second implementation of the wire formats is on purpose.
//
// The one rule a newcomer would break: start every process through [Start]. Only then is it ended when the test fails,
// panics or is killed, and only what was started here is ever ended.
package harness

import (
	"testing"
	"time"
)

// Patience bounds every wait for something that ought to happen at once on an idle machine. It is generous, so that a
// busy machine makes a test slow and not wrong; passing it is always a fault.
const Patience = 30 * time.Second

// Poll calls done until it returns true, for at most within. It reports whether it did.
func Poll(within time.Duration, done func() bool) bool {
	deadline := time.Now().Add(within)
	for {
		if done() {
			return true
		}
		if time.Now().After(deadline) {
			return false
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// WaitFor fails the test if done does not return true within [Patience]. what completes "waited in vain for".
func WaitFor(t testing.TB, what string, done func() bool) {
	t.Helper()
	if !Poll(Patience, done) {
		t.Fatalf("waited %v in vain for %s", Patience, what)
	}
}
