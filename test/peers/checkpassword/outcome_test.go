package checkpassword_test

import (
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/valetkey/valetkey/test/harness"
	"github.com/valetkey/valetkey/test/peers"
)

// What the pages have.
const (
	helperPath = "/usr/lib/valetkey/valetkey-checkpassword"
	socketPath = "/run/valetkey/checkpassword"
	vmail      = "vmail"
	homes      = "/var/vmail"
)

// The system user of an account that Dovecot serves under ids of its own.
const (
	ownUID = 4721
	ownGID = 4722
)

// site is all that asks one daemon.
type site struct {
	daemon *harness.Daemon
	// dovecot gives all mail to one system user, own each account's to its own.
	dovecot, own *harness.Dovecot
	qmail        *qmail
	peers        map[string]*peers.Peer
}

// TestOutcomes runs the suite, and then what these peers can tell beyond it.
func TestOutcomes(t *testing.T) {
	t.Parallel()
	cluster := harness.NewCluster(t)
	url, _ := cluster.Database(t)
	d := harness.NewDaemon(t, url)
	s := newSite(t, d)
	d.Start(t)
	peers.Run(t, cluster, d, s.peers)
	if t.Failed() {
		return
	}
	t.Run("quota", func(t *testing.T) {
		p := s.peers["dovecot-imap"]
		if got, want := peers.Quota(t, p.Addr, p.User, p.Secret[peers.Accepted]), "(STORAGE 0 7168)"; !strings.Contains(got, want) {
			t.Errorf("GETQUOTAROOT: %q, want %s", got, want)
		}
	})
	t.Run("ids of its own", s.ownIDs)
	t.Run("lookups", s.lookups)
	t.Run("default limit", s.defaultLimit)
	t.Run("what qmail-pop3d finds", s.qmail.opened)
	t.Run("account of qmail's", s.qmail.account)
}

// newSite starts every peer with the snippets of its page, and puts those that are valetkeyd's into the configuration of d. Only
// what differs from site to site is replaced.
func newSite(t *testing.T, d *harness.Daemon) *site {
	dovecotPage, pamPage, qmailPage := harness.ReadPage(t, "dovecot-2.3"), harness.ReadPage(t, "pam"), harness.ReadPage(t, "qmail")
	helper, dir, relay := harness.Helper(t), harness.Dir(t), peers.NewRelay(t)
	socket := func(name string) string { return filepath.Join(dir, name) }
	forDovecot, forOwn, forPAM, forQmail := socket("dovecot"), socket("own"), socket("pam"), socket("qmail")
	d.Sections = strings.Join([]string{
		"",
		dovecotPage.Snippet(t, "valetkeyd.toml checkpassword", socketPath, forDovecot),
		dovecotPage.Snippet(t, "valetkeyd.toml checkpassword", socketPath, forOwn, "lookups = true\n", ""),
		pamPage.Snippet(t, "valetkeyd.toml", socketPath, forPAM),
		qmailPage.Snippet(t, "valetkeyd.toml", socketPath, forQmail),
	}, "\n")

	newDovecot := func(socket, more string, substitutions ...string) *harness.Dovecot {
		substitutions = append(substitutions, helperPath, helper, socketPath, socket, homes, harness.DovecotHome)
		return harness.NewDovecot(t, dovecotPage.Snippet(t, "dovecot.conf checkpassword", substitutions...)+more, nil, relay)
	}
	s := &site{
		daemon:  d,
		dovecot: newDovecot(forDovecot, "", "="+vmail, "="+harness.DovecotUser),
		own: newDovecot(forOwn, "first_valid_uid = 1000\n", "  override_fields = userdb_uid=vmail userdb_gid=vmail\n", "",
			"  override_fields = uid=vmail gid=vmail\n", ""),
		qmail: newQmail(t, d, qmailPage, helperPath, helper, socketPath, forQmail),
		peers: map[string]*peers.Peer{},
	}
	add := func(name string, p peers.Peer, a peers.Answers) *peers.Peer {
		p.Proto, p.Answers = "checkpassword", a
		s.peers[name] = &p
		return &p
	}

	overDovecot := func(at *harness.Dovecot, service string, try peers.Login, addr string) peers.Peer {
		return peers.Peer{Page: dovecotPage, Try: try, Addr: addr, Service: service, Address: peers.UserAddress,
			Names: func(login string) bool { return strings.Contains(at.LogText(), "in: user=<"+login+">") }} // Login: or Logged in:
	}
	imap := peers.Answers{
		Yes: "OK Logged in", No: "NO [AUTHENTICATIONFAILED] Authentication failed.",
		Later: "NO [UNAVAILABLE] Temporary authentication failure. [HOST:TIME]", Gone: "NO [UNAVAILABLE] Temporary authentication failure. [HOST:TIME]",
		Hung: "NO [UNAVAILABLE] Temporary authentication failure. [HOST:TIME]"}
	p := add("dovecot-imap", overDovecot(s.dovecot, "imap", peers.IMAP(s.dovecot.IMAP), s.dovecot.IMAP), imap)
	p.Userdb, p.Home = []string{"home=" + harness.DovecotHome + "/of-imap", "quota=7M"}, s.dovecot.Home("of-imap")
	p = add("dovecot-pop3", overDovecot(s.dovecot, "pop3", peers.POP3(s.dovecot.POP3), s.dovecot.POP3), peers.Answers{
		Yes: "+OK Logged in.", No: "-ERR [AUTH] Authentication failed.",
		Later: "-ERR [SYS/TEMP] Temporary authentication failure. [HOST:TIME]", Gone: "-ERR [SYS/TEMP] Temporary authentication failure. [HOST:TIME]",
		Hung: "-ERR [SYS/TEMP] Temporary authentication failure. [HOST:TIME]"})
	p.Home = s.dovecot.Home("dovecot-pop3@example.org")
	add("dovecot-submission", overDovecot(s.dovecot, "submission", peers.SMTP(s.dovecot.Submission), s.dovecot.Submission), peers.Answers{
		Yes: "235 2.7.0 Logged in.", No: "535 5.7.8 Authentication failed.",
		Later: "454 4.7.0 Temporary authentication failure. [HOST:TIME]", Gone: "454 4.7.0 Temporary authentication failure. [HOST:TIME]",
		Hung: "454 4.7.0 Temporary authentication failure. [HOST:TIME]"})
	p = add("dovecot-own-ids", overDovecot(s.own, "imap", peers.IMAP(s.own.IMAP), s.own.IMAP), imap)
	p.Userdb = []string{fmt.Sprintf("uid=%d", ownUID), fmt.Sprintf("gid=%d", ownGID), "home=" + harness.DovecotHome + "/own"}
	p.Home, p.Variant = s.own.Home("own"), true
	if err := os.Mkdir(p.Home, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(p.Home, ownUID, ownGID); err != nil {
		t.Fatal(err)
	}

	const service = "vsftpd"
	overPAM := func(snippet, from, address string) peers.Peer {
		pam := harness.NewPAM(t, service, pamPage.Snippet(t, snippet, helperPath, helper, socketPath, forPAM))
		return peers.Peer{Page: pamPage, Try: pamtester(pam, pamPage, from), Service: service, Address: address}
	}
	systemError := peers.Answers{
		Yes: "pamtester: successfully authenticated", No: "pamtester: System error",
		Later: "pamtester: System error", Gone: "pamtester: System error", Hung: "pamtester: System error"}
	add("pam", overPAM("pam.d", "-I rhost="+peers.UserAddress+" ", peers.UserAddress), systemError)
	add("pam-no-address", overPAM("pam.d", "", "-"), systemError).Variant = true
	add("pam-host-name", overPAM("pam.d", "-I rhost=localhost ", "-"), systemError).Variant = true
	add("pam-deny", overPAM("pam.d deny", "-I rhost="+peers.UserAddress+" ", peers.UserAddress), peers.Answers{
		Yes: "pamtester: successfully authenticated", No: "pamtester: Authentication failure",
		Later: "pamtester: Authentication failure", Gone: "pamtester: Authentication failure", Hung: "pamtester: Authentication failure"})

	add("qmail", peers.Peer{Page: qmailPage, Try: s.qmail.try, Service: "pop3", Address: peers.UserAddress,
		User: qmailUser, Home: s.qmail.home, Userdb: s.qmail.userdb(),
		Names: func(login string) bool { return slices.Contains(s.qmail.who(), "USER="+login) },
	}, peers.Answers{
		Yes: "+OK ", No: "-ERR authorization failed",
		Later: "-ERR authorization failed", Gone: "-ERR authorization failed", Hung: "-ERR authorization failed"})
	return s
}

// pamtester logs in as an application does that lets PAM decide, with the page's command. from are the options that tell the user's
// address.
func pamtester(pam *harness.PAM, page *harness.Page, from string) peers.Login {
	return func(t *testing.T, login, password string) string {
		t.Helper()
		code, printed := pam.Run(t, page.Snippet(t, "command", "-I rhost=192.0.2.7 ", from, "alice@example.org", login), password)
		answer, rest, _ := strings.Cut(printed, "\n")
		if in := rest == "pamtester: account management done.\n"; in != (code == 0) || !in && rest != "" {
			t.Errorf("exit status %d, after %q: %q", code, answer, rest)
		}
		return answer
	}
}

// ownIDs wants an account's uid and gid on its mail, and no mail for an account that has none.
func (s *site) ownIDs(t *testing.T) {
	code, out, errOut := harness.Run(t, "", exec.Command("stat", "-c", "%u %g", filepath.Join(s.peers["dovecot-own-ids"].Home, "Maildir")))
	if want := fmt.Sprintf("%d %d\n", ownUID, ownGID); code != 0 || out != want {
		t.Errorf("the owner of the mail is %q, want %q; %s", out, want, errOut)
	}
	const user = "no-ids@example.org"
	s.daemon.AddAccount(t, user)
	session := peers.Dial(t, s.own.IMAP)
	defer session.Close()
	session.Line()
	session.Send("a LOGIN %q %q", user, s.daemon.Create(t, user, "phone"))
	if got, want := session.Line(), "a OK Logged in, but initialization failed.\r\n"; got != want {
		t.Errorf("the user without ids sees %q, want %q", got, want)
	}
	if got, want := session.Line(), "* BYE "; !strings.HasPrefix(got, want) {
		t.Errorf("the user without ids sees %q, want %s", got, want)
	}
}

// lookups wants delivery and doveadm to learn of an account what a login does, and an outage not to be told as a user that is unknown.
func (s *site) lookups(t *testing.T) {
	mail, err := user.Lookup(harness.DovecotUser)
	if err != nil {
		t.Fatal(err)
	}
	const unknown, temporary = 67, 75 // sysexits.h
	imap, pop3, own := s.peers["dovecot-imap"].User, s.peers["dovecot-pop3"].User, s.peers["dovecot-own-ids"].User
	ids := "uid\t" + mail.Uid + "\ngid\t" + mail.Gid + "\n"
	for _, c := range []struct {
		name    string
		at      *harness.Dovecot
		user    string
		code    int
		printed string
	}{
		{"fields", s.dovecot, imap, 0, ids + "home\t" + harness.DovecotHome + "/of-imap\nmail\tmaildir:~/Maildir\nquota_rule\t*:storage=7M\n"},
		{"no fields", s.dovecot, pop3, 0, ids + "home\t" + harness.DovecotHome + "/" + pop3 + "\nmail\tmaildir:~/Maildir\n"},
		{"alias", s.dovecot, peers.Alias + pop3, 0, "user\t" + pop3 + "\n" + ids + "home\t" + harness.DovecotHome + "/" + pop3 + "\nmail\tmaildir:~/Maildir\n"},
		{"unknown", s.dovecot, "nobody@example.org", unknown, "\nuserdb lookup: user nobody@example.org doesn't exist\n"},
		{"not allowed", s.own, own, temporary, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			code, out, errOut := c.at.Tool(t, "doveadm", "user", c.user)
			if want := "field\tvalue\n" + c.printed; code != c.code || out != want {
				t.Errorf("doveadm user %s: exit status %d, %q, want %d and %q; %s", c.user, code, out, c.code, want, errOut)
			}
		})
	}
	s.daemon.Stop(t)
	defer s.daemon.Start(t)
	if code, out, errOut := s.dovecot.Tool(t, "doveadm", "user", imap); code != temporary {
		t.Errorf("doveadm user while the daemon is stopped: exit status %d, want %d\n%s%s", code, temporary, out, errOut)
	}
}

var addressSpace = regexp.MustCompile(`(?m)^Max address space +(\d+) +(\d+) +bytes`)

// defaultLimit wants the program to have worked under the limit that Dovecot has by default, and nobody to have changed that.
func (s *site) defaultLimit(t *testing.T) {
	for _, args := range [][]string{{"-h", "default_vsz_limit"}, {"-d", "-h", "default_vsz_limit"}} { // what is configured, the default
		code, out, errOut := s.dovecot.Tool(t, "doveconf", args...)
		if want := "256 M\n"; code != 0 || out != want {
			t.Errorf("doveconf %q: exit status %d, %q, want %q; %s", args, code, out, want, errOut)
		}
	}
	p := s.peers["dovecot-imap"]
	thaw := s.daemon.Freeze(t)
	answer := make(chan string)
	go func() { answer <- p.Try(t, p.User, p.Secret[peers.Accepted]) }()
	waiting := 0
	harness.WaitFor(t, "Dovecot to start valetkey-checkpassword", func() bool {
		for pid, command := range s.dovecot.Processes() {
			if strings.Contains(command, "/valetkey-checkpassword ") {
				waiting = pid
			}
		}
		return waiting != 0
	})
	limits, err := os.ReadFile(fmt.Sprintf("/proc/%d/limits", waiting))
	thaw()
	if err != nil {
		t.Error(err)
	}
	if m, want := addressSpace.FindSubmatch(limits), strconv.Itoa(256<<20); m == nil || string(m[1]) != want || string(m[2]) != want {
		t.Errorf("valetkey-checkpassword runs with %q, want an address space of %s bytes", m, want)
	}
	if got := <-answer; got != p.Yes {
		t.Errorf("under the limit the user sees %q, want %q", got, p.Yes)
	}
}
