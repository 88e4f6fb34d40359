package ldapweb_test

import (
	"fmt"
	"testing"

	"github.com/valetkey/valetkey/test/harness"
	"github.com/valetkey/valetkey/test/peers"
)

var saslauthd = program{
	name: "saslauthd", service: "imap", group: "mail-users", reader: "saslauthd", ways: []string{"reader"},
	answers: peers.Answers{Yes: yes, No: no, Later: no, Gone: no, Hung: no},
	start: func(t *testing.T, page *harness.Page, at place) map[string]way {
		read := page.Snippet(t, "saslauthd.conf", "127.0.0.1:3389", at.addr, "SECRET", at.secret)
		w := way{
			try: newSaslauthd(t, page, read), vague: true,
			staff: map[string]peers.Login{"group": newSaslauthd(t, page, read+page.Snippet(t, "saslauthd.conf group"))},
		}
		w.byMail = w.try
		return map[string]way{"reader": w}
	},
}

const (
	yes = `0: OK "Success."`
	no  = `0: NO "authentication failed"`
)

// quote is for a shell.
func quote(s string) string { return "'" + s + "'" }

// newSaslauthd starts one, and asks it with the command of the page.
func newSaslauthd(t *testing.T, page *harness.Page, conf string, substitutions ...string) peers.Login {
	socket, run := harness.NewSaslauthd(t, conf, page.Snippet(t, "default", substitutions...)), harness.Dir(t)
	return func(t *testing.T, login, password string) string {
		t.Helper()
		_, printed := harness.SASLTest(t, page.Snippet(t, "command",
			"/var/run/saslauthd/mux", socket, "-u alice", "-u "+quote(login), "abcd-efgh-ijkl-mnop", quote(password)), run)
		return printed
	}
}

// TestFastbind holds the page to what it warns of: saslauthd takes a revoked password from a connection that is bound.
//
// It would catch: a warning that is not true any more, or never was.
func TestFastbind(t *testing.T) {
	t.Parallel()
	url, _ := harness.NewCluster(t).Database(t)
	d := harness.StartDaemon(t, url)
	page := harness.ReadPage(t, "ldap-saslauthd")
	try := newSaslauthd(t, page, fmt.Sprintf("ldap_servers: ldap://%s\nldap_auth_method: fastbind\nldap_filter: uid=%%u,ou=people,%s\n", d.LDAP, harness.BaseDN),
		`"-m `, `"-n 1 -m `) // with five processes it depends on which of them is asked
	secrets := map[string]string{}
	for _, login := range []string{"alice", "bob"} {
		d.AddAccount(t, login)
		secrets[login] = d.Create(t, login, "phone")
	}
	for _, step := range []struct{ what, login, answer string }{
		{"first", "alice", yes}, {"revoked", "alice", yes}, {"another user", "bob", yes}, {"revoked, after another user", "alice", no},
	} {
		if step.what == "revoked" {
			d.Revoke(t, "alice", "phone")
		}
		if got := try(t, step.login, secrets[step.login]); got != step.answer {
			t.Errorf("%s: saslauthd answers %q, want %q", step.what, got, step.answer)
		}
	}
}
