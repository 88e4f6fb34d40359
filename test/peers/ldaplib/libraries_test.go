package ldaplib_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/valetkey/valetkey/test/harness"
	"github.com/valetkey/valetkey/test/peers"
)

// library is one of the page: what a function answers that is pasted from there.
type library struct {
	name     string
	snippet  string
	answers  peers.Answers
	searched string    // see [way]
	connect  [2]string // the page's function that StartTLS replaces: its first words, and what ends it
	build    func(t *testing.T, at place, text, authority string) func(mode ...string) *exec.Cmd
	report   func(source string) []string // what the rest of the library is told
}

// portal is the application that has them all.
var portal = program{name: "libraries", app: "portal", reader: "portal"}

var libraries = []library{
	{
		name: "python-ldap", snippet: "login.py python-ldap", build: python("python-ldap.py"), connect: [2]string{"def connect(", "return c\n"},
		answers: peers.Answers{Yes: "LOGIN", No: "None", Later: "ldap.OTHER", Gone: "ldap.SERVER_DOWN", Hung: "ldap.TIMEOUT"},
		report:  func(source string) []string { return report(source, "53") },
	},
	{
		name: "ldap3", snippet: "login.py ldap3", build: python("ldap3.py"), connect: [2]string{"def connect(", "receive_timeout=10)\n"},
		answers: peers.Answers{Yes: "LOGIN", No: "None", Later: "LDAPOtherResult", Gone: "LDAPSocketOpenError", Hung: "LDAPSocketReceiveError"},
		report:  func(source string) []string { return report(source, "LDAPPasswordIsMandatoryError") },
	},
	{
		name: "Net::LDAP", snippet: "login.pl", build: perl, connect: [2]string{"sub connection {", "\n}\n"},
		answers: peers.Answers{Yes: "LOGIN", No: "undef", Later: "LDAP: LDAP_OTHER", Gone: "LDAP: Connection refused", Hung: "LDAP: no answer"},
		report:  func(source string) []string { return report(source, "48, 53") },
	},
	{
		name: "net-ldap", snippet: "login.rb", build: ruby, connect: [2]string{"def connection\n", "\nend\n"},
		answers: peers.Answers{Yes: "LOGIN", No: "nil", Later: "LDAP: 50", Gone: "Errno::ECONNREFUSED", Hung: "Timeout::Error"}, searched: "LDAP: 80",
		report: func(source string) []string {
			lines := []string{"entries: " + pages[source][1]}
			for _, line := range report(source, "53") {
				if !strings.HasPrefix(line, "who am I") && !strings.HasPrefix(line, "pages") && !strings.HasPrefix(line, "compare") {
					lines = append(lines, line)
				}
			}
			return lines
		},
	},
	{
		name: "JNDI", snippet: "Directory.java", build: java, connect: [2]string{"    static LdapContext connect(", "\n    }\n"},
		answers: peers.Answers{Yes: "LOGIN", No: "null", Later: "NamingException", Gone: "CommunicationException", Hung: "NamingException"},
		report:  func(source string) []string { return report(source, "53") },
	},
	{
		name: "go-ldap", snippet: "login.go", build: golang, connect: [2]string{"func connect(", "\n}\n"},
		answers: peers.Answers{Yes: "LOGIN", No: "errRejected", Later: "code 80", Gone: "code 200", Hung: "code 200"},
		report: func(source string) []string {
			lines := report(source, "206 53")
			lines[1] = "entries: " + pages[source][1]
			lines[4] = "compare: true false"
			return lines
		},
	},
}

// pages are what a search for the checked people comes in: so many pages for so many entries.
var pages = map[string][2]string{"store": {"3", "5"}, "upstream": {"3", "131"}}

// pageSize makes them.
var pageSize = map[string]string{"store": "2", "upstream": "50"}

// report is what the programs in testdata print, where a library knows all of it.
func report(source, emptyPassword string) []string {
	return []string{
		"who am I: dn:cn=portal,ou=readers,app=portal," + harness.BaseDN,
		"pages: " + pages[source][0] + " of " + pages[source][1] + " entries",
		"by memberOf: check-1 check-3",
		"by member: portal-users staff",
		"compare: True False",
		"no entry: 32",
		"wrong password: 49",
		"empty password: " + emptyPassword,
	}
}

func init() {
	for _, l := range libraries {
		portal.ways = append(portal.ways, l.name)
	}
	portal.start = func(t *testing.T, page *harness.Page, at place) map[string]way {
		ways := map[string]way{}
		for _, l := range libraries {
			run := l.build(t, at, l.text(t, page, at), "")
			ways[l.name] = way{
				try: l.login(run), answers: l.answers, vague: true, mail: true, searched: l.searched,
				ask: func(t *testing.T, source, _, _ string) { l.check(t, run, source) },
			}
		}
		return ways
	}
}

// text is the page's program, for this place.
func (l *library) text(t *testing.T, page *harness.Page, at place) string {
	host, port, _ := strings.Cut(at.addr, ":")
	substitutions := []string{"/etc/portal/ldap-secret", at.secretFile}
	if strings.Contains(page.Snippet(t, l.snippet), host+":3389") {
		substitutions = append(substitutions, host+":3389", at.addr)
	} else {
		substitutions = append(substitutions, "3389", port)
	}
	return page.Snippet(t, l.snippet, substitutions...)
}

// secure is the same with the page's function for StartTLS in place of the other.
func (l *library) secure(t *testing.T, page *harness.Page, at place, authority string) string {
	text := l.text(t, page, at)
	tls := page.Snippet(t, "starttls "+l.name)
	tls = strings.NewReplacer("/etc/portal/ca.pem", authority, "/etc/portal/ldap-secret", at.secretFile, "3389", port(at)).Replace(tls)
	start := strings.Index(text, l.connect[0])
	if start < 0 {
		t.Fatalf("snippet %q has no %q", l.snippet, l.connect[0])
	}
	length := strings.Index(text[start:], l.connect[1])
	if length < 0 || !strings.HasSuffix(tls, strings.TrimPrefix(l.connect[1], "\n")) {
		t.Fatalf("snippet %q, or that for StartTLS, does not end its function with %q", l.snippet, l.connect[1])
	}
	return text[:start] + tls + text[start+length+len(l.connect[1]):]
}

// login runs the page's function.
func (l *library) login(run func(mode ...string) *exec.Cmd) peers.Login {
	return func(t *testing.T, login, password string) string {
		t.Helper()
		code, out, errOut := harness.Run(t, login+"\n"+password+"\n", run("login"))
		if code != 0 || errOut != "" {
			t.Errorf("%s: exit code %d\n%s%s", l.name, code, out, errOut)
		}
		answer := strings.TrimSuffix(out, "\n")
		who, accepted := strings.CutPrefix(answer, "login ")
		if !accepted {
			return answer
		}
		if want := strings.TrimSuffix(login, "@mail.example.org"); who != want {
			t.Errorf("%s: the login of %s is %q, want %q", l.name, login, who, want)
		}
		return "LOGIN"
	}
}

// check runs the rest.
func (l *library) check(t *testing.T, run func(mode ...string) *exec.Cmd, source string) {
	t.Helper()
	code, out, errOut := harness.Run(t, "", run("check", pageSize[source]))
	if code != 0 || errOut != "" {
		t.Errorf("%s: exit code %d\n%s", l.name, code, errOut)
	}
	got, want := strings.Split(strings.TrimSuffix(out, "\n"), "\n"), l.report(source)
	if !slices.Equal(got, want) {
		t.Errorf("%s prints\n%s\nwant\n%s", l.name, strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// TestStartTLS runs the page's functions against a listener that takes no password without TLS.
//
// It would catch: a function that binds before it starts TLS, one that takes any certificate, a library that cannot agree with the daemon on TLS.
func TestStartTLS(t *testing.T) {
	t.Parallel()
	cluster := harness.NewCluster(t)
	url, _ := cluster.Database(t)
	page := harness.ReadPage(t, "ldap-libraries")
	authority, stranger := harness.NewAuthority(t), harness.NewAuthority(t)
	cert := authority.Issue(t, "directory", time.Hour)
	at := place{addr: peers.Addr(t), secretFile: filepath.Join(harness.Dir(t), "reader")}
	d := harness.NewDaemon(t, url)
	d.Sections = page.Snippet(t, "valetkeyd.toml", "127.0.0.1:3389", at.addr, "base_dn =",
		"tls_cert = \""+cert.Cert+"\"\ntls_key = \""+cert.Key+"\"\nallow_plaintext = false\nbase_dn =")
	d.Start(t)
	d.Must(t, "reader", "add", "portal")
	at.secret = d.Create(t, "portal", "search", "--service", "portal")
	if err := os.WriteFile(at.secretFile, []byte(at.secret+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, group := range []string{"portal-users", staff} {
		d.Must(t, "group", "add", group)
	}
	for n := range checkedIn["store"] {
		d.Must(t, "account", "add", checked(n+1), "--attribute", "mail="+mail(checked(n+1)))
	}
	for _, member := range []struct {
		group string
		n     int
	}{{"portal-users", 1}, {"portal-users", 2}, {staff, 1}, {staff, 3}} {
		d.Must(t, "group", "add-member", member.group, checked(member.n))
	}
	outside := d.Create(t, checked(3), "phone")
	for n, l := range libraries {
		login := fmt.Sprintf("user-%d", n)
		d.Must(t, "account", "add", login, "--attribute", "mail="+mail(login))
		d.Must(t, "group", "add-member", "portal-users", login)
		secret := d.Create(t, login, "phone")
		t.Run(l.name, func(t *testing.T) {
			t.Parallel()
			run := l.build(t, at, l.secure(t, page, at, authority.File), authority.File)
			for _, c := range []struct{ name, login, password, want string }{
				{"right", login, secret, l.answers.Yes},
				{"by mail", mail(login), secret, l.answers.Yes},
				{"wrong", login, peers.NeverIssued, l.answers.No},
				{notInGroup, checked(3), outside, l.answers.No},
			} {
				if got := l.login(run)(t, c.login, c.password); got != c.want {
					t.Errorf("%s: login = %q, want %q", c.name, got, c.want)
				}
			}
			l.check(t, run, "store")
			mark := d.Log().Mark()
			for what, run := range map[string]func(mode ...string) *exec.Cmd{
				"without TLS":                        l.build(t, at, l.text(t, page, at), ""),
				"with the certificate of a stranger": l.build(t, at, l.secure(t, page, at, stranger.File), stranger.File),
			} {
				code, out, _ := harness.Run(t, login+"\n"+secret+"\n", run("login"))
				if code == 0 && (strings.HasPrefix(out, "login ") || strings.TrimSpace(out) == l.answers.No) {
					t.Errorf("%s: login = %q, want an error", what, out)
				}
			}
			if lines := d.AuthLines(mark); slices.ContainsFunc(lines, func(a harness.AuthLine) bool { return a["user"] == login }) {
				t.Errorf("the log has an attempt: %v", lines)
			}
		})
	}
}

// written puts the files of a program into a directory of its own.
func written(t *testing.T, files map[string]string) (dir string) {
	t.Helper()
	dir = harness.Dir(t)
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func driver(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// command runs a program without what the caller's environment says of LDAP.
func command(program string, args ...string) func(mode ...string) *exec.Cmd {
	return func(mode ...string) *exec.Cmd {
		cmd := exec.Command(program, append(slices.Clone(args), mode...)...)
		cmd.Env = []string{"PATH=/usr/bin:/bin", "LDAPNOINIT=1", "PYTHONDONTWRITEBYTECODE=1"}
		return cmd
	}
}

func python(file string) func(t *testing.T, at place, text, authority string) func(mode ...string) *exec.Cmd {
	return func(t *testing.T, _ place, text, authority string) func(mode ...string) *exec.Cmd {
		if authority != "" && file == "ldap3.py" {
			text = "import ssl\n\n" + text
		}
		dir := written(t, map[string]string{"page.py": text, "main.py": driver(t, file)})
		return command("/usr/bin/python3", filepath.Join(dir, "main.py"), dir)
	}
}

func perl(t *testing.T, _ place, text, _ string) func(mode ...string) *exec.Cmd {
	dir := written(t, map[string]string{"main.pl": text + "\n" + driver(t, "net-ldap.pl")})
	return command("/usr/bin/perl", filepath.Join(dir, "main.pl"))
}

func ruby(t *testing.T, _ place, text, _ string) func(mode ...string) *exec.Cmd {
	dir := written(t, map[string]string{"page.rb": text, "main.rb": driver(t, "net-ldap.rb")})
	return command("/usr/bin/ruby", filepath.Join(dir, "main.rb"), dir)
}

func java(t *testing.T, at place, text, authority string) func(mode ...string) *exec.Cmd {
	if authority != "" {
		text = strings.Replace(text, "import javax.naming.ldap.LdapContext;",
			"import javax.naming.ldap.LdapContext;\nimport javax.naming.ldap.StartTlsRequest;\nimport javax.naming.ldap.StartTlsResponse;", 1)
	}
	dir := written(t, map[string]string{"Directory.java": text, "Main.java": driver(t, "Main.java")})
	out := filepath.Join(dir, "classes")
	if code, stdout, stderr := harness.Run(t, "", command("ecj", "-proc:none", "-nowarn", "-source", "17", "-target", "17", "-d", out,
		filepath.Join(dir, "Directory.java"), filepath.Join(dir, "Main.java"))()); code != 0 {
		t.Fatalf("ecj: exit code %d\n%s%s", code, stdout, stderr)
	}
	// A short life has no use for the better compiler.
	args := []string{"-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-cp", out}
	if authority != "" {
		store := filepath.Join(dir, "trust")
		if code, stdout, stderr := harness.Run(t, "", command("keytool", "-importcert", "-noprompt", "-keystore", store, "-storepass", "trusted",
			"-file", authority)()); code != 0 {
			t.Fatalf("keytool: exit code %d\n%s%s", code, stdout, stderr)
		}
		args = append(args, "-Djavax.net.ssl.trustStore="+store, "-Djavax.net.ssl.trustStorePassword=trusted")
	}
	run := command("java", append(args, "Main")...)
	return func(mode ...string) *exec.Cmd {
		if mode[0] == "check" {
			mode = append(mode, at.secret)
		}
		return run(mode...)
	}
}

func golang(t *testing.T, at place, text, authority string) func(mode ...string) *exec.Cmd {
	if authority != "" {
		text = strings.Replace(text, "import (\n", "import (\n\t\"crypto/tls\"\n\t\"crypto/x509\"\n", 1)
	}
	dir := written(t, map[string]string{"login.go": text, "main.go": driver(t, "main.go.txt")})
	build := exec.Command("go", "build", "-o", filepath.Join(dir, "program"), filepath.Join(dir, "login.go"), filepath.Join(dir, "main.go"))
	if code, stdout, stderr := harness.Run(t, "", build); code != 0 {
		t.Fatalf("go build: exit code %d\n%s%s", code, stdout, stderr)
	}
	run := command(filepath.Join(dir, "program"))
	return func(mode ...string) *exec.Cmd {
		if mode[0] == "check" {
			mode = append(mode, at.secretFile)
		}
		return run(mode...)
	}
}
