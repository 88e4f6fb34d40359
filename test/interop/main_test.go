// Package interop_test logs in through other people's programs, and sends what no sane program would.
package interop_test

import (
	"os"
	"testing"

	"github.com/valetkey/valetkey/test/harness"
)

func TestMain(m *testing.M) {
	os.Exit(harness.Main(m, harness.PostgresServer, harness.Postfix, harness.Swaks, harness.LDAPUtils, harness.OpenSSL, harness.Slapd, harness.Mandoc,
		harness.MariaDB, harness.SQLite, harness.Doveadm, harness.Htpasswd, harness.PHP))
}

// Passwords that were never issued. The first has the shape of one that could have been, the second is what a user types
// who gives the password of the account instead.
const (
	neverIssued  = "abcd-efgh-ijkl-mnop"
	mainPassword = "Tr0ub4dor&3-canary-main"
)
