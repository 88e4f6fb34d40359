package main

import (
	"context"
	"crypto/x509"
	"os"
	"syscall"
	"time"

	"github.com/valetkey/valetkey/internal/config"
	"github.com/valetkey/valetkey/internal/notice"
)

// mailServerTime is how long the doctor waits for the mail server.
const mailServerTime = 10 * time.Second

// notices looks at what tells users and programs: hooks, templates and the mail server, as the daemon would use them.
func (d *doctor) notices(ctx context.Context) {
	if d.cfg == nil {
		return
	}
	uid := d.daemonUser()
	for _, h := range d.cfg.Hooks {
		d.program("hook "+h.Name, h.Command, uid)
	}
	n := d.cfg.Notices
	if len(n.Events) == 0 {
		return
	}
	if _, err := notice.LoadTemplates(n.Templates, d.cfg.Mail.Organisation); err != nil {
		d.say("notices", wrong, "with it the daemon neither starts nor reloads; docs/notices.md says what a template is", "%v", err)
	} else if n.Templates != "" {
		d.say("notices", fine, "", "the templates in %s can be used", n.Templates)
	}
	if n.SMTP == nil {
		d.program("notices", n.Sendmail, uid)
		return
	}
	ctx, cancel := context.WithTimeout(ctx, mailServerTime)
	defer cancel()
	if err := mailServer(n.SMTP).Try(ctx); err != nil {
		d.say("notices", wrong, "until it does, mails wait for max_age_days; valetkey notice test LOGIN tries a whole one", "the mail server %s does not take mails of ours: %v", n.SMTP.Host, err)
		return
	}
	d.say("notices", fine, "", "the mail server %s answers and takes us", n.SMTP.Host)
}

// daemonUser is whose the daemon is: that of its admin socket, or else of its state. Without either it is taken for ours.
func (d *doctor) daemonUser() int {
	for _, path := range []string{d.app.socket, d.cfg.StateDir} {
		if info, err := os.Stat(path); err == nil {
			return int(info.Sys().(*syscall.Stat_t).Uid)
		}
	}
	return os.Geteuid()
}

func (d *doctor) program(check string, command []string, uid int) {
	path, err := notice.CheckProgramOf(command, uid)
	if err != nil {
		d.say(check, wrong, "it is not run until that is repaired, and what it is told of fails", "%v", err)
		return
	}
	d.say(check, fine, "", "%s can be run, as %s", path, nameOfUser(uint32(uid)))
}

// mailServer is that of the configuration.
func mailServer(s *config.NoticeSMTP) *notice.SMTP {
	m := &notice.SMTP{Host: s.Host, Port: s.Port, TLS: s.TLS, Username: s.Username, Password: s.Password, Hello: s.Hello}
	if s.CA != "" {
		m.Roots = x509.NewCertPool()
		m.Roots.AppendCertsFromPEM([]byte(s.CA))
	}
	return m
}
