package interop_test

import (
	"strings"
	"testing"

	"github.com/valetkey/valetkey/test/harness"
)

// TestSnippet gives Postfix, and a program that binds, what `valetkey snippet` prints for a daemon that listens elsewhere than on the
// pages, and logs in.
//
// It would catch: a path or a port that the peer reads in another way, a page's value that was left, a note among the lines.
func TestSnippet(t *testing.T) {
	t.Parallel()
	cluster := harness.NewCluster(t)
	url, _ := cluster.Database(t)
	d := harness.StartDaemon(t, url)
	d.AddAccount(t, "alice")
	password := d.Create(t, "alice", "phone")

	for name, flags := range map[string][]string{"Unix socket": nil, "port": {"--listener", "dovecot[2]"}} {
		t.Run(name, func(t *testing.T) {
			lines := d.Must(t, append([]string{"snippet", "postfix", "--file", "main.cf"}, flags...)...)
			smtpd := &harness.SMTPService{}
			harness.NewMailerWith(t, lines, nil, smtpd)
			for secret, want := range map[string]int{password: 235, neverIssued: 535} {
				if got := harness.Authenticate(t, smtpd.Addr, harness.PlainInitial, "alice", secret); got.Code != want {
					t.Errorf("AUTH with\n%s\n%d %s, want %d", lines, got.Code, got.Text, want)
				}
			}
		})
	}
	t.Run("ldap", func(t *testing.T) {
		settings := map[string]string{}
		for line := range strings.Lines(d.Must(t, "snippet", "ldap", "--file", "settings")) {
			name, value, _ := strings.Cut(line, "  ")
			settings[name] = strings.TrimSpace(value)
		}
		server, ok := strings.CutPrefix(settings["server"], "ldap://")
		dn := strings.ReplaceAll(settings["user DN"], "LOGIN", "alice")
		if code, out, errOut := harness.LDAPTool(t, "ldapwhoami", server, dn, password); !ok || code != 0 || out != "dn:"+harness.UserDN("alice")+"\n" {
			t.Errorf("ldapwhoami with %q: exit code %d, %s%s", settings, code, out, errOut)
		}
	})
}
