package sasl_test

import (
	"fmt"
	"io"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/valetkey/valetkey/test/harness"
	"github.com/valetkey/valetkey/test/peers"
)

// TestOutcomes runs the suite, and then what these peers can tell beyond it.
//
// It would catch: a login that the realm rule puts together wrongly.
func TestOutcomes(t *testing.T) {
	t.Parallel()
	cluster := harness.NewCluster(t)
	url, _ := cluster.Database(t)
	d := harness.NewDaemon(t, url)
	all, servers := newPeers(t, d)
	d.Start(t)
	peers.Run(t, cluster, d, all)
	if t.Failed() {
		return
	}
	for _, s := range servers {
		t.Run(s.name, func(t *testing.T) {
			p := all[s.name]
			t.Run("login without a domain", func(t *testing.T) {
				mark := d.Log().Mark()
				if got := p.Try(t, "nobody", peers.NeverIssued); got != p.No {
					t.Errorf("the user sees %q, want %q", got, p.No)
				}
				d.WantAuth(t, mark, harness.AuthLine{"user": s.bare, "reason": "unknown_login"})
			})
			t.Run("alias", func(t *testing.T) {
				if s.known == "" {
					return
				}
				c := harness.DialSMTPFrom(t, &peers.FromUser, p.Addr)
				defer c.Close()
				if got := c.Auth(t, harness.LoginPrompt, peers.Alias+p.User, p.Secret[peers.Accepted]); got.Code != 235 {
					t.Fatalf("AUTH by an alias: %d %s, want 235", got.Code, got.Text)
				}
				if _, got := c.Mail("alice@example.org"); got != s.known+p.User {
					t.Errorf("the server calls the user %q, want %q", got, s.known+p.User)
				}
			})
		})
	}
}

// server is what else is asked of an SMTP server.
type server struct {
	name  string // of the peer
	bare  string // how the daemon's log has the login "nobody"
	known string // what stands before the canonical login in the name that it has of a user who logged in by the alias; empty: it does not tell
}

// greeting is what an SMTP server says first; empty if it hangs up instead.
func greeting(t *testing.T, addr string) string {
	t.Helper()
	conn, err := harness.Dial(addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetReadDeadline(time.Now().Add(harness.Patience)); err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(conn)
	if err != nil {
		t.Fatalf("waiting for an SMTP server to greet or to hang up: %v, with %q", err, b)
	}
	return string(b)
}

// newPeers starts every peer with the snippets of its page, and puts those that are valetkeyd's into the configuration of d. Only
// what differs from site to site is replaced.
func newPeers(t *testing.T, d *harness.Daemon) (map[string]*peers.Peer, []server) {
	page := func(name string) *harness.Page { return harness.ReadPage(t, name) }
	postfix, cyrus, exim, slapd, mux := page("postfix"), page("postfix-cyrus"), page("exim"), page("slapd-sasl"), page("saslauthd")

	// The /run that peers see which are not chrooted. The second directory is as Debian's sasl2-bin makes it.
	run := harness.Dir(t)
	if err := os.Mkdir(filepath.Join(run, "valetkey"), 0o755); err != nil {
		t.Fatal(err)
	}
	sasl := filepath.Join(run, "saslauthd")
	if err := os.Mkdir(sasl, 0o710); err != nil {
		t.Fatal(err)
	}
	group, err := user.LookupGroup("sasl")
	if err != nil {
		t.Fatal(err)
	}
	gid, err := strconv.Atoi(group.Gid)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(sasl, 0, gid); err != nil {
		t.Fatal(err)
	}
	eximGroup := []string{"unix:/run/", "unix:" + run + "/", `"Debian-exim"`, fmt.Sprintf("%q", harness.EximGroup)}

	// main.cf and smtpd.conf name no place that differs: they are relative to the queue directory.
	port587 := "submission inet n - y - - smtpd\n" // the harness has ports of its own
	overDovecot, overCyrus := &harness.SMTPService{Chroot: true}, &harness.SMTPService{Chroot: true}
	overDovecot587 := &harness.SMTPService{Chroot: true, Options: postfix.Snippet(t, "master.cf", port587, "")}
	overCyrus587 := &harness.SMTPService{Chroot: true, Options: cyrus.Snippet(t, "master.cf", port587, "") +
		cyrus.Snippet(t, "master.cf domain")}
	overDovecotMailer := harness.NewMailerWith(t, postfix.Snippet(t, "main.cf"), nil, overDovecot, overDovecot587)
	overCyrusMailer := harness.NewMailerWith(t, cyrus.Snippet(t, "main.cf"),
		map[string]string{"sasl/smtpd.conf": cyrus.Snippet(t, "sasl/smtpd.conf")}, overCyrus, overCyrus587)

	d.Sections = strings.Join([]string{
		"",
		postfix.Snippet(t, "valetkeyd.toml", "/var/spool/postfix", overDovecotMailer.Queue()),
		cyrus.Snippet(t, "valetkeyd.toml", "/var/spool/postfix", overCyrusMailer.Queue()),
		exim.Snippet(t, "valetkeyd.toml dovecot", eximGroup...),
		exim.Snippet(t, "valetkeyd.toml saslauthd", eximGroup...),
		slapd.Snippet(t, "valetkeyd.toml", "unix:/run/", "unix:"+run+"/"),
		mux.Snippet(t, "valetkeyd.toml", "unix:/run/", "unix:"+run+"/"),
	}, "\n")

	// There is no TLS here, which the page asks for.
	eximMain := exim.Snippet(t, "main", "${if def:tls_in_cipher{*}}", "*")
	eximDovecot := harness.NewExim(t, eximMain, exim.Snippet(t, "authenticators dovecot"), run)
	eximSaslauthd := harness.NewExim(t, eximMain, exim.Snippet(t, "authenticators saslauthd"), run)

	directory := harness.NewDirectory(t, fmt.Sprintf(`dn: %[1]s
objectClass: organization
objectClass: dcObject
o: example
dc: example

dn: ou=people,%[1]s
objectClass: organizationalUnit
ou: people

%[2]s`, harness.BaseDN, slapd.Snippet(t, "entry.ldif")), slapd.Snippet(t, "sasl2/slapd.conf"), run)

	over := func(addr string, form harness.AuthForm) peers.Login {
		return func(t *testing.T, login, password string) string {
			t.Helper()
			s := harness.DialSMTPFrom(t, &peers.FromUser, addr)
			defer s.Close()
			got := s.Auth(t, form, login, password)
			offered := slices.Sorted(slices.Values(got.Offered))
			if !slices.Equal(offered, []string{"LOGIN", "PLAIN"}) {
				t.Errorf("EHLO offers AUTH %q, want PLAIN and LOGIN", got.Offered)
			}
			return fmt.Sprintf("%d %s", got.Code, got.Text)
		}
	}
	bind := func(t *testing.T, login, password string) string {
		t.Helper()
		_, out, errOut := harness.LDAPTool(t, "ldapwhoami", directory.Addr, harness.UserDN(strings.TrimSuffix(login, "@example.org")), password)
		return strings.TrimSpace(out + errOut)
	}
	command := func(t *testing.T, login, password string) string {
		t.Helper()
		name, realm, _ := strings.Cut(login, "@")
		_, printed := harness.SASLTest(t, mux.Snippet(t, "command", "-u alice", "-u "+name, "example.org", realm, "abcd-efgh-ijkl-mnop", password), run)
		return printed
	}

	const (
		invalid   = "ldap_bind: Invalid credentials (49)"
		noAddress = "-" // saslauthd's protocol has none
	)
	all := map[string]*peers.Peer{
		"slapd": {Page: slapd, Try: bind, User: "alice@example.org", Proto: "saslauthd", Service: "ldap", Address: noAddress, Answers: peers.Answers{
			Yes: "dn:" + harness.UserDN("alice"), No: invalid, Later: invalid, Gone: invalid}},
		"testsaslauthd": {Page: mux, Try: command, Proto: "saslauthd", Service: "imap", Address: noAddress, Answers: peers.Answers{
			Yes: `0: OK "Success."`, No: `0: NO "authentication failed"`, Later: "0: size read failed",
			Gone: "0: connect() : No such file or directory"}},
		"postfix": {Page: postfix, Addr: overDovecot.Addr, Proto: "dovecot", Service: "smtp", Address: peers.UserAddress, Answers: peers.Answers{
			Yes: "235 2.7.0 Authentication successful", No: "535 5.7.8 Error: authentication failed: (reason unavailable)",
			Later: "454 4.7.0 Temporary authentication failure: Connection lost to authentication server",
			Gone:  "454 4.7.0 Temporary authentication failure: (reason unavailable)",
			Hung:  "454 4.7.0 Temporary authentication failure: Connection lost to authentication server"}},
		"postfix-cyrus": {Page: cyrus, Addr: overCyrus.Addr, Proto: "saslauthd", Service: "smtp", Address: noAddress, Answers: peers.Answers{
			Yes: "235 2.7.0 Authentication successful", No: "535 5.7.8 Error: authentication failed: authentication failure",
			Later: "454 4.7.0 Temporary authentication failure: generic failure",
			Gone:  "454 4.7.0 Temporary authentication failure: generic failure"}},
		"exim-dovecot": {Page: exim, Addr: eximDovecot.Addr, Proto: "dovecot", Service: "smtp", Address: peers.UserAddress, Answers: peers.Answers{
			Yes: "235 Authentication succeeded", No: "535 Incorrect authentication data",
			Later: "435 Unable to authenticate at present", Gone: "435 Unable to authenticate at present"}},
		"exim-saslauthd": {Page: exim, Addr: eximSaslauthd.Addr, Proto: "saslauthd", Service: "smtp", Address: noAddress, Answers: peers.Answers{
			Yes: "235 Authentication succeeded", No: "535 Incorrect authentication data",
			Later: "435 Unable to authenticate at present", Gone: "435 Unable to authenticate at present"}},
	}
	servers := []server{
		{name: "postfix", bare: "nobody"},
		{name: "postfix-cyrus", bare: "nobody"},
		{name: "postfix-cyrus/submission", bare: "nobody@example.org"},
		{name: "exim-dovecot", bare: "nobody", known: ""},
		{name: "exim-saslauthd", bare: "nobody", known: "" + peers.Alias},
	}
	for _, name := range []string{"postfix", "postfix-cyrus", "exim-dovecot", "exim-saslauthd"} {
		p := all[name]
		p.Try = over(p.Addr, harness.PlainInitial)
		for _, form := range []harness.AuthForm{harness.PlainPrompt, harness.LoginInitial, harness.LoginPrompt} {
			other := *p
			other.Try, other.Variant = over(p.Addr, form), true
			all[name+"/"+string(form)] = &other
		}
	}
	for name, addr := range map[string]string{"postfix": overDovecot587.Addr, "postfix-cyrus": overCyrus587.Addr} {
		p := *all[name]
		p.Try, p.Addr, p.Service, p.Variant = over(addr, harness.PlainInitial), addr, "submission", true
		all[name+"/submission"] = &p
	}
	// smtpd has let its connection go with the first 454 and must have the mechanisms before it greets anybody
	// (reference/mail-protocols.md section 1.7). Cyrus SASL has them from its own file.
	all["postfix"].WhenStopped = func(t *testing.T) {
		if got := greeting(t, overDovecot.Addr); got != "" {
			t.Errorf("second session with Postfix: %q, want it closed without a word", got)
		}
		postfix.WantOutcome(t, peers.Stopped+", later sessions", "lost connection")
	}
	return all, servers
}
