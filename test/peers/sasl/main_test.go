// Package sasl_test runs the peers that ask over the Dovecot authentication protocol and over saslauthd's: Postfix and Exim both ways, slapd with
// {SASL}, and testsaslauthd for all the rest.
package sasl_test

import (
	"os"
	"testing"

	"github.com/valetkey/valetkey/test/harness"
	"github.com/valetkey/valetkey/test/peers"
)

func TestMain(m *testing.M) {
	os.Exit(peers.Main(m, harness.PostgresServer, harness.Postfix, harness.EximHeavy, harness.Slapd, harness.LDAPUtils, harness.SASLBin))
}
