package peers_test

import (
	"fmt"
	"io"
	"maps"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/valetkey/valetkey/test/harness"
)

// What the pages call the outcomes, in the first column of their tables.
const (
	accepted     = "accepted"
	wrong        = "wrong password"
	revoked      = "revoked"
	wrongService = "wrong service"
	wrongNetwork = "wrong network"
	rightNetwork = "right network"
	undecided    = "Postgres is down"
	slow         = "Postgres hangs"
	stopped      = "the daemon is stopped"
)

// neverIssued has the shape of an app password.
const neverIssued = "abcd-efgh-ijkl-mnop"

// The account's login, and another name for it.
const (
	alice = "alice@example.org"
	alias = "ally@example.org"
)

// peer is a server that asks the daemon, in one way of configuring it.
type peer struct {
	page    *harness.Page
	addr    string // of an SMTP server
	login   func(t *testing.T, login, password string) (answer string)
	proto   string // front end, in the daemon's log
	service string // that it asks for
	address string // of the user, in the daemon's log; empty: it tells none

	bare string // how the daemon's log has the login "alice"; empty: it cannot be given

	known string // how an SMTP server goes on to call the user who logged in by the alias; empty: it does not tell

	yes, no, later, gone string // what its user sees; see answer
	variant              bool   // of another peer, which stands for it where one takes long or is the first to notice
}

// answer is what the user's program is told for an outcome.
func (p *peer) answer(outcome string) string {
	switch outcome {
	case accepted:
		return p.yes
	case rightNetwork:
		// A peer that tells no address is refused what demands one.
		if p.address != "" {
			return p.yes
		}
		return p.no
	case undecided, slow:
		return p.later
	case stopped:
		return p.gone
	}
	return p.no
}

// TestOutcomes logs in through every peer in every state of an app password, of Postgres and of the daemon.
//
// It would catch: a snippet that the peer does not take, a socket that it may not reach, an outage told as a wrong password (or the
// other way round), a service or an address that is lost on the way, a refused login that is not told from an outage in the log,
// a login that the realm rule puts together wrongly, a peer that does not recover.
func TestOutcomes(t *testing.T) {
	t.Parallel()
	cluster := harness.NewCluster(t)
	url, _ := cluster.Database(t)
	d := harness.NewDaemon(t, url)
	peers := newPeers(t, d)
	d.Start(t)
	d.Must(t, "account", "add", alice, "--alias", alias)
	password := map[string]string{
		accepted:     d.Create(t, alice, "phone"),
		wrong:        neverIssued,
		revoked:      d.Create(t, alice, "lost phone"),
		wrongService: d.Create(t, alice, "calendar", "--service", "dav"),
		wrongNetwork: d.Create(t, alice, "office", "--from", "192.0.2.0/24"),
		rightNetwork: d.Create(t, alice, "this machine", "--from", "127.0.0.0/8"),
	}
	d.Revoke(t, alice, "lost phone")
	reason := map[string]string{accepted: "accepted", wrong: "no_match", revoked: "revoked", wrongService: "service_not_allowed",
		wrongNetwork: "network_not_allowed", rightNetwork: "accepted"}

	// try logs in once and wants the answer, on the page too, and the line of the log.
	try := func(t *testing.T, p *peer, outcome, password string, log harness.AuthLine) {
		t.Helper()
		mark := d.Log().Mark()
		got, want := p.login(t, alice, password), p.answer(outcome)
		if got != want {
			t.Errorf("%s: the user sees %q, want %q", outcome, got, want)
		}
		p.page.WantOutcome(t, outcome, want)
		if log != nil {
			maps.Copy(log, harness.AuthLine{"proto": p.proto, "svc": p.service, "user": alice})
			d.WantAuth(t, mark, log)
		}
	}
	// login logs in once and waits for the line of the log, which the next login is to have for itself: the answer may be faster.
	login := func(t *testing.T, p *peer, login, password string) (answer string) {
		t.Helper()
		mark := d.Log().Mark()
		answer = p.login(t, login, password)
		harness.WaitFor(t, "the line of the login", func() bool { return len(d.AuthLines(mark)) > 0 })
		return answer
	}
	// One after the other: each must find its line in the log.
	each := func(t *testing.T, visit func(t *testing.T, p *peer)) {
		for _, name := range slices.Sorted(maps.Keys(peers)) {
			t.Run(name, func(t *testing.T) { visit(t, peers[name]) })
		}
	}

	each(t, func(t *testing.T, p *peer) {
		for _, outcome := range []string{accepted, wrong, revoked, wrongService, wrongNetwork, rightNetwork} {
			log := harness.AuthLine{"result": "fail", "reason": reason[outcome]}
			if outcome == rightNetwork && p.address == "" {
				log["reason"] = "network_not_allowed"
			}
			if log["reason"] == "accepted" {
				log["result"] = "ok"
			}
			if log["rip"] = "-"; p.address != "" {
				log["rip"] = p.address
			}
			try(t, p, outcome, password[outcome], log)
			if t.Failed() {
				return
			}
		}
	})
	if t.Failed() {
		return // the rest would only wait for what does not come
	}
	again := func(t *testing.T) {
		t.Helper()
		harness.WaitFor(t, "the daemon to have Postgres", func() bool {
			return login(t, peers["slapd"], alice, password[accepted]) == peers["slapd"].yes
		})
		each(t, func(t *testing.T, p *peer) { try(t, p, accepted, password[accepted], harness.AuthLine{"result": "ok"}) })
	}

	t.Run("revoked between two logins", func(t *testing.T) {
		tablet := d.Create(t, alice, "tablet")
		for range 2 {
			each(t, func(t *testing.T, p *peer) {
				if got := login(t, p, alice, tablet); got != p.yes {
					t.Errorf("before: the user sees %q, want %q", got, p.yes)
				}
			})
		}
		d.Revoke(t, alice, "tablet")
		each(t, func(t *testing.T, p *peer) {
			if got := login(t, p, alice, tablet); got != p.no {
				t.Errorf("after: the user sees %q, want %q", got, p.no)
			}
		})
	})
	t.Run("alias", func(t *testing.T) {
		each(t, func(t *testing.T, p *peer) {
			if p.known == "" || p.variant {
				return
			}
			s := harness.DialSMTP(t, p.addr)
			defer s.Close()
			mark := d.Log().Mark()
			if got := s.Auth(t, harness.LoginPrompt, alias, password[accepted]); got.Code != 235 {
				t.Fatalf("AUTH by an alias: %d %s, want 235", got.Code, got.Text)
			}
			d.WantAuth(t, mark, harness.AuthLine{"result": "ok"})
			if _, got := s.Mail("alice@example.org"); got != p.known {
				t.Errorf("the server calls the user %q, want %q", got, p.known)
			}
		})
	})
	t.Run("login without a domain", func(t *testing.T) {
		each(t, func(t *testing.T, p *peer) {
			if p.bare == "" {
				return
			}
			mark := d.Log().Mark()
			if got := p.login(t, "alice", neverIssued); got != p.no {
				t.Errorf("the user sees %q, want %q", got, p.no)
			}
			reason := "unknown_login"
			if p.bare == alice {
				reason = "no_match"
			}
			d.WantAuth(t, mark, harness.AuthLine{"user": p.bare, "reason": reason})
		})
	})
	t.Run(undecided, func(t *testing.T) {
		cluster.Kill(t)
		each(t, func(t *testing.T, p *peer) {
			for _, which := range []string{accepted, wrong, revoked} {
				try(t, p, undecided, password[which], harness.AuthLine{"result": "undecided", "count": "no"})
			}
		})
		cluster.Start(t)
		again(t)
	})
	t.Run(stopped, func(t *testing.T) {
		d.Stop(t)
		each(t, func(t *testing.T, p *peer) {
			if !p.variant {
				try(t, p, stopped, password[accepted], nil)
			}
		})
		// smtpd has let its connection go with the first 454 and must have the mechanisms before it greets anybody
		// (reference/mail-protocols.md section 1.7). Cyrus SASL has them from its own file.
		if got := greeting(t, peers["postfix"].addr); got != "" {
			t.Errorf("second session with Postfix: %q, want it closed without a word", got)
		}
		peers["postfix"].page.WantOutcome(t, stopped+", later sessions", "lost connection")
		d.Start(t)
		again(t)
	})
	t.Run(slow, func(t *testing.T) {
		thaw := cluster.Freeze(t)
		mark := d.Log().Mark()
		asked := 0
		for _, p := range peers {
			if !p.variant {
				asked++
			}
		}
		t.Run("all", func(t *testing.T) {
			each(t, func(t *testing.T, p *peer) {
				if p.variant {
					return
				}
				t.Parallel()
				try(t, p, slow, password[accepted], nil)
			})
		})
		harness.WaitFor(t, "the lines of the logins", func() bool { return len(d.AuthLines(mark)) >= asked })
		for _, line := range d.AuthLines(mark) {
			if line["result"] != "undecided" {
				t.Errorf("log line of a login while Postgres hangs: %v, want result=undecided", line)
			}
		}
		thaw()
		again(t)
	})
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
func newPeers(t *testing.T, d *harness.Daemon) map[string]*peer {
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

	smtp := func(addr string, form harness.AuthForm) func(*testing.T, string, string) string {
		return func(t *testing.T, login, password string) string {
			t.Helper()
			s := harness.DialSMTP(t, addr)
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

	const invalid = "ldap_bind: Invalid credentials (49)"
	all := map[string]*peer{
		"slapd": {page: slapd, login: bind, proto: "saslauthd", service: "ldap",
			yes: "dn:" + harness.UserDN("alice"), no: invalid, later: invalid, gone: invalid},
		"testsaslauthd": {page: mux, login: command, proto: "saslauthd", service: "imap",
			yes: `0: OK "Success."`, no: `0: NO "authentication failed"`, later: "0: size read failed",
			gone: "0: connect() : No such file or directory"},
	}
	servers := map[string]peer{
		"postfix": {page: postfix, addr: overDovecot.Addr, proto: "dovecot", service: "smtp", address: "127.0.0.1", bare: "alice",
			yes: "235 2.7.0 Authentication successful", no: "535 5.7.8 Error: authentication failed: (reason unavailable)",
			later: "454 4.7.0 Temporary authentication failure: Connection lost to authentication server",
			gone:  "454 4.7.0 Temporary authentication failure: (reason unavailable)"},
		"postfix-cyrus": {page: cyrus, addr: overCyrus.Addr, proto: "saslauthd", service: "smtp", bare: "alice",
			yes: "235 2.7.0 Authentication successful", no: "535 5.7.8 Error: authentication failed: authentication failure",
			later: "454 4.7.0 Temporary authentication failure: generic failure",
			gone:  "454 4.7.0 Temporary authentication failure: generic failure"},
		"exim-dovecot": {page: exim, addr: eximDovecot.Addr, proto: "dovecot", service: "smtp", address: "127.0.0.1", bare: "alice", known: alice,
			yes: "235 Authentication succeeded", no: "535 Incorrect authentication data",
			later: "435 Unable to authenticate at present", gone: "435 Unable to authenticate at present"},
		"exim-saslauthd": {page: exim, addr: eximSaslauthd.Addr, proto: "saslauthd", service: "smtp", bare: "alice", known: alias,
			yes: "235 Authentication succeeded", no: "535 Incorrect authentication data",
			later: "435 Unable to authenticate at present", gone: "435 Unable to authenticate at present"},
	}
	for name, p := range servers {
		p.login = smtp(p.addr, harness.PlainInitial)
		all[name] = &p
		for _, form := range []harness.AuthForm{harness.PlainPrompt, harness.LoginInitial, harness.LoginPrompt} {
			other := p
			other.login, other.variant = smtp(p.addr, form), true
			all[name+"/"+string(form)] = &other
		}
	}
	for name, addr := range map[string]string{"postfix": overDovecot587.Addr, "postfix-cyrus": overCyrus587.Addr} {
		p := servers[name]
		p.login, p.service, p.variant = smtp(addr, harness.PlainInitial), "submission", true
		if name == "postfix-cyrus" {
			p.bare = alice
		}
		all[name+"/submission"] = &p
	}
	return all
}
