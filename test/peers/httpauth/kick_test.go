package httpauth_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/valetkey/valetkey/test/harness"
	"github.com/valetkey/valetkey/test/peers"
)

// TestKick runs the hook of docs/notices.md, word for word, with Dovecot 2.3: who is logged in with an app password is out when it is revoked.
//
// It would catch: a hook that is not run, or run with another user's name, a script that a shell or doveadm reads otherwise, a revocation that
// waits for the hook.
func TestKick(t *testing.T) {
	t.Parallel()
	cluster := harness.NewCluster(t)
	url, _ := cluster.Database(t)
	d := harness.NewDaemon(t, url)
	notices, page := harness.ReadPage(t, "../notices"), harness.ReadPage(t, "dovecot-2.3")
	dir := harness.Dir(t)
	const secret = "secret-of-dovecot-2.3"
	secretFile, addr := filepath.Join(dir, "secret"), peers.Addr(t)
	if err := os.WriteFile(secretFile, []byte(secret+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	dovecot := harness.NewDovecot(t, page.Snippet(t, "dovecot.conf grant", "/var/vmail", harness.DovecotHome), map[string]string{
		"valetkey-oauth2.conf.ext": page.Snippet(t, "valetkey-oauth2.conf.ext", "127.0.0.1:8389", addr, "SECRET", secret, "vmail", harness.DovecotUser),
	}, 1)
	kick := filepath.Join(dir, "kick-dovecot")
	if err := os.WriteFile(kick, []byte(notices.Snippet(t, "kick-dovecot", "/usr/bin/doveadm", dovecot.ToolScript(t, "doveadm"))), 0o755); err != nil {
		t.Fatal(err)
	}
	d.Sections = "\n" + page.Snippet(t, "valetkeyd.toml grant", "127.0.0.1:8389", addr, "/etc/valetkey/dovecot-secret", secretFile) + "\n" +
		notices.Snippet(t, "valetkeyd.toml kick", "/usr/local/lib/valetkey/kick-dovecot", kick)
	d.Start(t)
	sessions := map[string]*peers.Session{}
	login := func(user, secret string) {
		t.Helper()
		s := peers.Dial(t, dovecot.IMAP)
		t.Cleanup(s.Close)
		s.Line()
		s.Send("a LOGIN %q %q", user, secret)
		for line := s.Line(); !strings.HasPrefix(line, "a OK"); line = s.Line() {
			if line == "" || strings.HasPrefix(line, "a ") {
				t.Fatalf("LOGIN of %s: %q, want OK\n%s", user, line, dovecot.LogText())
			}
		}
		sessions[user] = s
	}
	serves := func(user, tag string) {
		t.Helper()
		sessions[user].Send("%s NOOP", tag)
		if line := sessions[user].Line(); !strings.HasPrefix(line, tag+" OK") {
			t.Errorf("NOOP of %s: %q, want OK", user, line)
		}
	}
	// One whose name doveadm would take for wildcards, and the one whom it would mean.
	users := []string{"alice@example.org", "bob@example.org", "b*@example.org"}
	for _, user := range users {
		d.Must(t, "account", "add", user, "--userdb", "home="+harness.DovecotHome+"/"+strings.ReplaceAll(user, "*", "-"))
		if secret := d.Create(t, user, "phone"); !strings.Contains(user, "*") { // which Dovecot's auth_username_chars lacks
			login(user, secret)
		}
	}
	mark := d.Log().Mark()
	d.Revoke(t, "b*@example.org", "phone")
	if _, ok := d.Log().Wait(mark, harness.Patience, func(line string) bool { return strings.Contains(line, "it has wildcards") }); !ok {
		t.Fatalf("the hook was not run for the login with wildcards:\n%s", d.Log().Tail(20))
	}
	for i, user := range users[:2] {
		serves(user, fmt.Sprint("b", i))
	}

	d.Revoke(t, "alice@example.org", "phone")
	var last string
	for line := sessions["alice@example.org"].Line(); line != ""; line = sessions["alice@example.org"].Line() {
		last = line
	}
	if !strings.HasPrefix(last, "* BYE") {
		t.Errorf("the last line of the revoked session is %q, want BYE\nlog of the daemon:\n%s\nlog of Dovecot:\n%s", last, d.Log().Tail(20), dovecot.LogText())
	}
	serves("bob@example.org", "c")

	// Nobody is logged in any more: that is no failure.
	secret2 := d.Create(t, "alice@example.org", "tablet")
	d.Revoke(t, "alice@example.org", "tablet")
	harness.WaitFor(t, "all hooks to have run well", func() bool {
		return strings.Contains(d.Must(t, "status", "--json"), `"sent": 3`) && strings.Contains(d.Must(t, "status"), "0 waiting; for hook:kick")
	})
	if strings.Contains(d.AllLogs(), secret2) {
		t.Error("the log holds the secret")
	}
}
