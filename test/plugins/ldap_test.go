package plugins_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/valetkey/valetkey/plugin/host"
	"github.com/valetkey/valetkey/test/harness"
)

// mfaSchema has the attributes of the page, which are in no schema of Debian's.
const mfaSchema = `attributetype ( 1.3.6.1.4.1.4203.666.11.9.1 NAME 'mfaState' EQUALITY caseIgnoreMatch SYNTAX 1.3.6.1.4.1.1466.115.121.1.15 )
attributetype ( 1.3.6.1.4.1.4203.666.11.9.2 NAME 'oathSecret' EQUALITY octetStringMatch SYNTAX 1.3.6.1.4.1.1466.115.121.1.40 )
attributetype ( 1.3.6.1.4.1.4203.666.11.9.3 NAME 'sAMAccountName' EQUALITY caseIgnoreMatch SYNTAX 1.3.6.1.4.1.1466.115.121.1.15 )
objectclass ( 1.3.6.1.4.1.4203.666.11.9.4 NAME 'user' SUP top AUXILIARY MAY ( mfaState $ oathSecret $ sAMAccountName ) )
`

// mfaLDIF has alice in the group with a secret, bob without anything, carol with a state, dora with an odd one, a printer, two entries named
// twin, and three named triplet.
func mfaLDIF() string {
	var b strings.Builder
	for _, ou := range []string{"people", "other", "groups"} {
		fmt.Fprintf(&b, "dn: ou=%s,%s\nobjectClass: organizationalUnit\nou: %s\n\n", ou, harness.BaseDN, ou)
	}
	person := func(ou, cn, uid, extra string) {
		fmt.Fprintf(&b, "dn: cn=%s,ou=%s,%s\nobjectClass: inetOrgPerson\nobjectClass: user\ncn: %s\nsn: Example\nuid: %s\nsAMAccountName: %s\nmail: %s@example.org\n%s\n",
			cn, ou, harness.BaseDN, cn, uid, uid, uid, extra)
	}
	mfa := "memberOf: cn=MFA Users,ou=groups," + harness.BaseDN + "\n"
	person("people", `Alice (A\2C) *`, "alice", "oathSecret: 3132\n"+mfa)
	person("people", "Bob", "bob", "")
	person("people", "Carol", "carol", "mfaState: TOTP\n")
	person("people", "Dora", "dora", "mfaState: thinking about it\n")
	person("people", "Printer", "printer", "mfaState: printer\n")
	person("people", "Twin", "twin", mfa)
	person("other", "Twin", "twin", "")
	for i := range 3 {
		person("other", fmt.Sprint("Triplet ", i), "triplet", mfa)
	}
	fmt.Fprintf(&b, "dn: cn=scanner,ou=other,%s\nobjectClass: device\nobjectClass: uidObject\ncn: scanner\nuid: scanner\n\n", harness.BaseDN)
	fmt.Fprintf(&b, "dn: ou=elsewhere,%s\nobjectClass: referral\nobjectClass: extensibleObject\nou: elsewhere\nref: ldap://127.0.0.1:9/dc=evil\n\n", harness.BaseDN)
	for _, group := range []string{"mfa", "MFA Users"} {
		fmt.Fprintf(&b, "dn: cn=%s,ou=groups,%s\nobjectClass: groupOfNames\ncn: %s\nmember: cn=Alice (A\\2C) *,ou=people,%s\nmember: cn=Twin,ou=people,%s\n\n",
			group, harness.BaseDN, group, harness.BaseDN, harness.BaseDN)
	}
	fmt.Fprintf(&b, "dn: cn=posix,ou=groups,%s\nobjectClass: posixGroup\ncn: posix\ngidNumber: 1000\nmemberUid: bob\n\n", harness.BaseDN)
	return b.String()
}

// directories starts two slapds with the same entries and a certificate.
func directories(t *testing.T) (first, second *harness.UpstreamDirectory, caFile, passwordFile string) {
	t.Helper()
	ca := harness.NewAuthority(t)
	cert := ca.Issue(t, "slapd", time.Hour)
	settings := mfaSchema + "TLSCertificateFile " + cert.Cert + "\nTLSCertificateKeyFile " + cert.Key + "\n"
	return harness.NewUpstreamDirectory(t, mfaLDIF(), settings), harness.NewUpstreamDirectory(t, mfaLDIF(), settings), ca.File,
		write(t, "password", harness.BridgePassword+"\n")
}

// TestLDAPSnippets runs what the page says.
//
// It would catch: a rule that holds for the wrong entry, a DN or login that is not escaped, the second of two entries taken for the
// account's, a typing error in a group that suspends everybody, TLS that is not checked.
func TestLDAPSnippets(t *testing.T) {
	t.Parallel()
	page := harness.ReadPage(t, "../enrolment-ldap")
	first, second, ca, password := directories(t)

	group := newProgram(t, "valetkey-2fa-ldap", page.Snippet(t, "2fa-ldap.toml group",
		"ldaps://ldap1.example.org", "ldaps://"+first.TLSAddr, "ldaps://ldap2.example.org", "ldaps://"+second.TLSAddr,
		"/etc/ssl/certs/example-org.pem", ca, "/etc/valetkey/2fa-ldap.password", password))
	group.want("alice: enrolled (group)", "bob: not_enrolled (no_rule_holds)", "scanner: exempt (object_class)",
		"nobody: account_unknown (no_entry)", "*: account_unknown (no_entry)", "alice)(uid=*: account_unknown (no_entry)")
	for _, login := range []string{"twin", "triplet"} { // three are more than the limit of the search
		group.fails(login, "several entries", "hint: make filter or base narrower")
	}
	t.Run("group", func(t *testing.T) {
		p := *group
		p.t = t
		p.suite(enrolled("alice"), notEnrolled("bob"), exempt("scanner"), unknown("nobody"))
	})

	attribute := page.Snippet(t, "2fa-ldap.toml attribute", "ldap://ldap.example.org", "ldap://"+first.Addr,
		"/etc/ssl/certs/example-org.pem", ca, "/etc/valetkey/2fa-ldap.password", password)
	starttls := newProgram(t, "valetkey-2fa-ldap", attribute)
	starttls.want("alice: enrolled (attribute)", "alice@example.org: enrolled (attribute)", "bob: not_enrolled (no_rule_holds)",
		"carol: enrolled (attribute)", "dora: not_enrolled (no_rule_holds)", "printer: exempt (printer)", "scanner: account_unknown (no_entry)")
	t.Run("attribute", func(t *testing.T) {
		p := *starttls
		p.t = t
		p.suite(enrolled("alice"), enrolled("carol"), notEnrolled("dora"), exempt("printer"), unknown("scanner"))
	})

	// The rule of Active Directory alone is another.
	ad := newProgram(t, "valetkey-2fa-ldap", page.Snippet(t, "2fa-ldap.toml ad",
		"ldaps://dc1.example.org", "ldaps://"+first.TLSAddr, "ldaps://dc2.example.org", "ldaps://"+second.TLSAddr, "CN=valetkey,OU=Services,DC=example,DC=org", harness.BridgeDN,
		"/etc/valetkey/2fa-ldap.password", password, ":1.2.840.113556.1.4.1941:=", "=")+"\n")
	ad.fails("alice", "TLS", "hint: the certificate must be for the host") // the snippet has no ca_file: a domain's authority is the system's
	ad = newProgram(t, "valetkey-2fa-ldap", "ca_file = \""+ca+"\"\n"+page.Snippet(t, "2fa-ldap.toml ad",
		"ldaps://dc1.example.org", "ldaps://"+first.TLSAddr, "ldaps://dc2.example.org", "ldaps://"+second.TLSAddr, "CN=valetkey,OU=Services,DC=example,DC=org", harness.BridgeDN,
		"/etc/valetkey/2fa-ldap.password", password, ":1.2.840.113556.1.4.1941:=", "="))
	ad.want("alice: enrolled (filter)", "alice@example.org: enrolled (filter)", "bob: not_enrolled (no_rule_holds)", "nobody: account_unknown (no_entry)")

	// What is wrong with the directory or the file, rather than with the user.
	variant := func(from ...string) *program {
		return newProgram(t, "valetkey-2fa-ldap", strings.NewReplacer(from...).Replace(readFile(t, group.config)))
	}
	variant("cn=mfa,", "cn=mfo,").fails("bob", "is not there", "hint: correct group")
	variant(`base = "dc=example,dc=org"`, `base = "ou=nowhere,dc=example,dc=org"`).fails("alice", "the base", "hint: correct base")
	variant(ca, write(t, "other.pem", readFile(t, harness.NewAuthority(t).File))).fails("alice", "TLS", "certificate")
	variant(password, write(t, "wrong", "canary-password\n")).fails("alice", "refuses the service account", "hint: check bind_dn")
	variant("cn=mfa,ou=groups,dc=example,dc=org\"", "cn=posix,ou=groups,dc=example,dc=org\"\nmember_attribute = \"memberUid\"").want("bob: enrolled (group)", "alice: not_enrolled (no_rule_holds)")
	variant("127.0.0.1", "127.0.0.2").fails("alice", "connection refused")
}

func readFile(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestLDAPFaults asks a plugin that runs, as the daemon does, while directories go away and come back.
//
// It would catch: a connection that is kept for ever, an answer made of no answer, a second server that is not used, a first one that is
// not used again, a plugin that must be started anew.
func TestLDAPFaults(t *testing.T) {
	t.Parallel()
	first, second, _, password := directories(t)
	text := fmt.Sprintf("timeout = \"3s\"\nurls = [\"ldap://%s\"]\nbind_dn = %q\nbind_password_file = %q\nbase = %q\n[[enrolled]]\ngroup = \"cn=mfa,ou=groups,%s\"\n",
		first.Addr, harness.BridgeDN, password, harness.BaseDN, harness.BaseDN)
	one := newProgram(t, "valetkey-2fa-ldap", text)
	both := newProgram(t, "valetkey-2fa-ldap", strings.Replace(text, "\"]\n", "\", \"ldap://"+second.Addr+"\"]\n", 1))
	askOne, askBoth := ask(t, one), ask(t, both)

	alice := func(when string, ask func(string) (string, error)) {
		t.Helper()
		var got string
		var err error
		if !harness.Poll(harness.Patience, func() bool {
			got, err = ask("alice")
			return err == nil
		}) {
			t.Fatalf("%s: %v", when, err)
		}
		if got != "enrolled" {
			t.Errorf("%s: alice is %s", when, got)
		}
	}
	alice("at the start", askOne)
	alice("at the start", askBoth)

	thaw := first.Freeze(t)
	inTime(t, "with a frozen directory", askOne)
	// At once, not only after a first attempt that failed: the first one gets half of the time.
	if got, err := askBoth("alice"); err != nil || got != "enrolled" {
		t.Errorf("with the first one frozen alice is %s, %v", got, err)
	}
	thaw()
	alice("after the thaw", askOne)

	first.Stop(t)
	if got, err := askOne("alice"); err == nil {
		t.Errorf("without a directory the answer is %s", got)
	}
	alice("without the first one", askBoth)
	first.Start(t)
	alice("after a restart", askOne)
	// The first one is used again, while the second one answers.
	if !harness.Poll(harness.Patience, func() bool {
		_, _ = askBoth("alice")
		return strings.Count(strings.Join(first.Binds(), "\n"), harness.BridgeDN) > 1
	}) {
		t.Error("the first directory is back, and not asked")
	}
	second.Stop(t)
	alice("without the second one", askBoth)
}

// inTime waits for answers to become errors: a process takes a moment to freeze. No answer may take longer than it has.
func inTime(t *testing.T, when string, ask func(string) (string, error)) {
	t.Helper()
	if !harness.Poll(harness.Patience, func() bool {
		began := time.Now()
		_, err := ask("alice")
		if took := time.Since(began); took > 10*time.Second {
			t.Errorf("%s an answer took %v: %v", when, took, err)
		}
		return err != nil
	}) {
		t.Errorf("%s there are answers", when)
	}
}

// ask starts the plugin as the daemon does and returns what asks it, every time anew.
func ask(t *testing.T, p *program) func(login string) (string, error) {
	t.Helper()
	return askHost(t, host.Config{Path: p.path, Args: []string{"-config", p.config}})
}

func askHost(t *testing.T, cfg host.Config) func(login string) (string, error) {
	t.Helper()
	cfg.Dir = harness.Dir(t)
	cfg.Log = slog.New(slog.NewTextHandler(t.Output(), nil))
	// More than the daemon's second: the machine has other things to do.
	cfg.Policy, cfg.Timeout, cfg.StartTimeout, cfg.HealthWithin = host.Policy{OnError: host.Undecided}, 6*time.Second, harness.Patience, 5*time.Second
	h, err := host.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := h.Close(); err != nil {
			t.Error(err)
		}
	})
	return func(login string) (string, error) {
		ctx, cancel := context.WithTimeout(t.Context(), harness.Patience)
		defer cancel()
		r, err := h.Check(ctx, 1, login, true)
		if err != nil {
			return "not known", err
		}
		return r.Answer.Status.String(), nil
	}
}
