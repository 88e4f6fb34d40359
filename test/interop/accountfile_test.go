package interop_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/valetkey/valetkey/test/harness"
)

// TestAccountFile exports the accounts of one daemon, imports them into an empty one, and exports them again: the two exports are the
// same, byte for byte.
//
// It would catch: a field that is not exported, not imported, or changed on the way, such as a time that loses its microseconds, and
// app passwords in an export.
func TestAccountFile(t *testing.T) {
	t.Parallel()
	cluster := harness.NewCluster(t)
	from, _ := cluster.Database(t)
	to, _ := cluster.Database(t)
	one, two := harness.StartDaemon(t, from), harness.StartDaemon(t, to)

	one.Must(t, "group", "add", "staff", "--name", "The <staff> & co", "--attribute", "gidNumber=7001")
	one.Must(t, "group", "add", "empty")
	one.Must(t, "account", "add", "alice@example.org", "--name", "Ålice “A” Adams", "--mail", "alice@example.org", "--mail", "a@example.org",
		"--alias", "zeta", "--alias", "alice", "--attribute", "title=Chief\\Officer", "--userdb", "quota=5G", "--userdb", "home=/var/mail/a b")
	one.Must(t, "account", "add", "בוב")
	one.Must(t, "account", "disable", "בוב")
	one.Must(t, "group", "add-member", "staff", "alice")
	one.Must(t, "reader", "add", "searcher")
	one.Create(t, "alice", "phone")
	export := one.Must(t, "account", "export")

	file := filepath.Join(harness.Dir(t), "accounts.jsonl")
	if err := os.WriteFile(file, []byte(export), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{}, {"--apply"}, {"--apply"}} {
		two.Must(t, append([]string{"account", "import", file}, args...)...)
	}
	if again := two.Must(t, "account", "export"); again != export {
		t.Errorf("the second export differs:\n%s\nwant\n%s", again, export)
	}
	for _, want := range []string{`"disabled":true`, `"kind":"reader"`, `"groups":["staff"]`, `Ålice “A” Adams`, `"group_count":2`} {
		if !strings.Contains(export, want) {
			t.Errorf("the export has no %s:\n%s", want, export)
		}
	}
	for _, secret := range []string{"argon2", "phone"} {
		if strings.Contains(export, secret) {
			t.Errorf("the export has %q:\n%s", secret, export)
		}
	}
}
