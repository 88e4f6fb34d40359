// Package ldaplib_test runs the LDAP libraries of six languages against the built valetkeyd, with the functions that docs/peers/ldap-libraries.md
// tells a programmer to paste, word for word; and it replays what applications ask that cannot be run here, with the values of the configuration
// that their pages tell an admin to paste. Each asks for the entries of the store and for those of an existing slapd.
package ldaplib_test

import (
	"os"
	"testing"

	"github.com/valetkey/valetkey/test/harness"
	"github.com/valetkey/valetkey/test/peers"
)

func TestMain(m *testing.M) {
	os.Exit(peers.Main(m, harness.PostgresServer, harness.Slapd, harness.Python, harness.Perl, harness.Ruby, harness.Java, harness.JavaCompiler))
}
