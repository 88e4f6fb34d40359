// Package probes_test sends the same bytes to Debian's slapd and to valetkeyd, which hold the same entries, and compares what they
// answer. What differs is on docs/ldap-divergences.md, with both answers, the section of the standard and our reason; the test
// fails for a difference that is not on the page, and for a row of the page that is none.
//
// It refuses to know how either server does it, and encodes and decodes by itself. The one rule a newcomer would break: a probe
// never says what is right. It asks; slapd and the page say what the answer is to be.
package probes_test

import (
	"os"
	"testing"

	"github.com/valetkey/valetkey/test/harness"
)

func TestMain(m *testing.M) {
	os.Exit(harness.Main(m, harness.PostgresServer, harness.Slapd))
}
