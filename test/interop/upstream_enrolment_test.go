package interop_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/valetkey/valetkey/test/harness"
)

// TestUpstreamEnrolment makes app passwords for people who are in the existing directory and have no account yet.
//
// It would catch: an account that is made for somebody who is then refused, a second factor that nobody is asked for because there is no account, an
// answer about somebody without a number that is kept for somebody else, one that is made although nothing is known.
func TestUpstreamEnrolment(t *testing.T) {
	t.Parallel()
	directory := harness.NewUpstreamDirectory(t, upstreamLDIF(3), "")
	url, _ := harness.NewCluster(t).Database(t)
	list := harness.NewEnrolledList(t, "alice", "u0001")
	program := filepath.Join(harness.Dir(t), "plugin")
	text, err := os.ReadFile(harness.Program(t, "valetkey-2fa-file"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(program, text, 0o755); err != nil {
		t.Fatal(err)
	}
	d := harness.NewDaemon(t, url)
	at := fmt.Sprintf("127.0.0.1:%d", harness.FreePort(t))
	d.Sections = harness.UpstreamSection(t, at, "", directory) +
		harness.EnrolmentSection(program, []string{"-list", list.Path, "-valid-for", "1s"}, `require = "issue"`, `on_error = "last_known"`, onlyEnrolled)
	d.Start(t)
	pid := d.PluginUp(t, 0).PID
	accounts := func() string { return d.Must(t, "account", "list", "--json") }

	secret := d.Create(t, "ALICE", "wiki") // enrolled, and nobody's account so far
	if code, out, errOut := harness.LDAPTool(t, "ldapwhoami", at, "cn=Alice Adams,ou=people,"+harness.BaseDN, secret); code != 0 {
		t.Errorf("ldapwhoami: result code %d, %s%s", code, out, errOut)
	}
	code, out, errOut := d.Valetkey(t, "", "create", "bob", "wiki")
	if code != 1 || out != "" || !strings.HasPrefix(errOut, "valetkey: bob has no second factor: enrol one at https://id.example.org/2fa, then try again\n") {
		t.Errorf("create for bob, who has no second factor: exit code %d, %q, %q", code, out, errOut)
	}
	if strings.Contains(accounts(), `"bob"`) {
		t.Errorf("an account was made for bob, who was refused: %s", accounts())
	}
	if code, out, _ := d.Valetkey(t, "", "plugin", "check", "bob"); code != 1 || !strings.Contains(out, "not_enrolled (not_listed)") {
		t.Errorf("valetkey plugin check bob: exit code %d, %s", code, out)
	}
	list.Set(t, "alice", "bob")
	d.Create(t, "bob", "wiki")
	d.Must(t, "plugin", "check", "bob") // what was said before he had an account was not kept

	// Nothing can be found out about those who have no account: none is made, whatever was said about others without one.
	if err := os.WriteFile(program+".new", []byte("#!/bin/false\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(program+".new", program); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	harness.WaitFor(t, "the plugin to be down", func() bool { s := d.Plugin(t); return !s.Up && s.Problem != "" })
	code, out, errOut = d.Valetkey(t, "", "create", "u0001", "wiki")
	if code != 3 || out != "" || !strings.Contains(errOut, "it could not be found out whether u0001 has a second factor") {
		t.Errorf("create while nothing is known: exit code %d, %q, %q, want 3", code, out, errOut)
	}
	if strings.Contains(accounts(), `"u0001"`) {
		t.Errorf("an account was made for somebody of whom nothing is known: %s", accounts())
	}
	d.Create(t, "bob", "tablet") // by the last answer

	// The exemption of an admin asks nobody.
	d.Create(t, "u0002", "printer", "--exempt-because", "printer in room 5")
	if !strings.Contains(accounts(), `"u0002"`) {
		t.Errorf("no account was made for the printer: %s", accounts())
	}
}
