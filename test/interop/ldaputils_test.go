package interop_test

import (
	"strings"
	"testing"

	"github.com/valetkey/valetkey/test/harness"
)

// TestLDAPUtils binds with Debian's ldapwhoami and ldapsearch.
//
// It would catch: a database error answered as 49, an unauthenticated bind that succeeds (RFC 4513 section 5.1.2), a refused
// anonymous bind (which breaks Dovecot's template mode), 34 instead of 49 for a bad DN, an entry that its own user cannot
// find, a directory that anybody may read, a service that is not compared, a reason that is not the true one.
func TestLDAPUtils(t *testing.T) {
	t.Parallel()
	cluster := harness.NewCluster(t)
	url, _ := cluster.Database(t)
	d := harness.StartDaemon(t, url)
	d.AddAccount(t, "alice")
	d.AddAccount(t, "carol")
	right := d.Create(t, "alice", "wiki")
	revoked := d.Create(t, "alice", "old wiki")
	d.Revoke(t, "alice", "old wiki")
	imapOnly := d.Create(t, "alice", "mail reader", "--service", "imap")
	alice := harness.UserDN("alice")

	for _, c := range []struct {
		name, dn, password string
		code               int
		stdout             string
		log                harness.AuthLine // nil: no attempt
	}{
		{"right", alice, right, 0, "dn:" + alice + "\n", harness.AuthLine{"result": "ok", "reason": "accepted"}},
		{"right, as typed", strings.ToUpper(alice), strings.ReplaceAll(right, "-", ""), 0, "dn:", harness.AuthLine{"result": "ok"}},
		{"wrong", alice, neverIssued, 49, "", harness.AuthLine{"result": "fail", "reason": "no_match", "count": "yes"}},
		{"main password", alice, mainPassword, 49, "", harness.AuthLine{"result": "fail", "reason": "bad_format", "count": "yes"}},
		{"revoked", alice, revoked, 49, "", harness.AuthLine{"result": "fail", "reason": "revoked", "count": "no"}},
		{"wrong service", alice, imapOnly, 49, "", harness.AuthLine{"result": "fail", "reason": "service_not_allowed", "count": "no"}},
		{"unknown login", harness.UserDN("nobody"), right, 49, "", harness.AuthLine{"result": "fail", "reason": "unknown_login", "user": "nobody"}},
		{"bad DN", "alice", right, 49, "", nil},
		{"foreign suffix", "uid=alice,ou=people,dc=example,dc=com", right, 49, "", nil},
		{"empty password", alice, "", 53, "", nil},
		{"anonymous", "", "", 0, "anonymous\n", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			mark := d.Log().Mark()
			code, out, errOut := harness.LDAPTool(t, "ldapwhoami", d.LDAP, c.dn, c.password)
			if code != c.code || !strings.HasPrefix(out, c.stdout) {
				t.Errorf("ldapwhoami as %q: exit code %d, output %q, want %d and %q\n%s", c.dn, code, out, c.code, c.stdout, errOut)
			}
			if strings.Contains(errOut, "additional info") && code == 49 {
				t.Errorf("the refusal says why: %s", errOut)
			}
			if c.log != nil {
				c.log["proto"], c.log["svc"], c.log["rip"] = "ldap", "ldap", "127.0.0.1"
				if c.log["user"] == "" {
					c.log["user"] = "alice"
				}
				d.WantAuth(t, mark, c.log)
			}
		})
	}

	search := func(t *testing.T, dn, password string, args ...string) (code int, out string) {
		t.Helper()
		code, out, errOut := harness.LDAPTool(t, "ldapsearch", d.LDAP, dn, password, append([]string{"-LLL"}, args...)...)
		return code, out + errOut
	}
	t.Run("RootDSE", func(t *testing.T) {
		code, out := search(t, "", "", "-s", "base", "-b", "", "(objectClass=*)", "*", "+")
		for _, want := range []string{"namingContexts: " + harness.BaseDN + "\n", "supportedLDAPVersion: 3\n"} {
			if code != 0 || !strings.Contains(out, want) {
				t.Errorf("RootDSE: exit code %d, want 0 and %q\n%s", code, want, out)
			}
		}
	})
	t.Run("own entry", func(t *testing.T) {
		for _, args := range [][]string{
			{"-b", harness.BaseDN, "(uid=alice)"},
			{"-b", alice, "-s", "base"},
			{"-b", alice, "-s", "base", "(objectClass=*)", "dn"},
		} {
			code, out := search(t, alice, right, args...)
			if code != 0 || strings.Count(out, "dn: ") != 1 || !strings.Contains(out, "dn: "+alice+"\n") {
				t.Errorf("ldapsearch %q: exit code %d, want 0 and one entry\n%s", args, code, out)
			}
			if strings.Contains(strings.ToLower(out), "password") {
				t.Errorf("ldapsearch %q: the entry speaks of a password\n%s", args, out)
			}
		}
	})
	t.Run("entry of another", func(t *testing.T) {
		code, out := search(t, alice, right, "-b", harness.BaseDN, "(uid=carol)")
		if code != 0 || strings.Contains(out, "carol") {
			t.Errorf("search for another: exit code %d, want 0 and nothing\n%s", code, out)
		}
		if code, out := search(t, alice, right, "-b", harness.UserDN("carol"), "-s", "base"); code != 32 {
			t.Errorf("base search of another: exit code %d, want 32\n%s", code, out)
		}
	})
	t.Run("anonymous search", func(t *testing.T) {
		if code, out := search(t, "", "", "-b", harness.BaseDN); code != 50 {
			t.Errorf("exit code %d, want 50\n%s", code, out)
		}
	})

	t.Run("Postgres killed", func(t *testing.T) {
		cluster.Kill(t)
		for name, password := range map[string]string{"right": right, "wrong": neverIssued, "revoked": revoked} {
			mark := d.Log().Mark()
			if code, _, errOut := harness.LDAPTool(t, "ldapwhoami", d.LDAP, alice, password); code != 80 {
				t.Errorf("%s password: exit code %d, want 80\n%s", name, code, errOut)
			}
			d.WantAuth(t, mark, harness.AuthLine{"result": "undecided", "proto": "ldap", "user": "alice", "count": "no"})
		}
		if code, _, errOut := harness.LDAPTool(t, "ldapwhoami", d.LDAP, "", ""); code != 0 {
			t.Errorf("anonymous bind: exit code %d, want 0\n%s", code, errOut)
		}
		if code, _, errOut := harness.LDAPTool(t, "ldapwhoami", d.LDAP, alice, ""); code != 53 {
			t.Errorf("empty password: exit code %d, want 53\n%s", code, errOut)
		}
		cluster.Start(t)
		harness.WaitFor(t, "a bind after Postgres came back", func() bool {
			code, _, _ := harness.LDAPTool(t, "ldapwhoami", d.LDAP, alice, right)
			if code != 0 && code != 80 {
				t.Fatalf("while Postgres comes back: exit code %d, want 80 or 0", code)
			}
			return code == 0
		})
	})
}
