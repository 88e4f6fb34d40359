package admin

import (
	"context"
	"errors"
	"net/http"
	"net/mail"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/valetkey/valetkey/internal/auth"
)

// MailServer is a server of the users' mail programs.
type MailServer struct {
	Host   string `json:"host"`
	Port   int    `json:"port"`
	Socket string `json:"socket"` // "ssl" or "starttls"
}

// MailSettings are what a mail program must know to serve a user, but for the secret. At least one of IMAP and POP3 is there, and SMTP.
type MailSettings struct {
	Login        string      `json:"login"`   // canonical: what the servers want as the user name
	Address      string      `json:"address"` // of the user
	DisplayName  string      `json:"display_name"`
	Domain       string      `json:"domain"`
	Organisation string      `json:"organisation"`
	IMAP         *MailServer `json:"imap,omitempty"`
	POP3         *MailServer `json:"pop3,omitempty"`
	SMTP         *MailServer `json:"smtp"`
}

// Notices is how the outbox of hooks and mails is.
type Notices struct {
	Targets  []string       `json:"targets"` // "mail", "hook:NAME": of all daemons
	Waiting  int            `json:"waiting"` // counted to 10,000
	Oldest   *time.Time     `json:"oldest,omitempty"`
	Outcomes map[string]int `json:"outcomes"` // of the last 24 hours
}

// MailSettings says how a user's mail program is set up. A key that the daemon's configuration lacks is named in the refusal. A user of
// the upstream who has no account yet has settings too.
func (s *Service) MailSettings(ctx context.Context, name string) (MailSettings, error) {
	l, err := login(name)
	if err != nil {
		return MailSettings{}, err
	}
	m := s.Mail
	for _, need := range []struct {
		key, cure string
		missing   bool
	}{
		{"mail.domain", `domain = "example.org" below [mail]`, m.Domain == ""},
		{"mail.imap.host", `[mail.imap] with host = "imap.example.org", or [mail.pop3]`, m.IMAP == nil && m.POP3 == nil},
		{"mail.smtp.host", `[mail.smtp] with host = "smtp.example.org"`, m.SMTP == nil},
	} {
		if need.missing {
			return MailSettings{}, fault("no_mail_settings", "write "+need.cure+" into the daemon's configuration and send it SIGHUP",
				"the daemon's configuration does not say %s, which mail programs must know", need.key)
		}
	}
	a, err := s.Store.Account(ctx, l)
	if errors.Is(err, auth.ErrNoAccount) && s.Upstream != nil {
		a = auth.Account{}
		a.Login, err = s.known(ctx, l)
	}
	if err != nil {
		return MailSettings{}, err
	}
	if a.Kind == auth.Reader {
		return MailSettings{}, fault("reader", "valetkey account list shows the people", "%s is a reader of the directory and has no mail", clip(a.Login))
	}
	m.Login, m.DisplayName = a.Login, a.DisplayName
	if m.DisplayName == "" {
		m.DisplayName = a.Login
	}
	if m.Organisation == "" {
		m.Organisation = m.Domain
	}
	m.Address = mailAddress(a, m.Domain)
	return m, nil
}

// mailAddress is the account's attribute mail, its login if that is an address, or the login in the domain.
func mailAddress(a auth.Account, domain string) string {
	var candidates []string
	for name, values := range a.Attributes {
		if strings.EqualFold(name, "mail") {
			candidates = append(candidates, values...)
		}
	}
	candidates = append(candidates, a.Userdb["mail"], a.Login)
	i := slices.IndexFunc(candidates, func(c string) bool {
		parsed, err := mail.ParseAddress(c)
		return err == nil && parsed.Address == c
	})
	if i < 0 {
		return a.Login + "@" + domain
	}
	return candidates[i]
}

func (s *Server) mailRoutes() []route {
	return []route{{method: "GET", path: "/v1/mail-settings", handle: s.getMailSettings, needs: mayRead, own: &ownCall{}}}
}

func (s *Server) getMailSettings(w http.ResponseWriter, r *http.Request) {
	s.call(w, r, http.StatusOK, func(v *Service) (any, error) { return v.MailSettings(r.Context(), r.URL.Query().Get("login")) })
}

// MailSettings asks how a user's mail program is set up.
func (c *Client) MailSettings(ctx context.Context, login string) (MailSettings, error) {
	return ask[MailSettings](ctx, c, "GET", "/v1/mail-settings", url.Values{"login": {login}}, nil)
}
