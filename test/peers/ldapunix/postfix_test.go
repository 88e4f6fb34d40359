package ldapunix_test

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/valetkey/valetkey/test/harness"
	"github.com/valetkey/valetkey/test/peers"
)

// The outcomes on Postfix's page that are no outcomes of a login.
const (
	isLogin = "login"
	isMail  = "address in mail"
	isGroup = "group"
	unknown = "unknown"
	secret  = "the reader's secret is revoked"
)

const (
	taken = "250 2.1.5 Ok"
	bad   = "550 5.1.1 <ADDRESS>: Recipient address rejected: User unknown in virtual mailbox table"
	later = "451 4.3.0 <ADDRESS>: Temporary lookup failure"
)

// tables are the files of the page.
var tables = []string{"valetkey-mailboxes.cf", "valetkey-aliases.cf", "valetkey-groups.cf"}

// mailer is a Postfix that takes mail for example.org.
type mailer struct {
	*harness.Mailer
	addr string // of its smtpd
	dir  string // where the tables are
}

func newMailer(t *testing.T, page *harness.Page, addr, secret string) *mailer {
	dir, smtpd := harness.Dir(t), &harness.SMTPService{}
	for _, name := range tables {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(page.Snippet(t, name, pageAddr, addr, "SECRET", secret)), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	m := &mailer{Mailer: harness.NewMailerWith(t, page.Snippet(t, "main.cf", "/etc/postfix", dir)+`
smtpd_relay_restrictions = permit_mynetworks, reject_unauth_destination
smtpd_recipient_restrictions =
smtpd_sasl_auth_enable = no
`, nil, smtpd), dir: dir}
	m.addr = smtpd.Addr
	return m
}

var recipient = regexp.MustCompile(`<[^>]*@[^>]*>`)

// rcpt asks in a session of its own whether smtpd takes mail for an address.
func (m *mailer) rcpt(t *testing.T, address string) string {
	t.Helper()
	s := peers.Dial(t, m.addr)
	defer s.Close()
	s.Line()
	s.Send("HELO client.example.net")
	s.Line()
	s.Send("MAIL FROM:<sender@example.net>")
	s.Line()
	s.Send("RCPT TO:<%s>", address)
	answer := strings.TrimSpace(recipient.ReplaceAllString(s.Line(), "<ADDRESS>"))
	s.Send("QUIT")
	s.Line()
	return answer
}

// lookup is what postmap finds in a table of the page, sorted.
func (m *mailer) lookup(t *testing.T, table, key string) (code int, found string) {
	t.Helper()
	code, out, _ := m.Postmap(t, "ldap:"+filepath.Join(m.dir, table), key)
	values := strings.Split(strings.TrimSpace(out), ",")
	slices.Sort(values)
	return code, strings.Join(values, ",")
}

// TestPostfix looks up recipients of every kind, in the store and in a slapd, and in the outages of the suite.
//
// It would catch: mail bounced in an outage, an address that means somebody else, a list without some of its members or with all of nobody, a table
// that keeps what it was told, a reader that asks on after its secret was revoked.
func TestPostfix(t *testing.T) {
	t.Parallel()
	cluster := harness.NewCluster(t)
	url, _ := cluster.Database(t)
	d := harness.NewDaemon(t, url)
	page := harness.ReadPage(t, "ldap-postfix")
	addrs := map[string]string{"store": peers.Addr(t), "upstream": peers.Addr(t)}

	const alice, bob, carol = "alice@example.org", "bob@example.org", "carol@example.org"
	mails := map[string][]string{alice: {"mail=" + alice, "mail=a.liddell@example.org"}, bob: {"mail=bob.b@example.org"}, carol: nil}
	members := []string{alice, bob, carol}
	var people []peers.Person
	for _, login := range members {
		people = append(people, peers.Person{Login: login, Attributes: mails[login]})
	}
	upstream, _ := peers.Upstream(t, people, peers.Group{Name: "sales", Members: members})
	d.Sections = "\n" + page.Snippet(t, "valetkeyd.toml", pageAddr, addrs["store"]) + "\n" + page.Snippet(t, "valetkeyd.toml", pageAddr, addrs["upstream"]) + upstream
	d.Start(t)
	d.Must(t, "group", "add", "sales")
	for _, login := range members {
		d.Must(t, append([]string{"account", "add", login, "--alias", "also-" + login}, flags(mails[login])...)...)
		d.Must(t, "group", "add-member", "sales", login)
	}
	d.Must(t, "group", "add", "empty")
	d.Must(t, "reader", "add", "postfix")
	readerSecret := d.Create(t, "postfix", "mail", "--service", "ldap")

	mailers := map[string]*mailer{}
	for source, addr := range addrs {
		mailers[source] = newMailer(t, page, addr, readerSecret)
	}
	want := func(source, outcome, address, answer string) {
		t.Helper()
		if got := mailers[source].rcpt(t, address); got != answer {
			t.Errorf("%s, %s: RCPT TO:<%s> is answered %q, want %q", source, outcome, address, got, answer)
		}
		page.WantOutcome(t, outcome, answer)
	}

	for _, source := range sources {
		for _, c := range []struct{ outcome, address, answer string }{
			{isLogin, alice, taken}, {isLogin, "ALICE@Example.org", taken}, {isLogin, carol, taken},
			{isMail, "a.liddell@example.org", taken}, {isMail, "bob.b@example.org", taken},
			{isGroup, "sales@example.org", taken},
			{unknown, "mallory@example.org", bad}, {unknown, "*@example.org", bad}, {unknown, `"a*"@example.org`, bad}, {unknown, `"x)(uid=*"@example.org`, bad},
			{unknown, "also-" + alice, bad}, {unknown, "postfix@example.org", bad}, {unknown, "empty@example.org", bad},
		} {
			want(source, c.outcome, c.address, c.answer)
		}
		for _, c := range []struct {
			table, key string
			code       int
			found      string
		}{
			{"valetkey-mailboxes.cf", alice, 0, alice},
			{"valetkey-mailboxes.cf", "bob.b@example.org", 1, ""},
			{"valetkey-mailboxes.cf", "alice@example.net", 1, ""}, // not asked for: domain
			{"valetkey-aliases.cf", "a.liddell@example.org", 0, alice},
			{"valetkey-aliases.cf", carol, 1, ""},
			{"valetkey-groups.cf", "sales@example.org", 0, strings.Join(members, ",")},
			{"valetkey-groups.cf", "s*@example.org", 1, ""},
		} {
			if code, found := mailers[source].lookup(t, c.table, c.key); code != c.code || found != c.found {
				t.Errorf("%s: postmap -q %s %s: exit status %d, %q, want %d, %q", source, c.key, c.table, code, found, c.code, c.found)
			}
		}
	}
	if code, out, errOut := mailers["store"].command(t, page); code != 0 || out != alice+"\n" {
		t.Errorf("the page's command: exit status %d, %q, want %q; %s", code, out, alice, errOut)
	}

	d.Must(t, "account", "disable", bob)
	want("store", disabled, bob, bad)
	want("store", disabled, "bob.b@example.org", bad)
	if code, found := mailers["store"].lookup(t, "valetkey-groups.cf", "sales@example.org"); code != 0 || found != alice+","+carol {
		t.Errorf("a group with a disabled member: exit status %d, %q, want the others", code, found)
	}
	d.Must(t, "account", "enable", bob)
	want("store", isLogin, bob, taken)

	cluster.Kill(t)
	for _, address := range []string{alice, "mallory@example.org", "sales@example.org"} {
		want("store", peers.Down, address, later)
	}
	if code, found := mailers["store"].lookup(t, "valetkey-mailboxes.cf", alice); code != 1 || found != "" {
		t.Errorf("postmap in an outage: exit status %d, %q", code, found)
	}
	cluster.Start(t)
	harness.WaitFor(t, "mail to be taken again", func() bool { return mailers["store"].rcpt(t, alice) == taken })
	want("upstream", isLogin, alice, taken)

	thaw := cluster.Freeze(t)
	began := time.Now()
	want("store", peers.Hangs, alice, later)
	if took := time.Since(began); took > 12*time.Second {
		t.Errorf("the sender waited %v for an answer", took)
	}
	thaw()
	harness.WaitFor(t, "mail to be taken again", func() bool { return mailers["store"].rcpt(t, alice) == taken })

	thaw = d.Freeze(t)
	go func() { <-time.After(2 * time.Second); thaw() }()
	want("store", peers.Slow, alice, taken)
	thaw = d.Freeze(t)
	began = time.Now()
	want("store", peers.Hung, alice, later)
	if took := time.Since(began); took < 4*time.Second || took > 12*time.Second {
		t.Errorf("the sender waited %v for an answer while the daemon hung", took)
	}
	thaw()
	want("store", isLogin, alice, taken)

	d.Stop(t)
	want("store", peers.Stopped, alice, later)
	d.Start(t)
	want("store", isLogin, alice, taken)
	// Over a connection that was idle during the restart.
	want("upstream", isLogin, alice, taken)

	d.Revoke(t, "postfix", "mail")
	for _, source := range sources {
		want(source, secret, alice, later)
	}
}

// command runs the one of the page.
func (m *mailer) command(t *testing.T, page *harness.Page) (code int, stdout, stderr string) {
	t.Helper()
	var key, table string
	if _, err := fmt.Sscanf(page.Snippet(t, "command", "/etc/postfix", m.dir), "postmap -q %s %s", &key, &table); err != nil {
		t.Fatal(err)
	}
	return m.Postmap(t, table, key)
}
