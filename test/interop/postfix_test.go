package interop_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/valetkey/valetkey/test/harness"
)

var forms = []harness.AuthForm{harness.PlainInitial, harness.PlainPrompt, harness.LoginInitial, harness.LoginPrompt}

// TestPostfix drives Debian's smtpd through the life of an app password and through the outages that it can meet.
//
// It would catch: FAIL instead of a closed connection for undecided (535 in an outage), a hang (Postfix gives up after 10 s
// and says 454 as well, so the time and the text are held too), user= missing from OK, a LOGIN that forgets the initial
// response, a CONT without its TAB, a service that is not compared, a handshake that waits for the database, a socket that
// is not bound anew, a reason in the log that is not the true one, an attempt that is logged twice or not at all.
func TestPostfix(t *testing.T) {
	t.Parallel()
	cluster := harness.NewCluster(t)
	url, _ := cluster.Database(t)
	d := harness.StartDaemon(t, url)
	d.AddAccount(t, "alice")
	d.AddAccount(t, "carol")
	right := d.Create(t, "alice", "phone")
	revoked := d.Create(t, "alice", "lost phone")
	d.Revoke(t, "alice", "lost phone")
	imapOnly := d.Create(t, "alice", "mail reader", "--service", "imap")
	submission := d.Create(t, "alice", "laptop", "--service", "submission")
	elsewhere := d.Create(t, "alice", "office", "--from", "192.0.2.0/24")
	loopback := d.Create(t, "alice", "this machine", "--from", "127.0.0.0/8")
	carols := d.Create(t, "carol", "phone")
	d.Must(t, "account", "disable", "carol")

	overUnix := &harness.SMTPService{SASLPath: "unix:" + d.DovecotUnix}
	overTCP := &harness.SMTPService{SASLPath: "inet:" + d.DovecotTCP}
	asSubmission := &harness.SMTPService{SASLPath: "unix:" + d.DovecotUnix, SASLService: "submission"}
	harness.NewMailer(t, overUnix, overTCP, asSubmission)
	both := []struct {
		name string
		*harness.SMTPService
	}{{"unix", overUnix}, {"tcp", overTCP}}

	login := func(t *testing.T, addr string, form harness.AuthForm, login, password string, code int, log harness.AuthLine) {
		t.Helper()
		mark := d.Log().Mark()
		got := harness.Authenticate(t, addr, form, login, password)
		if got.Code != code {
			t.Errorf("AUTH %s: %d %s, want %d", form, got.Code, got.Text, code)
		}
		if log != nil {
			d.WantAuth(t, mark, log)
		}
	}

	for _, c := range []struct {
		name, login, password string
		code                  int
		result, reason, count string
	}{
		{"right", "alice", right, 235, "ok", "accepted", ""},
		{"right, as typed", "ALICE", strings.ToUpper(strings.ReplaceAll(right, "-", " ")), 235, "ok", "accepted", ""},
		{"wrong", "alice", neverIssued, 535, "fail", "no_match", "yes"},
		{"main password", "alice", mainPassword, 535, "fail", "bad_format", "yes"},
		{"unknown login", "nobody", right, 535, "fail", "unknown_login", "yes"},
		{"password of another account", "alice", carols, 535, "fail", "no_match", "yes"},
		{"revoked", "alice", revoked, 535, "fail", "revoked", "no"},
		{"wrong service", "alice", imapOnly, 535, "fail", "service_not_allowed", "no"},
		{"other port's service", "alice", submission, 535, "fail", "service_not_allowed", "no"},
		{"wrong network", "alice", elsewhere, 535, "fail", "network_not_allowed", "no"},
		{"right network", "alice", loopback, 235, "ok", "accepted", ""},
		{"account disabled", "carol", carols, 535, "fail", "account_disabled", "no"},
	} {
		count := c.count
		for _, service := range both {
			for _, form := range forms {
				// All forms with the plainest cases, one form in turn with the others: they part ways after the mechanism.
				t.Run(fmt.Sprintf("%s/%s/%s", c.name, service.name, form), func(t *testing.T) {
					want := harness.AuthLine{"result": c.result, "reason": c.reason, "proto": "dovecot", "svc": "smtp",
						"rip": "127.0.0.1", "user": strings.ToLower(c.login)}
					if count != "" {
						want["count"] = count
						count = "no" // the same wrong password of the same login again is no guess
					}
					login(t, service.Addr, form, c.login, c.password, c.code, want)
				})
			}
		}
	}
	t.Run("service of the port", func(t *testing.T) {
		login(t, asSubmission.Addr, harness.PlainInitial, "alice", submission, 235,
			harness.AuthLine{"result": "ok", "svc": "submission"})
	})
	t.Run("empty password", func(t *testing.T) {
		s := harness.DialSMTP(t, overUnix.Addr)
		defer s.Close()
		if got := s.Auth(t, harness.PlainInitial, "alice", ""); got.Code != 535 {
			t.Errorf("AUTH with an empty password: %d %s, want 535", got.Code, got.Text)
		}
	})
	t.Run("after an abandoned login", func(t *testing.T) {
		for _, service := range both {
			s := harness.DialSMTP(t, service.Addr)
			s.Abandon(t)
			if got := s.Auth(t, harness.LoginPrompt, "alice", right); got.Code != 235 {
				t.Errorf("%s: AUTH after an abandoned one: %d %s, want 235", service.name, got.Code, got.Text)
			}
			s.Close()
		}
	})
	t.Run("after a truncated response", func(t *testing.T) {
		// Postfix cuts a command line at about 2 KiB and hands on base64 that ends anywhere.
		for extra := range 4 {
			s := harness.DialSMTP(t, overUnix.Addr)
			if got := s.Auth(t, harness.PlainInitial, "alice", strings.Repeat("x", 6000+extra)); got.Code != 535 {
				t.Errorf("AUTH with 6 KiB: %d %s, want 535", got.Code, got.Text)
			}
			if got := s.Auth(t, harness.PlainInitial, "alice", right); got.Code != 235 {
				t.Errorf("AUTH after a truncated one: %d %s, want 235", got.Code, got.Text)
			}
			s.Close()
		}
	})

	t.Run("Postgres killed", func(t *testing.T) {
		cluster.Kill(t)
		for _, service := range both {
			for _, form := range forms {
				for name, password := range map[string]string{"right": right, "wrong": neverIssued, "revoked": revoked} {
					mark := d.Log().Mark()
					got := harness.Authenticate(t, service.Addr, form, "alice", password)
					if got.Code != 454 || !strings.Contains(got.Text, "Connection lost") {
						t.Errorf("%s, AUTH %s, %s password: %d %s, want 454 and a lost connection", service.name, form, name, got.Code, got.Text)
					}
					if got.Took > 8*time.Second {
						t.Errorf("%s, AUTH %s took %v: Postfix was about to give up", service.name, form, got.Took)
					}
					// Over TCP smtpd notices the closed connection only when it writes to it: every second AUTH of
					// one process fails by itself, and never reaches the daemon.
					if service.SMTPService == overTCP && !harness.Poll(500*time.Millisecond, func() bool { return len(d.AuthLines(mark)) > 0 }) {
						continue
					}
					d.WantAuth(t, mark, harness.AuthLine{"result": "undecided", "proto": "dovecot", "user": "alice", "count": "no"})
				}
			}
		}
		cluster.Start(t)
		for _, service := range both {
			harness.WaitFor(t, "a login after Postgres came back", func() bool {
				return harness.Authenticate(t, service.Addr, harness.PlainInitial, "alice", right).Code == 235
			})
		}
	})

	t.Run("daemon stopped", func(t *testing.T) {
		// An smtpd that never had the handshake has nothing to offer.
		for _, service := range both {
			login(t, service.Addr, harness.PlainInitial, "alice", right, 235, nil)
		}
		d.Stop(t)
		for _, service := range both {
			got := harness.Authenticate(t, service.Addr, harness.PlainInitial, "alice", right)
			if got.Code != 454 {
				t.Errorf("%s: AUTH without the daemon: %d %s, want 454", service.name, got.Code, got.Text)
			}
			if !slices.Contains(got.Offered, "PLAIN") || !slices.Contains(got.Offered, "LOGIN") {
				t.Errorf("%s: EHLO without the daemon offers %q, want PLAIN and LOGIN", service.name, got.Offered)
			}
		}
		d.Start(t)
		for _, service := range both {
			login(t, service.Addr, harness.LoginPrompt, "alice", right, 235, harness.AuthLine{"result": "ok", "user": "alice"})
		}
	})
	t.Run("daemon restarted unnoticed", func(t *testing.T) {
		for name, end := range map[string]func(){"stopped": func() { d.Stop(t) }, "killed": func() { d.Process().Kill() }} {
			login(t, overUnix.Addr, harness.PlainInitial, "alice", right, 235, nil)
			login(t, overTCP.Addr, harness.PlainInitial, "alice", right, 235, nil)
			end()
			d.Start(t)
			// smtpd notices over a Unix socket that it must connect anew, over TCP only by one 454
			// (reference/mail-protocols.md section 1.7).
			login(t, overUnix.Addr, harness.PlainInitial, "alice", right, 235, nil)
			if got := harness.Authenticate(t, overTCP.Addr, harness.PlainInitial, "alice", right); got.Code != 235 && got.Code != 454 {
				t.Errorf("first AUTH over TCP after the daemon was %s: %d %s, want 235 or 454", name, got.Code, got.Text)
			}
			login(t, overTCP.Addr, harness.PlainInitial, "alice", right, 235, nil)
		}
	})
}
