package notice

import (
	"bytes"
	"io"
	"mime"
	"mime/quotedprintable"
	"net/mail"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/valetkey/valetkey/internal/auth"
)

var (
	at    = time.Date(2026, 11, 26, 12, 0, 0, 5000, time.UTC)
	later = time.Date(2026, 12, 10, 12, 0, 0, 0, time.UTC)
	from  = &mail.Address{Name: "Müller Mail", Address: "postmaster@example.org"}
)

func notice(kind auth.NoticeKind, label string, detail map[string]any) auth.Notice {
	return auth.Notice{ID: 1, Kind: kind, EventID: 42, At: at, Actor: "root", Login: "alice", Label: label, Detail: detail, AccountID: 7, AppPasswordID: 9, Tries: 1,
		Account: &auth.Account{ID: 7, UUID: "u", Login: "alice", DisplayName: "Alice Ädams", Attributes: map[string][]string{"mail": {"alice@example.org"}}}}
}

// letter reads a mail as a mail program does.
func letter(t *testing.T, raw []byte) (m *mail.Message, subject, body string) {
	t.Helper()
	m, err := mail.ReadMessage(bytes.NewReader(raw))
	if err != nil {
		t.Fatalf("it is no mail: %v\n%s", err, raw)
	}
	if subject, err = new(mime.WordDecoder).DecodeHeader(m.Header.Get("Subject")); err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(quotedprintable.NewReader(m.Body))
	if err != nil {
		t.Fatal(err)
	}
	return m, subject, strings.ReplaceAll(string(text), "\r\n", "\n")
}

func builtIn(t *testing.T) *Templates {
	t.Helper()
	templates, err := LoadTemplates("", "Müller & Söhne")
	if err != nil {
		t.Fatal(err)
	}
	return templates
}

func TestMessages(t *testing.T) {
	templates := builtIn(t)
	use := map[string]any{"service": "imap", "front_end": "dovecot", "address": "198.51.100.7", "network": "198.51.100.0/24"}
	for kind, tt := range map[auth.NoticeKind]struct {
		detail  map[string]any
		subject string
		body    []string
	}{
		auth.NoticeCreated: {map[string]any{"services": []any{"imap", "smtp"}, "expires_at": "2026-12-10T12:00:00Z"}, `New app password "Télé" for your account at Müller & Söhne`,
			[]string{"Hello Alice Ädams,", "account alice on 26 November 2026, 12:00 UTC", "It opens: imap, smtp.", "It ends on 10 December 2026, 12:00 UTC", "Müller & Söhne"}},
		auth.NoticeFirstUse:    {use, `Your app password "Télé" was used for the first time`, []string{"service: imap", "from:    198.51.100.7"}},
		auth.NoticeNewNetwork:  {use, `Your app password "Télé" was used from a new network`, []string{"198.51.100.7 (network 198.51.100.0/24)"}},
		auth.NoticeRevoked:     {map[string]any{"why": "lost"}, `Your app password "Télé" was revoked`, []string{"was revoked on 26 November 2026, 12:00 UTC.\n\nThe device"}},
		auth.NoticeExpiresSoon: {map[string]any{"expires_at": "2026-12-10T12:00:00Z"}, `Your app password "Télé" ends on 10 December 2026`, []string{"on 10 December 2026, 12:00 UTC"}},
		auth.NoticeRevokedUse:  {use, `A device still tries your revoked app password "Télé"`, []string{"service: imap"}},
	} {
		raw, err := templates.message(from, kind, event(notice(kind, "Télé", tt.detail)), later)
		if err != nil {
			t.Errorf("%s: %v", kind, err)
			continue
		}
		m, subject, body := letter(t, raw)
		if subject != tt.subject {
			t.Errorf("%s: subject %q, want %q", kind, subject, tt.subject)
		}
		if strings.Contains(body, "lost") {
			t.Errorf("%s: the mail tells the reason, which is for the audit log", kind)
		}
		for _, want := range tt.body {
			if !strings.Contains(body, want) {
				t.Errorf("%s: no %q in\n%s", kind, want, body)
			}
		}
		for name, want := range map[string]string{
			"To": "<alice@example.org>", "Auto-Submitted": "auto-generated", "Content-Type": "text/plain; charset=utf-8", "Mime-Version": "1.0",
			"Date": "Thu, 10 Dec 2026 12:00:00 +0000", "Message-Id": "<valetkey.42." + string(kind) + ".1795694400000005@example.org>",
		} {
			if got := m.Header.Get(name); got != want {
				t.Errorf("%s: %s: %q, want %q", kind, name, got, want)
			}
		}
		if a, err := mail.ParseAddress(m.Header.Get("From")); err != nil || *a != *from {
			t.Errorf("%s: From: %v, %v", kind, a, err)
		}
		for line := range strings.SplitSeq(string(raw), "\r\n") {
			if len(line) > 78 || strings.ContainsAny(line, "\r\n") || strings.ContainsFunc(line, func(r rune) bool { return r > 126 || r < ' ' && r != '\t' }) {
				t.Errorf("%s: line %q is longer than 78, has a bare line end or is not ASCII", kind, line)
			}
		}
	}
}

// Whatever an event holds, no header is added, no control character arrives, and the text is a text.
func TestNothingIsInjected(t *testing.T) {
	evil := "x\r\nBcc: everybody@example.org\r\n\r\n.\r\n\x1b[2J\x00\u202egnp\u2028y" + strings.Repeat("ö", 5000)
	templates, err := LoadTemplates("", evil)
	if err != nil {
		t.Fatal(err)
	}
	for _, kind := range MailKinds {
		n := notice(kind, evil, map[string]any{"why": evil, "service": evil, "address": evil, "network": evil, "front_end": evil, "services": []any{evil, 7}, "expires_at": evil})
		n.Account.DisplayName, n.Login, n.Actor = evil, evil, evil
		raw, err := templates.message(from, kind, event(n), later)
		if err != nil {
			t.Fatal(err)
		}
		m, subject, body := letter(t, raw)
		if len(m.Header) != 9 || m.Header.Get("Bcc") != "" {
			t.Errorf("%s: headers %v, want the nine", kind, m.Header)
		}
		for what, text := range map[string]string{"subject": subject, "body": strings.ReplaceAll(body, "\n", "")} {
			if strings.ContainsAny(text, "\r\n\x00\x1b\u202e\u2028") {
				t.Errorf("%s: the %s holds a control character: %q", kind, what, text)
			}
		}
		if strings.Contains(body, "\nBcc:") || strings.Contains(body, "\n.\n") {
			t.Errorf("%s: a text of the event begins a line", kind)
		}
		for line := range strings.SplitSeq(string(raw), "\r\n") {
			if len(line) > 998 {
				t.Errorf("%s: a line has %d bytes (RFC 5322 section 2.1.1)", kind, len(line))
			}
		}
	}
}

func TestRecipient(t *testing.T) {
	for _, tt := range []struct {
		name  string
		login string
		attrs map[string][]string
		field string
		want  string
	}{
		{"attribute", "alice", map[string][]string{"Mail": {"a@example.org", "b@example.org"}}, "c@example.org", "a@example.org"},
		{"userdb", "alice", nil, "c@example.org", "c@example.org"},
		{"a mail location is no address", "alice", nil, "maildir:~/Maildir", ""},
		{"login", "alice+x@mail.example.org", nil, "", "alice+x@mail.example.org"},
		{"none", "alice", nil, "", ""},
		{"option", "-oQ/tmp@example.org", nil, "", ""},
		{"second header", "alice", map[string][]string{"mail": {"a@example.org\r\nBcc: b@example.org"}}, "", ""},
		{"list", "alice", map[string][]string{"mail": {"a@example.org,b@example.org"}}, "", ""},
		{"name", "alice", map[string][]string{"mail": {"Alice <a@example.org>"}}, "", ""},
		{"the first that is good", "alice", map[string][]string{"mail": {"nonsense", "a@example.org"}}, "", "a@example.org"},
		{"not ASCII", "älice@example.org", nil, "", ""},
		{"literal", "alice@[127.0.0.1]", nil, "", ""},
		{"program", "alice", map[string][]string{"mail": {"|/bin/sh@example.org"}}, "", "|/bin/sh@example.org"}, // an address to SMTP, and no more
		{"long", strings.Repeat("a", 250) + "@example.org", nil, "", ""},
	} {
		if got := recipient(&auth.Account{Login: tt.login, Attributes: tt.attrs, Userdb: map[string]string{"mail": tt.field}}); got != tt.want {
			t.Errorf("%s: recipient = %q, want %q", tt.name, got, tt.want)
		}
	}
}

func TestLoadTemplates(t *testing.T) {
	for _, tt := range []struct{ name, text, want string }{
		{"own", "Subject: Neu: {{.Label}}\n\nHallo {{.Name}}, {{date .At}}\n", ""},
		{"DOS line ends", "Subject: Neu\r\n\r\nHallo\r\n", ""},
		{"no subject", "Hallo\n", "it must begin with one line"},
		{"second header", "Subject: x\nBcc: y\n\nHallo\n", "it must begin with one line"},
		{"empty subject", "Subject: {{if .Why}}x{{end}}\n\nHallo\n", "subject is empty"},
		{"no text", "Subject: x\n\n\n", "the text is empty"},
		{"syntax", "Subject: {{.Label\n\n", "created.txt:1"},
		{"unknown field", "Subject: x\n\n{{.Secret}}\n", "can't evaluate field Secret"},
		{"endless", "Subject: x\n\n{{range 1000000}}0123456789{{end}}\n", "prints more than"},
		{"too large", strings.Repeat("x", maxTemplate+1), "has more than"},
		{"nil", "Subject: x\n\n{{.ExpiresAt.Year}}\n", "nil *Time pointer"},
	} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "created.txt"), []byte(tt.text), 0o600); err != nil {
			t.Fatal(err)
		}
		templates, err := LoadTemplates(dir, "")
		if tt.want != "" {
			if err == nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), "created.txt") {
				t.Errorf("%s: LoadTemplates = %v, want an error with the file and %q", tt.name, err, tt.want)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		raw, err := templates.message(from, auth.NoticeCreated, event(notice(auth.NoticeCreated, "phone", nil)), at)
		if err != nil {
			t.Fatal(err)
		}
		if _, subject, body := letter(t, raw); !strings.HasPrefix(subject, "Neu") || !strings.HasPrefix(body, "Hallo") {
			t.Errorf("%s: %q, %q, want the own text", tt.name, subject, body)
		}
		if _, err := templates.message(from, auth.NoticeRevoked, event(notice(auth.NoticeRevoked, "phone", nil)), at); err != nil {
			t.Errorf("%s: the built-in template of another event: %v", tt.name, err)
		}
	}
	if _, err := LoadTemplates("/nonexistent/folder", ""); err == nil {
		t.Error("LoadTemplates of a folder that is not there = nil, want an error")
	}
}
