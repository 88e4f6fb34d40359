package httpauth_test

import (
	"fmt"
	"maps"
	"os"
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

// alias begins the second name of every user.
const alias = "alias-of-"

// neverIssued has the shape of an app password.
const neverIssued = "abcd-efgh-ijkl-mnop"

// login asks as a user's program does and returns what it is told.
type login func(t *testing.T, login, password string) (answer string)

// peer is a server that asks the daemon, in one way of configuring it.
type peer struct {
	page    *harness.Page
	try     login
	addr    string // of an IMAP server
	user    string // of its own, by which its lines are found in the daemon's log
	proto   string // front end, in the daemon's log
	service string // that it asks for
	address string // of the user, in the daemon's log
	home    string // where the user's mail must be after a login; empty: none is kept
	own     bool   // the account has userdb fields of its own
	twice   bool   // a server behind it asks too, once it let the user pass

	names func(login string) bool // reports whether the peer knew its user by this name; nil: it does not learn another

	answers
	secret map[string]string
}

// answers are what the user's program is told; see [peer.answer].
type answers struct{ yes, no, later, gone string }

// answer is what the user's program is told for an outcome.
func (p *peer) answer(outcome string) string {
	switch outcome {
	case accepted:
		return p.yes
	case rightNetwork:
		// What a peer does not pass on cannot be right.
		if p.address == userAddress {
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
// It would catch: a snippet that the peer does not take, a shared secret that does not get through, an outage told as a wrong password
// (or the other way round), a service or an address that is lost on the way, a userdb field that does not arrive, a peer that takes
// a revoked password from a cache, one that does not recover.
func TestOutcomes(t *testing.T) {
	t.Parallel()
	cluster := harness.NewCluster(t)
	url, _ := cluster.Database(t)
	d := harness.NewDaemon(t, url)
	peers := newPeers(t, d)
	d.Start(t)

	// All at once: what takes long is the politeness of the peers. Each has a user of its own.
	each := func(t *testing.T, phase string, visit func(t *testing.T, p *peer)) {
		t.Run(phase, func(t *testing.T) {
			for _, name := range slices.Sorted(maps.Keys(peers)) {
				t.Run(name, func(t *testing.T) {
					t.Parallel()
					visit(t, peers[name])
				})
			}
		})
	}
	// try logs in once and wants the answer, on the page too, and the line of the log; none if log is nil.
	try := func(t *testing.T, p *peer, outcome, password string, log harness.AuthLine) {
		t.Helper()
		mark := d.Log().Mark()
		if got, want := p.try(t, p.user, password), p.answer(outcome); got != want {
			t.Errorf("%s: the user sees %q, want %q", outcome, got, want)
		}
		p.page.WantOutcome(t, outcome, p.answer(outcome))
		if log != nil {
			maps.Copy(log, harness.AuthLine{"proto": p.proto, "svc": p.service, "rip": p.address})
			n := 1
			if p.twice && log["result"] == "ok" {
				n = 2
			}
			wantAuth(t, d, mark, p.user, n, log)
		}
	}
	again := func(t *testing.T) {
		each(t, "and works again", func(t *testing.T, p *peer) {
			try(t, p, accepted, p.secret[accepted], harness.AuthLine{"result": "ok"})
		})
	}

	each(t, "app passwords", func(t *testing.T, p *peer) {
		account := []string{"account", "add", p.user, "--alias", alias + p.user}
		if p.own {
			account = append(account, "--userdb", "home="+harness.DovecotHome+"/of-"+p.user, "--userdb", "quota_rule=*:storage=7M")
		}
		d.Must(t, account...)
		p.secret = map[string]string{
			accepted:     d.Create(t, p.user, "phone"),
			wrong:        neverIssued,
			revoked:      d.Create(t, p.user, "lost phone"),
			wrongService: d.Create(t, p.user, "printer", "--service", "scan"),
			wrongNetwork: d.Create(t, p.user, "office", "--from", "192.0.2.0/24"),
			rightNetwork: d.Create(t, p.user, "this machine", "--from", userAddress),
		}
		// It has worked, so that a cache would have it.
		try(t, p, accepted, p.secret[revoked], harness.AuthLine{"result": "ok", "label": "lost phone"})
		d.Revoke(t, p.user, "lost phone")
		for _, outcome := range []struct{ name, reason string }{
			{accepted, "accepted"}, {wrong, "no_match"}, {revoked, "revoked"}, {wrongService, "service_not_allowed"},
			{wrongNetwork, "network_not_allowed"}, {rightNetwork, "accepted"},
		} {
			log := harness.AuthLine{"result": "fail", "reason": outcome.reason}
			if outcome.name == rightNetwork && p.address != userAddress {
				log["reason"] = "network_not_allowed"
			}
			if log["reason"] == "accepted" {
				log["result"] = "ok"
			}
			try(t, p, outcome.name, p.secret[outcome.name], log)
		}
		if p.home != "" {
			if _, err := os.Stat(filepath.Join(p.home, "Maildir")); err != nil {
				t.Errorf("the user's mail is not at home: %v", err)
			}
		}
	})
	each(t, "alias", func(t *testing.T, p *peer) {
		if p.names == nil {
			return
		}
		if got := p.try(t, alias+p.user, p.secret[accepted]); got != p.yes {
			t.Errorf("the user sees %q, want %q", got, p.yes)
		}
		if !p.names(p.user) || p.names(alias+p.user) {
			t.Error("the peer knows its user by the alias, want the canonical login")
		}
		if _, err := os.Stat(filepath.Join(filepath.Dir(p.home), alias+p.user)); p.home != "" && err == nil {
			t.Error("the alias has a home of its own")
		}
	})
	t.Run("one app password for IMAP alone", func(t *testing.T) {
		const user = "dovecot23-imap@example.org"
		secret := d.Create(t, user, "tablet", "--service", "imap")
		in, out := peers["dovecot23-imap"], peers["dovecot23-submission"]
		if got := in.try(t, user, secret); got != in.yes {
			t.Errorf("IMAP: the user sees %q, want %q", got, in.yes)
		}
		mark := d.Log().Mark()
		if got := out.try(t, user, secret); got != out.no {
			t.Errorf("submission: the user sees %q, want %q", got, out.no)
		}
		wantAuth(t, d, mark, user, 1, harness.AuthLine{"result": "fail", "reason": "service_not_allowed", "svc": "submission", "label": "tablet"})
	})
	t.Run("quota", func(t *testing.T) {
		s := dial(t, peers["dovecot23-imap"].addr)
		defer s.conn.Close()
		s.line()
		s.send("a LOGIN %q %q", peers["dovecot23-imap"].user, peers["dovecot23-imap"].secret[accepted])
		s.send("b GETQUOTAROOT INBOX")
		var lines []string
		for line := s.line(); line != "" && !strings.HasPrefix(line, "b "); line = s.line() {
			lines = append(lines, line)
		}
		if want := "(STORAGE 0 7168)"; !strings.Contains(strings.Join(lines, ""), want) {
			t.Errorf("GETQUOTAROOT: %q, want %s", lines, want)
		}
	})
	t.Run(undecided, func(t *testing.T) {
		cluster.Kill(t)
		each(t, "all", func(t *testing.T, p *peer) {
			for _, which := range []string{accepted, wrong, revoked} {
				try(t, p, undecided, p.secret[which], harness.AuthLine{"result": "undecided", "count": "no"})
			}
		})
		cluster.Start(t)
		ready(t, d, peers)
		again(t)
	})
	t.Run(slow, func(t *testing.T) {
		thaw := cluster.Freeze(t)
		each(t, "all", func(t *testing.T, p *peer) {
			began := time.Now()
			try(t, p, slow, p.secret[accepted], nil)
			if took := time.Since(began); took > 15*time.Second {
				t.Errorf("the user waited %v for an answer", took)
			}
		})
		thaw()
		ready(t, d, peers)
		again(t)
	})
	t.Run(stopped, func(t *testing.T) {
		d.Stop(t)
		each(t, "all", func(t *testing.T, p *peer) { try(t, p, stopped, p.secret[accepted], nil) })
		d.Start(t)
		again(t)
	})
}

// ready waits until the daemon has Postgres again.
func ready(t *testing.T, d *harness.Daemon, peers map[string]*peer) {
	t.Helper()
	p := peers["basic"]
	harness.WaitFor(t, "the daemon to have Postgres", func() bool {
		mark := d.Log().Mark()
		ok := p.try(t, p.user, p.secret[accepted]) == p.yes
		// The answer may be faster than the log, which the next login is to have for itself.
		harness.WaitFor(t, "the line of the login", func() bool { return len(attempts(d, mark, p.user)) > 0 })
		return ok
	})
}

// wantAuth wants n lines of an attempt of this user after mark, each with these values.
func wantAuth(t *testing.T, d *harness.Daemon, mark int, user string, n int, want harness.AuthLine) {
	t.Helper()
	harness.Poll(5*time.Second, func() bool { return len(attempts(d, mark, user)) >= n })
	lines := attempts(d, mark, user)
	if len(lines) != n {
		t.Errorf("log has %d lines of an attempt of %s, want %d: %v", len(lines), user, n, lines)
	}
	for _, line := range lines {
		for key, value := range want {
			if got, ok := line[key]; !ok || got != value {
				t.Errorf("log line has %s=%q, want %q; the line: %v", key, got, value, line)
			}
		}
	}
}

// attempts are the lines of this user after mark.
func attempts(d *harness.Daemon, mark int, user string) []harness.AuthLine {
	return slices.DeleteFunc(d.AuthLines(mark), func(a harness.AuthLine) bool { return a["user"] != user })
}

// newPeers starts every peer with the snippets of its page, and puts those that are valetkeyd's into the configuration of d. Only
// what differs from site to site is replaced.
func newPeers(t *testing.T, d *harness.Daemon) map[string]*peer {
	page := func(name string) *harness.Page { return harness.ReadPage(t, name) }
	dovecot23, dovecot24, nginxMail, basic := page("dovecot-2.3"), page("dovecot-2.4"), page("nginx-mail"), page("http-basic")

	// No secret is like another: one that got to the wrong place would not work.
	dir := harness.Dir(t)
	secretFile := func(secret string) string {
		path := filepath.Join(dir, secret)
		if err := os.WriteFile(path, []byte(secret+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	addr := func() string { return fmt.Sprintf("127.0.0.1:%d", harness.FreePort(t)) }
	const http, ldap = "127.0.0.1:8389", "127.0.0.1:3390" // on the pages
	http23, http24, httpMail, httpBasic, ldap23, ldap24 := addr(), addr(), addr(), addr(), addr(), addr()
	const secret23, secret24, secretMail, secretBasic = "secret-of-dovecot-2.3", "secret-of-dovecot-2.4", "secret-of-nginx-mail", "secret-of-nginx-basic"
	behindIMAP, behindPOP3, relay := harness.FreePort(t), harness.FreePort(t), newRelay(t)
	behind := func(port int) string { return fmt.Sprintf("127.0.0.1:%d", port) }

	d.Sections = strings.Join([]string{
		"",
		dovecot23.Snippet(t, "valetkeyd.toml grant", http, http23, "/etc/valetkey/dovecot-secret", secretFile(secret23)),
		dovecot24.Snippet(t, "valetkeyd.toml grant", http, http24, "/etc/valetkey/dovecot-secret", secretFile(secret24)),
		dovecot23.Snippet(t, "valetkeyd.toml ldap", ldap, ldap23),
		dovecot24.Snippet(t, "valetkeyd.toml ldap", ldap, ldap24),
		nginxMail.Snippet(t, "valetkeyd.toml", http, httpMail, "/etc/valetkey/nginx-secret", secretFile(secretMail),
			"127.0.0.1:10143", behind(behindIMAP), "127.0.0.1:10110", behind(behindPOP3), "127.0.0.1:10025", behind(relay)),
		basic.Snippet(t, "valetkeyd.toml", http, httpBasic, "/etc/valetkey/web-secret", secretFile(secretBasic)),
	}, "\n")

	const vmail, homes = "vmail", "/var/vmail" // on the pages
	grant23 := harness.NewDovecot(t, dovecot23.Snippet(t, "dovecot.conf grant", homes, harness.DovecotHome)+
		dovecot23.Snippet(t, "dovecot.conf delivery", vmail+" ", harness.DovecotUser+" ", homes, "/nonexistent")+
		nginxMail.Snippet(t, "dovecot.conf", "10143", strconv.Itoa(behindIMAP), "10110", strconv.Itoa(behindPOP3)), map[string]string{
		"valetkey-oauth2.conf.ext": dovecot23.Snippet(t, "valetkey-oauth2.conf.ext", http, http23, "SECRET", secret23, vmail, harness.DovecotUser),
	}, relay)
	bind23 := harness.NewDovecot(t, dovecot23.Snippet(t, "dovecot.conf ldap", homes, harness.DovecotHome, vmail, harness.DovecotUser), map[string]string{
		"valetkey-ldap.conf.ext": dovecot23.Snippet(t, "valetkey-ldap.conf.ext", ldap, ldap23),
	}, relay)
	grant24 := harness.NewDovecot24(t, dovecot24.Snippet(t, "dovecot.conf grant", http, http24, "SECRET", secret24, "'"+vmail+"'", "'"+harness.DovecotUser+"'", homes, harness.DovecotHome)+
		dovecot24.Snippet(t, "dovecot.conf delivery", "= "+vmail, "= "+harness.DovecotUser, homes, "/nonexistent"), nil)
	bind24 := harness.NewDovecot24(t, dovecot24.Snippet(t, "dovecot.conf ldap", ldap, ldap24, homes, harness.DovecotHome, vmail, harness.DovecotUser), nil)

	nginxIMAP, nginxPOP3, nginxSMTP := addr(), addr(), addr()
	harness.NewNginx(t, nginxMail.Snippet(t, "nginx.conf", http, httpMail, "SECRET", secretMail,
		"listen 143;", "listen "+nginxIMAP+";", "listen 110;", "listen "+nginxPOP3+";", "listen 587;", "listen "+nginxSMTP+";"),
		nginxIMAP, nginxPOP3, nginxSMTP)
	radicale := addr()
	harness.NewRadicale(t, basic.Snippet(t, "radicale", "127.0.0.1:5232", radicale), radicale)
	newWeb := func(application string, substitutions ...string) (listen string) {
		listen = addr()
		substitutions = append(substitutions, http, httpBasic, "SECRET", secretBasic, "127.0.0.1:5232", application,
			// There is no TLS here.
			"listen 443 ssl;", "listen "+listen+";",
			"    ssl_certificate /etc/ssl/certs/dav.example.org.pem;\n", "",
			"    ssl_certificate_key /etc/ssl/private/dav.example.org.key;\n", "")
		harness.NewNginx(t, "http {\naccess_log off;\n"+basic.Snippet(t, "nginx.conf", substitutions...)+"}\n", listen)
		return listen
	}
	nginxWeb := newWeb(newApplication(t))
	nginxRadicale := newWeb(radicale, "        proxy_set_header Remote-User $valetkey_user;\n", basic.Snippet(t, "nginx.conf radicale"))

	loggedIn := func(d *harness.Dovecot) func(string) bool {
		return func(login string) bool { return strings.Contains(d.LogText(), "in: user=<"+login+">") } // Login: or Logged in:
	}
	overGrant := func(page *harness.Page, d *harness.Dovecot, service string, try login) peer {
		return peer{page: page, try: try, proto: "http", service: service, address: userAddress, names: loggedIn(d)}
	}
	overBind := func(page *harness.Page, d *harness.Dovecot) peer {
		return peer{page: page, try: imap(d.IMAP), proto: "ldap", service: "imap", address: "127.0.0.1"}
	}
	// Both nginx and the Dovecot behind it ask.
	overNginx := func(service string, try login) peer {
		return peer{page: nginxMail, try: try, proto: "http", service: service, address: userAddress, names: loggedIn(grant23), twice: true}
	}
	dovecotIMAP := answers{"OK Logged in", "NO [AUTHENTICATIONFAILED] Authentication failed.",
		"NO [UNAVAILABLE] Temporary authentication failure. [HOST:TIME]", "NO [UNAVAILABLE] Temporary authentication failure. [HOST:TIME]"}
	all := map[string]*peer{}
	add := func(name string, p peer, a answers) {
		p.user, p.answers = name+"@example.org", a
		all[name] = &p
	}
	add("dovecot23-imap", overGrant(dovecot23, grant23, "imap", imap(grant23.IMAP)), dovecotIMAP)
	add("dovecot23-pop3", overGrant(dovecot23, grant23, "pop3", pop3(grant23.POP3)), answers{"+OK Logged in.", "-ERR [AUTH] Authentication failed.",
		"-ERR [SYS/TEMP] Temporary authentication failure. [HOST:TIME]", "-ERR [SYS/TEMP] Temporary authentication failure. [HOST:TIME]"})
	add("dovecot23-submission", overGrant(dovecot23, grant23, "submission", smtp(grant23.Submission)), answers{"235 2.7.0 Logged in.", "535 5.7.8 Authentication failed.",
		"454 4.7.0 Temporary authentication failure. [HOST:TIME]", "454 4.7.0 Temporary authentication failure. [HOST:TIME]"})
	add("dovecot23-ldap", overBind(dovecot23, bind23), dovecotIMAP)
	add("dovecot24-imap", overGrant(dovecot24, grant24, "imap", imap(grant24.IMAP)), dovecotIMAP)
	add("dovecot24-imap-no-fields", overGrant(dovecot24, grant24, "imap", imap(grant24.IMAP)), dovecotIMAP)
	add("dovecot24-ldap", overBind(dovecot24, bind24), dovecotIMAP)
	add("nginx-imap", overNginx("imap", imap(nginxIMAP)), answers{"OK Logged in", "NO [AUTHENTICATIONFAILED] Invalid login or password",
		"NO [UNAVAILABLE] Temporary authentication failure", "* BAD internal server error"})
	add("nginx-pop3", overNginx("pop3", pop3(nginxPOP3)), answers{"+OK Logged in.", "-ERR [AUTH] Invalid login or password",
		"-ERR [SYS/TEMP] Temporary authentication failure", "-ERR internal server error"})
	add("nginx-smtp", peer{page: nginxMail, try: smtp(nginxSMTP), proto: "http", service: "smtp", address: userAddress}, answers{"235 2.0.0 OK", "535 5.7.8 Invalid login or password",
		"451 4.3.0 Temporary authentication failure", "451 4.3.2 Internal server error"})
	overBasic := func(try login) peer {
		return peer{page: basic, try: try, proto: "http", service: "caldav", address: userAddress,
			names: func(login string) bool { return !strings.HasPrefix(login, alias) }} // try minds
	}
	add("basic", overBasic(web(nginxWeb)), answers{"200 OK", "401 Unauthorized",
		"503 Service Temporarily Unavailable", "503 Service Temporarily Unavailable"})
	add("radicale", overBasic(caldav(nginxRadicale)), answers{"207 Multi-Status", "401 Unauthorized",
		"503 Service Temporarily Unavailable", "503 Service Temporarily Unavailable"})

	for name, home := range map[string]string{
		"dovecot23-imap": grant23.Home("of-dovecot23-imap@example.org"), "dovecot23-pop3": grant23.Home("dovecot23-pop3@example.org"),
		"dovecot24-imap-no-fields": grant24.Home("dovecot24-imap-no-fields@example.org"), "dovecot23-ldap": bind23.Home("dovecot23-ldap@example.org"),
		"dovecot24-imap": grant24.Home("of-dovecot24-imap@example.org"), "dovecot24-ldap": bind24.Home("dovecot24-ldap@example.org"),
	} {
		all[name].home = home
	}
	for _, name := range []string{"dovecot23-imap", "dovecot24-imap"} {
		all[name].own = true
	}
	all["dovecot23-imap"].addr = grant23.IMAP
	return all
}
