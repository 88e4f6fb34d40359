package interop_test

import (
	"encoding/json"
	"fmt"
	"io"
	"mime"
	"mime/quotedprintable"
	"net"
	"net/mail"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/valetkey/valetkey/test/harness"
)

// TestNotices lets two daemons share one database, and mails users through Postfix, which is behind STARTTLS and asks one of them for the
// password that they send.
//
// It would catch: a notice that is sent twice or never, also when the mail server is away and the daemons are started again; a secret, hash or
// password in a mail, a hook's input or the log; templates that are lost by a reload that is refused; mail that a real server does not take.
func TestNotices(t *testing.T) {
	t.Parallel()
	cluster := harness.NewCluster(t)
	url, _ := cluster.Database(t)
	dir := harness.Dir(t)
	sink, authority := harness.NewMailSink(t), harness.NewAuthority(t)
	certificate := authority.Issue(t, "mx", time.Hour)

	one, two := harness.NewDaemon(t, url), harness.NewDaemon(t, url)
	pepper := filepath.Join(dir, "pepper")
	one.PepperFile, two.PepperFile = pepper, pepper

	smtpd := &harness.SMTPService{SASLPath: "unix:" + one.DovecotUnix, Processes: 4, Options: fmt.Sprintf(`  -o smtpd_tls_security_level=encrypt
  -o smtpd_tls_cert_file=%s
  -o smtpd_tls_key_file=%s
  -o smtpd_recipient_restrictions=permit_sasl_authenticated,reject
  -o smtpd_relay_restrictions=permit_sasl_authenticated,reject
  -o smtpd_proxy_filter=%s
tlsmgr unix - - n - 1 tlsmgr
`, certificate.Cert, certificate.Key, sink.Addr)}
	harness.NewMailer(t, smtpd)
	_, port, err := net.SplitHostPort(smtpd.Addr)
	if err != nil {
		t.Fatal(err)
	}

	// The hook keeps all that it is given.
	told, hook := filepath.Join(dir, "told"), filepath.Join(dir, "hook")
	if err := os.WriteFile(hook, []byte("#!/bin/sh\n{ cat; env; } >> "+told+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	templates := filepath.Join(dir, "templates")
	if err := os.Mkdir(templates, 0o755); err != nil {
		t.Fatal(err)
	}
	template := func(text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(templates, "revoked.txt"), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	template("Subject: Gesperrt: {{.Label}}\n\nHallo {{.Name}}, mit Grüßen\n")
	password := filepath.Join(dir, "password")
	sections := func(secret string) string {
		if err := os.WriteFile(password, []byte(secret+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		return fmt.Sprintf(`
[[hook]]
name = "all"
command = [%q]
events = ["created", "first_use", "new_network", "revoked", "expires_soon", "revoked_use", "account_disabled", "account_deleted"]
[notices]
events = ["created", "first_use", "new_network", "revoked", "expires_soon", "revoked_use"]
from = "Müller Mail <postmaster@example.org>"
templates = %q
[notices.smtp]
host = "127.0.0.1"
port = %s
ca_file = %q
username = "robot"
password_file = %q
`, hook, templates, port, authority.File, password)
	}

	// The daemons' own app password at the mail server is made by a first start without notices.
	one.Start(t)
	one.AddAccount(t, "robot")
	robot := one.Create(t, "robot", "notices", "--service", "smtp")
	one.Must(t, "account", "add", "alice", "--name", "Alice Ädams", "--attribute", "mail=alice@example.org")
	one.Must(t, "account", "add", "bob@example.org")
	one.AddAccount(t, "carol") // has no address
	one.Stop(t)
	one.Sections = sections(robot)
	two.Sections = one.Sections
	one.Start(t)
	two.Start(t)

	events := func() map[string]int { // that the hook was told of
		text, _ := os.ReadFile(told)
		n := map[string]int{}
		for line := range strings.Lines(string(text)) {
			var e struct{ Event, Login, Label string }
			if strings.HasPrefix(line, "{") && json.Unmarshal([]byte(line), &e) == nil {
				n[e.Event+" "+e.Login+" "+e.Label]++
			}
		}
		return n
	}
	subjects := func() (all []string) {
		for _, m := range sink.Mails() {
			parsed, err := mail.ReadMessage(strings.NewReader(m.Text))
			if err != nil {
				t.Fatalf("what arrived is no mail: %v", err)
			}
			subject, err := new(mime.WordDecoder).DecodeHeader(parsed.Header.Get("Subject"))
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, m.To[0]+": "+subject)
		}
		slices.Sort(all)
		return all
	}
	settled := func(what string) { // nothing waits any more
		t.Helper()
		if !harness.Poll(2*harness.Patience, func() bool {
			var status struct{ Notices struct{ Waiting *int } }
			if err := json.Unmarshal([]byte(one.Must(t, "status", "--json")), &status); err != nil {
				t.Fatal(err)
			}
			return status.Notices.Waiting != nil && *status.Notices.Waiting == 0
		}) {
			t.Fatalf("%s: notices still wait\n%s\n%s\n%s", what, one.Must(t, "status"), one.Log().Tail(10), two.Log().Tail(10))
		}
	}
	secrets := map[string]string{"robot's": robot}
	var phones []string
	for i := range 4 { // both daemons have enough to do at once
		label := fmt.Sprint("phone ", i)
		d := []*harness.Daemon{one, two}[i%2]
		secrets[label] = d.Create(t, "alice", label)
		phones = append(phones, label)
	}
	secrets["bob's"] = two.Create(t, "bob@example.org", "Télé")
	secrets["carol's"] = two.Create(t, "carol", "phone")
	client := &harness.DovecotClient{Addr: one.DovecotUnix}
	defer client.Close()
	login := func(want harness.Outcome) {
		t.Helper()
		if got, detail := client.Login("alice", secrets["phone 0"]); got != want {
			t.Fatalf("login: %v (%s), want %v", got, detail, want)
		}
	}
	login(harness.Accepted)
	harness.WaitFor(t, "the first use to be told", func() bool { return events()["first_use alice phone 0"] == 1 })
	two.Revoke(t, "alice", "phone 0")
	login(harness.Rejected)
	harness.WaitFor(t, "the old phone to be told of", func() bool { return events()["revoked_use alice phone 0"] == 1 })
	settled("all")
	created := func(to, label string) string {
		return fmt.Sprintf("%s: New app password %q for your account", to, label)
	}
	want := []string{"alice@example.org: A device still tries your revoked app password \"phone 0\"", "alice@example.org: Gesperrt: phone 0",
		"alice@example.org: Your app password \"phone 0\" was used for the first time", created("bob@example.org", "Télé")}
	for _, p := range phones {
		want = append(want, created("alice@example.org", p))
	}
	// Postfix's session with robot's password is a first use too: of an account without an address.
	slices.Sort(want)
	if got := subjects(); !slices.Equal(got, want) {
		t.Errorf("mails:\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	for e, n := range events() {
		if n != 1 {
			t.Errorf("the hook was told of %q %d times", e, n)
		}
	}

	// The mail server is away, the daemons end meanwhile, then it comes back.
	sink.Close()
	secrets["tablet"] = one.Create(t, "alice", "tablet")
	harness.WaitFor(t, "a try to fail", func() bool {
		return strings.Contains(one.AllLogs()+two.AllLogs(), "a notice could not be told")
	})
	one.Stop(t)
	two.Stop(t)
	one.Start(t)
	two.Start(t)
	sink.Open(t)
	settled("after the mail server came back")
	want = append(want, created("alice@example.org", "tablet"))
	slices.Sort(want)
	if got := subjects(); !slices.Equal(got, want) {
		t.Errorf("mails after the mail server came back:\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}

	// A template that is broken when the file is read again.
	template("Subject: {{.Secret}}\n\nx\n")
	for _, d := range []*harness.Daemon{one, two} {
		mark := d.Log().Mark()
		d.Process().Signal(syscall.SIGHUP)
		if _, ok := d.Log().Wait(mark, harness.Patience, func(line string) bool {
			return strings.Contains(line, "reload refused") && strings.Contains(line, "notices.templates") && strings.Contains(line, "revoked.txt")
		}); !ok {
			t.Errorf("a broken template was not refused:\n%s", d.Log().Tail(10))
		}
	}
	one.Revoke(t, "alice", "phone 1")
	settled("with the old templates")
	if got := subjects(); !slices.Contains(got, "alice@example.org: Gesperrt: phone 1") {
		t.Errorf("after a reload that was refused the old template is gone: %q", got)
	}

	// Nothing that is secret is anywhere, and the mails are as they should be.
	everything := map[string]string{"the logs": one.AllLogs() + two.AllLogs()}
	input, err := os.ReadFile(told)
	if err != nil {
		t.Fatal(err)
	}
	everything["the hook's input"] = string(input)
	ids := map[string]bool{}
	for i, m := range sink.Mails() {
		parsed, err := mail.ReadMessage(strings.NewReader(m.Text))
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(quotedprintable.NewReader(parsed.Body))
		if err != nil {
			t.Fatal(err)
		}
		everything[fmt.Sprint("mail ", i)] = m.Text + "\n" + string(body)
		id := parsed.Header.Get("Message-ID")
		if ids[id] || id == "" || parsed.Header.Get("Auto-Submitted") != "auto-generated" || len(m.To) != 1 {
			t.Errorf("mail %d to %q has the Message-ID %q and Auto-Submitted %q", i, m.To, id, parsed.Header.Get("Auto-Submitted"))
		}
		ids[id] = true
	}
	shapes := regexp.MustCompile(`\b[a-z]{4}(-[a-z]{4}){3}\b|\$argon2|argon2id\$`)
	for place, text := range everything {
		for name, secret := range secrets {
			if strings.Contains(text, secret) || strings.Contains(text, strings.ReplaceAll(secret, "-", "")) {
				t.Errorf("%s holds the secret %s", place, name)
			}
		}
		if found := shapes.FindString(text); found != "" || strings.Contains(text, harness.DatabasePassword) {
			t.Errorf("%s holds what looks like a secret", place)
		}
	}
}
