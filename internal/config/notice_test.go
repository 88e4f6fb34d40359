package config

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/valetkey/valetkey/internal/auth"
)

func TestNoticeFaults(t *testing.T) {
	open := filepath.Join(t.TempDir(), "open")
	if err := os.WriteFile(open, []byte("hunter2hunter2\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	const mail = "[notices]\nevents = [\"created\"]\nfrom = \"a@example.org\"\n"
	for _, tt := range []struct {
		name, text string
		want       []string // "KEY: part of the text"
	}{
		{"mail servers", `
[mail]
domain = "exa mple"
organisation = "a\nb"
[mail.imap]
socket = "plain"
[mail.pop3]
host = "http://x"
port = 70000
[mail.smtp]
host = "smtp.example.org"
ssl = true
`, []string{"mail.domain: write what stands behind the @", "mail.organisation: one line", "mail.imap.socket: in clear", "mail.imap.host: write the name that is in",
			"mail.pop3.port: 70000", "mail.pop3.host: http://x", "mail.smtp.ssl: unknown key; known here: host, port, socket"}},
		{"hooks", `
[[hook]]
name = "Kick it"
command = ["doveadm", "kick"]
events = ["revoke"]
time_limit = "1h"
[[hook]]
name = "a"
command = []
[[hook]]
name = "a"
command = ["/bin/true"]
events = ["revoked"]
`, []string{"hook[1].name: small letters", "hook[1].command: no shell command", "hook[1].events: one of created, first_use", "hook[1].time_limit: 1s to 1m0s",
			"hook[1].events: it is missing", "hook[2].command: it is missing", "hook[2].events: it is missing", "hook[3].name: hook[2] has this name already"}},
		{"nothing to mail with", "[notices]\nevents = [\"created\"]\n", []string{"notices.from: it is missing", "notices.smtp: write [notices.smtp], or sendmail"}},
		{"both", mail + "sendmail = [\"/usr/sbin/sendmail\"]\n[notices.smtp]\nhost = \"mx.example.org\"\n", []string{"notices.sendmail: leave one of them out"}},
		{"numbers", mail + "sendmail = [\"sendmail\"]\nexpires_soon_days = 0\nmax_age_days = 1000\nper_hour = 0\ntemplates = \"x\"\n", []string{
			"notices.expires_soon_days: 1 to 365", "notices.max_age_days: 1 to 365", "notices.per_hour: mails an hour", "notices.templates: absolute", "notices.sendmail: absolute"}},
		{"from", "[notices]\nfrom = \"Example\\r\\nBcc: all@example.org <a@example.org>\"\n", []string{"notices.from: is not a mail address"}},
		{"account events", "[notices]\nevents = [\"account_deleted\"]\n", []string{"notices.events: account_deleted"}},
		{"clear text beyond this machine", mail + "[notices.smtp]\nhost = \"mx.example.org\"\ntls = \"none\"\n", []string{"notices.smtp.tls: travel in clear"}},
		{"smtp", mail + "[notices.smtp]\ntls = \"ssl\"\nport = -1\nhello = \"a b\"\nusername = \"u\"\npassword_file = \"" + open + "\"\n", []string{
			"notices.smtp.tls: starttls, tls or none", "notices.smtp.port: -1", "notices.smtp.host: it is missing", "notices.smtp.hello: host", "notices.smtp.password_file: chmod 600"}},
		{"password without a name", mail + "[notices.smtp]\nhost = \"mx.example.org\"\npassword_file = \"/x\"\n", []string{"notices.smtp.username: no username"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Load(Flags{File: write(t, tt.text)})
			var faults Faults
			if !errors.As(err, &faults) {
				t.Fatalf("Load = %v, want faults", err)
			}
			if strings.Contains(err.Error(), "hunter2") {
				t.Errorf("a fault quotes the password: %v", err)
			}
			left := append(Faults{}, faults...)
			for _, want := range tt.want {
				key, part, _ := strings.Cut(want, ": ")
				found := false
				for i, f := range left {
					if f.Key == key && strings.Contains(f.Text, part) {
						left, found = append(left[:i:i], left[i+1:]...), true
						break
					}
				}
				if !found {
					t.Errorf("no fault %q", want)
				}
			}
			for _, f := range left {
				t.Errorf("also %s: %s", f.Key, f.Text)
			}
		})
	}
}

func TestNotices(t *testing.T) {
	password := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(password, []byte("hunter2\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := Load(Flags{File: write(t, `
[mail]
domain = "example.org"
[mail.imap]
host = "imap.example.org"
socket = "starttls"
[mail.smtp]
host = "smtp.example.org"
port = 1465
[notices]
events = ["created", "revoked_use", "created"]
from = "Example <a@example.org>"
[notices.smtp]
host = "::1"
tls = "none"
username = "valetkey"
password_file = "`+password+`"
`)})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(MailSettings{Domain: "example.org", IMAP: &MailServer{"imap.example.org", 143, "starttls"}, SMTP: &MailServer{"smtp.example.org", 1465, "ssl"}}, got.Mail); diff != "" {
		t.Errorf("Mail (-want +got):\n%s", diff)
	}
	want := Notices{Events: []auth.NoticeKind{auth.NoticeCreated, auth.NoticeRevokedUse}, From: "Example <a@example.org>", ExpiresSoon: 14 * 24 * time.Hour,
		MaxAge: 48 * time.Hour, PerAccount: 10, PerHour: 1000, SMTP: &NoticeSMTP{Host: "::1", Port: 25, TLS: "none", Username: "valetkey", Password: "hunter2"}}
	if diff := cmp.Diff(want, got.Notices); diff != "" {
		t.Errorf("Notices (-want +got):\n%s", diff)
	}
}
