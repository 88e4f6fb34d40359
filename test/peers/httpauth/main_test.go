// Package httpauth_test runs Dovecot 2.3, Dovecot 2.4, nginx, Radicale behind it and Caddy against the built valetkeyd with the configuration that docs/peers
// tells an admin to paste, word for word: the peers that ask over HTTP, and Dovecot by LDAP bind.
package httpauth_test

import (
	"os"
	"testing"

	"github.com/valetkey/valetkey/test/harness"
	"github.com/valetkey/valetkey/test/peers"
)

func TestMain(m *testing.M) {
	os.Exit(peers.Main(m, harness.PostgresServer, harness.DovecotIMAP, harness.DovecotPOP3, harness.DovecotSubmission,
		harness.NginxServer, harness.Caddy, harness.Radicale))
}
