package main

import (
	"context"
	"crypto/x509"
	"fmt"
	"log/slog"
	"net/mail"
	"os"
	"strings"
	"sync"

	"github.com/valetkey/valetkey/internal/admin"
	"github.com/valetkey/valetkey/internal/auth"
	"github.com/valetkey/valetkey/internal/config"
	"github.com/valetkey/valetkey/internal/notice"
	"github.com/valetkey/valetkey/store"
)

// noticeConfig makes of the file what the notices need, and finds what only they can find: programs that cannot be run or that others
// could change, and templates that do not work.
func noticeConfig(cfg *config.Config) (notice.Config, config.Faults) {
	var faults config.Faults
	c := notice.Config{ExpiresSoon: cfg.Notices.ExpiresSoon, MaxAge: cfg.Notices.MaxAge}
	for i, h := range cfg.Hooks {
		if _, err := notice.CheckProgram(h.Command); err != nil {
			faults = append(faults, config.Fault{Key: fmt.Sprintf("hook[%d].command", i+1), Text: err.Error()})
		}
		c.Hooks = append(c.Hooks, notice.Hook{Name: h.Name, Kinds: h.Events, Command: h.Command, TimeLimit: h.Time})
	}
	n := cfg.Notices
	if len(n.Events) == 0 {
		return c, faults
	}
	templates, err := notice.LoadTemplates(n.Templates, cfg.Mail.Organisation)
	if err != nil {
		faults = append(faults, config.Fault{Key: "notices.templates", Text: strings.TrimPrefix(err.Error(), "template: ")})
	}
	from, err := mail.ParseAddress(n.From)
	if err != nil {
		faults = append(faults, config.Fault{Key: "notices.from", Text: "it is not a mail address"})
	}
	c.Mail = &notice.Mail{From: from, Templates: templates, Kinds: n.Events, PerAccount: n.PerAccount, PerHour: n.PerHour}
	if s := n.SMTP; s != nil {
		c.Mail.SMTP = &notice.SMTP{Host: s.Host, Port: s.Port, TLS: s.TLS, Username: s.Username, Password: s.Password, Hello: s.Hello}
		if s.CA != "" {
			c.Mail.SMTP.Roots = x509.NewCertPool()
			c.Mail.SMTP.Roots.AppendCertsFromPEM([]byte(s.CA))
		}
		return c, faults
	}
	if _, err := notice.CheckProgram(n.Sendmail); err != nil {
		faults = append(faults, config.Fault{Key: "notices.sendmail", Text: err.Error()})
	}
	c.Mail.Sendmail = n.Sendmail
	return c, faults
}

// notices is the service that tells, once there is a database.
type notices struct {
	mu      sync.Mutex
	config  notice.Config
	service *notice.Service // nil: not yet
	done    chan struct{}
}

// configure takes a configuration that was checked.
func (n *notices) configure(c notice.Config) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.config = c
	if n.service != nil {
		n.service.Configure(c)
	}
}

// start tells until ctx ends.
func (n *notices) start(ctx context.Context, s *store.Store, stateDir string, log *slog.Logger) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.service, n.done = notice.New(s, daemonName(stateDir), log), make(chan struct{})
	n.service.Configure(n.config)
	if err := n.service.Register(ctx); err != nil && ctx.Err() == nil {
		log.Warn("events may give no notices yet", "err", err)
	}
	go func() {
		defer close(n.done)
		n.service.Run(ctx)
	}()
}

// wait returns when nothing is being told any more, after the context of start has ended.
func (n *notices) wait() {
	n.mu.Lock()
	done := n.done
	n.mu.Unlock()
	if done != nil {
		<-done
	}
}

// view is how the notices are, for the status.
func (n *notices) view(ctx context.Context, s *store.Store) (*admin.Notices, error) {
	q, err := s.NoticeQueue(ctx)
	if err != nil {
		return nil, err
	}
	if len(q.Targets) == 0 && q.Waiting == 0 {
		return nil, nil
	}
	v := &admin.Notices{Targets: q.Targets, Waiting: q.Waiting, Outcomes: q.Outcomes}
	if !q.Oldest.IsZero() {
		v.Oldest = &q.Oldest
	}
	return v, nil
}

// daemonName is the same at each start, and another one for each state directory of a site.
func daemonName(stateDir string) string {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	return auth.Clip(strings.ToValidUTF8(host+":"+stateDir, "?"), 500)
}

// mailSettings are those of the file, for the admin verbs.
func mailSettings(m config.MailSettings) admin.MailSettings {
	server := func(s *config.MailServer) *admin.MailServer {
		if s == nil {
			return nil
		}
		return &admin.MailServer{Host: s.Host, Port: s.Port, Socket: s.Socket}
	}
	return admin.MailSettings{Domain: m.Domain, Organisation: m.Organisation, IMAP: server(m.IMAP), POP3: server(m.POP3), SMTP: server(m.SMTP)}
}
