package config

import (
	"net/mail"
	"path/filepath"
	"regexp"
	"slices"
	"time"

	"github.com/valetkey/valetkey/internal/auth"
)

// MailSettings are what the users' mail programs must know: for configuration profiles and autoconfig files.
type MailSettings struct {
	Domain       string // behind the @ of the users' addresses; empty: not said
	Organisation string
	IMAP         *MailServer // nil: none
	POP3         *MailServer
	SMTP         *MailServer
}

// MailServer is a server of the users' mail programs.
type MailServer struct {
	Host   string
	Port   int
	Socket string // "ssl" or "starttls"
}

// Hook is a program that is run when something happens.
type Hook struct {
	Name    string
	Command []string
	Events  []auth.NoticeKind
	Time    time.Duration
}

// Notices says what users are mailed of, and how.
type Notices struct {
	Events      []auth.NoticeKind
	From        string        // a mail address, with a name or without
	Templates   string        // folder; empty: the built-in ones
	ExpiresSoon time.Duration // also for hooks
	MaxAge      time.Duration // also for hooks
	PerAccount  int           // mails an hour
	PerHour     int
	Sendmail    []string // nil: by SMTP
	SMTP        *NoticeSMTP
}

// NoticeSMTP is the server that takes the mails.
type NoticeSMTP struct {
	Host     string
	Port     int
	TLS      string // "starttls", "tls" or "none"
	CA       string // certificates in PEM; empty: those that the system trusts
	Hello    string
	Username string // empty: without authentication
	Password string // secret
}

// Bounds of hooks and notices.
const (
	maxHooks    = 16
	maxHookTime = time.Minute
	maxDays     = 365
)

// mailedEvents are those of which there is somebody to be mailed.
var mailedEvents = []auth.NoticeKind{auth.NoticeCreated, auth.NoticeFirstUse, auth.NoticeNewNetwork, auth.NoticeRevoked, auth.NoticeExpiresSoon, auth.NoticeRevokedUse}

var (
	hookName = regexp.MustCompile(`^[a-z0-9][a-z0-9_-]{0,31}$`)
	hostName = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?$`)
)

// mail reads [mail].
func (r *reader) mail() MailSettings {
	x := MailSettings{Domain: r.text("domain", ""), Organisation: r.text("organisation", "")}
	if x.Domain != "" && !hostName.MatchString(x.Domain) {
		r.fault("domain", "%q is not a domain; write what stands behind the @ of your users' addresses, \"example.org\"", x.Domain)
	}
	if x.Organisation != "" && !oneLine(x.Organisation) {
		r.fault("organisation", "it must be one line of at most 200 bytes")
	}
	for _, s := range []struct {
		key      string
		server   **MailServer
		ssl, tls int // usual ports
	}{{"imap", &x.IMAP, 993, 143}, {"pop3", &x.POP3, 995, 110}, {"smtp", &x.SMTP, 465, 587}} {
		sub := r.optional(s.key)
		if sub == nil {
			continue
		}
		m := &MailServer{Host: sub.text("host", ""), Socket: sub.text("socket", "ssl")}
		port := s.ssl
		switch m.Socket {
		case "ssl":
		case "starttls":
			port = s.tls
		default:
			sub.fault("socket", "%q is not ssl or starttls; without either, app passwords would travel in clear", m.Socket)
		}
		m.Port = sub.port(port)
		switch {
		case m.Host == "":
			sub.fault("host", "it is missing; write the name that is in the server's certificate")
		case !hostName.MatchString(m.Host):
			sub.fault("host", "%q is not the name of a host", m.Host)
		}
		*s.server = m
	}
	return x
}

func oneLine(s string) bool {
	return len(s) <= 200 && !slices.ContainsFunc([]rune(s), func(c rune) bool { return c < ' ' || c == 0x7f })
}

// hooks reads every [[hook]].
func (r *reader) hooks() []Hook {
	var list []Hook
	subs := r.subs("hook")
	if len(subs) > maxHooks {
		r.fault("hook", "there are %d, and at most %d are allowed", len(subs), maxHooks)
	}
	names := map[string]string{}
	for _, s := range subs {
		h := Hook{Name: s.text("name", ""), Command: s.texts("command"), Events: s.events(auth.NoticeKinds), Time: s.duration("time_limit", "10s", time.Second, maxHookTime)}
		switch other, taken := names[h.Name]; {
		case !hookName.MatchString(h.Name):
			s.fault("name", "%q is not 1 to 32 small letters, digits, hyphens and underscores", h.Name)
		case taken:
			s.fault("name", "%s has this name already", other)
		}
		names[h.Name] = s.name
		switch {
		case len(h.Command) == 0:
			s.fault("command", "it is missing; write [\"/absolute/path\", \"argument\"]")
		case !filepath.IsAbs(h.Command[0]):
			s.fault("command", "%q is not an absolute path; a hook is a program and its arguments, no shell command", h.Command[0])
		}
		if len(h.Events) == 0 {
			s.fault("events", "it is missing; write [\"revoked\"] or others of %s", join(kindNames(auth.NoticeKinds)))
		}
		list = append(list, h)
	}
	return list
}

func kindNames(kinds []auth.NoticeKind) []string {
	names := make([]string, len(kinds))
	for i, k := range kinds {
		names[i] = string(k)
	}
	return names
}

// events reads a list of events out of those that are known there.
func (r *reader) events(known []auth.NoticeKind) []auth.NoticeKind {
	var list []auth.NoticeKind
	for _, name := range r.texts("events") {
		k := auth.NoticeKind(name)
		if !slices.Contains(known, k) {
			r.fault("events", "%q is not one of %s", name, join(kindNames(known)))
			continue
		}
		if !slices.Contains(list, k) {
			list = append(list, k)
		}
	}
	return list
}

// port reads the key port.
func (r *reader) port(fallback int) int {
	n := r.number("port", fallback)
	if n < 1 || n > 65535 {
		r.fault("port", "%d is not a port", n)
	}
	return n
}

// days reads a number of days.
func (r *reader) days(key string, fallback int) time.Duration {
	n := r.number(key, fallback)
	if n < 1 || n > maxDays {
		r.fault(key, "%d is not a number of days from 1 to %d", n, maxDays)
		n = 1
	}
	return time.Duration(n) * 24 * time.Hour
}

// notices reads [notices].
func (r *reader) notices() Notices {
	x := Notices{ExpiresSoon: r.days("expires_soon_days", 14), MaxAge: r.days("max_age_days", 2)}
	x.PerAccount, x.PerHour = r.number("per_account", 10), r.number("per_hour", 1000)
	for key, n := range map[string]int{"per_account": x.PerAccount, "per_hour": x.PerHour} {
		if n < 1 || n > 1_000_000 {
			r.fault(key, "%d is not a number of mails an hour from 1 to 1000000", n)
		}
	}
	x.Events = r.events(mailedEvents)
	x.From, x.Templates, x.Sendmail = r.text("from", ""), r.text("templates", ""), r.texts("sendmail")
	if x.Templates != "" && !filepath.IsAbs(x.Templates) {
		r.fault("templates", "%q is not an absolute path", x.Templates)
	}
	if len(x.Sendmail) > 0 && !filepath.IsAbs(x.Sendmail[0]) {
		r.fault("sendmail", "%q is not an absolute path; write [\"/usr/sbin/sendmail\"]", x.Sendmail[0])
	}
	if x.From != "" {
		if a, err := mail.ParseAddress(x.From); err != nil || !oneLine(x.From) || !ascii(a.Address) {
			r.fault("from", "%q is not a mail address; write \"Example mail <postmaster@example.org>\"", x.From)
		}
	}
	if s := r.optional("smtp"); s != nil {
		x.SMTP = s.noticeSMTP()
	}
	if len(x.Events) == 0 {
		return x
	}
	if x.From == "" {
		r.fault("from", "it is missing; write the address that the mails come from and that takes the answers")
	}
	switch {
	case x.SMTP == nil && len(x.Sendmail) == 0:
		r.fault("smtp", "nothing says how mails leave; write [notices.smtp], or sendmail = [\"/usr/sbin/sendmail\"]")
	case x.SMTP != nil && len(x.Sendmail) > 0:
		r.fault("sendmail", "there is [notices.smtp], too; leave one of them out")
	}
	return x
}

func ascii(s string) bool {
	return !slices.ContainsFunc([]byte(s), func(c byte) bool { return c <= ' ' || c >= 0x7f })
}

func (r *reader) noticeSMTP() *NoticeSMTP {
	x := &NoticeSMTP{Host: r.text("host", ""), TLS: r.text("tls", "starttls"), CA: r.certificates("ca_file"), Hello: r.text("hello", ""), Username: r.text("username", "")}
	port := 587
	switch x.TLS {
	case "starttls":
	case "tls":
		port = 465
	case "none":
		port = 25
		if x.Host != "" && !loopback(x.Host) {
			r.fault("tls", "to %s the mails, and the password if there is one, would travel in clear; write starttls or tls, none is for this machine only", x.Host)
		}
	default:
		r.fault("tls", "%q is not starttls, tls or none", x.TLS)
	}
	x.Port = r.port(port)
	switch {
	case x.Host == "":
		r.fault("host", "it is missing; write the name of the server that takes the mails")
	case !hostName.MatchString(x.Host) && !loopback(x.Host):
		r.fault("host", "%q is not the name or address of a host", x.Host)
	}
	if x.Hello != "" && !hostName.MatchString(x.Hello) {
		r.fault("hello", "%q is not the name of a host", x.Hello)
	}
	if x.Username != "" {
		if !oneLine(x.Username) {
			r.fault("username", "it must be one line of at most 200 bytes")
		}
		x.Password = r.password("password_file")
	} else if r.text("password_file", "") != "" {
		r.fault("username", "there is a password_file and no username")
	}
	return x
}
