package ldapunix_test

import (
	"fmt"
	"os/user"
	"strings"
	"testing"

	"github.com/valetkey/valetkey/test/harness"
	"github.com/valetkey/valetkey/test/peers"
)

// The exit statuses of doveadm user (sysexits.h).
const (
	noUser     = 67
	notDecided = 75
)

const (
	dovecotFailed = "NO [AUTHENTICATIONFAILED] Authentication failed."
	dovecotLater  = "NO [UNAVAILABLE] Temporary authentication failure. [HOST:TIME]"
)

var dovecot = client{
	name: "dovecot", service: "imap", group: "mail-users", listen: pageAddr, notInStaff: dovecotFailed, disabled: []string{dovecotFailed},
	answers: peers.Answers{Yes: "OK Logged in", No: dovecotFailed, Later: dovecotLater, Gone: dovecotLater},
	attributes: func(login, source string, _ int) []string {
		all := []string{"mail=" + mail(login)}
		if source == "store" { // the schema of the slapd wants a system user
			all = append(all, "homeDirectory="+harness.DovecotHome+"/of-"+login, "mailQuota=7M")
		}
		return all
	},
	start: func(t *testing.T, page *harness.Page, at place) way {
		conf := page.Snippet(t, "valetkey-ldap.conf.ext", pageAddr, at.addr, "SECRET", at.secret)
		relay := peers.NewRelay(t)
		start := func(conf string) *harness.Dovecot {
			return harness.NewDovecot(t, page.Snippet(t, "dovecot.conf", "/var/vmail", harness.DovecotHome, "=vmail", "="+harness.DovecotUser), map[string]string{
				"valetkey-ldap.conf.ext": conf, "valetkey-ldap-userdb.conf.ext": conf, // the page links one to the other
			}, relay)
		}
		server := start(conf)
		home := func(login string) string {
			if at.source == "store" {
				return "of-" + login
			}
			return login
		}
		doveadm := func(t *testing.T, name string, code int, printed string) {
			t.Helper()
			got, out, errOut := server.Tool(t, "doveadm", "user", name)
			if got != code || printed != "" && out != printed {
				t.Errorf("doveadm user %s: exit status %d, %q, want %d, %q; %s", name, got, out, code, printed, errOut)
			}
		}
		return way{
			try: peers.IMAP(server.IMAP), staff: peers.IMAP(start(conf + page.Snippet(t, "valetkey-ldap.conf.ext group")).IMAP), addr: server.IMAP,
			home:        func(login string) string { return server.Home(home(login)) },
			whenStopped: func(t *testing.T, login string) { doveadm(t, login, notDecided, "") },
			more: func(t *testing.T, p *peers.Peer, _ int) {
				if got := p.Try(t, mail(p.User), p.Secret[peers.Accepted]); got != p.Yes {
					t.Errorf("by the mail address: the user sees %q, want %q", got, p.Yes)
				}
				if !strings.Contains(server.LogText(), "Login: user=<"+p.User+">") || strings.Contains(server.LogText(), "Login: user=<"+mail(p.User)+">") {
					t.Error("Dovecot knows its user by the mail address, want the login")
				}
				for _, name := range []string{"*", p.User + ")(uid=*", mail(other + p.User), p.User + `\\`} {
					if got := p.Try(t, name, p.Secret[peers.Accepted]); got != p.No {
						t.Errorf("as %q: the user sees %q, want %q", name, got, p.No)
					}
				}
				ids, err := user.Lookup(harness.DovecotUser)
				if err != nil {
					t.Fatal(err)
				}
				fields := fmt.Sprintf("uid\t%s\ngid\t%s\nhome\t%s/%s\nmail\tmaildir:~/Maildir\n", ids.Uid, ids.Gid, harness.DovecotHome, home(p.User))
				if at.source == "store" {
					fields += "quota_rule\t*:bytes=7M\n"
					if got, want := peers.Quota(t, p.Addr, p.User, p.Secret[peers.Accepted]), "(STORAGE 0 7168)"; !strings.Contains(got, want) {
						t.Errorf("GETQUOTAROOT: %q, want %s", got, want)
					}
				}
				doveadm(t, p.User, 0, "field\tvalue\n"+fields)
				doveadm(t, "nobody", noUser, "")
			},
		}
	},
}
