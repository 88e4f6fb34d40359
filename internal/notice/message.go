package notice

import (
	"bytes"
	"cmp"
	"embed"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"mime"
	"mime/quotedprintable"
	"net/mail"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"text/template"
	"time"

	"github.com/valetkey/valetkey/internal/auth"
)

//go:embed templates/*.txt
var builtin embed.FS

// MailKinds are what a user can be mailed of. Of the others there is nobody to be told, or nothing that he does not know.
var MailKinds = []auth.NoticeKind{auth.NoticeCreated, auth.NoticeFirstUse, auth.NoticeNewNetwork, auth.NoticeRevoked, auth.NoticeExpiresSoon, auth.NoticeRevokedUse}

// Bounds of a message.
const (
	maxTemplate = 64 << 10 // bytes of a template, and of what comes out of one
	maxSubject  = 500      // bytes, before it is encoded
)

// Templates make the mails. A template is text: "Subject: ..." on the first line, an empty line, the body.
type Templates struct {
	of           map[auth.NoticeKind]*template.Template
	organisation string
}

// Data is what a template may print, beside the fields of [Event].
type Data struct {
	Event
	Organisation string
}

// LoadTemplates reads KIND.txt of each kind from the folder, and takes the built-in one where there is none. Every template is tried, so that
// an error comes now and names the file, not with the first mail. An empty folder name means the built-in ones.
func LoadTemplates(folder, organisation string) (*Templates, error) {
	t := &Templates{of: map[auth.NoticeKind]*template.Template{}, organisation: clean(organisation)}
	for _, kind := range MailKinds {
		name := string(kind) + ".txt"
		source, err := fs.ReadFile(builtin, "templates/"+name)
		if err != nil {
			return nil, err
		}
		if folder != "" {
			own, err := readTemplate(filepath.Join(folder, name))
			if err == nil {
				source, name = own, filepath.Join(folder, name)
			} else if !errors.Is(err, fs.ErrNotExist) {
				return nil, err
			}
		}
		parsed, err := template.New(name).Funcs(template.FuncMap{"date": date, "join": strings.Join}).Parse(string(source))
		if err != nil {
			return nil, err
		}
		t.of[kind] = parsed
		end := time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)
		sample := Event{ID: 1, Event: string(kind), At: end, By: "root", Login: "alice", DisplayName: "Alice", Mail: "alice@example.org", Label: "phone",
			Services: []string{"imap"}, Networks: []string{"192.0.2.0/24"}, ExpiresAt: &end, Why: "lost", Service: "imap", FrontEnd: "dovecot", Address: "192.0.2.1", Network: "192.0.2.0/24"}
		for _, e := range []Event{sample, {Event: string(kind), Login: "alice"}} { // all, and as little as there may be
			if _, _, err := t.render(kind, e); err != nil {
				return nil, fmt.Errorf("%s: %w", name, err)
			}
		}
	}
	if folder != "" {
		if info, err := os.Stat(folder); err != nil {
			return nil, err
		} else if !info.IsDir() {
			return nil, fmt.Errorf("%s is not a folder", folder)
		}
	}
	return t, nil
}

func readTemplate(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0) // a named pipe must not hold us up
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil {
		return nil, err
	} else if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a plain file", path)
	}
	text, err := io.ReadAll(io.LimitReader(f, maxTemplate+1))
	if err == nil && len(text) > maxTemplate {
		err = fmt.Errorf("%s has more than %d bytes", path, maxTemplate)
	}
	return text, err
}

// date prints a time as people write it, in UTC; nothing for none.
func date(at any) string {
	switch at := at.(type) {
	case time.Time:
		return at.UTC().Format("2 January 2006, 15:04 UTC")
	case *time.Time:
		if at != nil {
			return date(*at)
		}
	}
	return ""
}

// limited is a writer that ends a template which prints without end.
type limited struct{ bytes.Buffer }

func (l *limited) Write(b []byte) (int, error) {
	if l.Len()+len(b) > maxTemplate {
		return 0, fmt.Errorf("it prints more than %d bytes", maxTemplate)
	}
	return l.Buffer.Write(b)
}

// render returns subject and body. The subject is one line, whatever the event holds.
func (t *Templates) render(kind auth.NoticeKind, e Event) (subject, body string, err error) {
	parsed := t.of[kind]
	if parsed == nil {
		return "", "", fmt.Errorf("there is no template for %q", kind)
	}
	var out limited
	if err := parsed.Execute(&out, Data{Event: e, Organisation: t.organisation}); err != nil {
		return "", "", err
	}
	head, body, found := strings.Cut(strings.ReplaceAll(out.String(), "\r\n", "\n"), "\n\n")
	subject, isSubject := strings.CutPrefix(head, "Subject: ")
	subject = strings.TrimSpace(clean(subject))
	switch {
	case !found, !isSubject, strings.Contains(head, "\n"):
		return "", "", errors.New(`it must begin with one line "Subject: ...", an empty line, and the text`)
	case subject == "":
		return "", "", errors.New("the subject is empty")
	case strings.TrimSpace(body) == "":
		return "", "", errors.New("the text is empty")
	}
	return auth.Clip(subject, maxSubject), body, nil
}

// message makes a whole mail (RFC 5322) with CRLF line ends. Auto-Submitted keeps vacation programs from answering (RFC 3834 section 5).
// The Message-ID depends on the event alone: a notice that is sent twice, since its daemon was killed before it could note that it was
// sent, is recognised as the same one by servers that look.
func (t *Templates) message(from *mail.Address, kind auth.NoticeKind, e Event, now time.Time) ([]byte, error) {
	subject, body, err := t.render(kind, e)
	if err != nil {
		return nil, err
	}
	if e.Test { // whatever the template's language is: who gets it must not worry
		subject = auth.Clip("[Test] "+subject, maxSubject)
		body = "This is a test by " + cmp.Or(e.By, "an administrator") + " whether notices arrive. Nothing has happened.\n\n" + body
	}
	_, domain, _ := strings.Cut(from.Address, "@")
	var b bytes.Buffer
	for _, h := range [][2]string{
		{"From", from.String()},
		{"To", "<" + e.Mail + ">"},
		{"Subject", mime.QEncoding.Encode("utf-8", subject)},
		{"Date", now.UTC().Format("Mon, 02 Jan 2006 15:04:05 -0700")},
		{"Message-ID", fmt.Sprintf("<valetkey.%d.%s.%d@%s>", e.ID, kind, e.At.UnixMicro(), domain)},
		{"Auto-Submitted", "auto-generated"},
		{"MIME-Version", "1.0"},
		{"Content-Type", "text/plain; charset=utf-8"},
		{"Content-Transfer-Encoding", "quoted-printable"},
	} {
		b.WriteString(header(h[0], h[1]))
	}
	b.WriteString("\r\n")
	w := quotedprintable.NewWriter(&b)
	for line := range strings.SplitSeq(strings.TrimRight(body, "\n"), "\n") {
		fmt.Fprintf(w, "%s\r\n", printable(line))
	}
	return b.Bytes(), w.Close()
}

// printable leaves tabs to the template's author, and nothing else that controls.
func printable(line string) string {
	parts := strings.Split(line, "\t")
	for i, p := range parts {
		parts[i] = clean(p)
	}
	return strings.Join(parts, "\t")
}

// header is a whole header, broken at spaces so that its lines have at most 76 characters where they can (RFC 5322 section 2.1.1, RFC 2047
// section 2).
func header(name, value string) string {
	var b strings.Builder
	b.WriteString(name + ":")
	width := len(name) + 1
	for _, word := range strings.Fields(value) {
		if width+1+len(word) > 76 {
			b.WriteString("\r\n")
			width = 0
		}
		b.WriteString(" " + word)
		width += 1 + len(word)
	}
	return b.String() + "\r\n"
}
