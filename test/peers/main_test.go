// Package peers_test runs other people's servers against the built valetkeyd with the configuration that docs/peers tells an
// admin to paste, word for word: a page that is wrong fails here.
//
// It refuses to know what a front end sends. What the user's own program is told is all that counts, with the reason that
// the operator finds in the log.
//
// The one rule a newcomer would break: to change an expected answer is to change a page, and the other way round. Each peer
// holds both to what it saw.
package peers_test

import (
	"os"
	"testing"

	"github.com/valetkey/valetkey/test/harness"
)

func TestMain(m *testing.M) {
	os.Exit(harness.Main(m, harness.PostgresServer, harness.Postfix, harness.EximHeavy, harness.Slapd, harness.LDAPUtils, harness.SASLBin))
}
