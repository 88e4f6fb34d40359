package interop_test

import (
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/valetkey/valetkey/test/harness"
)

// TestSchemaReaders runs the three clients that read a schema and believe it: python3-ldap3, which refuses in the program what the
// schema does not list, python3-ldap and Perl's Net::LDAP. The scripts search, page and compare with it too.
//
// It would catch: an attribute that an entry shows and the schema lacks, a class that names an attribute which is nowhere, a
// description that one of the three parsers cannot read, a paged result without its control.
func TestSchemaReaders(t *testing.T) {
	t.Parallel()
	cluster := harness.NewCluster(t)
	url, _ := cluster.Database(t)
	d := harness.StartDaemon(t, url)
	d.Must(t, "account", "add", "alice", "--name", "Alice Adams", "--attribute", "mail=alice@example.org", "--attribute", "mail=a.adams@example.org",
		"--attribute", "uidNumber=1001", "--attribute", "gidNumber=100", "--attribute", "homeDirectory=/home/alice", "--attribute", "givenName=Alice", "--attribute", "sn=Adams")
	secret := d.Create(t, "alice", "scripts")
	for _, c := range []struct{ name, program, script string }{
		{"python3-ldap3", "/usr/bin/python3", "schema-ldap3.py"},
		{"python3-ldap", "/usr/bin/python3", "schema-python-ldap.py"},
		{"Net::LDAP", "/usr/bin/perl", "schema-net-ldap.pl"},
	} {
		t.Run(c.name, func(t *testing.T) {
			cmd := exec.CommandContext(t.Context(), c.program, filepath.Join("testdata", c.script))
			cmd.Env = []string{"PATH=/usr/bin:/bin", "ADDR=" + d.LDAP, "BASE=" + harness.BaseDN, "DN=" + harness.UserDN("alice"), "SECRET=" + secret}
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("%s %s: %v\n%s\nhint: test/install-peers installs the libraries", c.program, c.script, err, out)
			}
		})
	}
}
