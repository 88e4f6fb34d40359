// Package faults_test ends and freezes processes under load and looks at what the peers are told meanwhile.
package faults_test

import (
	"os"
	"testing"

	"github.com/valetkey/valetkey/test/harness"
)

func TestMain(m *testing.M) {
	os.Exit(harness.Main(m, harness.PostgresServer, harness.Postfix))
}

// neverIssued has the shape of an app password.
const neverIssued = "abcd-efgh-ijkl-mnop"

// clientsOf is one client for each front end of a daemon; the Dovecot protocol as Postfix and as a login process speak it.
func clientsOf(name string, d *harness.Daemon) map[string]harness.Client {
	return map[string]harness.Client{
		"ldap at " + name:             &harness.LDAPClient{Addr: d.LDAP},
		"dovecot nologin at " + name:  &harness.DovecotClient{Addr: d.DovecotUnix, NoLogin: true},
		"dovecot over tcp at " + name: &harness.DovecotClient{Addr: d.DovecotTCP, Service: "imap"},
	}
}
