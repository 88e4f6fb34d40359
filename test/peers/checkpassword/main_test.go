// Package checkpassword_test runs the peers that start valetkey-checkpassword for each login: Dovecot 2.3, PAM's pam_exec, and
// what is left of qmail.
//
// It refuses to know what the program reads and how it exits but where an admin sees that. What the user's own program is told is
// all that counts.
//
// The one rule a newcomer would break: the program is the one that is shipped, under the limits that its peers have by default. With
// the limits lifted the tests would pass for a program that starts nowhere.
package checkpassword_test

import (
	"os"
	"testing"

	"github.com/valetkey/valetkey/test/harness"
	"github.com/valetkey/valetkey/test/peers"
)

func TestMain(m *testing.M) {
	os.Exit(peers.Main(m, harness.PostgresServer, harness.DovecotIMAP, harness.DovecotPOP3, harness.DovecotSubmission,
		harness.PAMTester, harness.TCPServer, harness.SoftLimit))
}
