package interop_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/valetkey/valetkey/test/harness"
)

// shell runs the commands of a page as an admin would, and returns the output, without the line feed at its end.
func shell(t *testing.T, d *harness.Daemon, commands string) string {
	t.Helper()
	cmd := exec.Command("/bin/sh", "-e")
	cmd.Env = append(os.Environ(), "VALETKEY_SOCKET="+d.Socket, "PATH="+filepath.Dir(harness.Program(t, "valetkey"))+string(os.PathListSeparator)+os.Getenv("PATH"))
	code, out, errOut := harness.Run(t, commands, cmd)
	if code != 0 {
		t.Fatalf("exit code %d of\n%s%s%s", code, commands, out, errOut)
	}
	return strings.TrimSuffix(out, "\n")
}

func lastLine(s string) string { return s[strings.LastIndexByte(s, '\n')+1:] }

// TestLDAPPage pastes what docs/ldap.md says, word for word.
func TestLDAPPage(t *testing.T) {
	t.Parallel()
	page := harness.ReadPage(t, "../ldap")
	url, _ := harness.NewCluster(t).Database(t)
	d := harness.NewDaemon(t, url)
	addr := fmt.Sprintf("127.0.0.1:%d", harness.FreePort(t))
	d.Sections = "\n" + page.Snippet(t, "valetkeyd.toml", "base_dn =", fmt.Sprintf("listen = %q\nbase_dn =", addr))
	d.Start(t)
	reader := lastLine(shell(t, d, page.Snippet(t, "commands reader")))
	d.Must(t, "group", "add", "wiki-users")
	d.AddAccount(t, "alice")
	d.AddAccount(t, "bob")
	d.Must(t, "group", "add-member", "wiki-users", "alice")
	alice, bob, mail := d.Create(t, "alice", "wiki", "--service", "wiki"), d.Create(t, "bob", "wiki"), d.Create(t, "alice", "mail", "--service", "imap")

	const suffix = "app=wiki," + harness.BaseDN
	code, out, errOut := harness.LDAPTool(t, "ldapsearch", addr, "cn=wiki-search,ou=readers,"+harness.BaseDN, reader, "-LLL", "-b", suffix, "(uid=alice)", "memberOf")
	if want := "memberOf: cn=wiki-users,ou=groups," + suffix; code != 0 || !strings.Contains(out, "dn: uid=alice,ou=people,"+suffix) || !strings.Contains(out, want) {
		t.Errorf("the reader's search: exit code %d\n%s%s\nwant %q", code, out, errOut, want)
	}
	for _, c := range []struct {
		who, login, secret string
		want               int
	}{{"a member", "alice", alice, 0}, {"somebody else", "bob", bob, 49}, {"another service", "alice", mail, 49}} {
		if code, _, _ := harness.LDAPTool(t, "ldapwhoami", addr, "uid="+c.login+",ou=people,"+suffix, c.secret); code != c.want {
			t.Errorf("bind of %s = %d, want %d", c.who, code, c.want)
		}
	}
}

// TestUpstreamPage pastes what docs/ldap-upstream.md says: the daemon's section and the rights of its account in slapd.
func TestUpstreamPage(t *testing.T) {
	t.Parallel()
	page := harness.ReadPage(t, "../ldap-upstream")
	const account = "cn=valetkey,ou=services," + harness.BaseDN
	var ldif strings.Builder
	fmt.Fprintf(&ldif, "dn: %[1]s\nobjectClass: dcObject\nobjectClass: organization\ndc: example\no: Example\n\n"+
		"dn: ou=services,%[1]s\nobjectClass: organizationalUnit\nou: services\n\n"+
		"dn: %[2]s\nobjectClass: organizationalRole\nobjectClass: simpleSecurityObject\ncn: valetkey\nuserPassword: %[3]s\n\n", harness.BaseDN, account, harness.BridgePassword)
	ldif.WriteString(upstreamLDIF(600)) // more than slapd gives to anybody
	conf := `include /etc/ldap/schema/core.schema
include /etc/ldap/schema/cosine.schema
include /etc/ldap/schema/inetorgperson.schema
modulepath /usr/lib/ldap
moduleload back_mdb
moduleload memberof
database mdb
maxsize 67108864
suffix "` + harness.BaseDN + `"
directory %s
` + strings.ReplaceAll(page.Snippet(t, "slapd.conf"), "%", "%%")
	first, second := harness.NewConfiguredDirectory(t, conf, ldif.String()), harness.NewConfiguredDirectory(t, conf, ldif.String())

	file := filepath.Join(harness.Dir(t), "password")
	if err := os.WriteFile(file, []byte(harness.BridgePassword+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	url, _ := harness.NewCluster(t).Database(t)
	d := harness.NewDaemon(t, url)
	addr := fmt.Sprintf("127.0.0.1:%d", harness.FreePort(t))
	d.Sections = "\n" + page.Snippet(t, "valetkeyd.toml", "127.0.0.1:3389", addr, "/etc/valetkey/upstream-password", file,
		"ldaps://ldap1.example.org", "ldap://"+first.Addr, "ldaps://ldap2.example.org", "ldap://"+second.Addr)
	d.Start(t)
	secret := d.Create(t, "alice", "wiki")
	if code, out, errOut := harness.LDAPTool(t, "ldapwhoami", addr, "cn=Alice Adams,ou=people,"+harness.BaseDN, secret); code != 0 || !strings.Contains(out, "Alice Adams") {
		t.Errorf("bind: exit code %d, %q\n%s", code, out, errOut)
	}
	d.Must(t, "reader", "add", "sync")
	reader := d.Create(t, "sync", "all")
	code, out, errOut := harness.LDAPTool(t, "ldapsearch", addr, "cn=sync,ou=readers,"+harness.BaseDN, reader, "-LLL", "-b", "ou=people,"+harness.BaseDN, "(objectClass=person)", "+", "*")
	if n := strings.Count(out, "\nuid: u"); code != 0 || n != 600 || strings.Contains(out, "userPassword") || strings.Contains(out, "canary-hash") {
		t.Errorf("a reader's search: exit code %d, %d of 600 people, and no password\n%s", code, n, errOut)
	}
}
