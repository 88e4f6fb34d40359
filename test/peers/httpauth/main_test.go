// Package httpauth_test runs Dovecot 2.3, Dovecot 2.4, nginx and Radicale behind it against the built valetkeyd with the configuration that docs/peers
// tells an admin to paste, word for word: the peers that ask over HTTP, and Dovecot by LDAP bind.
//
// It refuses to know what a front end sends. What the user's own program is told is all that counts, with the reason that
// the operator finds in the log.
//
// The one rule a newcomer would break: to change an expected answer is to change a page, and the other way round. Each peer
// holds both to what it saw.
package httpauth_test

import (
	"flag"
	"os"
	"testing"

	"github.com/valetkey/valetkey/test/harness"
)

func TestMain(m *testing.M) {
	// The peers are waited for, each for its own politeness; the number of processors has nothing to do with it.
	if err := flag.Set("test.parallel", "16"); err != nil {
		panic(err)
	}
	os.Exit(harness.Main(m, harness.PostgresServer, harness.DovecotIMAP, harness.DovecotPOP3, harness.DovecotSubmission,
		harness.NginxServer, harness.Radicale))
}
