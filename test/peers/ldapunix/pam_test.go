package ldapunix_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/valetkey/valetkey/test/harness"
	"github.com/valetkey/valetkey/test/peers"
)

// files is the group of the application on the pages of nslcd and sssd, groupID its gidNumber, which its members have too.
const (
	files   = "files-users"
	groupID = 5000
)

// What the page of sssd has.
const (
	certPath = "/etc/valetkey/ldap/fullchain.pem"
	keyPath  = "/etc/valetkey/ldap/privkey.pem"
)

// What PAM's errors are to pamtester.
const (
	authenticated = "pamtester: successfully authenticated"
	authFailure   = "pamtester: Authentication failure"
	noAnswer      = "pamtester: Authentication service cannot retrieve authentication info"
	unknownUser   = "pamtester: User not known to the underlying authentication module"
	notPermitted  = "pamtester: Permission denied"
)

func number(name string, n int) string { return fmt.Sprintf("%s=%d", name, n) }

// posix are the attributes of a system user.
func posix(login, _ string, id int) []string {
	return []string{"mail=" + mail(login), number("uidNumber", id), number("gidNumber", groupID), "homeDirectory=/home/" + login}
}

var nslcd = client{
	name: "nslcd", service: "files", group: files, listen: pageAddr, attributes: posix, notInStaff: notPermitted, disabled: []string{unknownUser},
	answers: peers.Answers{Yes: authenticated, No: authFailure, Later: noAnswer, Gone: noAnswer, Hung: noAnswer},
	start: func(t *testing.T, page *harness.Page, at place) way {
		conf := page.Snippet(t, "nslcd.conf", pageAddr, at.addr, "SECRET", at.secret)
		start := func(conf string) *harness.PAM {
			return harness.NewPAM(t, "vsftpd", page.Snippet(t, "pam.d")).On(harness.NewNslcd(t, conf, page.Snippet(t, "nsswitch.conf")))
		}
		pam := start(conf)
		return way{
			try: pamtester(pam, page), staff: pamtester(start(conf+page.Snippet(t, "nslcd.conf group")), page),
			more: func(t *testing.T, p *peers.Peer, id int) { system(t, pam, p, id) },
		}
	},
}

var sssd = client{
	name: "sssd", service: "files", group: files, listen: "0.0.0.0:389", attributes: posix, notInStaff: notPermitted, disabled: []string{authFailure, unknownUser},
	answers: peers.Answers{Yes: authenticated, No: authFailure, Later: authFailure, Or: noAnswer, Gone: noAnswer, Hung: noAnswer},
	start: func(t *testing.T, page *harness.Page, at place) way {
		conf := sssdConf(t, page, at)
		pam := newSSSD(t, page, conf)
		return way{
			try: patient(pamtester(pam, page)), staff: patient(pamtester(newSSSD(t, page, conf+page.Snippet(t, "sssd.conf group")), page)),
			more: func(t *testing.T, p *peers.Peer, id int) {
				system(t, pam, p, id)
				if got := pamtester(pam, page)(t, mail(p.User), p.Secret[peers.Accepted]); got != p.Yes {
					t.Errorf("by the mail address: the user sees %q, want %q", got, p.Yes)
				}
				if code, printed := pam.Run(t, "id -un "+mail(p.User), ""); code != 0 || printed != p.User+"\n" {
					t.Errorf("id -un %s: exit status %d, %q, want %q", mail(p.User), code, printed, p.User)
				}
			},
		}
	},
}

func sssdConf(t *testing.T, page *harness.Page, at place) string {
	return page.Snippet(t, "sssd.conf", "ldap://ldap.example.org", "ldap://"+at.addr, "/etc/ssl/certs/ca-certificates.crt", at.ca.File, "SECRET", at.secret)
}

func newSSSD(t *testing.T, page *harness.Page, conf string) *harness.PAM {
	return harness.NewPAM(t, "vsftpd", page.Snippet(t, "pam.d")).On(harness.NewSSSD(t, conf, page.Snippet(t, "nsswitch.conf")))
}

// offline is how long sssd may ask nobody after an outage: the page's offline_timeout, and what its clocks of whole seconds add.
const offline = 4 * time.Second

// patient is a user who was told of an outage and lets sssd come back before the next login.
func patient(try peers.Login) peers.Login {
	told := false
	return func(t *testing.T, login, password string) string {
		t.Helper()
		if told {
			<-time.After(offline)
		}
		answer := try(t, login, password)
		told = answer == noAnswer
		return answer
	}
}

// pamtester logs in with the page's command, as an application does that lets PAM decide.
func pamtester(pam *harness.PAM, page *harness.Page) peers.Login {
	return func(t *testing.T, login, password string) string {
		t.Helper()
		code, printed := pam.Run(t, page.Snippet(t, "command", "alice", login), password)
		const managed = "\npamtester: account management done.\n"
		if code == 0 && strings.HasSuffix(printed, managed) {
			return strings.TrimSuffix(printed, managed)
		}
		return lastLine(printed)
	}
}

// system wants the system to know the user, and nobody who is not there.
func system(t *testing.T, pam *harness.PAM, p *peers.Peer, id int) {
	for _, c := range []struct {
		command string
		code    int
		printed string
	}{
		{"id " + p.User, 0, fmt.Sprintf("uid=%d(%s) gid=%d(%s) groups=%[3]d(%[4]s)\n", id, p.User, groupID, files)},
		{fmt.Sprintf("getent passwd %d | cut -d : -f 1,3-", id), 0, fmt.Sprintf("%s:%d:%d:%[1]s:/home/%[1]s:\n", p.User, id, groupID)},
		{"id mallory", 1, "id: 'mallory': no such user\n"},
		{"id 'nslcd*'", 1, "id: 'nslcd*': no such user\n"},
		{"getent group nobodys", 2, ""},
	} {
		if code, printed := pam.Run(t, c.command, ""); code != c.code || printed != c.printed {
			t.Errorf("%s: exit status %d, %q, want %d, %q", c.command, code, printed, c.code, c.printed)
		}
	}
	code, printed := pam.Run(t, "getent group "+files, "")
	head, members, _ := strings.Cut(strings.TrimSpace(printed), fmt.Sprintf(":*:%d:", groupID))
	if code != 0 || head != files || !strings.Contains(","+members+",", ","+p.User+",") || strings.Contains(members, outsider) {
		t.Errorf("getent group %s: exit status %d, %q, want %s among the members and no outsider", files, code, printed, p.User)
	}
	code, printed = pam.Run(t, "pamtester vsftpd "+p.User+" chauthtok", "abcdefgh")
	if code == 0 || lastLine(printed) != notPermitted {
		t.Errorf("chauthtok: exit status %d, %q, want %q", code, printed, notPermitted)
	}
}

// TestStranger wants sssd not to send a password to a server whose certificate is another authority's.
//
// It would catch: a page that leaves out what makes sssd check.
func TestStranger(t *testing.T) {
	t.Parallel()
	url, _ := harness.NewCluster(t).Database(t)
	d := harness.NewDaemon(t, url)
	page := harness.ReadPage(t, "ldap-sssd")
	ca := harness.NewAuthority(t)
	certificate := ca.Issue(t, "ldap", 60*24*time.Hour)
	at := place{addr: peers.Addr(t)}
	d.Sections = "\n" + page.Snippet(t, "valetkeyd.toml", sssd.listen, at.addr, certPath, certificate.Cert, keyPath, certificate.Key)
	d.Start(t)
	d.Must(t, "group", "add", files)
	d.Must(t, "reader", "add", sssd.name)
	at.secret = d.Create(t, sssd.name, "search")
	d.Must(t, append([]string{"account", "add", "alice"}, flags(posix("alice", "", 6000))...)...)
	d.Must(t, "group", "add-member", files, "alice")
	password := d.Create(t, "alice", "phone")

	mark := d.Log().Mark()
	at.ca = harness.NewAuthority(t)
	stranger := pamtester(newSSSD(t, page, sssdConf(t, page, at)), page)
	for range 3 {
		if got := stranger(t, "alice", password); got == authenticated {
			t.Errorf("the user sees %q", got)
		}
	}
	if lines := d.AuthLines(mark); len(lines) > 0 {
		t.Errorf("sssd logged in: %v", lines)
	}
	at.ca = ca
	if got := pamtester(newSSSD(t, page, sssdConf(t, page, at)), page)(t, "alice", password); got != authenticated {
		t.Errorf("with the right authority the user sees %q, want %q", got, authenticated)
	}
}
