package admin

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestMailSettings(t *testing.T) {
	r, ctx := newRig(t), t.Context()
	for _, n := range []NewAccount{
		{Login: "alice", DisplayName: "Alice Adams", Attributes: map[string][]string{"Mail": {"a.adams@example.org"}}},
		{Login: "bob@example.net"},
		{Login: "carol", Userdb: map[string]string{"mail": "maildir:~/Maildir"}},
		{Login: "wiki", Kind: KindReader},
	} {
		if _, err := r.client.AddAccount(ctx, n); err != nil {
			t.Fatal(err)
		}
	}
	imap, pop3, smtp := &MailServer{"imap.example.org", 993, "ssl"}, &MailServer{"pop.example.org", 995, "ssl"}, &MailServer{"smtp.example.org", 587, "starttls"}

	// What is missing is named, one at a time, in the order in which one writes it.
	for _, tt := range []struct {
		mail MailSettings
		want string
	}{
		{MailSettings{}, "mail.domain"},
		{MailSettings{Domain: "example.org", SMTP: smtp}, "mail.imap.host"},
		{MailSettings{Domain: "example.org", IMAP: imap}, "mail.smtp.host"},
		{MailSettings{Domain: "example.org", POP3: pop3}, "mail.smtp.host"},
	} {
		r.service.Mail = tt.mail
		_, err := r.client.MailSettings(ctx, "alice")
		if code(err) != "400 no_mail_settings" || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("MailSettings with %+v = %v, want a refusal that names %s", tt.mail, err, tt.want)
		}
	}

	r.service.Mail = MailSettings{Domain: "example.org", IMAP: imap, SMTP: smtp}
	for _, tt := range []struct{ login, address, name string }{
		{"Alice", "a.adams@example.org", "Alice Adams"}, {"bob@example.net", "bob@example.net", "bob@example.net"}, {"carol", "carol@example.org", "carol"},
	} {
		got, err := r.client.MailSettings(ctx, tt.login)
		want := MailSettings{Login: strings.ToLower(tt.login), Address: tt.address, DisplayName: tt.name, Domain: "example.org", Organisation: "example.org", IMAP: imap, SMTP: smtp}
		if diff := cmp.Diff(want, got); diff != "" || err != nil {
			t.Errorf("MailSettings(%s): %v (-want +got):\n%s", tt.login, err, diff)
		}
	}
	for login, want := range map[string]string{"nobody": "404 no_account", "wiki": "400 reader", "a b": "400 bad_login"} {
		if _, err := r.client.MailSettings(ctx, login); code(err) != want {
			t.Errorf("MailSettings(%q) = %v, want %s", login, err, want)
		}
	}
}
