// Package ldapweb_test runs programs that ask by LDAP against the built valetkeyd, with the configuration that docs/peers tells an admin to
// paste, word for word: Apache, Squid, FreeRADIUS, saslauthd and, as its sequence of requests, Nextcloud. Each asks for the entries
// of the store and for those of an existing slapd.
package ldapweb_test

import (
	"os"
	"testing"

	"github.com/valetkey/valetkey/test/harness"
	"github.com/valetkey/valetkey/test/peers"
)

func TestMain(m *testing.M) {
	os.Exit(peers.Main(m, harness.PostgresServer, harness.Slapd, harness.Apache, harness.Squid, harness.FreeRADIUS, harness.RADIUSTools,
		harness.SASLBin, harness.PHP))
}
