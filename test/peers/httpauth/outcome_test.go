package httpauth_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/valetkey/valetkey/test/harness"
	"github.com/valetkey/valetkey/test/peers"
)

// TestOutcomes runs the suite, and then what these peers can tell beyond it.
func TestOutcomes(t *testing.T) {
	t.Parallel()
	cluster := harness.NewCluster(t)
	url, _ := cluster.Database(t)
	d := harness.NewDaemon(t, url)
	all := newPeers(t, d)
	d.Start(t)
	peers.Run(t, cluster, d, all)
	if t.Failed() {
		return
	}
	t.Run("one app password for IMAP alone", func(t *testing.T) {
		const user = "dovecot23-imap@example.org"
		secret := d.Create(t, user, "tablet", "--service", "imap")
		in, out := all["dovecot23-imap"], all["dovecot23-submission"]
		if got := in.Try(t, user, secret); got != in.Yes {
			t.Errorf("IMAP: the user sees %q, want %q", got, in.Yes)
		}
		mark := d.Log().Mark()
		if got := out.Try(t, user, secret); got != out.No {
			t.Errorf("submission: the user sees %q, want %q", got, out.No)
		}
		peers.WantAuth(t, d, mark, user, 1, harness.AuthLine{"result": "fail", "reason": "service_not_allowed", "svc": "submission", "label": "tablet"})
	})
	t.Run("quota", func(t *testing.T) {
		for _, name := range []string{"dovecot23-imap", "dovecot24-imap"} {
			p := all[name]
			if got, want := peers.Quota(t, p.Addr, p.User, p.Secret[peers.Accepted]), "(STORAGE 0 7168)"; !strings.Contains(got, want) {
				t.Errorf("%s: GETQUOTAROOT: %q, want %s", name, got, want)
			}
		}
	})
}

// newPeers starts every peer with the snippets of its page, and puts those that are valetkeyd's into the configuration of d. Only
// what differs from site to site is replaced.
func newPeers(t *testing.T, d *harness.Daemon) map[string]*peers.Peer {
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
	addr := func() string { return peers.Addr(t) }
	const http, ldap = "127.0.0.1:8389", "127.0.0.1:3390" // on the pages
	http23, http24, httpMail, httpBasic, ldap23, ldap24 := addr(), addr(), addr(), addr(), addr(), addr()
	const secret23, secret24, secretMail, secretBasic = "secret-of-dovecot-2.3", "secret-of-dovecot-2.4", "secret-of-nginx-mail", "secret-of-nginx-basic"
	behindIMAP, behindPOP3, relay := harness.FreePort(t), harness.FreePort(t), peers.NewRelay(t)
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
	newCaddy := func(application string, substitutions ...string) (listen string) {
		listen = addr()
		// There is no TLS here.
		substitutions = append(substitutions, "dav.example.org {", "http://"+listen+" {", http, httpBasic, "SECRET", secretBasic, "127.0.0.1:5232", application)
		harness.NewCaddy(t, basic.Snippet(t, "Caddyfile", substitutions...), listen)
		return listen
	}
	caddyWeb := newCaddy(newApplication(t))
	caddyRadicale := newCaddy(radicale, "			header_up -Authorization\n", "			header_up -Authorization\n"+basic.Snippet(t, "Caddyfile radicale"))

	loggedIn := func(d *harness.Dovecot) func(string) bool {
		return func(login string) bool { return strings.Contains(d.LogText(), "in: user=<"+login+">") } // Login: or Logged in:
	}
	overGrant := func(page *harness.Page, d *harness.Dovecot, service string, try peers.Login) peers.Peer {
		return peers.Peer{Page: page, Try: try, Proto: "http", Service: service, Address: peers.UserAddress, Names: loggedIn(d)}
	}
	overBind := func(page *harness.Page, d *harness.Dovecot) peers.Peer {
		return peers.Peer{Page: page, Try: peers.IMAP(d.IMAP), Proto: "ldap", Service: "imap", Address: "127.0.0.1"}
	}
	// Both nginx and the Dovecot behind it ask.
	overNginx := func(service string, try peers.Login) peers.Peer {
		return peers.Peer{Page: nginxMail, Try: try, Proto: "http", Service: service, Address: peers.UserAddress, Names: loggedIn(grant23), Twice: true}
	}
	dovecotIMAP := peers.Answers{
		Yes: "OK Logged in", No: "NO [AUTHENTICATIONFAILED] Authentication failed.",
		Later: "NO [UNAVAILABLE] Temporary authentication failure. [HOST:TIME]", Gone: "NO [UNAVAILABLE] Temporary authentication failure. [HOST:TIME]", Hung: "NO [UNAVAILABLE] Temporary authentication failure. [HOST:TIME]"}
	all := map[string]*peers.Peer{}
	add := func(name string, p peers.Peer, a peers.Answers) {
		p.Answers = a
		all[name] = &p
	}
	add("dovecot23-imap", overGrant(dovecot23, grant23, "imap", peers.IMAP(grant23.IMAP)), dovecotIMAP)
	add("dovecot23-pop3", overGrant(dovecot23, grant23, "pop3", peers.POP3(grant23.POP3)), peers.Answers{
		Yes: "+OK Logged in.", No: "-ERR [AUTH] Authentication failed.",
		Later: "-ERR [SYS/TEMP] Temporary authentication failure. [HOST:TIME]", Gone: "-ERR [SYS/TEMP] Temporary authentication failure. [HOST:TIME]", Hung: "-ERR [SYS/TEMP] Temporary authentication failure. [HOST:TIME]"})
	add("dovecot23-submission", overGrant(dovecot23, grant23, "submission", peers.SMTP(grant23.Submission)), peers.Answers{
		Yes: "235 2.7.0 Logged in.", No: "535 5.7.8 Authentication failed.",
		Later: "454 4.7.0 Temporary authentication failure. [HOST:TIME]", Gone: "454 4.7.0 Temporary authentication failure. [HOST:TIME]", Hung: "454 4.7.0 Temporary authentication failure. [HOST:TIME]"})
	dovecotBind := dovecotIMAP // it waits for a bind for as long as it takes
	dovecotBind.Hung = ""
	add("dovecot23-ldap", overBind(dovecot23, bind23), dovecotBind)
	add("dovecot24-imap", overGrant(dovecot24, grant24, "imap", peers.IMAP(grant24.IMAP)), dovecotIMAP)
	add("dovecot24-imap-no-fields", overGrant(dovecot24, grant24, "imap", peers.IMAP(grant24.IMAP)), dovecotIMAP)
	add("dovecot24-ldap", overBind(dovecot24, bind24), dovecotBind)
	add("nginx-imap", overNginx("imap", peers.IMAP(nginxIMAP)), peers.Answers{
		Yes: "OK Logged in", No: "NO [AUTHENTICATIONFAILED] Invalid login or password",
		Later: "NO [UNAVAILABLE] Temporary authentication failure", Gone: "* BAD internal server error", Hung: "* BAD internal server error"})
	add("nginx-pop3", overNginx("pop3", peers.POP3(nginxPOP3)), peers.Answers{
		Yes: "+OK Logged in.", No: "-ERR [AUTH] Invalid login or password",
		Later: "-ERR [SYS/TEMP] Temporary authentication failure", Gone: "-ERR internal server error", Hung: "-ERR internal server error"})
	add("nginx-smtp", peers.Peer{Page: nginxMail, Try: peers.SMTP(nginxSMTP), Proto: "http", Service: "smtp", Address: peers.UserAddress}, peers.Answers{
		Yes: "235 2.0.0 OK", No: "535 5.7.8 Invalid login or password",
		Later: "451 4.3.0 Temporary authentication failure", Gone: "451 4.3.2 Internal server error", Hung: "451 4.3.2 Internal server error"})
	overBasic := func(try peers.Login) peers.Peer {
		return peers.Peer{Page: basic, Try: try, Proto: "http", Service: "caldav", Address: peers.UserAddress,
			Names: func(login string) bool { return !strings.HasPrefix(login, peers.Alias) }} // try minds
	}
	add("basic", overBasic(web(nginxWeb)), peers.Answers{
		Yes: "200 OK", No: "401 Unauthorized",
		Later: "503 Service Temporarily Unavailable", Gone: "503 Service Temporarily Unavailable", Hung: "503 Service Temporarily Unavailable"})
	add("caddy", overBasic(web(caddyWeb)), peers.Answers{
		Yes: "200 OK", No: "401 Unauthorized",
		Later: "503 Service Unavailable", Gone: "503 Service Unavailable", Hung: "503 Service Unavailable"})
	add("caddy-radicale", overBasic(caldav(caddyRadicale)), peers.Answers{
		Yes: "207 Multi-Status", No: "401 Unauthorized",
		Later: "503 Service Unavailable", Gone: "503 Service Unavailable", Hung: "503 Service Unavailable"})
	add("radicale", overBasic(caldav(nginxRadicale)), peers.Answers{
		Yes: "207 Multi-Status", No: "401 Unauthorized",
		Later: "503 Service Temporarily Unavailable", Gone: "503 Service Temporarily Unavailable", Hung: "503 Service Temporarily Unavailable"})

	for name, home := range map[string]string{
		"dovecot23-imap": grant23.Home("of-dovecot23-imap@example.org"), "dovecot23-pop3": grant23.Home("dovecot23-pop3@example.org"),
		"dovecot24-imap-no-fields": grant24.Home("dovecot24-imap-no-fields@example.org"), "dovecot23-ldap": bind23.Home("dovecot23-ldap@example.org"),
		"dovecot24-imap": grant24.Home("of-dovecot24-imap@example.org"), "dovecot24-ldap": bind24.Home("dovecot24-ldap@example.org"),
	} {
		all[name].Home = home
	}
	for _, name := range []string{"dovecot23-imap", "dovecot24-imap"} {
		all[name].Userdb = []string{"home=" + harness.DovecotHome + "/of-" + name + "@example.org", "quota=7M"}
	}
	all["dovecot23-imap"].Addr, all["dovecot24-imap"].Addr = grant23.IMAP, grant24.IMAP
	return all
}
