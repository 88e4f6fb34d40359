// Package scenario runs the companion command as an admin would, against a running daemon. Each file in testdata is one
// scenario; VERB LOGIN of one never meets those of another.
package scenario

import (
	"bytes"
	"os"
	"os/user"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/valetkey/valetkey/test/harness"
)

func TestMain(m *testing.M) { os.Exit(harness.Main(m, harness.PostgresServer)) }

func TestScenarios(t *testing.T) {
	run(t, harness.StartDaemon(t, ""), "testdata")
}

// Roles and self-service: the test is root, and the scripts become others with "as". Users and groups are Debian's own.
func TestRoles(t *testing.T) {
	d := harness.NewDaemon(t, "")
	d.Admin = "group = \"adm\"\nhelp_desk_group = \"operator\"\nread_only_group = \"staff\"\n"
	d.Sections = "\n[self_service]\nenabled = true\nmin_uid = 5\nservices = [\"imap\", \"smtp\"]\n"
	d.Start(t)
	run(t, d, "testdata/roles")
}

// TestDelivery runs those that need mail servers in the daemon's configuration.
func TestDelivery(t *testing.T) {
	d := harness.NewDaemon(t, "")
	d.Sections = `
[mail]
domain = "example.org"
organisation = "Example & Sons"
[mail.imap]
host = "imap.example.org"
[mail.smtp]
host = "smtp.example.org"
socket = "starttls"
[[hook]]
name = "good"
command = ["/bin/true"]
events = ["revoked"]
[[hook]]
name = "bad"
command = ["/bin/false"]
events = ["created", "revoked"]
[notices]
events = ["created"]
from = "postmaster@example.org"
[notices.smtp]
host = "127.0.0.1"
port = 1
tls = "none"
`
	d.Start(t)
	run(t, d, "testdata/delivery")
}

func run(t *testing.T, d *harness.Daemon, dir string) {
	t.Run("scenarios", func(t *testing.T) { // the daemon outlives the parallel scripts
		testscript.Run(t, testscript.Params{
			Dir:                 dir,
			RequireExplicitExec: true,
			RequireUniqueNames:  true,
			Setup: func(env *testscript.Env) error {
				env.Setenv("VALETKEY_SOCKET", d.Socket)
				env.Setenv("STATE", d.Dir)
				env.Setenv("LDAP", d.LDAP)
				env.Setenv("DOVECOT", d.DovecotUnix)
				// What no line of a script can hold.
				env.Setenv("HIDDEN", "phone\u202eenohp\u2066")
				env.Setenv("ESCAPE", "phone\x1b[2J")
				env.Setenv("PATH", filepath.Dir(harness.Program(t, "valetkey"))+string(os.PathListSeparator)+os.Getenv("PATH"))
				return nil
			},
			Cmds: map[string]func(*testscript.TestScript, bool, []string){
				// exits CODE COMMAND...: runs it and wants that exit code.
				"exits": func(ts *testscript.TestScript, neg bool, args []string) {
					if neg || len(args) < 2 {
						ts.Fatalf("usage: exits CODE COMMAND...")
					}
					got := "0"
					if err := ts.Exec(args[1], args[2:]...); err != nil {
						got = strings.TrimPrefix(err.Error(), "exit status ")
					}
					if got != args[0] {
						ts.Fatalf("%s ended with %s, want %s", args[1], got, args[0])
					}
				},
				// as USER[:GROUP,...] CODE COMMAND...: runs it as that user, with these groups beside his main one, and wants that exit code.
				"as": func(ts *testscript.TestScript, neg bool, args []string) {
					if neg || len(args) < 3 {
						ts.Fatalf("usage: as USER[:GROUP,...] CODE COMMAND...")
					}
					name, groups, _ := strings.Cut(args[0], ":")
					u, err := user.Lookup(name)
					ts.Check(err)
					as := []string{"--reuid", u.Uid, "--regid", u.Gid, "--clear-groups"}
					if groups != "" {
						as = []string{"--reuid", u.Uid, "--regid", u.Gid, "--groups", groups}
					}
					got := "0"
					if err := ts.Exec("setpriv", append(as, args[2:]...)...); err != nil {
						got = strings.TrimPrefix(err.Error(), "exit status ")
					}
					if got != args[1] {
						ts.Fatalf("%s ended with %s, want %s", args[2], got, args[1])
					}
				},
				// eventually REGEXP COMMAND...: repeats it until its output matches.
				"eventually": func(ts *testscript.TestScript, neg bool, args []string) {
					if neg || len(args) < 2 {
						ts.Fatalf("usage: eventually REGEXP COMMAND...")
					}
					re, err := regexp.Compile("(?m)" + args[0])
					ts.Check(err)
					if !harness.Poll(harness.Patience, func() bool {
						ts.Check(ts.Exec(args[1], args[2:]...))
						return re.MatchString(ts.ReadFile("stdout"))
					}) {
						ts.Fatalf("the output of %q never matched %q", args[1:], args[0])
					}
				},
				// binary GZIP BINARY: writes a file that is compressed and one that is no text.
				"binary": func(ts *testscript.TestScript, neg bool, args []string) {
					if neg || len(args) != 2 {
						ts.Fatalf("usage: binary GZIP BINARY")
					}
					ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte("\x1f\x8b\x08\x00 and so on"), 0o600))
					ts.Check(os.WriteFile(ts.MkAbs(args[1]), []byte("login:\x00\x01:\n"), 0o600))
				},
				// longline FILE: writes a line of 100 MB.
				"longline": func(ts *testscript.TestScript, neg bool, args []string) {
					if neg || len(args) != 1 {
						ts.Fatalf("usage: longline FILE")
					}
					ts.Check(os.WriteFile(ts.MkAbs(args[0]), bytes.Repeat([]byte("login:,"), 100<<20/7), 0o600))
				},
				// logged TEXT...: waits for a line of the daemon's log that has all of them.
				"logged": func(ts *testscript.TestScript, neg bool, args []string) {
					found := func() bool {
						for _, line := range d.Log().Since(0) {
							all := true
							for _, a := range args {
								all = all && strings.Contains(line, a)
							}
							if all {
								return true
							}
						}
						return false
					}
					if neg || !harness.Poll(harness.Patience, found) {
						ts.Fatalf("the log has no line with %q", args)
					}
				},
			},
		})
	})
}
