// Package ldapunix_test runs what a Unix machine asks LDAP with against the built valetkeyd, with the configuration that docs/peers tells an
// admin to paste, word for word: nslcd and sssd for users and PAM, Dovecot that searches, Postfix that looks up recipients. Each asks for the
// entries of the store and for those of an existing slapd.
//
// It refuses to know what an entry looks like on the wire, but for the sequences of requests that are replayed.
//
// The one rule a newcomer would break: nothing of this machine's own users and PAM services takes part. The programs see a /run, an
// nsswitch.conf and a pam.d of the test's.
package ldapunix_test

import (
	"os"
	"testing"

	"github.com/valetkey/valetkey/test/harness"
	"github.com/valetkey/valetkey/test/peers"
)

func TestMain(m *testing.M) {
	os.Exit(peers.Main(m, harness.PostgresServer, harness.Slapd, harness.PAMTester, harness.Nslcd, harness.SSSD, harness.DovecotIMAP, harness.Postfix))
}
